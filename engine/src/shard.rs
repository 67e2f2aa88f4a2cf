//! A shard: the logs one thread owns, and what moves them.
//!
//! [`Shard::step`] is the state machine: commands and completions in, operations out. [`Runner`]
//! joins it with an [`Io`]; the simulator drives the very same two.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use highwater_io::random::SeededRandom;
use highwater_io::{
    Backend, Completion, Io, IoError, IoErrorKind, Monotonic, Operation, Token, Wait,
};
use highwater_segment::producers::ProducerState;
use highwater_segment::{Offset, ProducerId, RecordBatch};

use crate::ack::Ack;
use crate::buffers::Buffers;
use crate::control::is_failed_write;
use crate::core::{DetachReason, DetachedLog, LogCore, Pending, Turn, queued_bytes};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::metrics::{Counters, EngineMetrics};
use crate::number::LogNumber;
use crate::opening::OpenedLog;
use crate::options::{LOCK_WAIT, LogSettings, MAX_LOGS, ShardSettings};
use crate::receipt::Promise;
use crate::room::Released;
use crate::rounds::Rounds;
use crate::tail::TailBudget;

/// How long between two attempts for a lock.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// Lone durable writes that take longer than this are better left to the kernel.
const ALONE_TIME_MAX: Duration = Duration::from_millis(1);
/// How many in a row may take long: one alone says more of the machine than of the device.
const SLOW_ALONE_MAX: u32 = 4;
/// For how long they are left to the kernel then.
const ALONE_PAUSE: Duration = Duration::from_millis(100);

/// What a handle asks of a shard.
#[derive(Debug)]
pub(crate) enum Command {
    Append {
        log: LogNumber,
        batch: RecordBatch,
        ack: Ack,
        cell: Promise,
    },
    /// Flush what was appended before; the cell's ack tells when.
    Flush {
        log: LogNumber,
        cell: Promise,
    },
    /// Take over an opened log.
    Attach {
        log: LogNumber,
        opened: Box<OpenedLog>,
        settings: LogSettings,
    },
    /// Change what is not persisted of a log's options.
    SetSettings {
        log: LogNumber,
        settings: LogSettings,
    },
    /// Raise the log's start; the cell's ack tells when that is durable.
    Trim {
        log: LogNumber,
        to: Offset,
        cell: Promise,
    },
    /// Tell what the log knows of a producer.
    Producer {
        log: LogNumber,
        id: ProducerId,
        reply: SyncSender<Result<Option<ProducerState>>>,
    },
    /// Give a log away, flushed and closed; [`Shard::take_detached`] has it then.
    Detach {
        log: LogNumber,
        reason: DetachReason,
    },
}

/// The slot in the token of a round's flush; logs have lower ones.
const ROUND_SLOT: u16 = u16::MAX;

/// A place for a log in its shard.
#[derive(Debug, Default)]
struct Slot {
    log: Option<Box<LogCore>>,
    /// It stands in `touched`.
    is_touched: bool,
    /// It stands in `handing`.
    is_handing: bool,
    /// What stands in `deadlines` for it.
    deadline: Option<Monotonic>,
}

/// The logs of one thread. A turn costs what it touches, not what there is: of hundreds of logs
/// only those are pumped that something happened to.
#[derive(Debug)]
pub(crate) struct Shard {
    /// By the slot of the log's number.
    slots: Vec<Slot>,
    /// How many logs there are.
    owned: usize,
    /// Slots of logs that something happened to since they were pumped.
    touched: Vec<u16>,
    /// Slots that were pumped by the last step.
    pumped: Vec<u16>,
    /// Slots of logs whose operations are still to be handed to the kernel.
    handing: Vec<u16>,
    deadlines: BTreeSet<(Monotonic, u16)>,
    /// Appends for logs that are away for maintenance wait in here, bounded by the queue's bytes.
    waiting: BTreeMap<LogNumber, VecDeque<Pending>>,
    detached: BTreeMap<LogNumber, DetachedLog>,
    /// What was counted of logs that are away for maintenance.
    away: BTreeMap<LogNumber, (String, Counters)>,
    turns: u64,
    in_flight: usize,
    random: SeededRandom,
    tail_budget: Arc<TailBudget>,
    buffers: Buffers,
    rounds: Rounds,
    device: Arc<Device>,
    /// How many failures of the device this shard has heard of.
    failures_seen: u64,
    pub(crate) released: Released,
}

