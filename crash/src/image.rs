//! The bytes of a block device in memory: sparse, and cheap to copy.

use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Arc;

/// Bytes in one page, the unit that copies of an image share.
pub const PAGE_BYTES: usize = 64 * 1024;

/// Bytes in one sector: a device writes a sector whole or not at all, even in a power cut.
pub const SECTOR_BYTES: usize = 512;

/// The contents of a block device. Pages never written take no memory; a copy shares all pages
/// with its original until one of the two writes to them.
#[derive(Clone)]
pub struct Image {
    size: usize,
    pages: Vec<Page>,
}

/// [`PAGE_BYTES`] bytes, shared; none where nothing but zeros was written.
type Page = Option<Arc<[u8]>>;

impl Image {
    /// Returns an image of `size` zero bytes.
    #[must_use]
    pub fn zeroed(size: usize) -> Self {
        Image { size, pages: vec![None; size.div_ceil(PAGE_BYTES)] }
    }

    /// Returns the size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Returns the bytes of memory its pages take, counting shared pages too.
    #[must_use]
    pub fn resident(&self) -> usize {
        self.pages.iter().flatten().map(|page| page.len()).sum()
    }

    /// Returns whether `length` bytes at `position` lie inside the image.
    #[must_use]
    pub fn contains(&self, position: usize, length: usize) -> bool {
        position.checked_add(length).is_some_and(|end| end <= self.size)
    }

    /// Fills `bytes` from `position` on.
    ///
    /// # Panics
    /// If the range is not inside the image.
    pub fn read(&self, position: usize, bytes: &mut [u8]) {
        assert!(self.contains(position, bytes.len()), "a read inside the image");
        for (page, within, part) in pieces(position, bytes.len()) {
            match &self.pages[page] {
                Some(page) => bytes[part].copy_from_slice(&page[within]),
                None => bytes[part].fill(0),
            }
        }
    }

    /// Writes `bytes` at `position`. Zeros into a page never written take no memory.
    ///
    /// # Panics
    /// If the range is not inside the image.
    pub fn write(&mut self, position: usize, bytes: &[u8]) {
        assert!(self.contains(position, bytes.len()), "a write inside the image");
        for (page, within, part) in pieces(position, bytes.len()) {
            let bytes = &bytes[part];
            match &mut self.pages[page] {
                Some(page) => Arc::make_mut(page)[within].copy_from_slice(bytes),
                None if bytes.iter().all(|byte| *byte == 0) => {}
                empty => {
                    let mut fresh = vec![0; PAGE_BYTES];
                    fresh[within].copy_from_slice(bytes);
                    *empty = Some(fresh.into());
                }
            }
        }
    }

    /// Makes `length` bytes at `position` read as zeros.
    ///
    /// # Panics
    /// If the range is not inside the image.
    pub fn zero(&mut self, position: usize, length: usize) {
        assert!(self.contains(position, length), "zeros inside the image");
        for (page, within, _) in pieces(position, length) {
            if within.len() == PAGE_BYTES {
                self.pages[page] = None;
            } else if let Some(page) = &mut self.pages[page] {
                Arc::make_mut(page)[within].fill(0);
            }
        }
    }

    /// Writes the image to a file, leaving holes where it has no pages.
    ///
    /// # Errors
    /// Whatever creating or writing the file gives.
    pub fn save(&self, path: &std::path::Path) -> io::Result<()> {
        let mut file = std::fs::File::create(path)?;
        for (index, page) in self.pages.iter().enumerate() {
            if let Some(page) = page {
                let position = index * PAGE_BYTES;
                let length = PAGE_BYTES.min(self.size - position);
                file.seek(SeekFrom::Start(wide(position)))?;
                file.write_all(&page[..length])?;
            }
        }
        file.set_len(wide(self.size))
    }
}

impl PartialEq for Image {
    /// Compares the bytes: a page never written equals a page of zeros.
    fn eq(&self, other: &Self) -> bool {
        let same = |pair: (&Page, &Page)| match pair {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            (Some(page), None) | (None, Some(page)) => page.iter().all(|byte| *byte == 0),
            (None, None) => true,
        };
        self.size == other.size && self.pages.iter().zip(&other.pages).all(same)
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image {{ size: {}, resident: {} }}", self.size, self.resident())
    }
}

/// Widens a size in memory to a position in a file.
pub(crate) fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Cuts a range at page boundaries: page number, range in that page, range in the whole.
fn pieces(
    position: usize,
    length: usize,
) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = position + done;
        let within = at % PAGE_BYTES;
        let now = (length - done).min(PAGE_BYTES - within);
        let piece = (at / PAGE_BYTES, within..within + now, done..done + now);
        done += now;
        (now > 0).then_some(piece)
    })
}
