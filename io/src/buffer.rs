//! Memory that direct I/O accepts.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// The unit of direct I/O: positions, lengths and addresses are multiples of it. 4 KiB satisfies
/// every file system we know (`STATX_DIOALIGN` asks for at most the logical block size).
pub const BLOCK_BYTES: usize = 4096;

/// A fixed piece of zeroed memory, aligned to [`BLOCK_BYTES`] and a multiple of it long.
pub struct AlignedBuffer {
    start: NonNull<u8>,
    bytes: usize,
}

impl AlignedBuffer {
    /// Returns zeroed memory of at least `bytes`, rounded up to whole blocks, at least one.
    ///
    /// # Panics
    /// If `bytes` is beyond what the address space holds; aborts when memory is out.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Self {
        let bytes = bytes.max(1).next_multiple_of(BLOCK_BYTES);
        let layout = Self::layout(bytes);
        // SAFETY: the layout's size is at least one block, so it is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => AlignedBuffer { start, bytes },
            None => handle_alloc_error(layout),
        }
    }

    fn layout(bytes: usize) -> Layout {
        match Layout::from_size_align(bytes, BLOCK_BYTES) {
            Ok(layout) => layout,
            Err(_) => panic!("a buffer of {bytes} bytes does not fit the address space"),
        }
    }

    /// Returns the address, for the kernel.
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Returns the address, for the kernel.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `bytes` initialised bytes that we own, and `&self` keeps
        // anyone from changing them for as long as the slice lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: `start` points to `bytes` initialised bytes that we own, and `&mut self` makes
        // this the only access for as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: `start` came from the global allocator with this very layout and is freed once.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.bytes)) };
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuffer({} bytes)", self.bytes)
    }
}

// SAFETY: the memory is owned by this value alone and is not tied to a thread.
unsafe impl Send for AlignedBuffer {}
// SAFETY: a shared reference only allows reading.
unsafe impl Sync for AlignedBuffer {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_is_aligned_zeroed_and_whole_blocks() {
        for bytes in [0, 1, 4095, 4096, 4097, 1 << 20] {
            let mut buffer = AlignedBuffer::zeroed(bytes);
            assert!(buffer.len() >= bytes && buffer.len().is_multiple_of(BLOCK_BYTES));
            assert!(buffer.as_ptr().addr().is_multiple_of(BLOCK_BYTES));
            assert!(buffer.iter().all(|byte| *byte == 0));
            let last = buffer.len() - 1;
            buffer[last] = 7;
            assert_eq!(buffer[last], 7);
        }
    }
}
