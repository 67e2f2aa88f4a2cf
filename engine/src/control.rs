//! What an engine does beside its shard, on the caller's own thread: its directory, opening,
//! closing, truncating.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use highwater_io::system::SystemPlatform;
use highwater_io::threads::InlineIo;
use highwater_io::{Blocking, EntryKind, Io, IoError, IoErrorKind, Platform};
use highwater_segment::meta::{META_FILE_NAME, Mark};

use crate::core::DetachedLog;
use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::names;
use crate::opening::{OpenedLog, POOL_DIRECTORY, Place, open_log, random_u128, was_never_made};
use crate::options::{LogOptions, MAX_LOGS, validate_name};
use crate::report::RecoveryReport;
use crate::shared::ReaderBudgets;

/// The most logs that are opened beside each other.
const OPENING_THREADS: usize = 16;

/// An engine's directory and the [`Io`] for work outside the shard.
#[derive(Debug)]
pub(crate) struct Control<I: Io> {
    pub(crate) io: Blocking<I>,
    pub(crate) root: PathBuf,
    incarnation: u128,
    /// The logs in the directory, open or not: as many as the next start opens. At most
    /// [`MAX_LOGS`].
    names: BTreeSet<String>,
    /// Logs that could not be opened since a write or flush of theirs failed, and what was flushed
    /// then: the next opening rewrites what lies behind before it believes it. At most one entry a
    /// log.
    suspect: BTreeMap<String, Mark>,
    /// What was flushed of the logs that left their shard. Should an opening of theirs fail, only
    /// what lies behind is written anew: a power cut can harm what is being rewritten, on devices
    /// that tear a sector.
    flushed: BTreeMap<String, Mark>,
    device: Arc<Device>,
    /// What the engine holds for readers.
    budgets: ReaderBudgets,
}

/// What an engine's directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RootKind {
    Missing,
    Empty,
    Ours,
}

/// Returns what `root` is; an error if it holds things that are not ours.
pub(crate) fn look_at_root<I: Io>(io: &mut Blocking<I>, root: &Path) -> Result<RootKind> {
    let entries = match io.list(root) {
        Ok(entries) => entries,
        Err(error) if error.kind == IoErrorKind::NotFound => return Ok(RootKind::Missing),
        Err(error) => return Err(error.into()),
    };
    if entries.is_empty() {
        return Ok(RootKind::Empty);
    }
    if entries.iter().any(|e| e.name == POOL_DIRECTORY && e.kind == EntryKind::Directory) {
        return Ok(RootKind::Ours);
    }
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Directory) {
        let inside = io.list(&root.join(&entry.name)).unwrap_or_default();
        if inside.iter().any(|file| file.name == META_FILE_NAME) {
            return Ok(RootKind::Ours);
        }
    }
    Err(Error::new(ErrorKind::Config, "use directory", &root.display().to_string())
        .detail("it holds files that are not Highwater's")
        .remedy("give an empty or a new directory"))
}

/// Returns the names of the logs in `root`, sorted.
pub(crate) fn log_names<I: Io>(io: &mut Blocking<I>, root: &Path) -> Result<Vec<String>> {
    let entries = io.list(root)?;
    let directories = entries.into_iter().filter(|entry| entry.kind == EntryKind::Directory);
    Ok(directories.map(|entry| entry.name).filter(|name| validate_name(name).is_ok()).collect())
}

impl<I: Io> Control<I> {
    /// Returns the control of the engine in `root`, which exists afterwards. The caller takes the
    /// lock before anything else.
    pub(crate) fn new(io: I, root: &Path) -> Result<Self> {
        let mut io = Blocking::new(io);
        if look_at_root(&mut io, root)? == RootKind::Missing {
            match io.create_directory(root) {
                Err(error) if error.kind == IoErrorKind::NotFound => {
                    return Err(Error::from_io(error).remedy("make its parent directory first"));
                }
                // Another process may just have made it; the lock decides who goes on.
                Err(error) if error.kind != IoErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            }
        }
        let incarnation = random_u128(&mut io);
        let (root, device) = (root.to_owned(), Device::new());
        let (suspect, flushed) = (BTreeMap::new(), BTreeMap::new());
        let (names, budgets) = (BTreeSet::new(), ReaderBudgets::default());
        Ok(Control { io, root, incarnation, names, suspect, flushed, device, budgets })
    }

