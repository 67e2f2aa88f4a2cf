//! The engine as most use it: a shard on its own thread, handles for everyone.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use highwater_io::clock::monotonic_now;
use highwater_io::system::SystemPlatform;
use highwater_io::threads::InlineIo;
use highwater_io::{Backend, Io, Platform, Wait};
use highwater_segment::{LogId, Offset, RecordBatch};

use crate::ack::Ack;
use crate::control::Control;
use crate::core::{DetachReason, DetachedLog};
use crate::error::{Error, ErrorKind, Result};
use crate::mailbox::{Mailbox, Message, Refused};
use crate::marks::{Isolation, Marks};
use crate::metrics::{EngineMetrics, LogMetrics};
use crate::opening::OpenedLog;
use crate::options::{LogOptions, LogSettings, MAX_LOGS, Options};
use crate::permit::Reserve;
use crate::reader::Reader;
use crate::receipt::{Promise, Receipt, ReceiptCell};
use crate::report::{LogReport, RecoveryReport};
use crate::shard::{Command, LogIndex, Runner};
use crate::shared::LogShared;
use crate::watch::Watcher;

/// An open engine: one directory, its logs, and the thread that writes them.
///
/// Dropping it and every [`Log`] of it stops the thread and waits for what is in flight, but counts
/// as a crash: the logs are not marked clean. [`close`](Self::close) is the orderly end.
#[derive(Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Gone once the engine is closed: it shares the directory's lock.
    control: Mutex<Option<Control<InlineIo>>>,
    platform: SystemPlatform,
    mailbox: Arc<Mailbox>,
    thread: Mutex<Option<JoinHandle<()>>>,
    logs: Mutex<BTreeMap<String, LogEntry>>,
    recovery: RecoveryReport,
    backend: Backend,
}

#[derive(Clone, Debug)]
struct LogEntry {
    index: LogIndex,
    shared: Arc<LogShared>,
    log_id: LogId,
    directory: PathBuf,
    segment_bytes: u64,
    never_rewrite_flushed: bool,
    settings: LogSettings,
    report: LogReport,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
        let mailbox = Arc::new(Mailbox::new(options.queue_batches, options.queue_bytes));
        let (backend, thread) = start_shard(&platform, &options, &mailbox)?;
        let opened = control.lock_root().and_then(|()| control.open_all());
        let (opened, recovery) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                stop_shard(&mailbox, thread);
                return Err(error);
            }
        };
        let inner = Inner {
            control: Mutex::new(Some(control)),
            platform,
            mailbox,
            thread: Mutex::new(Some(thread)),
            logs: Mutex::new(BTreeMap::new()),
            recovery,
            backend,
        };
        for log in opened {
            inner.attach_new(log, LogSettings::default())?;
        }
        Ok(Engine { inner: Arc::new(inner) })
    }

    /// Returns what opening found and did, log by log.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.inner.recovery
    }

    /// Returns which backend serves the shard.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.inner.backend
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
    /// [`ErrorKind::Config`] for a bad name or options that differ from what the log was made
    /// with; [`ErrorKind::Corrupt`] if its `log.meta` is lost; [`ErrorKind::Full`];
    /// [`ErrorKind::Io`].
    pub fn log(&self, name: &str, options: LogOptions) -> Result<Log> {
        options.validate()?;
        let mut guard = lock(&self.inner.control);
        let Some(control) = guard.as_mut() else { return Err(stopped("open a log")) };
        let known = lock(&self.inner.logs).get(name).cloned();
        if let Some(entry) = known {
            entry.check_options(name, &options)?;
            self.inner.set_settings(name, &entry, LogSettings::from(&options));
            return Ok(Log { inner: Arc::clone(&self.inner), name: name.to_owned(), entry });
        }
        if lock(&self.inner.logs).len() >= MAX_LOGS {
            return Err(Error::new(ErrorKind::Config, "open log", name)
                .detail(format!("an engine holds at most {MAX_LOGS} logs")));
        }
        let opened = control.open(name, &options, None)?;
        let entry = self.inner.attach_new(opened, LogSettings::from(&options))?;
        Ok(Log { inner: Arc::clone(&self.inner), name: name.to_owned(), entry })
    }

    /// Returns the names of the open logs, sorted.
    #[must_use]
    pub fn log_names(&self) -> Vec<String> {
        lock(&self.inner.logs).keys().cloned().collect()
    }

    /// Returns what the engine did since it was opened, log by log.
    ///
    /// *Blocking*: until the shard's next turn.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`].
    pub fn metrics(&self) -> Result<EngineMetrics> {
        self.inner.metrics()
    }

    /// Writes out and flushes everything, marks every log clean and stops the thread.
    ///
    /// *Blocking*: until all is on stable media.
    ///
    /// # Errors
    /// The first error; the other logs are closed all the same. A poisoned or damaged log is not
    /// marked clean, and its error is returned.
    pub fn close(self) -> Result<()> {
        let entries: Vec<_> = lock(&self.inner.logs).clone().into_iter().collect();
        // With the control goes its share of the lock, also while handles to logs live on.
        let Some(mut control) = lock(&self.inner.control).take() else { return Ok(()) };
        let mut result = Ok(());
        for (name, entry) in entries {
            let closed = self
                .inner
                .detach(entry.index, DetachReason::Close)
                .and_then(|detached| control.close_log(&name, &detached));
            self.inner.mailbox.push_control(Message::Forget { log: entry.index });
            entry.shared.lookout.end();
            result = result.and(closed);
        }
        self.inner.stop();
        drop(control);
        result
    }
}

