//! An engine without a thread: the caller drives the shard. The lowest-latency way in, and what
//! the simulator runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_io::{Backend, Io, Platform, Wait};
use highwater_segment::meta::Mark;
use highwater_segment::{LogMeta, Offset, ProducerId, RecordBatch};

use crate::ack::Ack;
use crate::control::Control;
use crate::core::{DetachReason, DetachedLog, queued_bytes};
use crate::error::{Error, ErrorKind, Result};
use crate::marks::{Isolation, Marks};
use crate::metrics::EngineMetrics;
use crate::number::{LogNumber, LogNumbers};
use crate::opening::{OpenedLog, check_options};
use crate::options::{LogOptions, LogSettings, MAX_LOGS, Options, ShardSettings};
use crate::producer::Producer;
use crate::reader::Reader;
use crate::receipt::{Appended, Promise, ReceiptCell};
use crate::report::{LogReport, RecoveryReport};
use crate::rounds::{lies_on, shared_device};
use crate::shard::{Command, Runner};
use crate::shared::LogShared;

/// A log of one [`LocalEngine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalLog(LogNumber);

/// The end of an append to come, of one [`LocalEngine`]. Dropping it cancels nothing.
#[derive(Clone, Debug)]
#[must_use = "an append is acked only when its ticket says so"]
pub struct Ticket {
    cell: Arc<ReceiptCell>,
}

impl Ticket {
    /// Returns the ack if it is there.
    #[must_use]
    pub fn acked(&self) -> Option<Result<Appended>> {
        self.cell.acked()
    }

    /// Returns the flush if it is there.
    #[must_use]
    pub fn flushed(&self) -> Option<Result<Appended>> {
        self.cell.flushed()
    }
}

/// An engine driven by its caller's thread. Nothing happens but inside its calls: while none is
/// made, nothing is written, flushed or acked, whatever policy a log has.
///
/// Dropping it waits for what is in flight and counts as a crash, as with
/// [`Engine`](crate::Engine); [`close`](Self::close) leaves clean logs.
///
/// ```
/// use highwater::{Ack, BackendChoice, LocalEngine, LogOptions, Options, RecordBatch};
/// use highwater::SystemPlatform;
///
/// # let directory = std::env::temp_dir().join(format!("highwater-local-{}", std::process::id()));
/// let platform = SystemPlatform::new(BackendChoice::Auto);
/// let mut engine = LocalEngine::open(platform, &Options::at(&directory))?;
/// let log = engine.log("orders", &LogOptions::default())?;
/// let batch = RecordBatch::builder().record(b"key", b"value").build()?;
/// let ticket = engine.append(log, batch, Ack::LEADER_FLUSHED)?;
/// let appended = engine.run_until(&ticket)?; // works on this thread until it is flushed
/// assert!(appended.marks.flushed >= appended.end_offset());
/// engine.close()?;
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LocalEngine<P: Platform> {
    platform: P,
    control: Control<P::ControlIo>,
    runner: Runner<P::ShardIo>,
    logs: BTreeMap<String, Entry>,
    numbers: LogNumbers,
    recovery: RecoveryReport,
    /// What flush rounds flush.
    shared_device: Option<u64>,
    queued_bytes: usize,
    queue_bytes_max: usize,
}

#[derive(Debug)]
struct Entry {
    log: LocalLog,
    shared: Arc<LogShared>,
    /// As it was first opened: for what never changes.
    meta: LogMeta,
    settings: LogSettings,
    report: LogReport,
}

impl<P: Platform> LocalEngine<P> {
    /// Opens the engine in a directory, as [`Engine::open`](crate::Engine::open) does.
    ///
    /// # Errors
    /// As there.
    pub fn open(platform: P, options: &Options) -> Result<Self> {
        options.validate()?;
        let mut control = Control::new(platform.control_io()?, &options.directory)?;
        let shared_device = shared_device(&platform, options)?;
        let io = platform.shard_io()?;
        let mut runner = Runner::new(io, ShardSettings::from(options), control.device());
        runner.lock(&options.directory)?;
        control.lock_root()?;
        let (opened, recovery) = control.open_all()?;
        let mut engine = LocalEngine {
            platform,
            control,
            runner,
            logs: BTreeMap::new(),
            numbers: LogNumbers::default(),
            recovery,
            shared_device,
            queued_bytes: 0,
            queue_bytes_max: options.queue_bytes,
        };
        for log in opened {
            engine.attach_new(log, LogSettings::default());
        }
        Ok(engine)
    }

