//! The engine as most use it: a shard on its own thread, handles for everyone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_io::system::SystemPlatform;
use highwater_io::threads::InlineIo;
use highwater_io::{Backend, Platform};
use highwater_segment::LogId;

use crate::control::Control;
use crate::core::{DetachReason, DetachedLog};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::mailbox::Message;
use crate::metrics::EngineMetrics;
use crate::number::{LogNumber, LogNumbers};
use crate::opening::OpenedLog;
use crate::options::{LogOptions, LogSettings, MAX_LOGS, Options, ShardId};
use crate::report::{LogReport, RecoveryReport};
use crate::rounds::{lies_on, shared_device};
use crate::shard::Command;
use crate::shards::Shards;
use crate::shared::LogShared;

/// An open engine: one directory, its logs, and the threads that write them.
///
/// Each log is owned by one *shard*, a thread that writes it and nothing else; there is one for
/// each core unless [`Options::shards`] says otherwise. A log has its shard by its name, or by
/// choice: [`LogOptions::shard`].
///
/// Dropping it and every [`Log`] of it stops the threads and waits for what is in flight, but
/// counts as a crash: the logs are not marked clean. [`close`](Self::close) is the orderly end.
/// (Where the last of them is dropped by a waker that a shard calls, that shard ends behind it.)
#[derive(Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    /// Gone once the engine is closed: it shares the directory's lock.
    pub(crate) control: Mutex<Option<Control<InlineIo>>>,
    pub(crate) platform: SystemPlatform,
    pub(crate) shards: Shards,
    /// What flush rounds flush.
    shared_device: Option<u64>,
    pub(crate) logs: Mutex<Logs>,
    recovery: RecoveryReport,
}

/// The open logs by their names.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    entries: BTreeMap<String, LogEntry>,
    /// Of each shard.
    numbers: Vec<LogNumbers>,
}

impl Logs {
    /// Returns the log of this name if it is the one with this number, and not a later one.
    pub(crate) fn same(&self, name: &str, entry: &LogEntry) -> Option<&LogEntry> {
        let same = |known: &&LogEntry| (known.shard, known.number) == (entry.shard, entry.number);
        self.entries.get(name).filter(same)
    }

    fn remove(&mut self, name: &str) -> Option<LogEntry> {
        let entry = self.entries.remove(name)?;
        self.numbers[usize::from(entry.shard.0)].give_back(entry.number);
        Some(entry)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct LogEntry {
    pub(crate) shard: ShardId,
    pub(crate) number: LogNumber,
    pub(crate) shared: Arc<LogShared>,
    pub(crate) log_id: LogId,
    pub(crate) directory: PathBuf,
    pub(crate) segment_bytes: u64,
    never_rewrite_flushed: bool,
    pub(crate) settings: LogSettings,
    pub(crate) report: LogReport,
    /// Nobody has asked for it yet, so nothing is queued for it.
    is_fresh: bool,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is changed by single assignments and inserts.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Opens the engine in a directory, making it if it is not there, and recovers every log in
    /// it. [`recovery`](Self::recovery) tells what that found and did.
    ///
    /// *Durability*: everything recovered is on stable media when this returns.
    /// *Blocking*: reads at most two segments of every log; waits up to 250 ms for the lock.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for bad options or a directory of somebody else's,
    /// [`ErrorKind::Io`] if the directory is locked, missing its parent, or not ours to write. A
    /// log that cannot be opened does not fail the engine; see [`RecoveryReport::failed`].
    pub fn open(options: Options) -> Result<Engine> {
        options.validate()?;
        let platform = SystemPlatform::new(options.backend);
        let mut control = Control::new(platform.control_io()?, &options.directory)?;
        let shared_device = shared_device(&platform, &options)?;
        let shards = Shards::start(&platform, &options, &control.device())?;
        control.lock_root()?;
        let (opened, recovery) = control.open_all_at_once(&platform)?;
        let numbers = (0..shards.len()).map(|_| LogNumbers::default()).collect();
        let inner = Inner {
            control: Mutex::new(Some(control)),
            platform,
            shards,
            shared_device,
            logs: Mutex::new(Logs { entries: BTreeMap::new(), numbers }),
            recovery,
        };
        for log in opened {
            let shard = inner.shards.of_name(&log.report.name);
            inner.attach_new(log, LogSettings::default(), shard, true)?;
        }
        Ok(Engine { inner: Arc::new(inner) })
    }

    /// Returns what opening found and did, log by log.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.inner.recovery
    }

    /// Returns which backend serves the shards.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.inner.shards.backend()
    }

