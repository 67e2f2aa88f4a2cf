//! A shard: the logs one thread owns, and what moves them.
//!
//! [`Shard::step`] is the state machine: commands and completions in, operations out. [`Runner`]
//! joins it with an [`Io`]; the simulator drives the very same two.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use highwater_io::random::SeededRandom;
use highwater_io::{
    Backend, Completion, Io, IoError, IoErrorKind, Monotonic, Operation, Token, Wait,
};
use highwater_segment::{Offset, RecordBatch};

use crate::ack::Ack;
use crate::core::{DetachReason, DetachedLog, LogCore, Pending, Turn};
use crate::error::{Error, Result};
use crate::metrics::{Counters, EngineMetrics};
use crate::opening::OpenedLog;
use crate::options::{LOCK_WAIT, LogSettings, MAX_LOGS};
use crate::receipt::Promise;
use crate::tail::TailBudget;

/// How long between two attempts for a lock.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// Lone durable writes that take longer than this are better left to the kernel.
const ALONE_TIME_MAX: Duration = Duration::from_millis(1);
/// How many in a row may take long: one alone says more of the machine than of the device.
const SLOW_ALONE_MAX: u32 = 4;
/// For how long they are left to the kernel then.
const ALONE_PAUSE: Duration = Duration::from_millis(100);

/// A log's place in its shard.
pub(crate) type LogIndex = u16;

/// What a handle asks of a shard.
#[derive(Debug)]
pub(crate) enum Command {
    Append {
        log: LogIndex,
        batch: RecordBatch,
        ack: Ack,
        cell: Promise,
    },
    /// Flush what was appended before; the cell's ack tells when.
    Flush {
        log: LogIndex,
        cell: Promise,
    },
    /// Take over an opened log.
    Attach {
        log: LogIndex,
        opened: Box<OpenedLog>,
        settings: LogSettings,
    },
    /// Change what is not persisted of a log's options.
    SetSettings {
        log: LogIndex,
        settings: LogSettings,
    },
    /// Raise the log's start; the cell's ack tells when that is durable.
    Trim {
        log: LogIndex,
        to: Offset,
        cell: Promise,
    },
    /// Give a log away, flushed and closed; [`Shard::take_detached`] has it then.
    Detach {
        log: LogIndex,
        reason: DetachReason,
    },
}

/// The logs of one thread.
#[derive(Debug)]
pub(crate) struct Shard {
    logs: BTreeMap<LogIndex, LogCore>,
    /// Appends for logs that are away for maintenance wait in here, bounded by the queue's bytes.
    waiting: BTreeMap<LogIndex, VecDeque<Pending>>,
    detached: BTreeMap<LogIndex, DetachedLog>,
    /// What was counted of logs that are away.
    away: BTreeMap<LogIndex, (String, Counters)>,
    turns: u64,
    random: SeededRandom,
    tail_budget: Arc<TailBudget>,
    pub(crate) released_bytes: usize,
}

impl Shard {
    pub(crate) fn new(seed: u64, tail_cache_bytes: usize) -> Self {
        Shard {
            tail_budget: TailBudget::new(tail_cache_bytes),
            logs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            detached: BTreeMap::new(),
            away: BTreeMap::new(),
            turns: 0,
            random: SeededRandom::new(seed),
            released_bytes: 0,
        }
    }

    /// Handles what came and returns, in `operations`, what is to be submitted.
    pub(crate) fn step(
        &mut self,
        (now, wall_clock_ms): (Monotonic, i64),
        commands: impl IntoIterator<Item = Command>,
        completions: &mut Vec<Completion>,
        operations: &mut Vec<(Token, Operation)>,
    ) {
        self.turns += 1;
        let mut random = self.random.clone();
        let mut released_bytes = 0;
        let tail_budget = Arc::clone(&self.tail_budget);
        let mut turn = Turn {
            now,
            wall_clock_ms,
            random: &mut random,
            operations,
            released_bytes: &mut released_bytes,
            tail_budget: &tail_budget,
        };
        for completion in completions.drain(..) {
            self.complete(completion, &mut turn);
        }
        for command in commands {
            self.command(command, &mut turn);
        }
        for (index, log) in &mut self.logs {
            log.pump(&mut turn);
            if let Some((detached, waiting)) = log.take_detached() {
                self.detached.insert(*index, detached);
                self.waiting.insert(*index, waiting);
                self.away.insert(*index, (log.shared.name.clone(), log.take_counters()));
            }
        }
        self.logs.retain(|index, _| !self.detached.contains_key(index));
        self.random = random;
        self.released_bytes += released_bytes;
    }

    /// Notes that all that was submitted so far has just gone to the kernel.
    fn handed_over(&mut self, now: Monotonic) {
        for log in self.logs.values_mut() {
            log.handed_over(now);
        }
    }

    /// Wakes who was answered by the last step.
    fn wake_all(&mut self) {
        for log in self.logs.values_mut() {
            log.wake_all();
        }
    }

