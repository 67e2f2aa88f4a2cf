//! Processes on the disk: who is alive, what each waits for, and how time passes for them.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::core::Core;
use super::effect::Landed;
use super::flight::{Flight, Step, Work};
use super::tree::NodeId;
use crate::Wait;
use crate::buffer::AlignedBuffer;
use crate::clock::Monotonic;
use crate::error::{IoError, IoErrorKind};
use crate::operation::{Access, Completion, FileId, Output, Token};
use crate::random::SeededRandom;

/// Polls in a row that return nothing before the simulation is called stuck.
const EMPTY_POLLS_MAX: u64 = 10_000_000;

#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) node: NodeId,
    pub(super) path: PathBuf,
    pub(super) writable: bool,
    pub(super) direct: bool,
    /// Operations on it that were submitted and not yet reported.
    pub(super) in_flight: u32,
}

/// An operation its submitter has not heard of yet.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) token: Token,
    pub(super) verb: &'static str,
    pub(super) path: PathBuf,
    pub(super) position: Option<u64>,
    pub(super) file: Option<FileId>,
    pub(super) buffer: Option<AlignedBuffer>,
    pub(super) result: Option<Result<Output, IoError>>,
}

#[derive(Debug)]
pub(super) struct IoState {
    pub(super) life: u32,
    pub(super) dead: bool,
    pub(super) files: BTreeMap<FileId, OpenFile>,
    next_file: u32,
    pub(super) outstanding: BTreeMap<u64, Outstanding>,
    /// Ended, in this order, and not yet reported.
    ready: VecDeque<u64>,
    /// A lone durable write that was submitted and not begun yet.
    pub(super) alone: Option<Flight>,
    woken: Arc<AtomicBool>,
    random: SeededRandom,
    empty_polls: u64,
    /// How much time a dead process believes to have passed since its end.
    after_death: Duration,
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) core: Core,
    ios: BTreeMap<u32, IoState>,
    /// Lives that have not been killed.
    alive: Vec<u32>,
}

impl Machine {
    pub(super) fn new(core: Core) -> Self {
        Machine { core, ios: BTreeMap::new(), alive: Vec::new() }
    }

    /// Returns a copy of the disk without processes: to it they are dead.
    pub(super) fn fork(&self) -> Machine {
        let mut core = self.core.clone();
        for life in &self.alive {
            core.orphan(*life);
        }
        for file in core.tree.files_mut() {
            file.handles = 0;
        }
        for life in &self.alive {
            core.release_locks(*life);
        }
        core.stop_at = None;
        Machine::new(core)
    }

    pub(super) fn start_life(&mut self) -> u32 {
        let life = self.core.next_life;
        self.core.next_life += 1;
        self.alive.push(life);
        self.core.trace.note(self.core.now, "process starts", [0, u64::from(life), 0], String::new);
        life
    }

    pub(super) fn is_alive(&self, life: u32) -> bool {
        self.alive.contains(&life)
    }

    pub(super) fn any_alive(&self) -> bool {
        !self.alive.is_empty()
    }

    pub(super) fn open_io(&mut self, life: u32) -> Option<u32> {
        if !self.is_alive(life) {
            return None;
        }
        let io = self.core.next_io;
        self.core.next_io += 1;
        let random = self.core.random.processes.split(&format!("io {io}"));
        let state = IoState {
            life,
            dead: false,
            files: BTreeMap::new(),
            next_file: 3,
            outstanding: BTreeMap::new(),
            ready: VecDeque::new(),
            alone: None,
            woken: Arc::new(AtomicBool::new(false)),
            random,
            empty_polls: 0,
            after_death: Duration::ZERO,
        };
        self.ios.insert(io, state);
        Some(io)
    }

    pub(super) fn io(&mut self, io: u32) -> &mut IoState {
        self.ios.get_mut(&io).expect("an Io exists until it is dropped")
    }

    pub(super) fn woken(&mut self, io: u32) -> Arc<AtomicBool> {
        Arc::clone(&self.io(io).woken)
    }

    /// Returns the time as a process sees it.
    pub(super) fn now(&self, io: u32) -> Monotonic {
        let after_death = self.ios.get(&io).map_or(Duration::ZERO, |state| state.after_death);
        self.core.now.plus(after_death)
    }

    pub(super) fn random_u64(&mut self, io: u32) -> u64 {
        self.io(io).random.next_u64()
    }

    pub(super) fn in_flight(&mut self, io: u32) -> usize {
        self.io(io).outstanding.len()
    }

    /// Ends a life: nothing it does has an effect any more, what it had in flight lands later.
    pub(super) fn kill(&mut self, life: u32) {
        if !self.is_alive(life) {
            return;
        }
        self.alive.retain(|other| *other != life);
        self.core.trace.note(self.core.now, "killed", [0, u64::from(life), 0], String::new);
        self.core.trace.count("kill", 1);
        for state in self.ios.values_mut().filter(|state| state.life == life) {
            state.dead = true;
            state.ready.clear();
            // Nobody but its process knew of it.
            let never_begun = state.alone.take().is_some();
            self.core.trace.count("lone write never begun", u64::from(never_begun));
            for file in std::mem::take(&mut state.files).into_values() {
                if let Some(file) = self.core.tree.file_mut(file.node) {
                    file.let_go();
                }
            }
        }
        self.core.orphan(life);
        self.core.release_locks(life);
        let stale: u64 = self.core.tree.files_mut().map(super::file::SimFile::restart).sum();
        self.core.trace.count("stale block shown", stale);
    }