    /// Returns what is known of the file system, for the shards.
    pub(crate) fn device(&self) -> Arc<Device> {
        Arc::clone(&self.device)
    }

    /// Joins the shard's lock - this `Io` writes too, and what it has in flight when the process is
    /// killed must hold the lock as well - and makes sure the directory is there for good.
    pub(crate) fn lock_root(&mut self) -> Result<()> {
        self.io.lock(&self.root)?;
        self.prepare_root()
    }

    /// Makes sure, under the lock, that the directory and its `.pool` are there for good: no log
    /// is made in a directory whose own name a power cut could take.
    fn prepare_root(&mut self) -> Result<()> {
        match self.io.create_directory(&self.root.join(POOL_DIRECTORY)) {
            Err(error) if error.kind != IoErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        // A read-only file system says "already exists" and "synced" as well, but lets nobody remove
        // even what is not there.
        match self.io.remove(&self.root.join(POOL_DIRECTORY).join("writable")) {
            Err(error) if error.kind != IoErrorKind::NotFound => {
                let (operation, path) = ("write to directory", self.root.clone());
                return Err(IoError { operation, path, ..error }.into());
            }
            _ => {}
        }
        self.io.sync_directory(&self.root)?;
        let parent = match self.root.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        match self.io.sync_directory(&parent) {
            // Not ours to sync (and not ours to have changed).
            Err(error) if error.kind == IoErrorKind::PermissionDenied => Ok(()),
            other => Ok(other?),
        }
    }

    /// Opens every log that is there, one after the other.
    pub(crate) fn open_all(&mut self) -> Result<(Vec<OpenedLog>, RecoveryReport)> {
        let names = self.names_synced()?;
        let mut results = Vec::new();
        for name in names {
            let place = place(&self.root, &name, self.incarnation, (&self.budgets, &self.device));
            let result = open_existing(&mut self.io, &place);
            if let Some(error) = result.as_ref().err().filter(|error| is_dead(error)) {
                return Err(error.clone());
            }
            results.push((name, result));
        }
        Ok(self.report(results))
    }

    /// Returns the names of the logs there are. They, and those in the pool, are durable: one sync
    /// for all logs.
    fn names_synced(&mut self) -> Result<Vec<String>> {
        self.io.sync_directory(&self.root)?;
        self.io.sync_directory(&self.root.join(POOL_DIRECTORY))?;
        let names = log_names(&mut self.io, &self.root)?;
        if names.len() > MAX_LOGS {
            let root = self.root.display().to_string();
            return Err(Error::new(ErrorKind::Config, "open directory", &root)
                .detail(format!("it holds {} logs, an engine at most {MAX_LOGS}", names.len()))
                .remedy("move some of them, whole, to another directory"));
        }
        self.names = names.iter().cloned().collect();
        Ok(names)
    }

    fn report(&mut self, results: Vec<(String, Opening)>) -> (Vec<OpenedLog>, RecoveryReport) {
        let mut report = RecoveryReport::default();
        let mut opened = Vec::new();
        for (name, result) in results {
            match result {
                Ok(Some(log)) => {
                    report.logs.push(log.report.clone());
                    opened.push(log);
                }
                // A creation cut short; it is made anew when it is asked for.
                Ok(None) => {}
                Err(error) => {
                    self.note_failure(&name, &error);
                    report.failed.push((name, error));
                }
            }
        }
        (opened, report)
    }

    /// Opens one log, or makes it.
    pub(crate) fn open(
        &mut self,
        name: &str,
        options: &LogOptions,
        rewrite_from: Option<Mark>,
    ) -> Result<OpenedLog> {
        validate_name(name)?;
        options.validate()?;
        self.check_count(name)?;
        let failures_before = self.device.failures();
        let directory = self.root.join(name);
        match self.io.create_directory(&directory) {
            // Its making was cut short, perhaps by a sync that failed and lost the name.
            Err(error) if error.kind == IoErrorKind::AlreadyExists => {
                if was_never_made(&mut self.io, &directory)? {
                    names::renew_directory(&mut self.io, &self.root, name)?;
                }
            }
            other => other?,
        }
        self.names.insert(name.to_owned());
        let mut rewrite_from = rewrite_from.or(self.suspect.get(name).copied());
        let mut result = self.open_once(name, options, rewrite_from);
        let is_own = result.as_ref().is_err_and(|error| error.io().is_some_and(is_failed_write));
        if self.device.failures() != failures_before && !is_own {
            // What it was told of its flushes is in doubt: what lies behind the mark is written
            // anew before it is believed, once.
            rewrite_from = Some(rewrite_from.unwrap_or(self.flushed_of(name)));
            result = self.open_once(name, options, rewrite_from);
        }
        match (&result, rewrite_from) {
            (Ok(_), _) => {
                self.suspect.remove(name);
                self.flushed.remove(name);
            }
            // Whatever this opening failed with: what failed before it is not mended yet.
            (Err(error), Some(mark)) => {
                self.note_failure(name, error);
                self.suspect.insert(name.to_owned(), mark);
            }
            (Err(error), None) => self.note_failure(name, error),
        }
        result
    }

    /// Refuses a new log if there are as many as the next start can open: also those count that are
    /// closed.
    fn check_count(&self, name: &str) -> Result<()> {
        if self.names.len() >= MAX_LOGS && !self.names.contains(name) {
            return Err(Error::new(ErrorKind::Config, "open log", name)
                .detail(format!(
                    "there are {MAX_LOGS} logs in its directory, the most there may be"
                ))
                .remedy("make it in another directory, with an engine of its own"));
        }
        Ok(())
    }

    /// Opens a log, or makes it; an error if the device fails meanwhile.
    fn open_once(
        &mut self,
        name: &str,
        options: &LogOptions,
        rewrite_from: Option<Mark>,
    ) -> Result<OpenedLog> {
        let known = (&self.budgets, &*self.device);
        let place =
            Place { parents_synced: false, ..place(&self.root, name, self.incarnation, known) };
        let opened = open_log(&mut self.io, &place, options, rewrite_from)?;
        place.check_device()?;
        Ok(opened)
    }

    /// Remembers a failed write or flush: the kernel reports it once and then says all is well.
    pub(crate) fn note_failure(&mut self, name: &str, error: &Error) {
        if let Some(io) = error.io()
            && is_failed_write(io)
        {
            self.note_doubt(name);
            self.device.note_failure(io);
        }
    }

    /// Has the next opening of a log write anew what lies behind what is known to be flushed.
    pub(crate) fn note_doubt(&mut self, name: &str) {
        let flushed = self.flushed_of(name);
        self.suspect.entry(name.to_owned()).or_insert(flushed);
    }

    /// Remembers what was flushed of a log that left its shard, until it is opened again.
    pub(crate) fn note_left(&mut self, name: &str, detached: &DetachedLog) {
        self.flushed.insert(name.to_owned(), detached.flushed);
    }

    /// Returns what this process knows to be flushed of a log that is not open; what `log.meta`
    /// says can be more, and counts then.
    fn flushed_of(&self, name: &str) -> Mark {
        self.flushed.get(name).copied().unwrap_or_default()
    }

    /// Remembers a log that could not be closed in order, for its next opening.
    pub(crate) fn note_failed_close(
        &mut self,
        name: &str,
        error: &Error,
        rewrite_from: Option<Mark>,
    ) {
        self.note_failure(name, error);
        if let Some(mark) = rewrite_from {
            self.suspect.insert(name.to_owned(), mark);
        }
    }

    pub(crate) fn incarnation(&self) -> u128 {
        self.incarnation
    }
}

/// Returns whether the device may have dropped what was not flushed: a write, a flush or a synced
/// name has failed, and that was the one report of it. A full disk refuses before that; and to sync
/// a directory takes a descriptor, without which the device is not asked.
pub(crate) fn is_failed_write(error: &IoError) -> bool {
    let writes = matches!(error.operation, "flush" | "write" | "sync directory");
    writes && error.kind != IoErrorKind::NoSpace && !error.is_not_opened()
}

/// What opening a log came to; `None`: there is nothing yet.
type Opening = Result<Option<OpenedLog>>;

/// Returns the failed write or flush that an opening ended with.
fn failed_write(result: &Opening) -> Option<&IoError> {
    result.as_ref().err().and_then(Error::io).filter(|error| is_failed_write(error))
}

fn place<'a>(
    root: &'a Path,
    name: &'a str,
    incarnation: u128,
    (budgets, device): (&'a ReaderBudgets, &'a Device),
) -> Place<'a> {
    let (parents_synced, failures_before) = (true, device.failures());
    Place { root, name, incarnation, budgets, parents_synced, device, failures_before }
}

