//! Handles to one log.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use highwater_io::Platform;
use highwater_io::clock::monotonic_now;
use highwater_io::threads::InlineIo;
use highwater_segment::{Offset, ProducerId, RecordBatch};

use crate::ack::Ack;
use crate::control::Control;
use crate::core::{DetachReason, DetachedLog};
use crate::engine::{Inner, LogEntry, lock, stopped};
use crate::error::{Error, ErrorKind, Result};
use crate::mailbox::{Mailbox, Message, Refused};
use crate::marks::{Isolation, Marks};
use crate::metrics::LogMetrics;
use crate::number::LogNumber;
use crate::opening::OpenedLog;
use crate::options::{LogOptions, ShardId};
use crate::permit::Reserve;
use crate::producer::Producer;
use crate::reader::{Follower, Reader};
use crate::receipt::{Promise, Receipt, ReceiptCell};
use crate::report::LogReport;
use crate::shard::Command;
use crate::watch::Watcher;

/// A handle to one log. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Log {
    pub(crate) inner: Arc<Inner>,
    pub(crate) name: String,
    pub(crate) entry: LogEntry,
}

impl Log {
    /// Returns the log's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the shard whose thread owns the log.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.entry.shard
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
    /// *Blocking*: until each shard's next turn, at most for ten seconds.
    ///
    /// # Errors
    /// As [`Engine::metrics`](crate::Engine::metrics).
    pub fn metrics(&self) -> Result<LogMetrics> {
        let metrics = self.inner.shards.metrics()?.logs.remove(&self.name);
        metrics.ok_or_else(|| stopped("ask for the metrics"))
    }

