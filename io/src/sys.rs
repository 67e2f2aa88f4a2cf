//! System calls that `std` does not offer, or offers with retries we must not have (`sync_data`
//! repeats an interrupted flush). Each returns the kernel's error number.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Returns the kernel's number of an error; `EINVAL` where `std` refused by itself (a path with a
/// zero byte).
pub(crate) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EINVAL)
}

/// Returns the number the last failed call left.
pub(crate) fn last_errno() -> i32 {
    errno_of(&io::Error::last_os_error())
}

/// Returns `Ok` for a call that says 0, and the number it left otherwise.
fn checked(result: libc::c_int) -> Result<(), i32> {
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Returns `number` as the signed offset the kernel takes.
fn offset(number: u64) -> Result<libc::off_t, i32> {
    libc::off_t::try_from(number).map_err(|_| libc::EINVAL)
}

/// Reads once at `position`, as `pread(2)`.
pub(crate) fn read_at(file: &File, position: u64, bytes: &mut [u8]) -> Result<usize, i32> {
    file.read_at(bytes, position).map_err(|error| errno_of(&error))
}

/// Writes once at `position`, as `pwrite(2)`; with `dsync` as `pwritev2(2)` and `RWF_DSYNC`.
pub(crate) fn write_at(
    file: &File,
    position: u64,
    bytes: &[u8],
    dsync: bool,
) -> Result<usize, i32> {
    if !dsync {
        return file.write_at(bytes, position).map_err(|error| errno_of(&error));
    }
    let position = offset(position)?;
    let piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: `piece` describes `bytes`, which outlives the call; the kernel only reads from it,
    // so the cast to a mutable pointer, which the C type asks for, writes nothing.
    let written =
        unsafe { libc::pwritev2(file.as_raw_fd(), &raw const piece, 1, position, libc::RWF_DSYNC) };
    usize::try_from(written).map_err(|_| last_errno())
}

/// Returns whether the device below a file says that it can write through its cache (FUA).
pub(crate) fn writes_through(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(device) = file.metadata().map(|metadata| metadata.dev()) else { return false };
    let (major, minor) = (libc::major(device), libc::minor(device));
    // A partition has its queue one level up.
    ["", "/.."].iter().any(|up| {
        let path = format!("/sys/dev/block/{major}:{minor}{up}/queue/fua");
        std::fs::read(path).is_ok_and(|text| text.trim_ascii() == b"1")
    })
}

/// Flushes the data of a file and what is needed to find it: `fdatasync(2)`, once.
pub(crate) fn flush_data(file: &File) -> Result<(), i32> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    checked(unsafe { libc::fdatasync(file.as_raw_fd()) })
}

/// Flushes a file or directory whole: `fsync(2)`, once.
pub(crate) fn flush_all(file: &File) -> Result<(), i32> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    checked(unsafe { libc::fsync(file.as_raw_fd()) })
}

/// Reserves space and extends the file: `fallocate(2)`, mode 0, once.
pub(crate) fn allocate(file: &File, position: u64, length: u64) -> Result<(), i32> {
    let (position, length) = (offset(position)?, offset(length)?);
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    checked(unsafe { libc::fallocate(file.as_raw_fd(), 0, position, length) })
}

/// Drops the clean cached pages of a file: `posix_fadvise(2)`, `DONTNEED`.
pub(crate) fn drop_cache(file: &File) -> Result<(), i32> {
    let fd = file.as_raw_fd();
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    let errno = unsafe { libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED) };
    if errno == 0 { Ok(()) } else { Err(errno) }
}

/// Takes the exclusive lock of an open file description without waiting: `flock(2)`.
pub(crate) fn try_lock(file: &File) -> Result<(), i32> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    checked(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })
}

/// Gives the lock of an open file description back, whoever else refers to it. Cannot fail on a
/// lock that is held; if it did, the lock would go with the last reference instead.
pub(crate) fn unlock(file: &File) {
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) };
}

/// Closes a file and returns what the kernel says to it, which dropping a [`File`] does not.
pub(crate) fn close(file: File) -> Result<(), i32> {
    // SAFETY: `into_raw_fd` gave the descriptor up, so it is closed once and used by nobody after.
    match checked(unsafe { libc::close(file.into_raw_fd()) }) {
        // On Linux the descriptor is gone all the same, and a second close could hit another's.
        Err(libc::EINTR) => Ok(()),
        result => result,
    }
}

/// What the kernel says of direct I/O on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DirectSupport {
    /// Blocks of [`BLOCK_BYTES`](crate::BLOCK_BYTES) are accepted.
    Yes,
    /// They are not.
    No,
    /// The kernel or the file system does not say.
    Unknown,
}

/// Asks for the alignment that direct I/O on `file` needs: `statx(2)`, `STATX_DIOALIGN` (6.1).
pub(crate) fn direct_support(file: &File, block_bytes: u32) -> DirectSupport {
    // SAFETY: `statx` is plain numbers, for which all zeros are valid.
    let mut answer: libc::statx = unsafe { std::mem::zeroed() };
    let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN);
    // SAFETY: the path is an empty C string, the descriptor is open, and `answer` is writable and
    // of the type the kernel fills.
    let result =
        unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, mask, &raw mut answer) };
    if result != 0 || answer.stx_mask & mask == 0 {
        return DirectSupport::Unknown;
    }
    let fits = |alignment: u32| alignment != 0 && block_bytes.is_multiple_of(alignment);
    if fits(answer.stx_dio_mem_align) && fits(answer.stx_dio_offset_align) {
        DirectSupport::Yes
    } else {
        DirectSupport::No
    }
}

/// Returns a new event counter: `eventfd(2)`, blocking, because a ring refuses to wait for a
/// non-blocking one.
pub(crate) fn event_counter() -> Result<OwnedFd, i32> {
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel just made this descriptor for us, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an event counter. Blocks only at 2^64 - 2 additions nobody read.
pub(crate) fn event_signal(counter: &OwnedFd) -> Result<(), i32> {
    let one = 1_u64;
    let bytes = size_of_val(&one);
    // SAFETY: the pointer and the length describe `one`, which outlives the call.
    let written = unsafe { libc::write(counter.as_raw_fd(), (&raw const one).cast(), bytes) };
    if usize::try_from(written) == Ok(bytes) { Ok(()) } else { Err(last_errno()) }
}
