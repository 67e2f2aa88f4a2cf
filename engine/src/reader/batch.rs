//! What a reader gives out.

use highwater_segment::{BatchHeader, Codec, DecompressFault, Offset, StoredRecords};

use crate::walker::RecordBytes;

/// A batch that was read and checked. It shares the memory it was read into; what all readers of an
/// engine share in this way is bounded, and beyond that batches are copies.
#[derive(Clone, Debug)]
pub struct ReadBatch {
    header: BatchHeader,
    records: StoredRecords<RecordBytes>,
    from: Offset,
}

impl ReadBatch {
    pub(crate) fn new(header: BatchHeader, records: RecordBytes, from: Offset) -> Self {
        ReadBatch { header, records: StoredRecords::new(records, header.codec()), from }
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
    pub fn stored(&self) -> &[u8] {
        self.records.bytes()
    }

    /// Returns the encoded records of the batch, decompressed if need be: at the first call, on
    /// this thread.
    ///
    /// # Errors
    /// [`DecompressFault`]: the same at every call.
    pub fn plain(&self) -> Result<&[u8], DecompressFault> {
        self.records.plain()
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

impl PartialEq for ReadBatch {
    fn eq(&self, other: &Self) -> bool {
        (&self.header, self.from) == (&other.header, other.from) && self.records == other.records
    }
}

impl Eq for ReadBatch {}
