//! Conversions between lengths in memory and lengths on disk, checked.

/// Returns `length` as the 64 bits that stand on disk.
pub(crate) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Returns whether every byte is zero.
pub(crate) fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Returns the CRC32C of `bytes` with the four bytes at `hole` taken as zeros: how a header that
/// carries its own checksum is summed.
pub(crate) fn crc_with_hole(bytes: &[u8], hole: usize) -> u32 {
    let (before, rest) = bytes.split_at(hole);
    let (_, behind) = rest.split_at(4);
    let sum = crc32c::crc32c(before);
    let sum = crc32c::crc32c_append(sum, &[0; 4]);
    crc32c::crc32c_append(sum, behind)
}