    fn complete(&mut self, completion: Completion, turn: &mut Turn<'_>) {
        let index = LogIndex::try_from(completion.token.0 >> 48).unwrap_or(LogIndex::MAX);
        // A durable write or a synced name that fails has used up the one report of the device
        // just as a flush has.
        let failed_flush = match &completion.result {
            Err(error)
                if error.kind != IoErrorKind::NoSpace
                    && matches!(error.operation, "flush" | "write" | "sync directory") =>
            {
                Some(error.clone())
            }
            _ => None,
        };
        let Some(log) = self.logs.get_mut(&index) else {
            panic!("a log with operations in flight stays in its shard")
        };
        log.complete(completion, turn);
        if let Some(error) = failed_flush {
            // All logs of an engine share a file system: the device may have dropped the
            // unflushed bytes of any of them.
            for log in self.logs.values_mut() {
                log.poison_if_dirty(&error, turn);
            }
        }
    }

    fn command(&mut self, command: Command, turn: &mut Turn<'_>) {
        match command {
            Command::Append { log, batch, ack, cell } => {
                self.enqueue(log, Pending { batch: Some(batch), ack, cell }, turn);
            }
            Command::Flush { log, cell } => {
                self.enqueue(log, Pending { batch: None, ack: Ack::LEADER_FLUSHED, cell }, turn);
            }
            Command::Attach { log, opened, settings } => {
                let waiting = self.waiting.remove(&log).unwrap_or_default();
                self.detached.remove(&log);
                let counters = self.away.remove(&log).map(|(_, counters)| counters);
                let core =
                    LogCore::attach(log, *opened, settings, waiting, counters.unwrap_or_default());
                let previous = self.logs.insert(log, core);
                assert!(previous.is_none() && self.logs.len() <= MAX_LOGS, "one log, one place");
            }
            Command::SetSettings { log, settings } => {
                if let Some(log) = self.logs.get_mut(&log) {
                    log.set_settings(settings);
                }
            }
            Command::Trim { log, to, cell } => match self.logs.get_mut(&log) {
                Some(log) => log.enqueue_trim(to, cell, turn),
                None => cell.ack(Err(closed("log"))),
            },
            Command::Detach { log, reason } => {
                if let Some(log) = self.logs.get_mut(&log) {
                    log.detach(reason);
                }
            }
        }
    }

    fn enqueue(&mut self, index: LogIndex, pending: Pending, turn: &mut Turn<'_>) {
        if let Some(log) = self.logs.get_mut(&index) {
            log.enqueue(pending, turn);
        } else if let Some(waiting) = self.waiting.get_mut(&index) {
            waiting.push_back(pending);
        } else {
            *turn.released_bytes += crate::core::queued_bytes(pending.batch.as_ref());
            pending.cell.ack(Err(closed("log")));
        }
    }

    /// Refuses what waits for a log that will not come back.
    pub(crate) fn forget(&mut self, index: LogIndex) {
        for pending in self.waiting.remove(&index).unwrap_or_default() {
            self.released_bytes += crate::core::queued_bytes(pending.batch.as_ref());
            pending.cell.ack(Err(closed("log")));
        }
    }

    /// Returns a log that was asked for by [`Command::Detach`], once it is ready.
    pub(crate) fn take_detached(&mut self, index: LogIndex) -> Option<DetachedLog> {
        self.detached.remove(&index)
    }

    /// Returns whether the shard owns the log.
    pub(crate) fn has(&self, index: LogIndex) -> bool {
        self.logs.contains_key(&index)
    }

    /// Returns what every log did so far.
    fn metrics(&mut self, now: Monotonic, backend: Backend) -> EngineMetrics {
        let here = self.logs.values_mut().map(|log| log.metrics(now));
        let away = self.away.values_mut();
        let logs = here.chain(away.map(|(name, counters)| (name.clone(), counters.snapshot(now))));
        EngineMetrics { backend, turns: self.turns, logs: logs.collect() }
    }

    /// Returns when to step again although nothing happens.
    pub(crate) fn deadline(&self) -> Option<Monotonic> {
        self.logs.values().filter_map(LogCore::deadline).min()
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.logs.values().any(LogCore::is_busy)
    }
}

impl Drop for Shard {
    /// Whatever ends the shard, nobody goes on watching its logs.
    fn drop(&mut self) {
        for log in self.logs.values() {
            log.shared.lookout.end();
        }
    }
}

fn closed(what: &str) -> Error {
    Error::new(crate::ErrorKind::Closed, "append to", what).detail("it is closed")
}

/// A shard and the [`Io`] that serves it, on one thread.
#[derive(Debug)]
pub(crate) struct Runner<I: Io> {
    pub(crate) io: I,
    pub(crate) shard: Shard,
    completions: Vec<Completion>,
    operations: Vec<(Token, Operation)>,
    /// Operations beyond what the `Io` takes at once, in their order.
    backlog: VecDeque<(Token, Operation)>,
    /// Something was submitted since the last poll, and all that there was.
    handing_over: bool,
    /// Lone writes took long: until then the thread is not blocked by another.
    not_alone_before: Monotonic,
    /// How many in a row took long.
    slow_alone: u32,
}

