//! The sparse index of one segment: offset to position, about one entry per
//! [`ENTRY_INTERVAL_BYTES`] of log.
//!
//! It is derived data and decides nothing: which records exist is the segment's word alone. An
//! entry is a hint where to start walking; whoever uses it checks the batch it finds there, and
//! starts at the segment's first batch when the hint is wrong. Deleting every index file loses
//! time, never data (D8).
#![forbid(unsafe_code)]
#![warn(missing_docs)]

/// The distance between entries, in bytes of log.
pub const ENTRY_INTERVAL_BYTES: u64 = 4096;
/// The most entries of one index: a segment of 2 GiB at one entry per interval.
pub const MAX_ENTRIES: usize = 1 << 19;
/// The file's magic and version.
pub const MAGIC: [u8; 8] = *b"HWINDEX1";
const FILE_HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 16;

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

/// The entries of one segment, rising in offset and position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseIndex {
    base_offset: u64,
    entries: Vec<Entry>,
    max_timestamp_ms: i64,
}

/// Why bytes are not an index file: rebuild it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFault {
    /// Too short, or not the magic of this version.
    Magic,
    /// The index of another segment.
    BaseOffset(u64),
    /// The length and the entry count do not agree, or are above the maximum.
    Count,
    /// The checksum is wrong.
    Checksum,
    /// The entries do not rise.
    Order,
}

impl SparseIndex {
    /// Returns the empty index of the segment that starts at `base_offset`.
    #[must_use]
    pub fn new(base_offset: u64) -> Self {
        SparseIndex { base_offset, entries: Vec::new(), max_timestamp_ms: i64::MIN }
    }

    /// Notes a batch. Batches must come in order; one is kept when it starts at least
    /// [`ENTRY_INTERVAL_BYTES`] behind the last one kept. Ignores what an entry cannot hold.
    pub fn note(&mut self, offset: u64, position: u64, max_timestamp_ms: i64) {
        self.max_timestamp_ms = self.max_timestamp_ms.max(max_timestamp_ms);
        let far_enough = self
            .entries
            .last()
            .is_none_or(|last| position >= u64::from(last.position) + ENTRY_INTERVAL_BYTES);
        if !far_enough || self.entries.len() >= MAX_ENTRIES {
            return;
        }
        let Some(relative) = offset.checked_sub(self.base_offset) else { return };
        let (Ok(relative_offset), Ok(position)) =
            (u32::try_from(relative), u32::try_from(position))
        else {
            return;
        };
        let rises = self.entries.last().is_none_or(|last| relative_offset > last.relative_offset);
        if rises {
            let max_timestamp_ms = self.max_timestamp_ms;
            self.entries.push(Entry { relative_offset, position, max_timestamp_ms });
        }
    }

    /// Returns the greatest noted batch at or below `offset`, as (base offset, position).
    #[must_use]
    pub fn lookup(&self, offset: u64) -> Option<(u64, u64)> {
        let relative = offset.checked_sub(self.base_offset)?;
        let above = self.entries.partition_point(|e| u64::from(e.relative_offset) <= relative);
        let entry = self.entries.get(above.checked_sub(1)?)?;
        Some((self.base_offset + u64::from(entry.relative_offset), u64::from(entry.position)))
    }

    /// Forgets every entry at or above `offset`, for a truncation.
    pub fn truncate(&mut self, offset: u64) {
        let relative = offset.saturating_sub(self.base_offset);
        let kept = self.entries.partition_point(|e| u64::from(e.relative_offset) < relative);
        self.entries.truncate(kept);
    }

    /// Returns the largest timestamp of the batches noted, in milliseconds since 1970; after
    /// decoding, of those up to the last entry.
    #[must_use]
    pub fn max_timestamp_ms(&self) -> Option<i64> {
        (self.max_timestamp_ms != i64::MIN).then_some(self.max_timestamp_ms)
    }

