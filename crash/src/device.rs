//! Block devices in memory that log what they are asked to do, seen by the system as files.
//!
//! A [`Recorder`] is a FUSE file system whose files are [`Disk`]s. The loop driver makes a block
//! device of such a file; it serves a write of the device by writing the file and a flush of the
//! device by `fsync` of the file. No cache stands in between: the file is opened `direct_io`, so
//! an event is logged while the request is served, before the device answers the file system.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use fuser::{Config, MountOption, Session, SessionUnmounter};

use crate::command::unmount_patiently;
use crate::error::RigError;
use crate::fuse::Server;
use crate::image::Image;
use crate::replay::{Event, Mark, Recording};

/// The most bytes one disk logs; beyond it writes fail with `ENOSPC`.
pub const LOGGED_BYTES_MAX: usize = 4 << 30;

/// Tells how far a device's log has come.
pub trait Marker: Sync {
    /// Returns the number of events logged so far: taken after an acknowledgement, everything the
    /// acknowledgement promises must survive a cut at this mark or later.
    fn mark(&self) -> Mark;
}

/// A request the disk does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The range is not inside the image.
    Outside,
    /// The log is full.
    LogFull,
    /// It was told to fail: see [`Disk::fail`].
    Failing,
    /// It was told to have no space left: see [`Disk::fail`].
    NoSpace,
}

/// How a disk fails until it is told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// Every write and every flush ends with an error of the device (`EIO`); nothing is written.
    Device,
    /// As `Device`, but the error is that there is no space (`ENOSPC`), as a thin disk's.
    NoSpace,
    /// Writes work, flushes end with an error of the device.
    Flushes,
}

/// A disk's contents and log.
#[derive(Debug)]
pub(crate) struct DiskState {
    start: Image,
    image: Image,
    events: Vec<Event>,
    logged_bytes: usize,
    failing: Option<Failing>,
}

impl DiskState {
    fn new(start: Image) -> Self {
        DiskState {
            image: start.clone(),
            start,
            events: Vec::new(),
            logged_bytes: 0,
            failing: None,
        }
    }

    fn may_write(&self) -> Result<(), Refused> {
        match self.failing {
            None | Some(Failing::Flushes) => Ok(()),
            Some(Failing::Device) => Err(Refused::Failing),
            Some(Failing::NoSpace) => Err(Refused::NoSpace),
        }
    }

    /// Returns the size of the disk in bytes.
    pub(crate) fn size(&self) -> usize {
        self.image.size()
    }

    /// Returns up to `length` bytes from `position`, fewer at the end of the disk.
    pub(crate) fn read(&self, position: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length.min(self.size().saturating_sub(position))];
        if !bytes.is_empty() {
            self.image.read(position, &mut bytes);
        }
        bytes
    }

    /// Writes and logs `bytes` at `position`.
    pub(crate) fn write(&mut self, position: usize, bytes: &[u8]) -> Result<(), Refused> {
        self.may_write()?;
        if !self.image.contains(position, bytes.len()) {
            return Err(Refused::Outside);
        }
        if self.logged_bytes + bytes.len() > LOGGED_BYTES_MAX {
            return Err(Refused::LogFull);
        }
        self.logged_bytes += bytes.len();
        self.image.write(position, bytes);
        self.events.push(Event::Write { position, bytes: bytes.into() });
        Ok(())
    }

    /// Zeroes and logs a range.
    pub(crate) fn zero(&mut self, position: usize, length: usize) -> Result<(), Refused> {
        self.may_write()?;
        if !self.image.contains(position, length) {
            return Err(Refused::Outside);
        }
        self.image.zero(position, length);
        self.events.push(Event::Zero { position, length });
        Ok(())
    }

    /// Logs a flush.
    pub(crate) fn flush(&mut self) -> Result<(), Refused> {
        self.may_write()?;
        if self.failing.is_some() {
            return Err(Refused::Failing);
        }
        self.events.push(Event::Flush);
        Ok(())
    }
}

/// Locks, also after a panic elsewhere: no panic leaves these values half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disks a [`Recorder`] serves, by number. Numbers are not used again.
#[derive(Debug, Default)]
pub(crate) struct Table {
    disks: Mutex<Disks>,
}

#[derive(Debug, Default)]
struct Disks {
    next_number: u64,
    by_number: BTreeMap<u64, Arc<Mutex<DiskState>>>,
}

impl Table {
    fn insert(&self, state: Arc<Mutex<DiskState>>) -> u64 {
        let mut disks = lock(&self.disks);
        let number = disks.next_number;
        disks.next_number += 1;
        disks.by_number.insert(number, state);
        number
    }

    fn remove(&self, number: u64) {
        lock(&self.disks).by_number.remove(&number);
    }

