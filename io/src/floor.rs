//! A write and its flush as one linked pair, for measuring what a disk can do at the best.
//!
//! No log uses this: a shard wants to hear of the write before the flush. It is one of the ways a
//! bench tries when it looks for the fastest durable write of a machine.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use io_uring::squeue::Flags;
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode};

use crate::buffer::AlignedBuffer;
use crate::error::IoError;
use crate::files;
use crate::operation::{Access, OpenMode};
use crate::sys::errno_of;
use crate::uring::ring;

/// The `user_data` of the two halves of a pair.
const WRITE: u64 = 0;
const FLUSH: u64 = 1;

/// One file that is written and flushed by linked pairs (`IOSQE_IO_LINK`), one pair at a time: the
/// kernel starts the flush when the write has ended, without coming back to us in between.
///
/// For the thread that made it. Nothing is in flight outside its calls.
pub struct LinkedFile {
    ring: IoUring,
    file: File,
    path: PathBuf,
}

impl LinkedFile {
    /// Opens an existing file for linked pairs, bypassing the page cache where the file system lets
    /// it.
    ///
    /// # Errors
    /// As [`UringIo::new`](crate::uring::UringIo::new) and [`Operation::Open`](crate::Operation).
    pub fn open(path: &Path) -> Result<Self, IoError> {
        let mode = OpenMode { access: Access::ReadWrite, direct: true };
        let (file, _) = files::open(path, mode)
            .map_err(|errno| IoError::from_errno(errno, "open", path.to_owned(), None))?;
        Ok(LinkedFile { ring: ring()?, file, path: path.to_owned() })
    }

    /// Writes all of `buffer` at `position` and flushes the file's data behind it.
    ///
    /// *Durability*: the bytes are on stable media when this returns `Ok`.
    /// *Blocking*: until the pair has ended.
    ///
    /// # Errors
    /// What the write or the flush failed with. A short write is an error here: a linked flush does
    /// not run behind it.
    ///
    /// # Panics
    /// If the kernel breaks its contract.
    pub fn write_and_flush(
        &mut self,
        position: u64,
        buffer: &AlignedBuffer,
    ) -> Result<(), IoError> {
        let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        let descriptor = Fd(self.file.as_raw_fd());
        let write = opcode::Write::new(descriptor, buffer.as_ptr(), length)
            .offset(position)
            .build()
            .flags(Flags::IO_LINK)
            .user_data(WRITE);
        let flush =
            opcode::Fsync::new(descriptor).flags(FsyncFlags::DATASYNC).build().user_data(FLUSH);
        let mut queue = self.ring.submission();
        // SAFETY: `buffer` is borrowed and `file` is ours for the whole call, and this call does
        // not return - nor unwind, but by an abort - before both completions have been reaped.
        let pushed = unsafe { queue.push_multiple(&[write, flush]) };
        drop(queue);
        assert!(pushed.is_ok(), "the submission queue was empty");
        let [written, flushed] = self.reap_pair();
        let error = |errno, verb| IoError::from_errno(errno, verb, self.path.clone(), None);
        match u32::try_from(written) {
            Ok(bytes) if bytes == length => {}
            Ok(_) => return Err(error(libc::EIO, "write all of a block to")),
            Err(_) => return Err(error(-written, "write")),
        }
        if flushed < 0 { Err(error(-flushed, "flush")) } else { Ok(()) }
    }

    /// Starts what is queued and returns the two results once both are there.
    fn reap_pair(&mut self) -> [i32; 2] {
        let mut results = [None, None];
        loop {
            for entry in self.ring.completion() {
                let place = usize::from(entry.user_data() == FLUSH);
                results[place] = Some(entry.result());
            }
            if let [Some(written), Some(flushed)] = results {
                return [written, flushed];
            }
            let missing = results.iter().filter(|result| result.is_none()).count();
            match self.ring.submit_and_wait(missing).map_err(|error| errno_of(&error)) {
                Ok(_) | Err(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => {}
                // The kernel may still own the buffer: there is no way back to its owner.
                Err(_) => std::process::abort(),
            }
        }
    }
}

impl std::fmt::Debug for LinkedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkedFile").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::BLOCK_BYTES;

    #[test]
    fn a_linked_pair_writes_its_bytes_where_it_was_told() {
        let path = std::env::temp_dir().join(format!("highwater-linked-{}", std::process::id()));
        std::fs::write(&path, vec![0; 4 * BLOCK_BYTES]).unwrap();
        let mut linked = match LinkedFile::open(&path) {
            Ok(linked) => linked,
            Err(error) => return println!("skipped: {error}"),
        };
        for place in [2_u8, 1] {
            let mut buffer = AlignedBuffer::zeroed(BLOCK_BYTES);
            buffer.fill(place);
            linked.write_and_flush(u64::from(place) * 4096, &buffer).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let firsts: Vec<_> = bytes.chunks(BLOCK_BYTES).map(|block| block[17]).collect();
        assert_eq!(firsts, [0, 1, 2, 0]);
    }
}
