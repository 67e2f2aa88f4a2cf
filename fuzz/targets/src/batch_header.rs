//! The batch header: whatever decodes encodes to the same bytes again.

use highwater_segment::batch::{BatchHeader, MAGIC};
use highwater_segment::{HEADER_BYTES, MAX_BATCH_BYTES, MAX_SEGMENT_BYTES};

use crate::seal::seal_batch;

/// Checks the bytes as they are, and once more with a magic and a checksum that fit.
pub(crate) fn check(bytes: &[u8]) {
    agree(bytes);
    let mut sealed = bytes.to_vec();
    if sealed.len() >= HEADER_BYTES {
        sealed[..MAGIC.len()].copy_from_slice(&MAGIC);
        seal_batch(&mut sealed, false);
        agree(&sealed);
    }
}

fn agree(bytes: &[u8]) {
    let Ok(header) = BatchHeader::decode(bytes) else { return };
    assert_eq!(header.encode(), bytes[..HEADER_BYTES], "decode and encode agree");
    let total = usize::try_from(header.total_bytes).expect("it fits");
    assert!(total <= MAX_BATCH_BYTES && header.records_bytes() == total - HEADER_BYTES);
    assert_eq!(header.is_filler(), header.record_count == 0, "only fillers are empty");
    assert!(header.end_offset() >= header.base_offset, "offsets rise");
    assert!(header.flush_mark <= header.base_offset, "D2: only what is written is flushed");
    assert!(header.position.0 < MAX_SEGMENT_BYTES);
    assert!(header.end_position() > header.position, "positions rise");
    assert!(header.end_position().0.is_multiple_of(8), "batches stay on the 8-byte grid");
}