    /// Returns the disk with this number.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<Mutex<DiskState>>> {
        lock(&self.disks).by_number.get(&number).cloned()
    }

    /// Returns the numbers of all disks.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        lock(&self.disks).by_number.keys().copied().collect()
    }
}

/// Returns the file name of a disk.
pub(crate) fn file_name(number: u64) -> String {
    format!("image{number}")
}

/// One recording block device: a file of the [`Recorder`] that made it, gone when dropped.
#[derive(Debug)]
pub struct Disk {
    state: Arc<Mutex<DiskState>>,
    table: Arc<Table>,
    number: u64,
    path: PathBuf,
}

impl Disk {
    /// Returns the path of the file, to be attached to a loop device.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the contents as they are now, cache and all: no power was cut.
    #[must_use]
    pub fn image(&self) -> Image {
        lock(&self.state).image.clone()
    }

    /// From now on the disk fails like this; with `None` it works again.
    pub fn fail(&self, failing: Option<Failing>) {
        lock(&self.state).failing = failing;
    }

    /// Returns the log up to now; the disk may be in use, and goes on logging.
    #[must_use]
    pub fn recording(&self) -> Recording {
        let state = lock(&self.state);
        Recording { start: state.start.clone(), events: state.events.clone() }
    }
}

impl Marker for Disk {
    fn mark(&self) -> Mark {
        Mark(lock(&self.state).events.len())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.table.remove(self.number);
    }
}

/// A mounted FUSE file system of [`Disk`]s; unmounted when dropped.
///
/// Drop it after everything that uses its files. The thread that serves requests is one of this
/// process, so a process must not be killed while one of its own threads waits for a disk:
/// see [`Rig`](crate::rig::Rig), which guards against that.
#[derive(Debug)]
pub struct Recorder {
    table: Arc<Table>,
    directory: PathBuf,
    unmounter: SessionUnmounter,
    thread: Option<JoinHandle<()>>,
    thread_directory: PathBuf,
}

impl Recorder {
    /// Mounts an empty recorder at `directory`, which must exist.
    ///
    /// # Errors
    /// If the system refuses the mount or another thread.
    pub fn mount(directory: &Path) -> Result<Self, RigError> {
        let table = Arc::new(Table::default());
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("highwater-crash".to_owned()),
            MountOption::DefaultPermissions,
            MountOption::NoDev,
            MountOption::NoSuid,
            MountOption::NoExec,
        ];
        let doing = || format!("mounting FUSE at {}", directory.display());
        let server = Server::new(Arc::clone(&table));
        let mut session = Session::new(server, directory, &config)
            .map_err(|error| RigError::io(doing(), error))?;
        let unmounter = session.unmount_callable();
        let (sender, receiver) = mpsc::channel();
        let serve = move || {
            // Whoever waits for the name has gone if it cannot be sent.
            let _unsent = sender.send(std::fs::read_link("/proc/thread-self"));
            if let Err(error) = session.run() {
                eprintln!("highwater-crash: the recording device stopped: {error}");
            }
        };
        let thread = highwater_io::thread::spawn("crash-device", serve)
            .map_err(|error| RigError::io(doing(), std::io::Error::other(error.to_string())))?;
        let name = receiver.recv().unwrap_or_else(|_| Err(std::io::ErrorKind::NotFound.into()));
        let name = name.map_err(|error| RigError::io("reading /proc/thread-self", error))?;
        Ok(Recorder {
            table,
            directory: directory.to_owned(),
            unmounter,
            thread: Some(thread),
            thread_directory: Path::new("/proc").join(name),
        })
    }

    /// Makes a new disk with the contents `start` and an empty log. Given the image of a
    /// [`Replay`](crate::replay::Replay), this is a second life.
    #[must_use]
    pub fn disk(&self, start: Image) -> Disk {
        let state = Arc::new(Mutex::new(DiskState::new(start)));
        let number = self.table.insert(Arc::clone(&state));
        let path = self.directory.join(file_name(number));
        Disk { state, table: Arc::clone(&self.table), number, path }
    }

    /// Returns the `/proc` directory of the serving thread: it goes when the thread does.
    pub(crate) fn thread_directory(&self) -> &Path {
        &self.thread_directory
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let unmounted = match self.unmounter.unmount() {
            Ok(()) => Ok(()),
            Err(_) => unmount_patiently(&self.directory),
        };
        if let Err(error) = unmounted {
            // Whoever still uses it would wait for the thread in vain if it were joined.
            eprintln!("highwater-crash: {error}");
        } else if let Some(thread) = self.thread.take() {
            // It ends when the kernel lets go of the mount. A panic of it has been printed.
            let _ended = thread.join();
        }
    }
}