impl<I: Io> Runner<I> {
    pub(crate) fn new(mut io: I, tail_cache_bytes: usize) -> Self {
        let seed = io.random_u64();
        Runner {
            io,
            shard: Shard::new(seed, tail_cache_bytes),
            completions: Vec::new(),
            operations: Vec::new(),
            backlog: VecDeque::new(),
            handing_over: false,
            not_alone_before: Monotonic(0),
            slow_alone: 0,
        }
    }

    /// Takes the directory's lock for the life of the `Io`; waits a moment for a killed owner's
    /// last write.
    pub(crate) fn lock(&mut self, directory: &std::path::Path) -> Result<()> {
        let deadline = self.io.now().plus(LOCK_WAIT);
        loop {
            let operation = Operation::Lock { path: directory.to_owned() };
            self.io.submit(Token(u64::MAX), operation);
            while self.completions.is_empty() {
                self.io.poll(Wait::Forever, &mut self.completions);
            }
            let result = self.completions.pop().map_or(Ok(()), |c| c.result.map(|_| ()));
            match result {
                Err(error) if is_locked(&error) && self.io.now() < deadline => {
                    self.io.poll(Wait::AtMost(LOCK_RETRY), &mut self.completions);
                }
                other => return Ok(other?),
            }
        }
    }

    /// One turn: steps, submits, polls as `wait` and the logs' deadlines say, and steps again.
    pub(crate) fn turn(&mut self, command: Option<Command>, wait: Wait) {
        self.step(command);
        self.poll(wait);
        self.step(None);
    }

    /// Starts what was submitted and waits as `wait` and the logs' deadlines say.
    pub(crate) fn poll(&mut self, wait: Wait) {
        let wait = self.bounded(wait);
        self.hand_over();
        self.io.poll(wait, &mut self.completions);
    }

    /// Runs what was submitted on this thread, if that is one durable write with nothing beside
    /// it: a thread less to wake. Returns whether it did, and then it has ended.
    ///
    /// The thread is blocked meanwhile, which is what group commit does anyway: what comes now
    /// forms the next group. But not on a device where that takes long: there the hop costs
    /// nothing, and other logs, and questions to the shard, would wait.
    pub(crate) fn run_alone(&mut self) -> bool {
        if !self.handing_over || !self.io.is_alone() {
            return false;
        }
        let begun = self.io.now();
        if begun < self.not_alone_before {
            return false;
        }
        self.io.run_alone(&mut self.completions);
        self.handing_over = false;
        self.shard.handed_over(begun);
        let ended = self.io.now();
        if ended.since(begun) <= ALONE_TIME_MAX {
            self.slow_alone = 0;
        } else if self.slow_alone < SLOW_ALONE_MAX {
            self.slow_alone += 1;
        } else {
            self.not_alone_before = ended.plus(ALONE_PAUSE);
        }
        true
    }

    /// Returns whether [`run_alone`](Self::run_alone) would run something.
    pub(crate) fn is_alone(&self) -> bool {
        self.handing_over && self.io.is_alone() && self.io.now() >= self.not_alone_before
    }

    /// Polling hands over what was submitted: all that follows is the kernel's time.
    fn hand_over(&mut self) {
        if std::mem::take(&mut self.handing_over) {
            self.shard.handed_over(self.io.now());
        }
    }

    /// Handles commands and completions, wakes who was answered, and submits what came of it.
    pub(crate) fn step(&mut self, commands: impl IntoIterator<Item = Command>) {
        let time = (self.io.now(), self.io.wall_clock_ms());
        self.shard.step(time, commands, &mut self.completions, &mut self.operations);
        self.shard.wake_all();
        self.backlog.extend(self.operations.drain(..));
        while self.io.in_flight() < self.io.capacity() {
            let Some((token, operation)) = self.backlog.pop_front() else { break };
            self.io.submit(token, operation);
            self.handing_over = true;
        }
        // Rare, and then the stages say so: what waits for a place is not the kernel's yet.
        self.handing_over &= self.backlog.is_empty();
    }

    fn bounded(&self, wait: Wait) -> Wait {
        let Some(deadline) = self.shard.deadline() else { return wait };
        let left = deadline.since(self.io.now());
        match wait {
            Wait::No => Wait::No,
            Wait::AtMost(most) => Wait::AtMost(most.min(left)),
            Wait::Forever => Wait::AtMost(left),
        }
    }

    /// Returns what was counted so far.
    pub(crate) fn metrics(&mut self) -> EngineMetrics {
        self.shard.metrics(self.io.now(), self.io.backend())
    }

    /// Returns whether an operation is in flight or waits to be submitted.
    pub(crate) fn is_busy(&self) -> bool {
        self.shard.is_busy() || !self.backlog.is_empty()
    }
}

fn is_locked(error: &IoError) -> bool {
    matches!(error.kind, IoErrorKind::Locked { .. })
}
