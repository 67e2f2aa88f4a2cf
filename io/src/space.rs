//! How much room a file system has.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::IoError;
use crate::sys::errno_of;

/// Returns how many bytes this user can still write to the file system that holds `path`:
/// `statvfs(3)`.
///
/// # Errors
/// If there is no such path, or it may not be looked at.
pub fn free_bytes(path: &Path) -> Result<u64, IoError> {
    let failed = |errno| IoError::from_errno(errno, "ask the free space of", path.to_owned(), None);
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| failed(libc::EINVAL))?;
    // SAFETY: `statvfs` is plain numbers, for which all zeros are valid.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `name` ends with a zero byte and outlives the call, and `answer` is writable and of
    // the type the library fills.
    let result = unsafe { libc::statvfs(name.as_ptr(), &raw mut answer) };
    if result != 0 {
        return Err(failed(errno_of(&std::io::Error::last_os_error())));
    }
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::IoErrorKind;

    #[test]
    fn free_space_is_told_of_what_is_there() {
        assert!(free_bytes(Path::new("/proc")).is_ok());
        assert!(free_bytes(&std::env::temp_dir()).is_ok_and(|bytes| bytes > 0));
        let missing = free_bytes(Path::new("/no such place")).map_err(|error| error.kind);
        assert_eq!(missing, Err(IoErrorKind::NotFound));
    }
}
