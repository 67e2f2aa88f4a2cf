//! The exclusive lock of a directory.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::sys;

/// Why a lock was not had.
#[derive(Debug)]
pub(crate) enum LockFailure {
    /// Another holds it.
    Held(Option<String>),
    /// The kernel's number.
    Errno(i32),
}

/// Those who hold locks together: the [`Io`](crate::Io)s of one platform.
///
/// Each of them must keep the lock, because the kernel may still be writing for any of them when
/// the process is gone; yet a second lock of the same directory would exclude the first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owner {
    held: Arc<Mutex<Vec<Weak<DirectoryLock>>>>,
}

impl Owner {
    /// Takes the lock of `path`, joins in it if this owner holds it already, or says who does.
    pub(crate) fn take(&self, path: &Path) -> Result<Arc<DirectoryLock>, LockFailure> {
        let errno = |error: std::io::Error| LockFailure::Errno(sys::errno_of(&error));
        let directory = File::open(path).map_err(errno)?;
        let metadata = directory.metadata().map_err(errno)?;
        if !metadata.is_dir() {
            return Err(LockFailure::Errno(libc::ENOTDIR));
        }
        let identity = (metadata.dev(), metadata.ino());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|lock| lock.strong_count() > 0);
        let mut ours = held.iter().filter_map(Weak::upgrade);
        if let Some(lock) = ours.find(|lock| lock.identity == identity) {
            return Ok(lock);
        }
        match sys::try_lock(&directory) {
            Ok(()) => {
                let lock = Arc::new(DirectoryLock { directory, identity });
                held.push(Arc::downgrade(&lock));
                Ok(lock)
            }
            Err(libc::EWOULDBLOCK) => Err(LockFailure::Held(holder(identity))),
            Err(errno) => Err(LockFailure::Errno(errno)),
        }
    }
}

/// A held lock; dropping it gives it back.
///
/// The lock is on the directory itself, so there is no lock file that a copy, a backup or a tidy
/// person could take away from under its holder.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    directory: File,
    /// Device and inode.
    identity: (u64, u64),
}

impl AsFd for DirectoryLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Said aloud instead of left to the close: a ring that is still being torn down, or a child
        // between fork and exec, refers to the same open file description and would keep the lock.
        sys::unlock(&self.directory);
    }
}

/// Returns who holds the lock of a file, such as `4711 (highwater)`, as far as `/proc` tells.
fn holder((device, inode): (u64, u64)) -> Option<String> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let process = holder_in(&locks, libc::major(device), libc::minor(device), inode)?;
    let name = std::fs::read_to_string(format!("/proc/{process}/comm"));
    // The kernel may still be writing for a process that was killed.
    let name = name.as_deref().map_or("ended", str::trim_end);
    Some(format!("{process} ({name})"))
}

/// Returns the process that `/proc/locks` names as holding the `flock(2)` of a file.
fn holder_in(locks: &str, major: u32, minor: u32, inode: u64) -> Option<u32> {
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        // `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`; who waits has `->` after the number.
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, "FLOCK", _, _, process, place, ..] if *place == file => {
                process.parse().ok().filter(|process| *process != 0)
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::holder_in;

    const LOCKS: &str = "\
1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF
2: FLOCK  ADVISORY  WRITE 4711 fe:0a:77 0 EOF
2: -> FLOCK  ADVISORY  WRITE 4712 fe:0a:77 0 EOF
3: FLOCK  ADVISORY  WRITE 0 08:01:5 0 EOF
4: FLOCK  ADVISORY  READ  9 103:01:5 0 EOF
short line
";

    #[test]
    fn holder_is_the_process_of_the_same_device_and_inode() {
        assert_eq!(holder_in(LOCKS, 0xfe, 0x0a, 77), Some(4711));
        assert_eq!(holder_in(LOCKS, 0x103, 1, 5), Some(9));
    }

    #[test]
    fn other_locks_and_foreign_processes_have_no_holder() {
        assert_eq!(holder_in(LOCKS, 0xfe, 0, 77), None, "a lock of another kind");
        assert_eq!(holder_in(LOCKS, 8, 1, 5), None, "a process of another namespace");
        assert_eq!(holder_in(LOCKS, 0xfe, 0x0a, 78), None);
        assert_eq!(holder_in("", 0xfe, 0x0a, 77), None);
    }
}
