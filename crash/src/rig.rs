//! One run's worth of devices and mounts, cleaned up whatever happens.

use std::ffi::OsStr;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::command::{run, unmount_patiently};
use crate::device::{Disk, Recorder};
use crate::error::RigError;
use crate::image::{Image, wide};
use crate::mount::{FileSystem, LoopDevice, Mount, make_file_system, requirements};
use crate::sweep::{Guard, RunDirectory, sweep};

/// A recording device with an empty file system ready to be copied, and the place to mount it.
///
/// Dropping it unmounts everything. If the process dies without that - even by `SIGKILL`, even
/// while a thread waits for one of the disks - a guard process does it, and the next run sweeps
/// up what is left.
#[derive(Debug)]
pub struct Rig {
    // Dropped in this order.
    guard: Guard,
    recorder: Recorder,
    directory: RunDirectory,
    file_system: FileSystem,
    formatted: Image,
    mounts: AtomicUsize,
}

impl Rig {
    /// Sweeps up after dead runs, mounts a recorder and makes an empty file system.
    ///
    /// # Errors
    /// [`RigError::Missing`] where power cuts cannot be tested; others if the system fails.
    pub fn start(file_system: FileSystem) -> Result<Self, RigError> {
        requirements(file_system)?;
        sweep()?;
        let directory = RunDirectory::create()?;
        let recorder = Recorder::mount(&directory.device())?;
        directory.note_thread(recorder.thread_directory())?;
        let guard = Guard::start(directory.path(), recorder.thread_directory())?;
        let formatted = format(&recorder, file_system)?;
        let mounts = AtomicUsize::new(0);
        Ok(Rig { guard, recorder, directory, file_system, formatted, mounts })
    }

    /// Returns the file system it makes.
    #[must_use]
    pub fn file_system(&self) -> FileSystem {
        self.file_system
    }

    /// Returns the image of the empty file system.
    #[must_use]
    pub fn formatted(&self) -> &Image {
        &self.formatted
    }

    /// Makes a disk with the contents `start` and an empty log.
    #[must_use]
    pub fn disk(&self, start: Image) -> Disk {
        self.recorder.disk(start)
    }

    /// Mounts the file system on `disk`.
    ///
    /// # Errors
    /// If the system refuses: after a power cut that means the file system was destroyed.
    pub fn mount<'disk>(&'disk self, disk: &'disk Disk) -> Result<Mounted<'disk>, RigError> {
        let directory = self.directory.mount(self.mounts.fetch_add(1, Ordering::Relaxed));
        let mount = Mount::new(self.file_system, disk.path(), &directory)?;
        Ok(Mounted { mount, disk: PhantomData })
    }

    /// Makes the file system on a sparse file of its usual size, in a memory of only `bytes`, and
    /// mounts it: a thin disk, which is full before the file system on it knows.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn mount_thin(&self, bytes: u64) -> Result<Thin, RigError> {
        let directory = || self.directory.mount(self.mounts.fetch_add(1, Ordering::Relaxed));
        let memory = Memory::mount(&directory(), bytes)?;
        let image = memory.directory.join("image");
        std::fs::File::create_new(&image)
            .and_then(|file| file.set_len(wide(self.file_system.disk_bytes())))
            .map_err(|error| RigError::io("making an image", error))?;
        make_file_system(self.file_system, &image)?;
        let mount = Mount::new(self.file_system, &image, &directory())?;
        Ok(Thin { mount: Some(mount), file_system: self.file_system, memory })
    }

    /// Returns the process number of the guard, for messages and tests.
    #[must_use]
    pub fn guard_process(&self) -> u32 {
        self.guard.process()
    }
}

/// Makes an empty file system and returns its image.
fn format(recorder: &Recorder, file_system: FileSystem) -> Result<Image, RigError> {
    let disk = recorder.disk(Image::zeroed(file_system.disk_bytes()));
    let device = LoopDevice::attach(disk.path())?;
    make_file_system(file_system, device.path())?;
    device.detach()?;
    Ok(disk.image())
}

/// The file system of a [`Disk`], mounted; unmounted when dropped.
#[derive(Debug)]
pub struct Mounted<'disk> {
    mount: Mount,
    disk: PhantomData<&'disk Disk>,
}

impl Mounted<'_> {
    /// Returns the directory it is mounted at.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.mount.directory()
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// If the system refuses, for instance because a file is still open.
    pub fn unmount(self) -> Result<(), RigError> {
        self.mount.unmount()
    }
}

/// A file system on a thin disk, mounted; unmounted when dropped.
#[derive(Debug)]
pub struct Thin {
    // Dropped in this order.
    mount: Option<Mount>,
    file_system: FileSystem,
    memory: Memory,
}

impl Thin {
    /// Returns the directory it is mounted at.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.mount.as_ref().map_or(Path::new(""), Mount::directory)
    }

    /// Gives the disk so much memory.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn resize(&self, bytes: u64) -> Result<(), RigError> {
        let options = format!("remount,size={bytes}");
        let place = self.memory.directory.as_os_str();
        run("mount", &["-o".as_ref(), options.as_ref(), place]).map(drop)
    }

    /// Unmounts the file system and mounts it again.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn restart(&mut self) -> Result<(), RigError> {
        let Some(mount) = self.mount.take() else { return Ok(()) };
        let directory = mount.directory().to_owned();
        mount.unmount()?;
        let image = self.memory.directory.join("image");
        self.mount = Some(Mount::new(self.file_system, &image, &directory)?);
        Ok(())
    }
}

/// A small file system in memory; unmounted when dropped.
#[derive(Debug)]
struct Memory {
    directory: PathBuf,
}

impl Memory {
    fn mount(directory: &Path, bytes: u64) -> Result<Self, RigError> {
        std::fs::create_dir(directory)
            .map_err(|error| RigError::io(format!("making {}", directory.display()), error))?;
        let memory = Memory { directory: directory.to_owned() };
        let options = format!("size={bytes}");
        let words = ["-t", "tmpfs", "-o", &options, "highwater-crash"].map(OsStr::new);
        run("mount", &[&words[..], &[directory.as_os_str()]].concat())?;
        Ok(memory)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let unmounted = unmount_patiently(&self.directory);
        let removed = std::fs::remove_dir(&self.directory)
            .map_err(|error| RigError::io("removing a mount point", error));
        if let Err(error) = unmounted.and(removed) {
            eprintln!("highwater-crash: {error}");
        }
    }
}
