//! The index file of a sealed segment, looked up in place.

use crate::{ENTRY_BYTES, Entry, FILE_HEADER_BYTES, MAGIC, MAX_ENTRIES, Seal, last_before};

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
    /// The entries do not rise, or do not begin with the segment, or a reserved byte is not zero.
    Order,
}

/// The checked bytes of an index file.
#[derive(Clone, Copy, Debug)]
pub struct IndexView<'a> {
    seal: Seal,
    max_timestamp_ms: i64,
    entries: &'a [u8],
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(bytes.get(at..at + 4).unwrap_or(&[0; 4]));
    u32::from_le_bytes(word)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let mut long = [0; 8];
    long.copy_from_slice(bytes.get(at..at + 8).unwrap_or(&[0; 8]));
    u64::from_le_bytes(long)
}

fn time(bytes: &[u8], at: usize) -> i64 {
    let mut time = [0; 8];
    time.copy_from_slice(bytes.get(at..at + 8).unwrap_or(&[0; 8]));
    i64::from_le_bytes(time)
}

impl<'a> IndexView<'a> {
    /// Returns the index in a file's `bytes` (which may be followed by zeros), every byte checked.
    /// Whether it fits the segment is to be told by its [`seal`](Self::seal).
    ///
    /// # Errors
    /// [`IndexFault`]: rebuild the index instead.
    pub fn decode(bytes: &'a [u8], base_offset: u64) -> Result<Self, IndexFault> {
        let (header, body) = bytes.split_at_checked(FILE_HEADER_BYTES).ok_or(IndexFault::Magic)?;
        if !header.starts_with(&MAGIC) {
            return Err(IndexFault::Magic);
        }
        let count = usize::try_from(word(header, 12)).map_err(|_| IndexFault::Count)?;
        if count > MAX_ENTRIES {
            return Err(IndexFault::Count);
        }
        let entries = body.get(..count * ENTRY_BYTES).ok_or(IndexFault::Count)?;
        let mut blank = [0; FILE_HEADER_BYTES];
        blank.copy_from_slice(header);
        blank[8..12].fill(0);
        if word(header, 8) != crc32c::crc32c_append(crc32c::crc32c(&blank), entries) {
            return Err(IndexFault::Checksum);
        }
        let seal = Seal {
            base_offset: long(header, 16),
            end_offset: long(header, 24),
            salt: long(header, 32),
            last_position: word(header, 40),
            last_generation: word(header, 44),
        };
        if seal.base_offset != base_offset {
            return Err(IndexFault::BaseOffset(seal.base_offset));
        }
        let view = IndexView { seal, max_timestamp_ms: time(header, 48), entries };
        if long(header, 56) == 0 && view.is_in_order() { Ok(view) } else { Err(IndexFault::Order) }
    }

    fn is_in_order(&self) -> bool {
        let mut before: Option<Entry> = None;
        for at in 0..self.len() {
            let entry = self.entry(at);
            let follows = match before {
                None => entry.relative_offset == 0,
                Some(before) => {
                    before.relative_offset < entry.relative_offset
                        && before.position < entry.position
                        && before.max_timestamp_ms <= entry.max_timestamp_ms
                }
            };
            if !follows || !entry.position.is_multiple_of(8) {
                return false;
            }
            before = Some(entry);
        }
        before.is_some_and(|last| {
            let offset = self.seal.base_offset.checked_add(u64::from(last.relative_offset));
            offset.is_some_and(|offset| offset < self.seal.end_offset)
                && last.position <= self.seal.last_position
                && last.max_timestamp_ms <= self.max_timestamp_ms
        })
    }

    /// Returns what the index was made of.
    #[must_use]
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Returns the largest timestamp in the segment, in milliseconds since 1970.
    #[must_use]
    pub fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms
    }

    /// Returns how many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() / ENTRY_BYTES
    }

    /// Returns whether there are none; a checked one has at least one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn entry(&self, at: usize) -> Entry {
        Entry {
            relative_offset: word(self.entries, at * ENTRY_BYTES),
            position: word(self.entries, at * ENTRY_BYTES + 4),
            max_timestamp_ms: time(self.entries, at * ENTRY_BYTES + 8),
        }
    }

    /// Returns the greatest indexed batch at or below `offset`, as (base offset, position).
    #[must_use]
    pub fn lookup(&self, offset: u64) -> Option<(u64, u64)> {
        let relative = offset.checked_sub(self.seal.base_offset)?;
        self.find(|entry| u64::from(entry.relative_offset) <= relative)
    }

    /// Returns the greatest indexed batch with which, and before which, no record has a timestamp
    /// of `timestamp_ms` or more: the first that has lies behind it. `None`: from the segment's
    /// start on.
    #[must_use]
    pub fn lookup_time(&self, timestamp_ms: i64) -> Option<(u64, u64)> {
        self.find(|entry| entry.max_timestamp_ms < timestamp_ms)
    }

    fn find(&self, is_before: impl Fn(&Entry) -> bool) -> Option<(u64, u64)> {
        let entry = last_before(self.len(), |at| self.entry(at), is_before)?;
        Some((self.seal.base_offset + u64::from(entry.relative_offset), u64::from(entry.position)))
    }
}
