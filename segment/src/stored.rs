//! The bytes behind a batch's header, as they are stored, and the records in them.

use std::ops::Deref;
use std::sync::OnceLock;

use crate::compression::{Codec, DecompressFault, decompress};
use crate::record::{RecordError, Records};
use crate::types::Offset;

/// The stored records of one batch: compressed or not.
///
/// Compressed ones are decompressed at most once, on the thread that first asks for the records;
/// who only passes the bytes on never pays for it.
#[derive(Clone, Debug)]
pub struct StoredRecords<B = Vec<u8>> {
    bytes: B,
    codec: Codec,
    /// Boxed, as few batches have it.
    plain: OnceLock<Box<Result<Vec<u8>, DecompressFault>>>,
}

impl<B: Deref<Target = [u8]>> StoredRecords<B> {
    /// Returns `bytes` as records stored with `codec`; nothing is looked at yet.
    #[must_use]
    pub fn new(bytes: B, codec: Codec) -> Self {
        StoredRecords { bytes, codec, plain: OnceLock::new() }
    }

    /// Returns the bytes as they stand on disk.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns how they are compressed.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Returns the encoded records, decompressed if need be.
    ///
    /// *Blocking*: decompresses, at the first call.
    ///
    /// # Errors
    /// [`DecompressFault`]: the same at every call.
    pub fn plain(&self) -> Result<&[u8], DecompressFault> {
        if self.codec == Codec::None {
            return Ok(&self.bytes);
        }
        let plain = self.plain.get_or_init(|| Box::new(decompress(&self.bytes, self.codec)));
        plain.as_ref().as_deref().map_err(|fault| *fault)
    }

    /// Returns the `count` records from `base_offset` on; bytes that cannot be decompressed give
    /// one error.
    ///
    /// *Blocking*: as [`plain`](Self::plain).
    #[must_use]
    pub fn records(&self, count: u32, base_offset: Offset, base_timestamp_ms: i64) -> Records<'_> {
        match self.plain() {
            Ok(bytes) => Records::new(bytes, count, base_offset, base_timestamp_ms),
            Err(fault) => Records::failed(RecordError {
                offset: base_offset,
                what: fault.what(),
                needs_another_build: fault.needs_another_build(),
            }),
        }
    }
}

/// The same bytes, stored the same way.
impl<B: Deref<Target = [u8]>> PartialEq for StoredRecords<B> {
    fn eq(&self, other: &Self) -> bool {
        self.codec == other.codec && *self.bytes == *other.bytes
    }
}

impl<B: Deref<Target = [u8]>> Eq for StoredRecords<B> {}