impl Inner {
    fn attach_new(&self, opened: OpenedLog, settings: LogSettings) -> Result<LogEntry> {
        let mut logs = lock(&self.logs);
        let index = LogIndex::try_from(logs.len()).unwrap_or(LogIndex::MAX);
        let entry = LogEntry {
            index,
            shared: Arc::clone(&opened.shared),
            log_id: opened.meta.log_id,
            directory: opened.directory.clone(),
            segment_bytes: opened.meta.segment_bytes,
            never_rewrite_flushed: opened.meta.never_rewrite_flushed,
            settings,
            report: opened.report.clone(),
        };
        let name = opened.report.name.clone();
        self.attach(index, opened, settings)?;
        logs.insert(name, entry.clone());
        Ok(entry)
    }

    fn attach(&self, log: LogIndex, opened: OpenedLog, settings: LogSettings) -> Result<()> {
        let command = Command::Attach { log, opened: Box::new(opened), settings };
        let sent = self.mailbox.push_control(Message::Command(command));
        if sent { Ok(()) } else { Err(stopped("open log")) }
    }

    /// The settings of a log are those its latest user asks for.
    fn set_settings(&self, name: &str, entry: &LogEntry, settings: LogSettings) {
        if settings != entry.settings
            && let Some(known) = lock(&self.logs).get_mut(name)
        {
            known.settings = settings;
            let command = Command::SetSettings { log: entry.index, settings };
            self.mailbox.push_control(Message::Command(command));
        }
    }

    fn metrics(&self) -> Result<EngineMetrics> {
        let (reply, answer) = sync_channel(1);
        if !self.mailbox.push_control(Message::Metrics { reply }) {
            return Err(stopped("ask for the metrics"));
        }
        answer.recv().map_err(|_| stopped("ask for the metrics"))
    }

    fn detach(&self, log: LogIndex, reason: DetachReason) -> Result<DetachedLog> {
        let (reply, answer) = sync_channel(1);
        if !self.mailbox.push_control(Message::Detach { log, reason, reply }) {
            return Err(stopped("close log"));
        }
        answer.recv().map_err(|_| stopped("close log"))
    }