/// Opens a log that is there.
fn open_existing<I: Io>(io: &mut Blocking<I>, place: &Place<'_>) -> Opening {
    if was_never_made(io, &place.directory())? {
        return Ok(None);
    }
    open_log(io, place, &LogOptions::default(), None).map(Some)
}

/// What the threads of one opening share.
struct Openings {
    root: PathBuf,
    incarnation: u128,
    budgets: ReaderBudgets,
    device: Arc<Device>,
    names: Vec<String>,
    next: AtomicUsize,
}

impl Openings {
    /// Opens logs until none is left.
    fn work(&self, io: &mut Blocking<InlineIo>) -> Vec<(usize, Opening)> {
        let mut results = Vec::new();
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = self.names.get(index) else { return results };
            let place = place(&self.root, name, self.incarnation, (&self.budgets, &self.device));
            let result = open_existing(io, &place);
            if let Some(error) = failed_write(&result) {
                // The openings beside it look before they believe their flushes.
                self.device.note_failure(error);
            }
            results.push((index, result));
        }
    }
}

/// The threads of one opening. However that ends - with one that could not be started, too - no log
/// is being opened behind it.
struct Running<T> {
    openings: Arc<Openings>,
    threads: Vec<JoinHandle<T>>,
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.openings.next.store(self.openings.names.len(), Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What they came to is of no use any more; a panic was printed by its thread.
            drop(thread.join());
        }
    }
}