    pub(super) fn kill_all(&mut self) {
        for life in self.alive.clone() {
            self.kill(life);
        }
        self.core.stop_at = None;
    }

    pub(super) fn boundary(&mut self) {
        if self.core.boundary() {
            self.kill_all();
        }
    }

    pub(super) fn violated(&self, what: &str) -> ! {
        panic!("seed {}: {what}", self.core.seed)
    }

    /// Lets everything happen that is due by now.
    fn happen(&mut self) {
        while let Some((operation, step)) = self.core.due() {
            let Some(mut flight) = self.core.flights.remove(&operation) else { continue };
            match step {
                Step::Part => {
                    self.core.land_part(&mut flight);
                    self.core.flights.insert(operation, flight);
                }
                Step::Effect => self.effect(flight),
                Step::Finish => self.finish(flight),
            }
            self.boundary();
        }
    }

    fn effect(&mut self, mut flight: Flight) {
        let Some(io) = flight.io else {
            let cancelled = flight.cancelled;
            if !cancelled {
                let result = self.core.land(&mut flight, None);
                self.core.trace.count("late landing", u64::from(result.is_ok()));
            }
            self.core.mark_reported(flight.id, &flight.touched, false);
            let what = if cancelled { "cancelled" } else { "landed late" };
            self.core.trace.note(self.core.now, what, [flight.id, 0, 0], String::new);
            return;
        };
        let state = self.ios.get_mut(&io).expect("an Io waits for its operations");
        let buffer = state.outstanding.get_mut(&flight.id).and_then(|own| own.buffer.as_mut());
        let reads = matches!(flight.work, Work::Read { .. });
        let buffer = buffer.filter(|_| reads).map(|buffer| &mut buffer[..]);
        let landed = self.core.land(&mut flight, buffer);
        let result = landed.map(|landed| match landed {
            Landed::Output(output) => output,
            Landed::Opened { node, mode } => {
                self.core.file(node).handles += 1;
                let state = self.ios.get_mut(&io).expect("an Io waits for its operations");
                let file = FileId(state.next_file);
                state.next_file += 1;
                let writable = mode.access != Access::Read;
                let (path, direct) = (flight.path.clone(), mode.direct);
                state.files.insert(file, OpenFile { node, path, writable, direct, in_flight: 0 });
                Output::File { file, direct }
            }
        });
        if let (Work::Rename { from, to }, Ok(_)) = (&flight.work, &result) {
            // Faults are placed by the name a file has now.
            let state = self.ios.get_mut(&io).expect("an Io waits for its operations");
            for open in state.files.values_mut().filter(|open| open.path == *from) {
                open.path.clone_from(to);
            }
        }
        let number = u64::from(result.is_ok());
        let what = "took effect";
        self.core.trace.note(self.core.now, what, [flight.id, number, 0], || format!("{result:?}"));
        flight.result = Some(result);
        self.core.flights.insert(flight.id, flight);
    }

    fn finish(&mut self, flight: Flight) {
        let Some(io) = flight.io else { return };
        if let (Work::Write { node, dsync: true, .. }, Some(Ok(_))) = (&flight.work, &flight.result)
        {
            let id = flight.id;
            self.core.file(*node).pin(|origin| origin.operation == id);
        }
        self.core.trace.note(self.core.now, "ended", [flight.id, 0, 0], String::new);
        let state = self.io(io);
        if let Some(outstanding) = state.outstanding.get_mut(&flight.id) {
            outstanding.result.clone_from(&flight.result);
            state.ready.push_back(flight.id);
        }
        self.core.flights.insert(flight.id, flight);
    }

    /// Moves time to `to`, letting things happen on the way.
    pub(super) fn advance(&mut self, to: Monotonic) {
        while let Some(next) = self.core.next_at().filter(|next| *next <= to) {
            self.core.now = next;
            self.happen();
        }
        self.core.now = self.core.now.max(to);
    }

