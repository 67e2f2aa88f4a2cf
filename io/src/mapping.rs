//! A file's bytes in the address space, read-only.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::ptr::NonNull;

use crate::error::IoError;
use crate::sys::last_errno;

/// A file that was mapped with [`Operation::Map`](crate::Operation::Map). It outlives the file's
/// handle, its name and the [`Io`](crate::Io) it came from.
///
/// Every look at its [`bytes`](Self::bytes) reads in what is not in memory, on the calling thread:
/// where a plain access would end the process (`SIGBUS`) because the device fails or the file was
/// cut, this returns an error. What remains is a file that somebody cuts between the two: do not
/// map what others than we may write.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    path: PathBuf,
}

impl Mapping {
    /// Maps the first `bytes` of a file.
    pub(crate) fn new(file: &File, bytes: usize, path: PathBuf) -> Result<Self, i32> {
        if bytes == 0 {
            return Err(libc::EINVAL);
        }
        let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        let descriptor = file.as_raw_fd();
        // SAFETY: the kernel chooses where, so nothing that is there is replaced; the descriptor is
        // open for as long as `file` is borrowed.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, descriptor, 0) };
        if start == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let Some(start) = NonNull::new(start.cast()) else { return Err(libc::ENOMEM) };
        let mapping = Mapping { start, bytes, path };
        mapping.populate()?;
        Ok(mapping)
    }

    /// Reads in what is missing: `madvise(2)`, `MADV_POPULATE_READ` (Linux 5.14).
    fn populate(&self) -> Result<(), i32> {
        let (start, advice) = (self.start.as_ptr().cast(), libc::MADV_POPULATE_READ);
        loop {
            // SAFETY: the range is this mapping's; populating changes no byte of it.
            match unsafe { libc::madvise(start, self.bytes, advice) } {
                0 => return Ok(()),
                _ if last_errno() == libc::EINTR => {}
                _ => return Err(last_errno()),
            }
        }
    }

    /// Returns the length in bytes, as it was mapped.
    #[must_use]
    pub fn length(&self) -> usize {
        self.bytes
    }

    /// Returns the bytes, all of them in memory. Others that write to the file can change them.
    ///
    /// *Blocking*: while what is missing is read from the device.
    ///
    /// # Errors
    /// The device's, or `EFAULT` if the file is shorter by now.
    pub fn bytes(&self) -> Result<&[u8], IoError> {
        self.populate()
            .map_err(|errno| IoError::from_errno(errno, "map", self.path.clone(), None))?;
        // SAFETY: `start` points to `bytes` bytes that stay mapped and readable for as long as this
        // value lives, and have just been read in. We never write to a file that is mapped.
        Ok(unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by this value, is unmapped once, and no slice of it outlives
        // the value.
        let unmapped = unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        assert!(unmapped == 0 || std::thread::panicking(), "a mapping of ours can be unmapped");
    }
}

// SAFETY: the mapping is owned by this value alone and is not tied to a thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference only allows reading.
unsafe impl Sync for Mapping {}

impl PartialEq for Mapping {
    /// Whether both are the same mapping.
    fn eq(&self, other: &Self) -> bool {
        self.start == other.start
    }
}

impl Eq for Mapping {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_under_its_mapping_is_an_error_and_not_the_end() {
        let path = std::env::temp_dir().join(format!("highwater-mapping-{}", std::process::id()));
        std::fs::write(&path, vec![7; 10_000]).unwrap();
        let file = File::open(&path).unwrap();
        let mapping = Mapping::new(&file, 10_000, path.clone()).unwrap();
        drop(file);
        assert!(mapping.bytes().unwrap().iter().all(|byte| *byte == 7));
        let writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        writer.set_len(4096).unwrap();
        assert!(mapping.bytes().is_err());
        writer.set_len(10_000).unwrap();
        std::fs::remove_file(&path).unwrap();
        let bytes = mapping.bytes().unwrap();
        assert_eq!((mapping.length(), bytes[4095], bytes[4096]), (10_000, 7, 0));
    }

    #[test]
    fn nothing_is_not_mapped() {
        let file = File::open("/dev/null").unwrap();
        for bytes in [0, 4096] {
            assert!(Mapping::new(&file, bytes, PathBuf::new()).is_err());
        }
    }
}
