//! The bytes of one file as shared 4 KiB pages: sparse, and cheap to copy.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::buffer::BLOCK_BYTES;

/// The unit a device writes whole (assumption P1).
pub(super) const SECTOR_BYTES: usize = 512;
/// Sectors in a page.
pub(super) const SECTORS: usize = BLOCK_BYTES / SECTOR_BYTES;
/// One block of a file.
pub(super) type Page = [u8; BLOCK_BYTES];

/// Returns `value` as an index into memory.
pub(super) fn narrow(value: u64) -> usize {
    usize::try_from(value).expect("a simulated file fits the address space")
}

/// Returns an index or length as 64 bits.
pub(super) fn wide(value: usize) -> u64 {
    u64::try_from(value).expect("lengths fit 64 bits")
}

/// Returns the number of bytes in a page.
pub(super) fn page_bytes() -> u64 {
    wide(BLOCK_BYTES)
}

/// Returns the one page of zeros that all others share.
pub(super) fn zero_page() -> Arc<Page> {
    static ZERO: OnceLock<Arc<Page>> = OnceLock::new();
    Arc::clone(ZERO.get_or_init(|| Arc::new([0; BLOCK_BYTES])))
}

/// Returns a page holding `bytes` and zeros after them.
pub(super) fn page_of(bytes: &[u8]) -> Arc<Page> {
    if bytes.iter().all(|byte| *byte == 0) {
        return zero_page();
    }
    let mut page = [0; BLOCK_BYTES];
    page[..bytes.len()].copy_from_slice(bytes);
    Arc::new(page)
}

/// Returns the pages of `bytes`, the last one padded with zeros.
pub(super) fn pages_of(bytes: &[u8]) -> Vec<Arc<Page>> {
    bytes.chunks(BLOCK_BYTES).map(page_of).collect()
}

/// Pages that are copied together when one of them changes in one of two copies of a disk.
const CHUNK_PAGES: u64 = 64;

/// The pages of one chunk by their number in the file.
type Chunk = BTreeMap<u64, Arc<Page>>;

/// A file's length and bytes. A page that is not there reads as zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    length: u64,
    chunks: Arc<BTreeMap<u64, Arc<Chunk>>>,
}

impl Content {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn page(&self, index: u64) -> Arc<Page> {
        let chunk = self.chunks.get(&(index / CHUNK_PAGES));
        chunk.and_then(|chunk| chunk.get(&index)).map_or_else(zero_page, Arc::clone)
    }

    /// Replaces a page; the length stays, so the page may lie beyond it.
    pub(super) fn put(&mut self, index: u64, page: Arc<Page>) {
        let number = index / CHUNK_PAGES;
        // Zeros are not stored: a zero-filled segment costs nothing.
        if !Arc::ptr_eq(&page, &zero_page()) {
            let chunk = Arc::make_mut(&mut self.chunks).entry(number).or_default();
            Arc::make_mut(chunk).insert(index, page);
        } else if self.chunks.contains_key(&number)
            && let Some(chunk) = Arc::make_mut(&mut self.chunks).get_mut(&number)
        {
            Arc::make_mut(chunk).remove(&index);
        }
    }

    /// Makes the file at least `length` bytes long.
    pub(super) fn grow(&mut self, length: u64) {
        self.length = self.length.max(length);
    }

    /// Sets the length and forgets every byte beyond it.
    pub(super) fn set_length(&mut self, length: u64) {
        self.length = length;
        self.trim();
    }

    /// Forgets every byte beyond the length, so that later growth shows zeros.
    pub(super) fn trim(&mut self) {
        let whole = self.length / page_bytes();
        let rest = narrow(self.length % page_bytes());
        let number = whole / CHUNK_PAGES;
        let mut beyond = self.chunks.range(number..).flat_map(|(_, chunk)| chunk.range(whole..));
        if beyond.next().is_none() {
            return;
        }
        let mut last = self.page(whole);
        let chunks = Arc::make_mut(&mut self.chunks);
        let mut cut = chunks.split_off(&number);
        if let Some(mut chunk) = cut.remove(&number) {
            drop(Arc::make_mut(&mut chunk).split_off(&whole));
            chunks.insert(number, chunk);
        }
        if rest > 0 && !Arc::ptr_eq(&last, &zero_page()) {
            Arc::make_mut(&mut last)[rest..].fill(0);
            self.put(whole, last);
        }
    }

    /// Returns the file as one piece.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; narrow(self.length)];
        for (index, page) in self.chunks.values().flat_map(|chunk| chunk.iter()) {
            let start = narrow(index * page_bytes());
            if start < bytes.len() {
                let end = bytes.len().min(start + BLOCK_BYTES);
                bytes[start..end].copy_from_slice(&page[..end - start]);
            }
        }
        bytes
    }
}

/// A set of page numbers kept as ranges: which blocks of a file own space.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    /// Start to exclusive end; ranges neither touch nor overlap.
    ranges: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Returns how many pages of `start..end` are not in the set.
    pub(super) fn missing(&self, start: u64, end: u64) -> u64 {
        let inside: u64 = self
            .ranges
            .range(..end)
            .rev()
            .take_while(|(_, to)| **to > start)
            .map(|(from, to)| end.min(*to) - start.max(*from))
            .sum();
        (end - start) - inside
    }

    /// Adds `start..end`.
    pub(super) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut low, mut high) = (start, end);
        let touching: Vec<(u64, u64)> = self
            .ranges
            .range(..=end)
            .rev()
            .take_while(|(_, to)| **to >= start)
            .map(|(from, to)| (*from, *to))
            .collect();
        for (from, to) in touching {
            self.ranges.remove(&from);
            low = low.min(from);
            high = high.max(to);
        }
        self.ranges.insert(low, high);
    }

    /// Removes every page at or beyond `end`.
    pub(super) fn cut(&mut self, end: u64) {
        drop(self.ranges.split_off(&end));
        if let Some(mut last) = self.ranges.last_entry() {
            let to = last.get_mut();
            *to = end.min(*to);
        }
    }

    /// Returns the number of pages in the set.
    pub(super) fn count(&self) -> u64 {
        self.ranges.iter().map(|(from, to)| to - from).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_after_a_cut_shows_zeros() {
        let mut content = Content::default();
        content.put(0, page_of(&[7; BLOCK_BYTES]));
        content.put(1, page_of(&[8; BLOCK_BYTES]));
        content.set_length(8192);
        content.set_length(100);
        content.grow(8192);
        let bytes = content.bytes();
        assert!(bytes[..100].iter().all(|byte| *byte == 7));
        assert!(bytes[100..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_copy_shares_nothing_that_changes() {
        let mut first = Content::default();
        first.put(0, page_of(&[1; 512]));
        first.grow(4096);
        let second = first.clone();
        first.put(0, page_of(&[2; 512]));
        assert_eq!((first.bytes()[0], second.bytes()[0]), (2, 1));
    }

    #[test]
    fn ranges_count_each_page_once() {
        let mut ranges = Ranges::default();
        ranges.insert(2, 4);
        ranges.insert(6, 8);
        assert_eq!((ranges.count(), ranges.missing(0, 10)), (4, 6));
        ranges.insert(4, 6);
        assert_eq!((ranges.count(), ranges.missing(3, 7)), (6, 0));
        ranges.insert(1, 3);
        ranges.cut(5);
        assert_eq!((ranges.count(), ranges.missing(0, 8)), (4, 4));
        ranges.cut(0);
        assert_eq!(ranges.count(), 0);
    }
}