    /// Returns how many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.inner.shards.len()
    }

    /// Returns why the preferred backend is not used, if it is not.
    #[must_use]
    pub fn backend_fallback_reason(&self) -> Option<String> {
        self.inner.platform.fallback_reason()
    }

    /// Returns a handle to the log `name`, making the log if it is not there. Asking again gives
    /// another handle to the same log, with the settings that are asked for now.
    ///
    /// *Durability*: a new log's name and `log.meta` are on stable media when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a bad name, options that differ from what the log was made with,
    /// or a new log beyond [`MAX_LOGS`]; [`ErrorKind::Corrupt`] if its `log.meta` is lost;
    /// [`ErrorKind::Full`]; [`ErrorKind::Io`].
    pub fn log(&self, name: &str, options: LogOptions) -> Result<Log> {
        options.validate()?;
        let mut guard = lock(&self.inner.control);
        let Some(control) = guard.as_mut() else { return Err(stopped("open a log")) };
        let shard = self.inner.shard_asked_for(name, &options)?;
        let known = lock(&self.inner.logs).entries.get(name).cloned();
        if let Some(mut entry) = known {
            entry.check_options(name, &options)?;
            if let Some(shard) = shard
                && shard != entry.shard
            {
                entry = self.inner.move_log(control, name, &entry, shard)?;
            }
            self.inner.take_over(name, &mut entry, LogSettings::from(&options));
            return Ok(Log { inner: Arc::clone(&self.inner), name: name.to_owned(), entry });
        }
        if lock(&self.inner.logs).entries.len() >= MAX_LOGS {
            return Err(Error::new(ErrorKind::Config, "open log", name)
                .detail(format!("an engine holds at most {MAX_LOGS} logs")));
        }
        let opened = control.open(name, &options, None)?;
        let shard = shard.unwrap_or_else(|| self.inner.shards.of_name(name));
        let entry = self.inner.attach_new(opened, LogSettings::from(&options), shard, false)?;
        Ok(Log { inner: Arc::clone(&self.inner), name: name.to_owned(), entry })
    }

    /// Closes one log: writes out and flushes everything of it, marks it clean, and gives back all
    /// that it held. Its handles are told that it is closed; [`log`](Self::log) opens it again.
    ///
    /// *Blocking*: until all is on stable media; other logs go on meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if no such log is open; otherwise the log's failure: it is closed all
    /// the same, and not marked clean.
    pub fn close_log(&self, name: &str) -> Result<()> {
        let mut guard = lock(&self.inner.control);
        let Some(control) = guard.as_mut() else { return Err(stopped("close a log")) };
        let Some(entry) = lock(&self.inner.logs).entries.get(name).cloned() else {
            return Err(Error::new(ErrorKind::Config, "close log", name)
                .detail("it is not open")
                .remedy("`Engine::log_names` lists those that are"));
        };
        let detached = self.inner.ask_to_detach(&entry, DetachReason::Close);
        self.inner.close_detached(control, name, &entry, detached)
    }

    /// Returns the names of the open logs, sorted.
    #[must_use]
    pub fn log_names(&self) -> Vec<String> {
        lock(&self.inner.logs).entries.keys().cloned().collect()
    }

    /// Returns what the engine did since it was opened, log by log.
    ///
    /// *Blocking*: until each shard's next turn, at most for ten seconds.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] while a shard waits for a disk that does not answer;
    /// [`ErrorKind::Closed`].
    pub fn metrics(&self) -> Result<EngineMetrics> {
        self.inner.shards.metrics()
    }

    /// Writes out and flushes everything, marks every log clean and stops the threads.
    ///
    /// *Blocking*: until all is on stable media.
    ///
    /// # Errors
    /// The first error; the other logs are closed all the same. A poisoned or damaged log is not
    /// marked clean, and its error is returned.
    pub fn close(self) -> Result<()> {
        let entries: Vec<_> = lock(&self.inner.logs).entries.clone().into_iter().collect();
        // With the control goes its share of the lock, also while handles to logs live on.
        let Some(mut control) = lock(&self.inner.control).take() else { return Ok(()) };
        // All are asked before the first is waited for: they flush beside each other.
        let ask = |(name, entry): (String, LogEntry)| {
            let detached = self.inner.ask_to_detach(&entry, DetachReason::Close);
            (name, entry, detached)
        };
        let asked: Vec<_> = entries.into_iter().map(ask).collect();
        let mut result = Ok(());
        for (name, entry, detached) in asked {
            let closed = self.inner.close_detached(&mut control, &name, &entry, detached);
            result = result.and(closed);
        }
        self.inner.shards.stop();
        drop(control);
        result
    }
}

impl Inner {
    fn attach_new(
        &self,
        opened: OpenedLog,
        settings: LogSettings,
        shard: ShardId,
        is_fresh: bool,
    ) -> Result<LogEntry> {
        let mut logs = lock(&self.logs);
        let entry = LogEntry {
            shard,
            number: logs.numbers[usize::from(shard.0)].take(),
            shared: Arc::clone(&opened.shared),
            log_id: opened.meta.log_id,
            directory: opened.directory.clone(),
            segment_bytes: opened.meta.segment_bytes,
            never_rewrite_flushed: opened.meta.never_rewrite_flushed,
            settings,
            report: opened.report.clone(),
            is_fresh,
        };
        let name = opened.report.name.clone();
        self.attach(&entry, opened, settings)?;
        logs.entries.insert(name, entry.clone());
        Ok(entry)
    }