    fn stop(&self) {
        if let Some(thread) = lock(&self.thread).take() {
            stop_shard(&self.mailbox, thread);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn stopped(operation: &'static str) -> Error {
    Error::new(ErrorKind::Closed, operation, "of this engine").detail("the engine is closed")
}

fn stop_shard(mailbox: &Mailbox, thread: JoinHandle<()>) {
    mailbox.push_control(Message::Stop);
    if thread.join().is_err() {
        // The panic was printed by its thread; every receipt was answered as it unwound.
        mailbox.stop();
    }
}

/// Starts the shard thread: makes its `Io` there and takes the lock.
fn start_shard(
    platform: &SystemPlatform,
    options: &Options,
    mailbox: &Arc<Mailbox>,
) -> Result<(Backend, JoinHandle<()>)> {
    let (started, answer) = sync_channel(1);
    let (platform, directory) = (platform.clone(), options.directory.clone());
    let tail_cache_bytes = options.tail_cache_bytes;
    let mailbox = Arc::clone(mailbox);
    let thread = highwater_io::thread::spawn("highwater-shard", move || {
        let guard = StopOnDrop(Arc::clone(&mailbox));
        let runner = platform.shard_io().map_err(Error::from_io).and_then(|io| {
            let mut runner = Runner::new(io, tail_cache_bytes);
            runner.lock(&directory)?;
            Ok(runner)
        });
        match runner {
            Ok(runner) => {
                mailbox.set_waker(runner.io.waker());
                if started.send(Ok(runner.io.backend())).is_ok() {
                    run_shard(runner, &mailbox);
                }
            }
            Err(error) => drop(started.send(Err(error))),
        }
        drop(guard);
    })?;
    match answer.recv() {
        Ok(Ok(backend)) => Ok((backend, thread)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(stopped("start the shard")),
    }
}

/// Whatever ends the shard thread, nobody goes on waiting for it.
struct StopOnDrop(Arc<Mailbox>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        for message in self.0.stop() {
            if let Message::Command(Command::Append { cell, .. } | Command::Flush { cell, .. }) =
                message
            {
                cell.ack(Err(stopped("append to a log")));
            }
        }
    }
}

fn run_shard<I: Io>(mut runner: Runner<I>, mailbox: &Mailbox) {
    // At most one for each caller of `detach`, who waits for the answer.
    let mut replies = BTreeMap::new();
    let mut messages = VecDeque::new();
    let mut commands = Vec::new();
    loop {
        mailbox.exchange(std::mem::take(&mut runner.shard.released_bytes), &mut messages);
        if !messages.is_empty() {
            runner.poll(Wait::No);
        } else if !runner.run_alone() {
            // One call starts what was submitted and waits for what comes first: the end of an
            // operation, a deadline, or somebody at the door.
            let wait = if mailbox.fall_asleep() { Wait::Forever } else { Wait::No };
            runner.poll(wait);
            mailbox.wake_up();
        }
        for message in messages.drain(..) {
            match message {
                Message::Command(command) => commands.push(command),
                Message::Detach { log, reason, reply } => {
                    commands.push(Command::Detach { log, reason });
                    replies.insert(log, reply);
                }
                Message::Forget { log } => runner.shard.forget(log),
                // A caller that gave up has no use for it.
                Message::Metrics { reply } => drop(reply.send(runner.metrics())),
                Message::Stop => return,
            }
        }
        runner.step(commands.drain(..));
        replies.retain(|log, reply| match runner.shard.take_detached(*log) {
            // A caller that gave up has no use for it.
            Some(detached) => {
                drop(reply.send(detached));
                false
            }
            // A log that is not here never will be: dropping the reply answers the caller.
            None => runner.shard.has(*log),
        });
    }
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

/// A handle to one log. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Log {
    inner: Arc<Inner>,
    name: String,
    entry: LogEntry,
}

impl Log {
    /// Returns the log's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the marks as last published.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.entry.shared.marks()
    }

    /// Returns a watcher that tells when the marks move.
    #[must_use]
    pub fn watch(&self) -> Watcher {
        Watcher::new(&self.entry.shared)
    }

    /// Returns the error that makes the log refuse appends, if there is one.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.entry.shared.lock().failure.clone()
    }

    /// Returns what opening this log found and did.
    #[must_use]
    pub fn recovery(&self) -> &LogReport {
        &self.entry.report
    }

    /// Returns what the log did since its engine was opened.
    ///
    /// *Blocking*: until the shard's next turn.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`].
    pub fn metrics(&self) -> Result<LogMetrics> {
        let metrics = self.inner.metrics()?.logs.remove(&self.name);
        metrics.ok_or_else(|| stopped("ask for the metrics"))
    }

    /// Appends a batch; its receipt tells when `ack` is met. Waits for room in the queue, drops
    /// nothing.
    ///
    /// *Durability*: what `ack` says, once the receipt says so; nothing before.
    /// *Blocking*: while the queue is full.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`], [`ErrorKind::NotEnoughReplicas`], [`ErrorKind::Closed`],
    /// [`ErrorKind::Poisoned`], [`ErrorKind::Corrupt`]: nothing was appended. Later errors come
    /// with the receipt.
    pub fn append(&self, batch: RecordBatch, ack: Ack) -> Result<Receipt> {
        self.check(&batch, ack)?;
        let (command, receipt) = self.append_command(batch, ack);
        match self.inner.mailbox.push(command, true) {
            Ok(()) => Ok(receipt),
            Err(Refused::Full(_) | Refused::Stopped(_)) => Err(stopped("append to a log")),
        }
    }

    /// Appends a batch if there is room in the queue now, or gives it back.
    ///
    /// # Errors
    /// As [`append`](Self::append), and [`ErrorKind::WouldBlock`]; the batch comes back in any
    /// case.
    ///
    /// # Panics
    /// If the queue gives back something else than it was given.
    pub fn try_append(
        &self,
        batch: RecordBatch,
        ack: Ack,
    ) -> std::result::Result<Receipt, (RecordBatch, Error)> {
        if let Err(error) = self.check(&batch, ack) {
            return Err((batch, error));
        }
        let (command, receipt) = self.append_command(batch, ack);
        let (command, error) = match self.inner.mailbox.push(command, false) {
            Ok(()) => return Ok(receipt),
            Err(Refused::Full(command)) => {
                let error = Error::new(ErrorKind::WouldBlock, "append to log", &self.name);
                (command, error.detail("its queue is full"))
            }
            Err(Refused::Stopped(command)) => (command, stopped("append to a log")),
        };
        match command {
            Command::Append { batch, .. } => Err((batch, error)),
            other => panic!("{other:?} is not what was sent"),
        }
    }

    /// Returns a future that gives room in the queue for one batch of `bytes`, as
    /// [`RecordBatch::disk_bytes`] counts them; appending with it never blocks. Who asks first is
    /// served first, blocked threads included.
    ///
    /// The future fails with [`ErrorKind::Closed`].
    pub fn reserve(&self, bytes: usize) -> Reserve {
        Reserve::new(self.clone(), bytes)
    }

    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.inner.mailbox
    }