    /// Waits for an `Io` as [`Io::poll`](crate::Io::poll) does.
    pub(super) fn poll(&mut self, io: u32, wait: Wait, completions: &mut Vec<Completion>) {
        if self.io(io).dead {
            // Its own clock goes on, so that its loops end; the disk's stands still, so that the
            // moment of the kill can be looked at.
            let cost = self.core.profile.poll_cost.max(Duration::from_nanos(1));
            let waited = if let Wait::AtMost(duration) = wait { duration } else { cost };
            self.io(io).after_death += waited.max(cost);
            return self.report(io, completions);
        }
        self.begin_alone(io);
        let woken = Arc::clone(&self.io(io).woken);
        let cost = self.core.now.plus(self.core.profile.poll_cost);
        let deadline = match wait {
            Wait::No => Some(cost),
            Wait::AtMost(duration) => Some(self.core.now.plus(duration).max(cost)),
            Wait::Forever => None,
        };
        loop {
            self.happen();
            let state = self.io(io);
            if state.dead || !state.ready.is_empty() {
                break;
            }
            if wait != Wait::No && woken.swap(false, Ordering::SeqCst) {
                break;
            }
            let idle = state.outstanding.is_empty();
            match (self.core.next_at(), deadline) {
                (_, None) if idle => self.violated("the shard waits for nothing"),
                (Some(next), None) => self.core.now = next,
                (Some(next), Some(deadline)) if next <= deadline => self.core.now = next,
                (_, Some(deadline)) => {
                    self.core.now = deadline;
                    break;
                }
                (None, None) => self.violated("the disk hangs and the shard waits for ever"),
            }
        }
        self.report(io, completions);
    }

    /// Returns whether an `Io` keeps a lone write back, as [`Io::is_alone`](crate::Io::is_alone)
    /// does.
    pub(super) fn is_alone(&mut self, io: u32) -> bool {
        self.io(io).alone.is_some()
    }

    /// Gives the lone write to the kernel, if there is one: it is alone no more, or somebody waits.
    pub(super) fn begin_alone(&mut self, io: u32) {
        if let Some(flight) = self.io(io).alone.take() {
            self.core.trace.note(self.core.now, "began", [flight.id, 0, 0], String::new);
            self.core.launch(flight);
            self.boundary();
        }
    }

    /// Runs the lone write to its end, as [`Io::run_alone`](crate::Io::run_alone) does: the process
    /// is in a system call meanwhile, so nothing wakes it but its death.
    pub(super) fn run_alone(&mut self, io: u32, completions: &mut Vec<Completion>) {
        if !self.is_alone(io) {
            self.violated("no write is alone");
        }
        if self.io(io).outstanding.len() > 1 {
            self.violated("a lone write is alone");
        }
        self.core.trace.count("lone write", 1);
        self.begin_alone(io);
        while !self.io(io).dead && self.io(io).ready.is_empty() {
            match self.core.next_at() {
                Some(next) => self.core.now = next,
                None => self.violated("the disk hangs and the shard is in a system call"),
            }
            self.happen();
        }
        let dead = self.io(io).dead;
        self.core.trace.count("crash in a lone write", u64::from(dead));
        self.report(io, completions);
    }

    fn report(&mut self, io: u32, completions: &mut Vec<Completion>) {
        let state = self.io(io);
        let dead = state.dead;
        let ready: Vec<u64> = if dead {
            state.outstanding.keys().copied().collect()
        } else {
            state.ready.drain(..).collect()
        };
        state.empty_polls = if ready.is_empty() { state.empty_polls + 1 } else { 0 };
        if state.empty_polls > EMPTY_POLLS_MAX {
            self.violated("a process polls and polls and nothing ends");
        }
        for id in ready {
            let state = self.io(io);
            let Some(own) = state.outstanding.remove(&id) else { continue };
            let Outstanding { token, verb, path, position, file, buffer, result } = own;
            let open = file.and_then(|file| state.files.get_mut(&file));
            if let Some(open) = open {
                open.in_flight -= 1;
            }
            let result = match result {
                Some(result) if !dead => result,
                _ => {
                    let (kind, operation, errno) = (IoErrorKind::Dead, verb, None);
                    Err(IoError { kind, operation, path, position, errno })
                }
            };
            // What a dead process had in flight is still under way.
            let flight = if dead { None } else { self.core.flights.remove(&id) };
            if let Some(flight) = flight {
                self.core.mark_reported(id, &flight.touched, true);
            }
            let ok = u64::from(result.is_ok());
            self.core.trace.note(self.core.now, "reported", [id, token.0, ok], String::new);
            completions.push(Completion { token, result, buffer });
        }
    }

    /// Ends an `Io`: waits for what it has in flight, as every backend does.
    pub(super) fn close_io(&mut self, io: u32, unwinding: bool) {
        if unwinding {
            // The test has failed already; whatever holds, do not hang or panic again.
            self.kill(self.ios.get(&io).map_or(0, |state| state.life));
        }
        self.begin_alone(io);
        loop {
            let state = self.io(io);
            if state.dead || state.ready.len() == state.outstanding.len() {
                break;
            }
            match self.core.next_at() {
                Some(next) => self.core.now = next,
                None => self.violated("the disk hangs and an Io waits for its operations"),
            }
            self.happen();
        }
        let Some(state) = self.ios.remove(&io) else { return };
        if state.dead {
            return;
        }
        for id in state.outstanding.keys() {
            if let Some(flight) = self.core.flights.remove(id) {
                self.core.mark_reported(*id, &flight.touched, false);
            }
        }
        for file in state.files.values() {
            self.core.file(file.node).let_go();
        }
        for lock in self.core.locks.values_mut() {
            lock.ios.remove(&io);
        }
        self.core.collect();
    }
}
