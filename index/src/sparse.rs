//! The index of a segment that is being written, in ordinary memory.

use crate::{
    ENTRY_BYTES, ENTRY_INTERVAL_BYTES, Entry, FILE_HEADER_BYTES, MAGIC, MAX_ENTRIES, Seal,
    last_before,
};

/// The last batch that was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    position: u32,
    generation: u32,
}

/// The entries of one segment, rising in offset and position. It may begin inside the segment,
/// when that was written on after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseIndex {
    base_offset: u64,
    entries: Vec<Entry>,
    max_timestamp_ms: i64,
    last: Option<Last>,
    /// What is noted next gets an entry, however near it is: it is the first of a new life of the
    /// log, and what is before it need not be readable.
    begins_anew: bool,
}

impl SparseIndex {
    /// Returns the empty index of the segment that starts at `base_offset`.
    #[must_use]
    pub fn new(base_offset: u64) -> Self {
        SparseIndex {
            base_offset,
            entries: Vec::new(),
            max_timestamp_ms: i64::MIN,
            last: None,
            begins_anew: false,
        }
    }

    /// Notes a batch. Batches must come in order and without gaps; one is kept when it starts at
    /// least [`ENTRY_INTERVAL_BYTES`] behind the last one kept. Ignores what an entry cannot hold.
    pub fn note(&mut self, offset: u64, position: u64, generation: u32, max_timestamp_ms: i64) {
        let Some(relative) = offset.checked_sub(self.base_offset) else { return };
        let (Ok(relative_offset), Ok(position)) =
            (u32::try_from(relative), u32::try_from(position))
        else {
            return;
        };
        self.max_timestamp_ms = self.max_timestamp_ms.max(max_timestamp_ms);
        self.last = Some(Last { position, generation });
        let last = self.entries.last();
        let far_enough = last.is_none_or(|last| {
            let near = u64::from(position) < u64::from(last.position) + ENTRY_INTERVAL_BYTES;
            relative_offset > last.relative_offset && (self.begins_anew || !near)
        });
        if far_enough && self.entries.len() < MAX_ENTRIES {
            self.begins_anew = false;
            let max_timestamp_ms = self.max_timestamp_ms;
            self.entries.push(Entry { relative_offset, position, max_timestamp_ms });
        }
    }

    /// Returns whether every batch from the segment's first on was noted.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.entries.first().is_some_and(|first| first.relative_offset == 0)
    }

    /// Returns the offset of the first batch that was noted.
    #[must_use]
    pub fn first_offset(&self) -> Option<u64> {
        self.entries.first().map(|first| self.base_offset + u64::from(first.relative_offset))
    }

    /// Puts the index of the segment's batches below `end` in front, if `end` is where this one
    /// begins; one that is empty begins anywhere.
    pub fn prepend(&mut self, before: &SparseIndex, end: u64) {
        let begins_there = self.first_offset().is_none_or(|first| first == end);
        let fits = before.base_offset == self.base_offset && before.is_whole() && begins_there;
        if !fits || before.entries.len() + self.entries.len() > MAX_ENTRIES {
            return;
        }
        self.begins_anew = self.entries.is_empty();
        self.last = self.last.or(before.last);
        for entry in &mut self.entries {
            entry.max_timestamp_ms = entry.max_timestamp_ms.max(before.max_timestamp_ms);
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(before.max_timestamp_ms);
        self.entries.splice(..0, before.entries.iter().copied());
    }

    /// Returns the greatest noted batch at or below `offset`, as (base offset, position).
    #[must_use]
    pub fn lookup(&self, offset: u64) -> Option<(u64, u64)> {
        let relative = offset.checked_sub(self.base_offset)?;
        self.find(|entry| u64::from(entry.relative_offset) <= relative)
    }

    /// Returns the greatest noted batch with which, and before which, no record has a timestamp of
    /// `timestamp_ms` or more: the first that has lies behind it. `None`: from the segment's start
    /// on. An index that is not [whole](Self::is_whole) cannot say.
    #[must_use]
    pub fn lookup_time(&self, timestamp_ms: i64) -> Option<(u64, u64)> {
        if !self.is_whole() {
            return None;
        }
        self.find(|entry| entry.max_timestamp_ms < timestamp_ms)
    }

    fn find(&self, is_before: impl Fn(&Entry) -> bool) -> Option<(u64, u64)> {
        let entry = last_before(self.entries.len(), |at| self.entries[at], is_before)?;
        Some((self.base_offset + u64::from(entry.relative_offset), u64::from(entry.position)))
    }

    /// Forgets every entry.
    pub fn clear(&mut self) {
        *self = SparseIndex::new(self.base_offset);
    }

    /// Returns the largest timestamp of the batches noted, in milliseconds since 1970.
    #[must_use]
    pub fn max_timestamp_ms(&self) -> Option<i64> {
        (self.max_timestamp_ms != i64::MIN).then_some(self.max_timestamp_ms)
    }

    /// Returns the entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the index file's bytes, for the segment with `salt` that ends at `end_offset`.
    /// `None` if this does not hold every batch of it.
    #[must_use]
    pub fn encode(&self, salt: u64, end_offset: u64) -> Option<Vec<u8>> {
        let last = self.last.filter(|_| self.is_whole())?;
        let base_offset = self.base_offset;
        let (last_position, last_generation) = (last.position, last.generation);
        let seal = Seal { base_offset, end_offset, salt, last_position, last_generation };
        Some(encode(&seal, self.max_timestamp_ms, &self.entries))
    }
}

pub(crate) fn encode(seal: &Seal, max_timestamp_ms: i64, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES + entries.len() * ENTRY_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&seal.base_offset.to_le_bytes());
    bytes.extend_from_slice(&seal.end_offset.to_le_bytes());
    bytes.extend_from_slice(&seal.salt.to_le_bytes());
    bytes.extend_from_slice(&seal.last_position.to_le_bytes());
    bytes.extend_from_slice(&seal.last_generation.to_le_bytes());
    bytes.extend_from_slice(&max_timestamp_ms.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    assert_eq!(bytes.len(), FILE_HEADER_BYTES, "every byte of the header is one of a field");
    for entry in entries {
        bytes.extend_from_slice(&entry.relative_offset.to_le_bytes());
        bytes.extend_from_slice(&entry.position.to_le_bytes());
        bytes.extend_from_slice(&entry.max_timestamp_ms.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes
}
