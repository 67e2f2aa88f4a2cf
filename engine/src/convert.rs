//! Checked conversions between lengths in memory and on disk.

/// Returns `length` as 64 bits; every `usize` of a 64-bit machine fits.
pub(crate) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Returns `length` as an index.
///
/// # Panics
/// If it does not fit the address space; lengths here are below a segment's.
pub(crate) fn to_usize(length: u64) -> usize {
    match usize::try_from(length) {
        Ok(length) => length,
        Err(_) => panic!("{length} does not fit the address space"),
    }
}
