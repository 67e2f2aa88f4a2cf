//! Operating errors as values: what was tried, on what, where, and why it failed.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why an operation failed, as far as a caller can act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IoErrorKind {
    /// The name does not exist.
    NotFound,
    /// The name exists already.
    AlreadyExists,
    /// A part of the path is not a directory, or the thing itself is the wrong kind.
    WrongKind,
    /// The user may not do this.
    PermissionDenied,
    /// The file system is mounted read-only.
    ReadOnly,
    /// No space or quota left, or the limit of file sizes is reached; nothing that was written is
    /// harmed.
    NoSpace,
    /// Another holds the lock; who, as far as the kernel tells.
    Locked {
        /// Process id and name, such as `4711 (highwater)`.
        holder: Option<String>,
    },
    /// The kernel or the file system does not offer this.
    Unsupported,
    /// The device failed (`EIO` and its kin). After a write or a flush the state of the bytes
    /// concerned is unknown.
    Device,
    /// The process ran out of descriptors or memory.
    Resources,
    /// The simulated process is dead; nothing was done.
    Dead,
    /// Anything else.
    Other,
}

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoError {
    /// Why.
    pub kind: IoErrorKind,
    /// What was tried: see [`Operation::verb`](crate::Operation::verb).
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// At which byte, where that means something.
    pub position: Option<u64>,
    /// The kernel's number for it, if it came from the kernel.
    pub errno: Option<i32>,
}

impl IoError {
    /// Returns the error for the kernel's `errno`.
    #[must_use]
    pub fn from_errno(
        errno: i32,
        operation: &'static str,
        path: PathBuf,
        position: Option<u64>,
    ) -> Self {
        let kind = match errno {
            libc::ENOENT => IoErrorKind::NotFound,
            libc::EEXIST | libc::ENOTEMPTY => IoErrorKind::AlreadyExists,
            libc::ENOTDIR | libc::EISDIR | libc::ELOOP => IoErrorKind::WrongKind,
            libc::EACCES | libc::EPERM => IoErrorKind::PermissionDenied,
            libc::EROFS => IoErrorKind::ReadOnly,
            libc::ENOSPC | libc::EDQUOT | libc::EFBIG => IoErrorKind::NoSpace,
            libc::EOPNOTSUPP | libc::ENOSYS => IoErrorKind::Unsupported,
            libc::EIO | libc::ENXIO | libc::ENODEV | libc::EREMOTEIO | libc::EUCLEAN => {
                IoErrorKind::Device
            }
            libc::EMFILE | libc::ENFILE | libc::ENOMEM => IoErrorKind::Resources,
            _ => IoErrorKind::Other,
        };
        IoError { kind, operation, path, position, errno: Some(errno) }
    }

    /// Returns whether the file or directory could not even be opened - for want of descriptors,
    /// too - so that nothing was asked of its device. No write or flush fails like that.
    #[must_use]
    pub fn is_not_opened(&self) -> bool {
        const OPENING: [i32; 6] =
            [libc::EMFILE, libc::ENFILE, libc::ENOENT, libc::ENOTDIR, libc::ELOOP, libc::EACCES];
        self.errno.is_some_and(|errno| OPENING.contains(&errno))
    }

    /// Returns the kernel's sentence for the error, or ours.
    #[must_use]
    pub fn reason(&self) -> String {
        match (&self.kind, self.errno) {
            (IoErrorKind::Locked { holder: Some(holder) }, _) => {
                format!("it is in use by process {holder}")
            }
            (IoErrorKind::Locked { holder: None }, _) => "it is in use by another process".into(),
            (_, Some(errno)) => std::io::Error::from_raw_os_error(errno).to_string(),
            (kind, None) => format!("{kind:?}"),
        }
    }

    /// Returns what helps, where the kind alone does not tell; empty otherwise.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        if self.path == Path::new(crate::uring::NAME) {
            return crate::uring::remedy(self);
        }
        match self.errno {
            Some(libc::EMFILE) => "raise the limit of open files (ulimit -n) and try again",
            Some(libc::ENFILE) => "the machine has too many files open (sysctl fs.file-max)",
            Some(libc::EFBIG) => "raise the limit of file sizes (ulimit -f) and try again",
            Some(libc::EDQUOT) => "raise the quota, or free some space, and try again",
            Some(libc::ENOMEM) => "free some memory, or raise the control group's limit",
            _ => "",
        }
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.operation, self.path.display())?;
        if let Some(position) = self.position {
            write!(f, " at byte {position}")?;
        }
        write!(f, ": {}", self.reason())
    }
}

impl std::error::Error for IoError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_process_are_told_with_what_raises_them() {
        let error = |errno| IoError::from_errno(errno, "open", "there".into(), None);
        assert_eq!(error(libc::EFBIG).kind, IoErrorKind::NoSpace);
        assert!(error(libc::EFBIG).remedy().contains("ulimit -f"));
        assert_eq!(error(libc::EMFILE).kind, IoErrorKind::Resources);
        assert!(error(libc::EMFILE).remedy().contains("ulimit -n"));
        assert_eq!(error(libc::EIO).remedy(), "");
        let ring = |errno| IoError::from_errno(errno, "set up", crate::uring::NAME.into(), None);
        assert!(ring(libc::EPERM).remedy().contains("seccomp"));
        assert!(ring(libc::ENOMEM).remedy().contains("ulimit -l"));
    }
}