impl Shard {
    pub(crate) fn new(seed: u64, settings: ShardSettings, device: Arc<Device>) -> Self {
        Shard {
            slots: Vec::new(),
            owned: 0,
            touched: Vec::new(),
            pumped: Vec::new(),
            handing: Vec::new(),
            deadlines: BTreeSet::new(),
            waiting: BTreeMap::new(),
            detached: BTreeMap::new(),
            away: BTreeMap::new(),
            turns: 0,
            in_flight: 0,
            random: SeededRandom::new(seed),
            tail_budget: TailBudget::new(settings.tail_cache_bytes),
            buffers: Buffers::default(),
            rounds: Rounds::new(settings.shared_flush),
            device,
            failures_seen: 0,
            released: Released::default(),
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
        let before = operations.len();
        let mut random = self.random.clone();
        let mut released = std::mem::take(&mut self.released);
        let mut buffers = std::mem::take(&mut self.buffers);
        let mut rounds = std::mem::take(&mut self.rounds);
        let tail_budget = Arc::clone(&self.tail_budget);
        let mut turn = Turn {
            now,
            wall_clock_ms,
            random: &mut random,
            operations,
            released: &mut released,
            tail_budget: &tail_budget,
            buffers: &mut buffers,
            rounds: &mut rounds,
        };
        // Before any completion is believed: another shard may have heard that the device failed.
        if let Some(error) = self.device.failure_since(&mut self.failures_seen) {
            self.poison_dirty(&error, &mut turn);
        }
        self.in_flight -= completions.len();
        for completion in completions.drain(..) {
            self.complete(completion, &mut turn);
        }
        for command in commands {
            self.command(command, &mut turn);
        }
        while let Some(&(deadline, slot)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            self.slots[usize::from(slot)].deadline = None;
            self.touch(slot);
        }
        self.pump_touched(&mut turn);
        if let Some(file) = rounds.begin() {
            let token = Token(u64::from(ROUND_SLOT) << 48 | self.turns);
            operations.push((token, Operation::Flush { file }));
        }
        self.in_flight += operations.len() - before;
        self.random = random;
        self.released = released;
        self.buffers = buffers;
        self.rounds = rounds;
    }

    fn touch(&mut self, slot: u16) {
        let place = &mut self.slots[usize::from(slot)];
        if !std::mem::replace(&mut place.is_touched, true) {
            self.touched.push(slot);
        }
    }

    fn pump_touched(&mut self, turn: &mut Turn<'_>) {
        let mut touched = std::mem::take(&mut self.pumped);
        touched.clear();
        std::mem::swap(&mut touched, &mut self.touched);
        for &slot in &touched {
            let place = &mut self.slots[usize::from(slot)];
            place.is_touched = false;
            let Some(log) = &mut place.log else { continue };
            log.pump(turn);
            if log.is_handing_over() && !std::mem::replace(&mut place.is_handing, true) {
                self.handing.push(slot);
            }
            let gone = log.take_detached();
            let deadline = if gone.is_some() { None } else { log.deadline() };
            if deadline != place.deadline {
                let before = std::mem::replace(&mut place.deadline, deadline);
                if let Some(before) = before {
                    self.deadlines.remove(&(before, slot));
                }
                self.deadlines.extend(deadline.map(|deadline| (deadline, slot)));
            }
            if let Some((detached, waiting)) = gone
                && let Some(mut log) = place.log.take()
            {
                self.owned -= 1;
                log.wake_all();
                let number = log.number();
                self.detached.insert(number, detached);
                self.waiting.insert(number, waiting);
                self.away.insert(number, (log.shared.name.clone(), log.take_counters()));
            }
        }
        self.pumped = touched;
    }

    fn log_mut(&mut self, number: LogNumber) -> Option<&mut LogCore> {
        let log = self.slots.get_mut(usize::from(number.slot()))?.log.as_mut()?;
        (log.number() == number).then_some(log)
    }

    /// As [`log_mut`](Self::log_mut), for something that has happened to the log.
    fn touch_log(&mut self, number: LogNumber) -> Option<&mut LogCore> {
        self.log_mut(number)?;
        self.touch(number.slot());
        self.log_mut(number)
    }

    fn logs(&self) -> impl Iterator<Item = &LogCore> {
        self.slots.iter().filter_map(|place| place.log.as_deref())
    }

    /// Poisons every log with something unflushed: the device may have dropped it.
    fn poison_dirty(&mut self, error: &IoError, turn: &mut Turn<'_>) {
        let numbers: Vec<_> = self.logs().map(LogCore::number).collect();
        for number in numbers {
            if let Some(log) = self.touch_log(number) {
                log.poison_if_dirty(error, turn);
            }
        }
    }

    /// Notes that all that was submitted so far has just gone to the kernel.
    fn handed_over(&mut self, now: Monotonic) {
        for slot in self.handing.drain(..) {
            let place = &mut self.slots[usize::from(slot)];
            place.is_handing = false;
            if let Some(log) = &mut place.log {
                log.handed_over(now);
            }
        }
    }

    /// Wakes who was answered by the last step.
    fn wake_all(&mut self) {
        for slot in &self.pumped {
            if let Some(log) = &mut self.slots[usize::from(*slot)].log {
                log.wake_all();
            }
        }
    }

    fn complete(&mut self, completion: Completion, turn: &mut Turn<'_>) {
        let failed = completion.result.as_ref().err().filter(|error| is_failed_write(error));
        let failed = failed.cloned();
        let slot = u16::try_from(completion.token.0 >> 48).unwrap_or(u16::MAX);
        if slot == ROUND_SLOT {
            self.round_completed(&completion.result, turn);
        } else {
            let place = self.slots.get_mut(usize::from(slot)).and_then(|place| place.log.as_mut());
            let Some(log) = place else {
                panic!("a log with operations in flight stays in its shard")
            };
            log.complete(completion, turn);
            self.touch(slot);
        }
        if let Some(error) = failed {
            // All logs of an engine share a file system: the device may have dropped the
            // unflushed bytes of any of them, of other shards too.
            self.device.note_failure(&error);
            let heard = self.device.failure_since(&mut self.failures_seen);
            self.poison_dirty(&heard.unwrap_or(error), turn);
        }
    }

    fn round_completed(
        &mut self,
        result: &std::result::Result<highwater_io::Output, IoError>,
        turn: &mut Turn<'_>,
    ) {
        let (members, late) = turn.rounds.end();
        for number in members {
            let Some(log) = self.touch_log(number) else {
                panic!("a log that is in a round stays in its shard")
            };
            log.round_completed(result.clone(), turn);
        }
        for number in late {
            if let Some(log) = self.touch_log(number) {
                log.may_flush_again();
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
                let slot = usize::from(log.slot());
                if slot >= self.slots.len() {
                    self.slots.resize_with(slot + 1, Slot::default);
                }
                let previous = self.slots[slot].log.replace(Box::new(core));
                self.owned += 1;
                assert!(previous.is_none() && self.owned <= MAX_LOGS, "one log, one place");
                self.touch(log.slot());
            }
            Command::SetSettings { log, settings } => {
                if let Some(log) = self.touch_log(log) {
                    log.set_settings(settings);
                }
            }
            Command::Trim { log, to, cell } => match self.touch_log(log) {
                Some(log) => log.enqueue_trim(to, cell),
                None => cell.ack(Err(closed(self.name_of(log)))),
            },
            // A caller that gave up has no use for it.
            Command::Producer { log, id, reply } => drop(reply.send(self.producer(log, id))),
            Command::Detach { log, reason } => {
                if let Some(log) = self.touch_log(log) {
                    log.detach(reason);
                }
            }
        }
    }

    fn enqueue(&mut self, number: LogNumber, pending: Pending, turn: &mut Turn<'_>) {
        if let Some(log) = self.touch_log(number) {
            log.enqueue(pending, turn);
        } else if let Some(waiting) = self.waiting.get_mut(&number) {
            waiting.push_back(pending);
        } else {
            turn.released.add(number, queued_bytes(pending.batch.as_ref()));
            pending.cell.ack(Err(closed(self.name_of(number))));
        }
    }

    /// Returns the name of a log that is not here.
    fn name_of(&self, number: LogNumber) -> &str {
        self.away.get(&number).map_or("log", |(name, _)| name)
    }

    /// Refuses what waits for a log that could not be opened again.
    pub(crate) fn refuse_waiting(&mut self, number: LogNumber) {
        for pending in self.waiting.remove(&number).unwrap_or_default() {
            self.released.add(number, queued_bytes(pending.batch.as_ref()));
            pending.cell.ack(Err(closed(self.name_of(number))));
        }
    }

    /// As [`refuse_waiting`](Self::refuse_waiting), for a log that is gone for good.
    pub(crate) fn forget(&mut self, number: LogNumber) {
        self.refuse_waiting(number);
        self.away.remove(&number);
    }

    /// Returns a log that was asked for by [`Command::Detach`], once it is ready.
    pub(crate) fn take_detached(&mut self, number: LogNumber) -> Option<DetachedLog> {
        self.detached.remove(&number)
    }

    /// Returns what a log knows of a producer, with what has an offset by now.
    pub(crate) fn producer(
        &self,
        number: LogNumber,
        id: ProducerId,
    ) -> Result<Option<ProducerState>> {
        let log = self.logs_at(number).map(|log| log.producer(id));
        log.ok_or_else(|| closed(self.name_of(number)))
    }

    /// Returns whether the shard owns the log.
    pub(crate) fn has(&self, number: LogNumber) -> bool {
        self.logs_at(number).is_some()
    }

    fn logs_at(&self, number: LogNumber) -> Option<&LogCore> {
        let log = self.slots.get(usize::from(number.slot()))?.log.as_deref()?;
        (log.number() == number).then_some(log)
    }

    /// Returns whether the shard owns one log and no more.
    fn has_one_log(&self) -> bool {
        self.owned == 1
    }

    /// Returns what every log did so far.
    fn metrics(&mut self, now: Monotonic, backend: Backend) -> EngineMetrics {
        let here = self.slots.iter_mut().filter_map(|place| place.log.as_mut());
        let here = here.map(|log| log.metrics(now));
        let away = self.away.values_mut();
        let logs = here.chain(away.map(|(name, counters)| (name.clone(), counters.snapshot(now))));
        EngineMetrics {
            backend,
            turns: self.turns,
            shared_flushes: self.rounds.spared(),
            logs: logs.collect(),
        }
    }

    /// Returns when to step again although nothing happens.
    pub(crate) fn deadline(&self) -> Option<Monotonic> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight > 0
    }
}

impl Drop for Shard {
    /// Whatever ends the shard, nobody goes on watching its logs.
    fn drop(&mut self) {
        for log in self.logs() {
            log.shared.lookout.end();
        }
    }
}

fn closed(what: &str) -> Error {
    Error::new(crate::ErrorKind::Closed, "append to", what)
        .detail("it is closed")
        .remedy("reopen it, if a truncation or a reopening failed")
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
    pub(crate) fn new(mut io: I, settings: ShardSettings, device: Arc<Device>) -> Self {
        let seed = io.random_u64();
        Runner {
            io,
            shard: Shard::new(seed, settings, device),
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
    /// forms the next group. But not where there are other logs, which would wait too; nor on a
    /// device where that takes long: there the hop costs nothing, and questions to the shard would
    /// wait.
    pub(crate) fn run_alone(&mut self) -> bool {
        if !self.handing_over || !self.io.is_alone() || !self.shard.has_one_log() {
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
        let alone = self.handing_over && self.io.is_alone() && self.shard.has_one_log();
        alone && self.io.now() >= self.not_alone_before
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
