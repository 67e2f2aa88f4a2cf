//! How much room a file system has.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
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

/// Returns the device under the file system that holds `path`, if that is known to write in place:
/// a write over a block that was written before changes nothing but that block, so a flush of any
/// file makes all such writes durable that had completed before. So do ext4, unless mounted with
/// `data=journal`, and XFS, where the block is not shared with a clone.
///
/// # Errors
/// [`IoErrorKind::Unsupported`](crate::IoErrorKind::Unsupported) for any other file system; or if
/// `path` or the mounts cannot be looked at.
pub fn device_written_in_place(path: &Path) -> Result<u64, IoError> {
    let failed = |errno| IoError::from_errno(errno, "ask the device of", path.to_owned(), None);
    let of = |error: std::io::Error| failed(errno_of(&error));
    let device = std::fs::metadata(path).map_err(of)?.dev();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(of)?;
    let number = format!("{}:{}", libc::major(device), libc::minor(device));
    let found = mounts.lines().any(|line| writes_in_place(line, &number));
    if found { Ok(device) } else { Err(failed(libc::EOPNOTSUPP)) }
}

/// Returns whether a line of `proc_pid_mountinfo(5)` is of this device, with a file system that
/// writes in place.
fn writes_in_place(line: &str, device: &str) -> bool {
    let Some((place, kind)) = line.split_once(" - ") else { return false };
    let is_it = place.split(' ').nth(2) == Some(device);
    let mut kind = kind.split(' ');
    let known = matches!(kind.next(), Some("ext4" | "xfs"));
    let options = kind.nth(1).unwrap_or_default();
    is_it && known && !options.split(',').any(|option| option == "data=journal")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::IoErrorKind;

    #[test]
    fn only_file_systems_that_are_known_to_write_in_place_are_taken_for_such() {
        let line = |kind: &str, options: &str| {
            format!("36 35 8:1 / /data rw,noatime shared:1 master:2 - {kind} /dev/a {options}")
        };
        for (kind, options, expected) in [
            ("ext4", "rw", true),
            ("xfs", "rw,attr2,noquota", true),
            ("ext4", "rw,data=ordered", true),
            ("ext4", "rw,data=journal", false),
            ("btrfs", "rw", false),
            ("ext3", "rw", false),
        ] {
            assert_eq!(writes_in_place(&line(kind, options), "8:1"), expected, "{kind} {options}");
        }
        assert!(!writes_in_place(&line("ext4", "rw"), "8:2"), "another device");
        let proc = device_written_in_place(Path::new("/proc")).map_err(|error| error.kind);
        assert_eq!(proc, Err(IoErrorKind::Unsupported));
    }

    #[test]
    fn free_space_is_told_of_what_is_there() {
        assert!(free_bytes(Path::new("/proc")).is_ok());
        assert!(free_bytes(&std::env::temp_dir()).is_ok_and(|bytes| bytes > 0));
        let missing = free_bytes(Path::new("/no such place")).map_err(|error| error.kind);
        assert_eq!(missing, Err(IoErrorKind::NotFound));
    }
}
