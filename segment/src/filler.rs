//! What stands between the end of a group and its block border.
//!
//! At least a header's room is taken by a *filler*: a batch without records whose body is zeros.
//! Less than that is plain zeros. Both are checked like everything else.

use crate::batch::{ATTRIBUTE_FILLER, BatchHeader, HEADER_BYTES, NO_PRODUCER};
use crate::builder::Stamp;
use crate::bytes::to_u64;
use crate::types::Position;

/// Fills `gap`, the bytes from `stamp.position` to the next block border, with a filler or zeros.
///
/// # Panics
/// If the gap does not end on a block border, starts off the 8-byte grid, or is a block or more.
pub fn fill(gap: &mut [u8], stamp: &Stamp) {
    let end = stamp.position.plus(to_u64(gap.len()));
    assert!(end.is_block_border() && stamp.position.0.is_multiple_of(8), "a filler ends its block");
    assert!(to_u64(gap.len()) < crate::BLOCK_BYTES, "a whole block needs no filler");
    gap.fill(0);
    if gap.len() < HEADER_BYTES {
        return;
    }
    let (header, body) = gap.split_at_mut(HEADER_BYTES);
    let filler = BatchHeader {
        salt: stamp.salt,
        generation: stamp.generation,
        position: stamp.position,
        total_bytes: u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX),
        record_count: 0,
        base_offset: stamp.base_offset,
        leader_epoch: stamp.leader_epoch,
        records_crc: crc32c::crc32c(body),
        flush_mark: stamp.flush_mark,
        base_timestamp_ms: 0,
        max_timestamp_ms: 0,
        producer_id: NO_PRODUCER,
        base_sequence: -1,
        producer_epoch: -1,
        attributes: ATTRIBUTE_FILLER,
    };
    header.copy_from_slice(&filler.encode());
}

/// Returns how many zeros end the block at `position` where a header no longer fits, or 0 where
/// one does.
#[must_use]
pub fn gap_bytes(position: Position) -> usize {
    let left = position.block_end().0 - position.0;
    let left = usize::try_from(left).unwrap_or_default();
    if left < HEADER_BYTES { left } else { 0 }
}