    pub(crate) fn append_admitted(
        &self,
        batch: RecordBatch,
        ack: Ack,
        bytes: usize,
    ) -> Result<Receipt> {
        let (command, receipt) = self.append_command(batch, ack);
        match self.inner.mailbox.push_admitted(command, bytes) {
            Ok(()) => Ok(receipt),
            Err(_) => Err(stopped("append to a log")),
        }
    }

    fn append_command(&self, batch: RecordBatch, ack: Ack) -> (Command, Receipt) {
        let cell = ReceiptCell::new(monotonic_now());
        let promise = Promise::new(&cell);
        let receipt = Receipt { cell };
        let cell = promise;
        (Command::Append { log: self.entry.index, batch, ack, cell }, receipt)
    }

    pub(crate) fn check(&self, batch: &RecordBatch, ack: Ack) -> Result<()> {
        ack.check(1, &self.name)?;
        let room = self.entry.segment_bytes - highwater_segment::FIRST_BATCH.0;
        if batch.disk_bytes() > room {
            return Err(Error::new(ErrorKind::TooLarge, "append to log", &self.name)
                .detail(format!("a batch of {} bytes; a segment holds {room}", batch.disk_bytes()))
                .remedy("send smaller batches, or make a log with a larger segment_bytes"));
        }
        match self.failure() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Asks for a flush of everything appended before; the receipt's ack tells when it is done.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`].
    pub fn flush(&self) -> Result<Receipt> {
        let cell = ReceiptCell::new(monotonic_now());
        let promise = Promise::new(&cell);
        let receipt = Receipt { cell };
        let cell = promise;
        match self.inner.mailbox.push(Command::Flush { log: self.entry.index, cell }, true) {
            Ok(()) => Ok(receipt),
            Err(_) => Err(stopped("flush a log")),
        }
    }

    /// Reads from `offset` up to the mark that `isolation` names.
    ///
    /// # Errors
    /// [`ErrorKind::Trimmed`] below the log's start; [`ErrorKind::Io`].
    pub fn read(&self, offset: Offset, isolation: Isolation) -> Result<Reader<InlineIo>> {
        let io = self.inner.platform.control_io()?;
        let entry = &self.entry;
        let (directory, shared) = (entry.directory.clone(), Arc::clone(&entry.shared));
        Reader::new(io, directory, shared, entry.log_id, offset, isolation)
    }

    /// Removes everything from `to` on; a batch that `to` lies in goes whole. Appends queued
    /// before are written first, later ones wait. Begins a new epoch.
    ///
    /// *Durability*: when this returns the removed records will not come back, whatever happens.
    /// *Blocking*: until that is so.
    ///
    /// # Errors
    /// [`ErrorKind::Trimmed`] below the log's start; the log's failure; [`ErrorKind::Io`].
    pub fn truncate(&self, to: Offset) -> Result<Marks> {
        let shared = &self.entry.shared;
        self.maintain(|control, name, detached| match detached {
            Some(detached) => control.truncate_log(name, detached, to, shared),
            None => Err(self.failure().unwrap_or_else(|| stopped("truncate a log"))),
        })
    }

    /// Removes everything below `to`: raises the log's start. Segments that lie wholly below go,
    /// and are used again; the start itself can be any offset. Readers below it get
    /// [`ErrorKind::Trimmed`]. A `to` below the start changes nothing.
    ///
    /// *Durability*: what is removed is flushed first - a trim never moves the start above the
    /// flushed mark - and the new start is on stable media when this returns.
    /// *Blocking*: until that is so; appends go on meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] above the log's end; the log's failure; [`ErrorKind::Closed`].
    pub fn trim(&self, to: Offset) -> Result<Marks> {
        let cell = ReceiptCell::new(monotonic_now());
        let receipt = Receipt { cell: Arc::clone(&cell) };
        let cell = Promise::new(&cell);
        let command = Command::Trim { log: self.entry.index, to, cell };
        if !self.inner.mailbox.push_control(Message::Command(command)) {
            return Err(stopped("trim a log"));
        }
        receipt.wait().map(|trimmed| trimmed.marks)
    }

    /// Opens a poisoned log again, as after a crash of the process: recovers, and writes anew what
    /// a failed flush may have lost.
    ///
    /// # Errors
    /// What opening fails with; the log stays closed then.
    pub fn reopen(&self) -> Result<Marks> {
        self.maintain(|control, name, detached| {
            let rewrite_from = detached.and_then(DetachedLog::rewrite_from);
            control.open(name, &LogOptions::default(), rewrite_from)
        })
    }

    /// Takes the log from its shard, works on it on this thread, and gives it back.
    fn maintain(
        &self,
        work: impl FnOnce(&mut Control<InlineIo>, &str, Option<&DetachedLog>) -> Result<OpenedLog>,
    ) -> Result<Marks> {
        let mut guard = lock(&self.inner.control);
        let Some(control) = guard.as_mut() else { return Err(stopped("maintain a log")) };
        // A log that an earlier failure left closed is not in the shard.
        let detached = self.inner.detach(self.entry.index, DetachReason::Maintenance).ok();
        let worked = work(control, &self.name, detached.as_ref());
        // After a refused or failed piece of work the log is opened as it is.
        let (opened, error) = match worked {
            Ok(opened) => (opened, None),
            Err(error) => {
                let options = LogOptions::default();
                let rewrite_from = detached.as_ref().and_then(DetachedLog::rewrite_from);
                match control.open(&self.name, &options, rewrite_from) {
                    Ok(opened) => (opened, Some(error)),
                    Err(_) => {
                        self.entry.shared.lock().failure = Some(error.clone());
                        self.entry.shared.lookout.tell();
                        self.inner.mailbox.push_control(Message::Forget { log: self.entry.index });
                        return Err(error);
                    }
                }
            }
        };
        let opened = opened.into_shared(&self.entry.shared);
        let known = lock(&self.inner.logs).get(&self.name).map(|entry| entry.settings);
        let marks = opened.shared.marks();
        self.inner.attach(self.entry.index, opened, known.unwrap_or(self.entry.settings))?;
        error.map_or(Ok(marks), Err)
    }
}
