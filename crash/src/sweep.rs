//! Leaving nothing behind: the directory of a run, its guard, and the sweep of dead runs.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::error::RigError;

/// How the names of run directories begin; a name not yet complete has a dot before it.
const PREFIX: &str = "highwater-crash.";

/// Cleans up after a dead run; both the guard and the sweep use it.
const CLEAN: &str = include_str!("clean.sh");

/// The directory of one run, with a lock that shows that the run lives; removed when dropped.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
    lock: File,
}

impl RunDirectory {
    /// Makes a new directory in the system's temporary directory.
    pub(crate) fn create() -> Result<Self, RigError> {
        create().map_err(|error| RigError::io("making a directory for the run", error))
    }

    /// Returns the path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes the `/proc` directory of the thread that serves the device.
    pub(crate) fn note_thread(&self, thread: &Path) -> Result<(), RigError> {
        (&self.lock)
            .write_all(thread.as_os_str().as_bytes())
            .map_err(|error| RigError::io("writing the lock file", error))
    }

    /// Returns where the recording device is mounted.
    pub(crate) fn device(&self) -> PathBuf {
        self.path.join("device")
    }

    /// Returns where the `number`th file system is mounted.
    pub(crate) fn mount(&self, number: usize) -> PathBuf {
        self.path.join(format!("mount{number}"))
    }
}

fn create() -> io::Result<RunDirectory> {
    let temporary = std::env::temp_dir().canonicalize()?;
    let random = highwater_io::random::kernel_u64();
    let name = format!("{PREFIX}{}-{random:016x}", std::process::id());
    // It gets its name when it is locked, so that no sweep takes it for dead.
    let unnamed = temporary.join(format!(".{name}"));
    let path = temporary.join(name);
    DirBuilder::new().mode(0o700).create(&unnamed)?;
    std::fs::create_dir(unnamed.join("device"))?;
    let lock = File::create_new(unnamed.join("lock"))?;
    lock.lock()?;
    std::fs::rename(&unnamed, &path)?;
    Ok(RunDirectory { path, lock })
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        let directories = [self.device(), self.path.clone()];
        let removed = std::fs::remove_dir(&directories[0])
            .and_then(|()| std::fs::remove_file(self.path.join("lock")))
            .and_then(|()| std::fs::remove_dir(&directories[1]));
        if let Err(error) = removed {
            eprintln!("highwater-crash: left over: {}: {error}", self.path.display());
        }
        // Closing the file would do it too; this says why it was kept.
        let _unlocked = self.lock.unlock();
    }
}

/// A process that cleans up when this one dies without doing so; ended when dropped.
///
/// It is more than tidiness. A killed process whose thread waits for its own device waits for
/// ever: the device's thread is dead, and its connection stays open as long as the process does.
/// The guard sees the device's thread end and breaks the connection.
#[derive(Debug)]
pub(crate) struct Guard {
    child: Child,
}

impl Guard {
    /// Starts the guard of `directory`; `thread` goes away when the device stops serving.
    pub(crate) fn start(directory: &Path, thread: &Path) -> Result<Self, RigError> {
        clean(directory, thread)
            .process_group(0) // a signal to this process's group must not end it
            .spawn()
            .map(|child| Guard { child })
            .map_err(|error| RigError::io("starting the guard", error))
    }

    /// Returns its process number.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It is gone already only if it has done its work.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

fn clean(directory: &Path, thread: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", CLEAN, "highwater-crash-clean"]).args([directory, thread]);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Takes away what dead runs of the rig left mounted, attached or lying about, and returns the
/// directories of those runs. Runs that live are left alone.
///
/// # Errors
/// If the temporary directory cannot be read, or the shell cannot be started.
pub fn sweep() -> Result<Vec<PathBuf>, RigError> {
    sweep_all().map_err(|error| RigError::io("sweeping up after earlier runs", error))
}

fn sweep_all() -> io::Result<Vec<PathBuf>> {
    let temporary = std::env::temp_dir().canonicalize()?;
    let mut swept = Vec::new();
    for entry in std::fs::read_dir(&temporary)? {
        let entry = entry?;
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if ours && is_private(&entry.path())? && is_dead(&entry.path())? {
            clean(&entry.path(), Path::new("")).status()?;
            swept.push(entry.path());
        }
    }
    Ok(swept)
}

/// Returns whether it is a directory that this user made: nobody else may say what to unmount.
fn is_private(path: &Path) -> io::Result<bool> {
    let made = match path.symlink_metadata() {
        Ok(made) => made,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let own = std::fs::metadata("/proc/self")?.uid();
    Ok(made.is_dir() && made.uid() == own && made.permissions().mode() & 0o077 == 0)
}

/// Returns whether nobody holds the lock of a run's directory any more, or only a process without
/// its device: one that was killed while it waited for that device, and so cannot end.
fn is_dead(path: &Path) -> io::Result<bool> {
    let mut file = match File::open(path.join("lock")) {
        Ok(file) => file,
        // Half removed by a clean-up that was cut short.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => {
            let mut thread = String::new();
            file.read_to_string(&mut thread)?;
            Ok(!thread.is_empty() && !Path::new(&thread).exists())
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}