    /// Appends a batch; its receipt tells when `ack` is met. Waits for room in the queue, drops
    /// nothing. Appends of one thread get their offsets in the order of the calls, and are acked in
    /// that order (A9).
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
        match self.mailbox().push(command, true) {
            Ok(()) => Ok(receipt),
            Err(Refused::Full(_) | Refused::Stopped(_)) => Err(stopped("append to a log")),
        }
    }

    /// Appends a batch if there is room in the queue now, or gives it back. Never blocks.
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
        let (command, error) = match self.mailbox().push(command, false) {
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
        self.inner.shards.mailbox(self.entry.shard)
    }

    pub(crate) fn number(&self) -> LogNumber {
        self.entry.number
    }

    pub(crate) fn append_admitted(
        &self,
        batch: RecordBatch,
        ack: Ack,
        bytes: usize,
    ) -> Result<Receipt> {
        let (command, receipt) = self.append_command(batch, ack);
        match self.mailbox().push_admitted(command, bytes) {
            Ok(()) => Ok(receipt),
            Err(_) => Err(stopped("append to a log")),
        }
    }

    fn append_command(&self, batch: RecordBatch, ack: Ack) -> (Command, Receipt) {
        let cell = ReceiptCell::new(monotonic_now());
        let promise = Promise::new(&cell);
        let receipt = Receipt::new(cell, &self.entry.shared);
        let cell = promise;
        (Command::Append { log: self.entry.number, batch, ack, cell }, receipt)
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

    /// Returns the idempotent producer `id`, ready to go on where this log is: a new one, or one
    /// that continues its newest epoch behind its last record that has an offset. What an earlier
    /// life of the caller sent and never heard of is in the log up to there, and not beyond.
    ///
    /// *Blocking*: until the shard's next turn.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a negative id; [`ErrorKind::Closed`].
    pub fn producer(&self, id: ProducerId) -> Result<Producer> {
        let (reply, answer) = sync_channel(1);
        let command = Command::Producer { log: self.entry.number, id, reply };
        if !self.mailbox().push_control(Message::Command(command)) {
            return Err(stopped("ask for a producer"));
        }
        let known = answer.recv().map_err(|_| stopped("ask for a producer"))??;
        Producer::resume(id, known.as_ref())
    }

    /// Asks for a flush of everything appended before; the receipt's ack tells when it is done.
    ///
    /// *Durability*: everything appended before this call is on stable media then.
    /// *Blocking*: while the queue is full.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`].
    pub fn flush(&self) -> Result<Receipt> {
        let cell = ReceiptCell::new(monotonic_now());
        let promise = Promise::new(&cell);
        let receipt = Receipt::new(cell, &self.entry.shared);
        let cell = promise;
        match self.mailbox().push(Command::Flush { log: self.entry.number, cell }, true) {
            Ok(()) => Ok(receipt),
            Err(_) => Err(stopped("flush a log")),
        }
    }

    /// Reads from `offset`, inclusive, up to the mark that `isolation` names. An `offset` at or
    /// above that mark is no error: there is nothing to read yet.
    ///
    /// *Blocking*: the reader's steps read files on the thread that asks.
    ///
    /// # Errors
    /// [`ErrorKind::Trimmed`] below the log's start; [`ErrorKind::Io`]. The reader's steps can give
    /// both, and [`ErrorKind::Corrupt`] with the range that cannot be read.
    pub fn read(&self, offset: Offset, isolation: Isolation) -> Result<Reader> {
        self.reader(Some(offset), isolation)
    }

    /// Reads from `offset` on, up to the mark that `isolation` names, and waits for what comes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn follow(&self, offset: Offset, isolation: Isolation) -> Result<Follower> {
        self.read(offset, isolation).map(Follower::new)
    }

    /// Reads from the first record with a timestamp of `timestamp_ms` (milliseconds since 1970) or
    /// later, up to the mark that `isolation` names. If there is none yet, reads what comes behind
    /// the mark. Timestamps need not rise along a log: what follows the first can be older.
    ///
    /// *Blocking*: while segments without an index are read, to make it anew.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for damage on the way, which may hold the record; [`ErrorKind::Io`].
    pub fn read_from_time(&self, timestamp_ms: i64, isolation: Isolation) -> Result<Reader> {
        let mut reader = self.reader(None, isolation)?;
        reader.seek_time(timestamp_ms)?;
        Ok(reader)
    }

    /// Returns the offset of the first record with a timestamp of `timestamp_ms` (milliseconds
    /// since 1970) or later, below the mark that `isolation` names; [`None`] if there is none.
    ///
    /// *Blocking*: as [`read_from_time`](Self::read_from_time).
    ///
    /// # Errors
    /// As there.
    pub fn offset_at(&self, timestamp_ms: i64, isolation: Isolation) -> Result<Option<Offset>> {
        self.reader(None, isolation)?.seek_time(timestamp_ms)
    }

    fn reader(&self, from: Option<Offset>, isolation: Isolation) -> Result<Reader> {
        let io = self.inner.platform.reader_io()?;
        let entry = &self.entry;
        let (directory, shared) = (entry.directory.clone(), Arc::clone(&entry.shared));
        Reader::new(io, directory, shared, entry.log_id, from, isolation)
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
        let receipt = Receipt::new(Arc::clone(&cell), &self.entry.shared);
        let cell = Promise::new(&cell);
        let command = Command::Trim { log: self.entry.number, to, cell };
        if !self.mailbox().push_control(Message::Command(command)) {
            return Err(stopped("trim a log"));
        }
        receipt.wait().map(|trimmed| trimmed.marks)
    }

    /// Opens a poisoned log again, as after a crash of the process: recovers, and writes anew what
    /// a failed flush may have lost. Appends that were not acked may be there or not; what was
    /// flushed is. Begins a new epoch.
    ///
    /// *Durability*: everything recovered is on stable media when this returns.
    /// *Blocking*: until that is so.
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
        let known = lock(&self.inner.logs).same(&self.name, &self.entry).cloned();
        let Some(known) = known else {
            return Err(self.failure().unwrap_or_else(|| stopped("maintain a log")));
        };
        // A log that an earlier failure left closed is not in the shard.
        let detached = self.inner.detach(&self.entry, DetachReason::Maintenance).ok();
        if let Some(detached) = &detached {
            control.note_left(&self.name, detached);
        }
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
                        self.mailbox()
                            .push_control(Message::RefuseWaiting { log: self.entry.number });
                        return Err(error);
                    }
                }
            }
        };
        let opened = opened.into_shared(&self.entry.shared);
        let marks = opened.shared.marks();
        self.inner.attach(&self.entry, opened, known.settings)?;
        error.map_or(Ok(marks), Err)
    }
}
