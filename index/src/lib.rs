//! The sparse index of one segment: offset and time to position, about one entry per
//! [`ENTRY_INTERVAL_BYTES`] of log.
//!
//! It is derived data and decides nothing: which records exist is the segment's word alone. An
//! entry is a hint where to start walking; whoever uses it checks the batch it finds there, and
//! starts at the segment's first batch when the hint is wrong. Deleting every index file loses
//! time, never data (D8).
//!
//! [`SparseIndex`] grows with the segment that is written; [`IndexView`] is the file that was made
//! of it when the segment was sealed, checked and looked up in place. A lookup by offset can be
//! checked by what is found there; one by time cannot: that nothing older fits is the index's word.
//! So the file is tied to what it describes by a [`Seal`], and believed only if that holds.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod sparse;
mod view;

pub use sparse::SparseIndex;
pub use view::{IndexFault, IndexView};

/// The distance between entries, in bytes of log.
pub const ENTRY_INTERVAL_BYTES: u64 = 4096;
/// The most entries of one index: a segment of 2 GiB at one entry per interval.
pub const MAX_ENTRIES: usize = 1 << 19;
/// The file's magic and version.
pub const MAGIC: [u8; 8] = *b"HWINDEX2";
/// The bytes before the entries.
pub const FILE_HEADER_BYTES: usize = 64;
/// The bytes of one entry.
pub const ENTRY_BYTES: usize = 16;
/// The longest index file, without the zeros that may follow.
pub const MAX_FILE_BYTES: usize = FILE_HEADER_BYTES + MAX_ENTRIES * ENTRY_BYTES;

/// Where one batch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The batch's base offset minus the segment's.
    pub relative_offset: u32,
    /// The byte in the segment at which it starts.
    pub position: u32,
    /// The largest timestamp of the batches up to and with this one, in milliseconds since 1970.
    pub max_timestamp_ms: i64,
}

/// What ties an index to the very bytes it was made of: one use of a file (its salt), up to one
/// batch (where the last one starts, and the generation it was written in). Whatever a truncation
/// took and later appends replaced has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The offset of the segment's first record.
    pub base_offset: u64,
    /// The offset behind its last.
    pub end_offset: u64,
    /// The segment's salt.
    pub salt: u64,
    /// The byte at which its last batch starts.
    pub last_position: u32,
    /// The generation that batch was written in.
    pub last_generation: u32,
}

/// Returns the file name of the index of the segment that starts at `base_offset`.
#[must_use]
pub fn index_file_name(base_offset: u64) -> String {
    format!("{base_offset:020}.index")
}

/// Returns the last of `count` entries, which rise, that `is_before` holds for.
fn last_before(
    count: usize,
    entry: impl Fn(usize) -> Entry,
    is_before: impl Fn(&Entry) -> bool,
) -> Option<Entry> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(&entry(middle)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low.checked_sub(1).map(entry)
}

#[cfg(test)]
mod tests;
