//! Real file systems on recorded disks: `mkfs`, a loop device, `mount`, and back.

use std::ffi::OsStr;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::command::{find, run, unmount_patiently};
use crate::error::RigError;

/// The bit of `CAP_SYS_ADMIN` in the capability sets of `/proc/self/status`.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// A kind of file system the rig can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4, 64 MiB.
    Ext4,
    /// XFS, 300 MiB: the smallest it makes.
    Xfs,
}

impl FileSystem {
    /// Returns the name `mount(8)` knows it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }

    /// Returns the size of a disk for it, in bytes.
    #[must_use]
    pub fn disk_bytes(self) -> usize {
        match self {
            FileSystem::Ext4 => 64 << 20,
            FileSystem::Xfs => 300 << 20,
        }
    }

    /// Returns the range of the device that this file system itself needs to be written whole.
    ///
    /// ext4's superblock is two sectors, is written outside the journal, and carries a checksum:
    /// torn between the two, the file system cannot be mounted before a repair. That would say
    /// nothing about the program under test.
    #[must_use]
    pub fn untorn(self) -> Option<Range<usize>> {
        match self {
            FileSystem::Ext4 => Some(1024..2048),
            FileSystem::Xfs => None,
        }
    }

    /// Returns whether it may be beyond use after a power cut that tore one of its own blocks.
    ///
    /// XFS takes the log sequence number in a directory block for the age of the whole block, so
    /// a block of which only the first sectors were written is not replayed and fails its
    /// checksum: the log cannot be recovered. That, too, says nothing about the program under
    /// test; such a cut is made again with its blocks whole.
    #[must_use]
    pub fn needs_whole_blocks(self) -> bool {
        match self {
            FileSystem::Ext4 => false,
            FileSystem::Xfs => true,
        }
    }

    /// Returns the options it is mounted with: the default ones, but copies of one XFS may be
    /// mounted beside each other.
    fn mount_options(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "defaults",
            FileSystem::Xfs => "nouuid",
        }
    }

    /// Returns the program that makes it.
    fn maker(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "mkfs.ext4",
            FileSystem::Xfs => "mkfs.xfs",
        }
    }

    /// Returns that program's options: no discard, and nothing left for the kernel to initialise
    /// after the mount.
    fn maker_options(self) -> &'static [&'static str] {
        match self {
            FileSystem::Ext4 => &[
                "-q",
                "-F",
                "-E",
                "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
                "-b",
                "4096",
                "-N",
                "1024",
                "-J",
                "size=4",
            ],
            FileSystem::Xfs => &["-q", "-f", "-K"],
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Checks that this machine has all the rig needs for `file_system`.
///
/// # Errors
/// [`RigError::Missing`], naming everything that is missing at once.
pub fn requirements(file_system: FileSystem) -> Result<(), RigError> {
    let mut missing = Vec::new();
    if !may_mount() {
        missing.push("not root (CAP_SYS_ADMIN)".to_owned());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            missing.push(format!("no {device}"));
        }
    }
    let programs = [
        ("mount", "mount"),
        ("umount", "mount"),
        ("losetup", "mount"),
        match file_system {
            FileSystem::Ext4 => ("mkfs.ext4", "e2fsprogs"),
            FileSystem::Xfs => ("mkfs.xfs", "xfsprogs"),
        },
    ];
    for (program, package) in programs {
        if find(program).is_none() {
            missing.push(format!("no {program} (Debian package {package})"));
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(RigError::Missing(missing.join(", "))) }
}

/// Returns whether this process has `CAP_SYS_ADMIN`.
fn may_mount() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    capabilities.is_some_and(|capabilities| capabilities & CAP_SYS_ADMIN != 0)
}

/// A loop device over a file; detached when dropped.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    device: Option<PathBuf>,
}

impl LoopDevice {
    /// Attaches `file` to a free loop device.
    ///
    /// Never with direct I/O (`losetup --direct-io=on`): over a FUSE file it has corrupted ext4.
    ///
    /// # Errors
    /// If `losetup` fails, for instance because no loop device is free.
    pub(crate) fn attach(file: &Path) -> Result<Self, RigError> {
        let options = ["--find", "--show"].map(OsStr::new);
        let device = run("losetup", &[options[0], options[1], file.as_os_str()])?;
        Ok(LoopDevice { device: Some(PathBuf::from(device)) })
    }

    /// Returns the path of the device, such as `/dev/loop0`.
    pub(crate) fn path(&self) -> &Path {
        self.device.as_deref().unwrap_or(Path::new(""))
    }

    /// Detaches the device.
    ///
    /// # Errors
    /// If `losetup` fails.
    pub(crate) fn detach(mut self) -> Result<(), RigError> {
        self.detach_once()
    }

    fn detach_once(&mut self) -> Result<(), RigError> {
        match self.device.take() {
            Some(device) => run("losetup", &["--detach".as_ref(), device.as_ref()]).map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Err(error) = self.detach_once() {
            eprintln!("highwater-crash: {error}");
        }
    }
}

/// Makes an empty file system on the device or file at `path`.
///
/// # Errors
/// If `mkfs` fails.
pub(crate) fn make_file_system(file_system: FileSystem, path: &Path) -> Result<(), RigError> {
    let options = file_system.maker_options().iter().map(OsStr::new);
    let arguments: Vec<&OsStr> = options.chain([path.as_os_str()]).collect();
    run(file_system.maker(), &arguments).map(drop)
}

/// A mounted file system on a loop device; unmounted and detached when dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    directory: Option<PathBuf>,
    device: Option<LoopDevice>,
}

impl Mount {
    /// Attaches `file` and mounts it, with the default options, at the new directory `directory`.
    ///
    /// # Errors
    /// If the system refuses: after a power cut that means the file system was destroyed.
    pub(crate) fn new(
        file_system: FileSystem,
        file: &Path,
        directory: &Path,
    ) -> Result<Self, RigError> {
        let device = LoopDevice::attach(file)?;
        std::fs::create_dir(directory)
            .map_err(|error| RigError::io(format!("making {}", directory.display()), error))?;
        let how = ["-t", file_system.name(), "-o", file_system.mount_options()].map(OsStr::new);
        let places = [device.path().as_os_str(), directory.as_os_str()];
        if let Err(error) = run("mount", &[&how[..], &places[..]].concat()) {
            // The mount's own error is the one to tell.
            let _left = std::fs::remove_dir(directory);
            return Err(error);
        }
        Ok(Mount { directory: Some(directory.to_owned()), device: Some(device) })
    }

    /// Returns the directory it is mounted at.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.as_deref().unwrap_or(Path::new(""))
    }

    /// Unmounts and detaches.
    ///
    /// # Errors
    /// If `umount` or `losetup` fails, for instance because a file is still open.
    pub(crate) fn unmount(mut self) -> Result<(), RigError> {
        self.unmount_once()
    }

    fn unmount_once(&mut self) -> Result<(), RigError> {
        let Some(directory) = self.directory.take() else { return Ok(()) };
        let result = unmount_patiently(&directory);
        let removed = std::fs::remove_dir(&directory)
            .map_err(|error| RigError::io(format!("removing {}", directory.display()), error));
        let detached = self.device.take().map_or(Ok(()), LoopDevice::detach);
        result.and(removed).and(detached)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.unmount_once() {
            eprintln!("highwater-crash: {error}");
        }
    }
}