    fn attach_new(&mut self, opened: OpenedLog, settings: LogSettings) -> LocalLog {
        let log = LocalLog(self.numbers.take());
        let entry = Entry {
            log,
            shared: Arc::clone(&opened.shared),
            meta: opened.meta.clone(),
            settings,
            report: opened.report.clone(),
        };
        self.logs.insert(opened.report.name.clone(), entry);
        self.attach(log, opened, settings);
        log
    }

    fn attach(&mut self, log: LocalLog, mut opened: OpenedLog, settings: LogSettings) {
        opened.may_join_rounds = lies_on(&self.platform, self.shared_device, &opened.directory);
        self.turn(Command::Attach { log: log.0, opened: Box::new(opened), settings }, Wait::No);
    }

    fn turn(&mut self, command: impl Into<Option<Command>>, wait: Wait) {
        self.runner.turn(command.into(), wait);
        self.take_released();
    }

    fn take_released(&mut self) {
        let released = self.runner.shard.released.drain();
        self.queued_bytes -= released.map(|(_, bytes)| bytes).sum::<usize>();
    }

    /// Returns what opening found and did, log by log.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// Returns which backend serves the shard.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.runner.io.backend()
    }

    /// Returns the log `name`, making it if it is not there, as
    /// [`Engine::log`](crate::Engine::log) does.
    ///
    /// # Errors
    /// As there.
    pub fn log(&mut self, name: &str, options: &LogOptions) -> Result<LocalLog> {
        options.validate()?;
        if let Some(entry) = self.logs.get_mut(name) {
            check_options(&entry.meta, options, name)?;
            let (log, settings) = (entry.log, LogSettings::from(options));
            if entry.settings != settings {
                entry.settings = settings;
                self.turn(Command::SetSettings { log: log.0, settings }, Wait::No);
            }
            return Ok(log);
        }
        if self.logs.len() >= MAX_LOGS {
            return Err(Error::new(ErrorKind::Config, "open log", name)
                .detail(format!("an engine holds at most {MAX_LOGS} logs")));
        }
        let opened = self.control.open(name, options, None)?;
        Ok(self.attach_new(opened, LogSettings::from(options)))
    }

    fn entry(&self, log: LocalLog) -> (&str, &Entry) {
        let found = self.logs.iter().find(|(_, entry)| entry.log == log);
        let Some((name, entry)) = found else { panic!("{log:?} is not of this engine") };
        (name, entry)
    }

    /// Returns the marks of a log.
    ///
    /// # Panics
    /// If `log` is of another engine, as everywhere here.
    #[must_use]
    pub fn marks(&self, log: LocalLog) -> Marks {
        self.entry(log).1.shared.marks()
    }

    /// Returns the error that makes the log refuse appends, if there is one.
    #[must_use]
    pub fn failure(&self, log: LocalLog) -> Option<Error> {
        self.entry(log).1.shared.lock().failure.clone()
    }

    /// Returns what the engine did since it was opened, log by log.
    pub fn metrics(&mut self) -> EngineMetrics {
        self.runner.metrics()
    }

    /// Returns what opening this log found and did.
    #[must_use]
    pub fn log_report(&self, log: LocalLog) -> &LogReport {
        &self.entry(log).1.report
    }

    /// Queues a batch and starts what can be started. Drives the shard until there is room.
    ///
    /// A durable write with nothing beside it is started by the next call that drives the engine:
    /// one that waits runs it on this thread, by blocking calls.
    ///
    /// *Durability*: as [`Log::append`](crate::Log::append), once the ticket says so.
    /// *Blocking*: while [`Options::queue_bytes`] of other appends wait.
    ///
    /// # Errors
    /// [`ErrorKind::NotEnoughReplicas`]; later ones come with the ticket.
    pub fn append(&mut self, log: LocalLog, batch: RecordBatch, ack: Ack) -> Result<Ticket> {
        ack.check(1, self.entry(log).0)?;
        let bytes = queued_bytes(Some(&batch));
        while self.queued_bytes > 0 && self.queued_bytes + bytes > self.queue_bytes_max {
            self.drive()?;
        }
        self.queued_bytes += bytes;
        let cell = ReceiptCell::new(self.runner.io.now());
        let ticket = Ticket { cell: Arc::clone(&cell) };
        let cell = Promise::new(&cell);
        self.runner.step(Some(Command::Append { log: log.0, batch, ack, cell }));
        if !self.runner.is_alone() {
            self.runner.poll(Wait::No);
            self.runner.step(None);
        }
        self.take_released();
        Ok(ticket)
    }

    /// Returns the idempotent producer `id`, ready to go on where the log is, as
    /// [`Log::producer`](crate::Log::producer) does.
    ///
    /// # Errors
    /// As there.
    pub fn producer(&self, log: LocalLog, id: ProducerId) -> Result<Producer> {
        let known = self.runner.shard.producer(log.0, id)?;
        Producer::resume(id, known.as_ref())
    }

    /// Asks for a flush of everything appended to the log before; the ticket's ack tells when it is
    /// done.
    pub fn flush(&mut self, log: LocalLog) -> Ticket {
        self.queued_bytes += queued_bytes(None);
        let cell = ReceiptCell::new(self.runner.io.now());
        let ticket = Ticket { cell: Arc::clone(&cell) };
        let cell = Promise::new(&cell);
        self.turn(Command::Flush { log: log.0, cell }, Wait::No);
        ticket
    }

    /// Asks to remove everything below `to`, as [`Log::trim`](crate::Log::trim) does; the ticket's
    /// ack tells when the new start is durable.
    pub fn trim(&mut self, log: LocalLog, to: Offset) -> Ticket {
        let cell = ReceiptCell::new(self.runner.io.now());
        let ticket = Ticket { cell: Arc::clone(&cell) };
        let cell = Promise::new(&cell);
        self.turn(Command::Trim { log: log.0, to, cell }, Wait::No);
        ticket
    }

    /// Drives the shard until the ticket's ack is there, and returns it.
    ///
    /// *Blocking*: until then.
    ///
    /// # Errors
    /// The ack's error; [`ErrorKind::Timeout`] if nothing is in flight that could bring it.
    pub fn run_until(&mut self, ticket: &Ticket) -> Result<Appended> {
        loop {
            if let Some(result) = ticket.acked() {
                return result;
            }
            self.drive()?;
        }
    }

    /// Drives the shard once: submits what can be submitted and takes what has completed.
    ///
    /// *Blocking*: at most for `timeout`, until something happens; not at all if it is zero.
    pub fn poll(&mut self, timeout: Duration) {
        let wait = if timeout.is_zero() { Wait::No } else { Wait::AtMost(timeout) };
        self.turn(None, wait);
    }

    /// One waiting turn; an error if there is nothing to wait for.
    fn drive(&mut self) -> Result<()> {
        if self.runner.run_alone() {
            self.runner.step(None);
            self.take_released();
            return Ok(());
        }
        if !self.runner.is_busy() && self.runner.shard.deadline().is_none() {
            self.turn(None, Wait::No);
            if !self.runner.is_busy() && self.runner.shard.deadline().is_none() {
                return Err(Error::new(ErrorKind::Timeout, "wait for", "an append")
                    .detail("nothing is in flight that could complete it"));
            }
        }
        self.turn(None, Wait::Forever);
        Ok(())
    }

    /// Reads from `offset` up to the mark that `isolation` names.
    ///
    /// # Errors
    /// As [`Log::read`](crate::Log::read).
    pub fn read(
        &self,
        log: LocalLog,
        offset: Offset,
        isolation: Isolation,
    ) -> Result<Reader<P::ReaderIo>> {
        let (name, entry) = self.entry(log);
        let directory = self.control.root.join(name);
        let io = self.platform.reader_io()?;
        let (shared, log_id) = (Arc::clone(&entry.shared), entry.meta.log_id);
        Reader::new(io, directory, shared, log_id, Some(offset), isolation)
    }

    /// Removes everything from `to` on, as [`Log::truncate`](crate::Log::truncate) does.
    ///
    /// # Errors
    /// As there.
    pub fn truncate(&mut self, log: LocalLog, to: Offset) -> Result<Marks> {
        let (name, detached) = self.detach(log, DetachReason::Maintenance)?;
        let shared = Arc::clone(&self.entry(log).1.shared);
        let Some(detached) = detached else { return Err(self.out_of_service(log)) };
        let worked = self.control.truncate_log(&name, &detached, to, &shared);
        self.give_back(&name, log, detached.rewrite_from(), worked)
    }

    /// Opens a log again that is poisoned, or that a failed [`truncate`](Self::truncate) or
    /// reopening left closed, as [`Log::reopen`](crate::Log::reopen) does.
    ///
    /// # Errors
    /// As there.
    pub fn reopen(&mut self, log: LocalLog) -> Result<Marks> {
        let (name, detached) = self.detach(log, DetachReason::Maintenance)?;
        let rewrite_from = detached.as_ref().and_then(DetachedLog::rewrite_from);
        let worked = self.control.open(&name, &LogOptions::default(), rewrite_from);
        self.give_back(&name, log, rewrite_from, worked)
    }

    /// Takes the log from its shard; `None` if an earlier failure left it closed.
    fn detach(
        &mut self,
        log: LocalLog,
        reason: DetachReason,
    ) -> Result<(String, Option<DetachedLog>)> {
        let name = self.entry(log).0.to_owned();
        if !self.runner.shard.has(log.0) {
            return Ok((name, None));
        }
        self.turn(Command::Detach { log: log.0, reason }, Wait::No);
        loop {
            if let Some(detached) = self.runner.shard.take_detached(log.0) {
                self.control.note_left(&name, &detached);
                return Ok((name, Some(detached)));
            }
            self.drive()?;
        }
    }

    fn out_of_service(&self, log: LocalLog) -> Error {
        let name = self.entry(log).0;
        self.failure(log).unwrap_or_else(|| {
            Error::new(ErrorKind::Closed, "use log", name).detail("it is closed")
        })
    }

    fn give_back(
        &mut self,
        name: &str,
        log: LocalLog,
        rewrite_from: Option<Mark>,
        worked: Result<OpenedLog>,
    ) -> Result<Marks> {
        let (opened, error) = match worked {
            Ok(opened) => (opened, None),
            Err(error) => match self.control.open(name, &LogOptions::default(), rewrite_from) {
                Ok(opened) => (opened, Some(error)),
                Err(_) => {
                    self.runner.shard.refuse_waiting(log.0);
                    self.entry(log).1.shared.lock().failure = Some(error.clone());
                    return Err(error);
                }
            },
        };
        let (_, entry) = self.entry(log);
        let (opened, settings) = (opened.into_shared(&entry.shared), entry.settings);
        let marks = opened.shared.marks();
        self.attach(log, opened, settings);
        error.map_or(Ok(marks), Err)
    }

    /// Writes out and flushes everything and marks every log clean.
    ///
    /// # Errors
    /// The first error; the other logs are closed all the same.
    pub fn close(mut self) -> Result<()> {
        let logs: Vec<_> = self.logs.values().map(|entry| entry.log).collect();
        let mut result = Ok(());
        for log in logs {
            let closed = match self.detach(log, DetachReason::Close) {
                Ok((name, Some(detached))) => self.control.close_log(&name, &detached),
                Ok((_, None)) => Err(self.out_of_service(log)),
                Err(error) => Err(error),
            };
            self.runner.shard.forget(log.0);
            result = result.and(closed);
        }
        result
    }
}
