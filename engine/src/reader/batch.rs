//! What a reader gives out.

use highwater_segment::{BatchHeader, Offset, Records};

/// A batch that was read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatch {
    header: BatchHeader,
    records: Vec<u8>,
    from: Offset,
}

impl ReadBatch {
    pub(crate) fn new(header: BatchHeader, records: &[u8], from: Offset) -> Self {
        ReadBatch { header, records: records.to_vec(), from }
    }

    /// Returns the batch's header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Returns the offset of the batch's first record; it may be below the one asked for, as
    /// batches are never split.
    #[must_use]
    pub fn base_offset(&self) -> Offset {
        self.header.base_offset
    }

    /// Returns the records from the asked offset on, in place.
    pub fn records(
        &self,
    ) -> impl Iterator<
        Item = std::result::Result<highwater_segment::Record<'_>, highwater_segment::RecordError>,
    > {
        let header = &self.header;
        let records = Records::new(
            &self.records,
            header.record_count,
            header.base_offset,
            header.base_timestamp_ms,
        );
        let from = self.from;
        records.filter(move |record| record.as_ref().map_or(true, |record| record.offset >= from))
    }
}