impl Control<InlineIo> {
    /// Opens every log that is there, several beside each other: opening is mostly waiting for
    /// flushes, and a file system makes one of many that wait together.
    pub(crate) fn open_all_at_once(
        &mut self,
        platform: &SystemPlatform,
    ) -> Result<(Vec<OpenedLog>, RecoveryReport)> {
        let names = self.names_synced()?;
        let threads = OPENING_THREADS.min(names.len());
        let (root, incarnation, next) = (self.root.clone(), self.incarnation, AtomicUsize::new(0));
        let (budgets, device) = (self.budgets.clone(), self.device());
        let openings = Arc::new(Openings { root, incarnation, budgets, device, names, next });
        let mut running = Running { openings: Arc::clone(&openings), threads: Vec::new() };
        for _ in 1..threads {
            let (openings, io) = (Arc::clone(&openings), platform.control_io()?);
            running.threads.push(highwater_io::thread::spawn("highwater-open", move || {
                let mut io = Blocking::new(io);
                io.lock(&openings.root)?;
                Ok(openings.work(&mut io))
            })?);
        }
        let mut results = openings.work(&mut self.io);
        while let Some(thread) = running.threads.pop() {
            let worked: Result<_> = match thread.join() {
                Ok(worked) => worked,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            results.extend(worked?);
        }
        results.sort_by_key(|(index, _)| *index);
        let named = results.into_iter().map(|(index, result)| {
            let name = openings.names.get(index).cloned();
            (name.unwrap_or_default(), result)
        });
        let mut named: Vec<_> = named.collect();
        if named.iter().any(|(_, result)| failed_write(result).is_some()) {
            // The one report of a failing device may have come to a log it does not concern: what
            // the others were told meanwhile is in doubt. They are opened once more, and what lies
            // behind their marks is written anew.
            for (name, result) in &mut named {
                if failed_write(result).is_none() && !matches!(result, Ok(None)) {
                    self.suspect.entry(name.clone()).or_default();
                    *result = self.open(name, &LogOptions::default(), None).map(Some);
                }
            }
        }
        Ok(self.report(named))
    }
}

/// Whether the simulated process died: nothing more can be done, by anyone.
fn is_dead(error: &Error) -> bool {
    error.io().is_some_and(|io| io.kind == IoErrorKind::Dead)
}

#[cfg(test)]
mod tests;