    /// Returns the entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the index file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.entries.len() * ENTRY_BYTES);
        for entry in &self.entries {
            body.extend_from_slice(&entry.relative_offset.to_le_bytes());
            body.extend_from_slice(&entry.position.to_le_bytes());
            body.extend_from_slice(&entry.max_timestamp_ms.to_le_bytes());
        }
        let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.base_offset.to_le_bytes());
        bytes.extend_from_slice(&u64::try_from(self.entries.len()).unwrap_or(0).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), &body);
        bytes.extend_from_slice(&u64::from(crc).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Returns the index in a file's `bytes` (which may be followed by zeros).
    ///
    /// # Errors
    /// [`IndexFault`]: rebuild the index instead.
    pub fn decode(bytes: &[u8], base_offset: u64) -> Result<Self, IndexFault> {
        let (header, body) = bytes.split_at_checked(FILE_HEADER_BYTES).ok_or(IndexFault::Magic)?;
        if !header.starts_with(&MAGIC) {
            return Err(IndexFault::Magic);
        }
        let number = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(header.get(at..at + 8).unwrap_or(&[0; 8]));
            u64::from_le_bytes(word)
        };
        if number(8) != base_offset {
            return Err(IndexFault::BaseOffset(number(8)));
        }
        let count = usize::try_from(number(16)).map_err(|_| IndexFault::Count)?;
        if count > MAX_ENTRIES {
            return Err(IndexFault::Count);
        }
        let body = body.get(..count * ENTRY_BYTES).ok_or(IndexFault::Count)?;
        let computed = crc32c::crc32c_append(crc32c::crc32c(&header[..24]), body);
        if number(24) != u64::from(computed) {
            return Err(IndexFault::Checksum);
        }
        let entries: Vec<Entry> = body.chunks_exact(ENTRY_BYTES).map(decode_entry).collect();
        let rises = |w: &[Entry]| {
            w[0].relative_offset < w[1].relative_offset && w[0].position < w[1].position
        };
        if !entries.windows(2).all(rises) {
            return Err(IndexFault::Order);
        }
        let max_timestamp_ms = entries.last().map_or(i64::MIN, |last| last.max_timestamp_ms);
        Ok(SparseIndex { base_offset, entries, max_timestamp_ms })
    }
}

fn decode_entry(bytes: &[u8]) -> Entry {
    let word = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[at..at + 4]);
        u32::from_le_bytes(word)
    };
    let mut timestamp = [0; 8];
    timestamp.copy_from_slice(&bytes[8..16]);
    Entry {
        relative_offset: word(0),
        position: word(4),
        max_timestamp_ms: i64::from_le_bytes(timestamp),
    }
}

/// Returns the file name of the index of the segment that starts at `base_offset`.
#[must_use]
pub fn index_file_name(base_offset: u64) -> String {
    format!("{base_offset:020}.index")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SparseIndex {
        let mut index = SparseIndex::new(1000);
        for batch in 0..200_u64 {
            index.note(1000 + batch * 3, 4096 + batch * 1000, 7 - i64::from(batch == 3));
        }
        index
    }

    #[test]
    fn lookup_agrees_with_a_linear_search() {
        let index = sample();
        for offset in 990..1700_u64 {
            let naive = index
                .entries()
                .iter()
                .rev()
                .map(|e| (1000 + u64::from(e.relative_offset), u64::from(e.position)))
                .find(|(base, _)| *base <= offset);
            assert_eq!(index.lookup(offset), naive, "{offset}");
        }
    }

    #[test]
    fn index_survives_and_any_changed_byte_is_noticed() {
        let index = sample();
        let bytes = index.encode();
        assert_eq!(SparseIndex::decode(&bytes, 1000), Ok(index.clone()));
        let mut longer = bytes.clone();
        longer.resize(bytes.len().next_multiple_of(4096), 0);
        assert_eq!(SparseIndex::decode(&longer, 1000), Ok(index));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(SparseIndex::decode(&damaged, 1000).is_err(), "byte {at}");
            assert!(SparseIndex::decode(&bytes[..at], 1000).is_err(), "length {at}");
        }
        assert_eq!(SparseIndex::decode(&bytes, 0), Err(IndexFault::BaseOffset(1000)));
    }

    #[test]
    fn truncation_forgets_what_starts_at_or_above_it() {
        let mut index = sample();
        index.truncate(1300);
        assert!(index.lookup(5000).is_some_and(|(base, _)| base < 1300));
        index.truncate(1000);
        assert_eq!(index.lookup(5000), None);
    }

    #[test]
    fn a_count_beyond_the_bytes_reserves_nothing() {
        let mut bytes = SparseIndex::new(0).encode();
        bytes[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(SparseIndex::decode(&bytes, 0), Err(IndexFault::Count));
        bytes[16..24].copy_from_slice(&1000_u64.to_le_bytes());
        assert_eq!(SparseIndex::decode(&bytes, 0), Err(IndexFault::Count));
    }
}
