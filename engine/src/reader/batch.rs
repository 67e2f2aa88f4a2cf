//! What a reader gives out.

use highwater_segment::{BatchHeader, Codec, Offset, StoredRecords};

/// A batch that was read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatch {
    header: BatchHeader,
    records: StoredRecords,
    from: Offset,
}

impl ReadBatch {
    pub(crate) fn new(header: BatchHeader, records: &[u8], from: Offset) -> Self {
        ReadBatch { header, records: StoredRecords::new(records.to_vec(), header.codec()), from }
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

    /// Returns how the records are compressed.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.header.codec()
    }

    /// Returns the records as they are stored, all of the batch: what a copy, or a Kafka client,
    /// can be given without decompressing them.
    #[must_use]
    pub fn stored(&self) -> &StoredRecords {
        &self.records
    }

    /// Returns the records from the asked offset on, in place. A compressed batch is decompressed
    /// here, at the first call, on this thread; if that fails there is one error and no record.
    pub fn records(
        &self,
    ) -> impl Iterator<
        Item = std::result::Result<highwater_segment::Record<'_>, highwater_segment::RecordError>,
    > {
        let header = &self.header;
        let (count, base) = (header.record_count, header.base_offset);
        let records = self.records.records(count, base, header.base_timestamp_ms);
        let from = self.from;
        records.filter(move |record| record.as_ref().map_or(true, |record| record.offset >= from))
    }
}
