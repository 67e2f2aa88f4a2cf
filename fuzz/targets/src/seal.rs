//! Checksums written by hand, apart from the code under test: for making damaged headers pass,
//! and for checking what was served.

use highwater_segment::HEADER_BYTES;
use highwater_segment::batch;

/// The place of the checksum in a batch header.
const BATCH_CRC_AT: usize = 4;
/// The place of the total length in a batch header.
const TOTAL_BYTES_AT: usize = 24;
/// The place of the records' checksum in a batch header.
const RECORDS_CRC_AT: usize = 44;
/// The place of the checksum in a slot of `log.meta` and in a segment's header block.
const BLOCK_CRC_AT: usize = 12;
/// The length of both.
pub(crate) const BLOCK: usize = 4096;
/// The length of an index file's header.
pub(crate) const INDEX_HEADER_BYTES: usize = 64;
const INDEX_CRC_AT: usize = 8;
const INDEX_COUNT_AT: usize = 12;
/// The length of one entry.
pub(crate) const INDEX_ENTRY_BYTES: usize = 16;

/// Returns the CRC32C of `bytes` with the four at `hole` taken as zeros.
fn sum_with_hole(bytes: &[u8], hole: usize) -> u32 {
    let mut copy = bytes.to_vec();
    copy[hole..hole + 4].fill(0);
    crc32c::crc32c(&copy)
}

fn word_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes[at..at + 4].try_into().expect("four bytes");
    u32::from_le_bytes(word)
}

/// Makes the checksum of the slot or header block at the start of `bytes` fit, if a whole one is
/// there.
pub(crate) fn seal_block(bytes: &mut [u8]) {
    if let Some(block) = bytes.get_mut(..BLOCK) {
        let sum = sum_with_hole(block, BLOCK_CRC_AT);
        block[BLOCK_CRC_AT..BLOCK_CRC_AT + 4].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Makes the header checksum of the batch at the start of `bytes` fit, and with `records` that of
/// its records, as far as they are there.
pub(crate) fn seal_batch(bytes: &mut [u8], records: bool) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let total = usize::try_from(word_at(bytes, TOTAL_BYTES_AT)).unwrap_or(usize::MAX);
    if records && (HEADER_BYTES..=bytes.len()).contains(&total) {
        let sum = crc32c::crc32c(&bytes[HEADER_BYTES..total]);
        bytes[RECORDS_CRC_AT..RECORDS_CRC_AT + 4].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = sum_with_hole(&bytes[..HEADER_BYTES], BATCH_CRC_AT);
    bytes[BATCH_CRC_AT..BATCH_CRC_AT + 4].copy_from_slice(&sum.to_le_bytes());
}

/// Seals every batch in `bytes` that has its magic on the 8-byte grid.
pub(crate) fn seal_all_batches(bytes: &mut [u8], records: bool) {
    for at in (0..bytes.len()).step_by(8) {
        if bytes[at..].starts_with(&batch::MAGIC) {
            seal_batch(&mut bytes[at..], records);
        }
    }
}

/// Makes the checksum of an index file fit, if all the entries it counts are there.
pub(crate) fn seal_index(file: &mut [u8]) {
    if file.len() < INDEX_HEADER_BYTES {
        return;
    }
    let count = usize::try_from(word_at(file, INDEX_COUNT_AT)).unwrap_or(usize::MAX);
    let Some(entries) = count.checked_mul(INDEX_ENTRY_BYTES) else { return };
    let Some(end) = entries.checked_add(INDEX_HEADER_BYTES) else { return };
    let Some(whole) = file.get(..end) else { return };
    let sum = sum_with_hole(whole, INDEX_CRC_AT);
    file[INDEX_CRC_AT..INDEX_CRC_AT + 4].copy_from_slice(&sum.to_le_bytes());
}

/// Checks both checksums of the batch at the start of `bytes` and the zeros of its padding.
pub(crate) fn assert_batch_holds(bytes: &[u8]) {
    assert!(bytes.starts_with(&batch::MAGIC), "what is served has the magic");
    let header = &bytes[..HEADER_BYTES];
    let sum = sum_with_hole(header, BATCH_CRC_AT);
    assert_eq!(word_at(header, BATCH_CRC_AT), sum, "D7: the header checksum of what is served");
    let total = usize::try_from(word_at(header, TOTAL_BYTES_AT)).expect("small");
    let sum = crc32c::crc32c(&bytes[HEADER_BYTES..total]);
    assert_eq!(word_at(header, RECORDS_CRC_AT), sum, "D7: the records checksum of what is served");
    let padding = &bytes[total..total.next_multiple_of(8)];
    assert!(padding.iter().all(|byte| *byte == 0), "padding is zeros");
}