    pub(crate) fn attach(
        &self,
        entry: &LogEntry,
        mut opened: OpenedLog,
        settings: LogSettings,
    ) -> Result<()> {
        opened.may_join_rounds = lies_on(&self.platform, self.shared_device, &opened.directory);
        let command = Command::Attach { log: entry.number, opened: Box::new(opened), settings };
        let sent = self.shards.mailbox(entry.shard).push_control(Message::Command(command));
        if sent { Ok(()) } else { Err(stopped("open log")) }
    }

    fn shard_asked_for(&self, name: &str, options: &LogOptions) -> Result<Option<ShardId>> {
        let (asked, shards) = (options.shard, self.shards.len());
        if asked.is_some_and(|shard| usize::from(shard.0) >= shards) {
            return Err(Error::new(ErrorKind::Config, "open log", name)
                .detail(format!("there are {shards} shards, numbered from 0"))
                .remedy("choose one of them, or open the engine with more"));
        }
        Ok(asked)
    }

    /// Gives a log that nobody has asked for yet to another shard: it is opened once more, there.
    fn move_log(
        &self,
        control: &mut Control<InlineIo>,
        name: &str,
        entry: &LogEntry,
        to: ShardId,
    ) -> Result<LogEntry> {
        if !entry.is_fresh {
            return Err(Error::new(ErrorKind::Config, "open log", name)
                .detail(format!("its shard is {}; it has handles already", entry.shard))
                .remedy("choose the shard where the log is first asked for, or close it first"));
        }
        let detached = self.detach(entry, DetachReason::Maintenance).ok();
        self.shards.mailbox(entry.shard).push_control(Message::Forget { log: entry.number });
        lock(&self.logs).remove(name);
        if let Some(detached) = &detached {
            control.note_left(name, detached);
        }
        let rewrite_from = detached.as_ref().and_then(DetachedLog::rewrite_from);
        let opened = control.open(name, &LogOptions::default(), rewrite_from)?;
        self.attach_new(opened, entry.settings, to, true)
    }

    /// The settings of a log are those its latest user asks for.
    fn take_over(&self, name: &str, entry: &mut LogEntry, settings: LogSettings) {
        let changed = settings != entry.settings;
        entry.settings = settings;
        entry.is_fresh = false;
        if let Some(known) = lock(&self.logs).entries.get_mut(name) {
            *known = entry.clone();
        }
        if changed {
            let command = Command::SetSettings { log: entry.number, settings };
            self.shards.mailbox(entry.shard).push_control(Message::Command(command));
        }
    }

    /// Asks for a log to leave its shard; `None` if the shard has stopped.
    fn ask_to_detach(
        &self,
        entry: &LogEntry,
        reason: DetachReason,
    ) -> Option<Receiver<DetachedLog>> {
        let (reply, answer) = sync_channel(1);
        let message = Message::Detach { log: entry.number, reason, reply };
        self.shards.mailbox(entry.shard).push_control(message).then_some(answer)
    }

    pub(crate) fn detach(&self, entry: &LogEntry, reason: DetachReason) -> Result<DetachedLog> {
        let answer = self.ask_to_detach(entry, reason);
        let detached = answer.and_then(|answer| answer.recv().ok());
        detached.ok_or_else(|| stopped("close log"))
    }

    /// Marks a log clean that was asked to leave its shard for good, and forgets it.
    fn close_detached(
        &self,
        control: &mut Control<InlineIo>,
        name: &str,
        entry: &LogEntry,
        detached: Option<Receiver<DetachedLog>>,
    ) -> Result<()> {
        let detached = detached.and_then(|answer| answer.recv().ok());
        let closed = match detached {
            Some(detached) => {
                control.note_left(name, &detached);
                let closed = control.close_log(name, &detached);
                if let Err(error) = &closed {
                    control.note_failed_close(name, error, detached.rewrite_from());
                }
                closed
            }
            // An earlier failure left it closed.
            None => Err(failure_of(&entry.shared).unwrap_or_else(|| stopped("close log"))),
        };
        let gone = Error::new(ErrorKind::Closed, "use log", name).detail("the log is closed");
        entry.shared.lock().failure.get_or_insert(gone);
        self.shards.mailbox(entry.shard).push_control(Message::Forget { log: entry.number });
        entry.shared.lookout.end();
        lock(&self.logs).remove(name);
        closed
    }
}

fn failure_of(shared: &LogShared) -> Option<Error> {
    shared.lock().failure.clone()
}

pub(crate) fn stopped(operation: &'static str) -> Error {
    Error::new(ErrorKind::Closed, operation, "of this engine").detail("the engine is closed")
}

impl LogEntry {
    fn check_options(&self, name: &str, options: &LogOptions) -> Result<()> {
        let size_differs = options.segment_bytes.is_some_and(|asked| asked != self.segment_bytes);
        let mode = options.never_rewrite_flushed;
        if size_differs || mode.is_some_and(|asked| asked != self.never_rewrite_flushed) {
            return Err(Error::new(ErrorKind::Config, "open log", name)
                .detail(format!(
                    "it was made with segment_bytes {} and never_rewrite_flushed {}",
                    self.segment_bytes, self.never_rewrite_flushed
                ))
                .remedy("leave the options out, or make another log"));
        }
        Ok(())
    }
}
