//! The disk itself: its clock, its queue of what happens next, and what is in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::fault::{Fault, FaultRule, Planted};
use super::file::Origin;
use super::flight::{Flight, Step, Work};
use super::profile::{FaultRates, Latency, SimProfile};
use super::trace::Trace;
use super::tree::{NodeId, Tree};
use crate::clock::Monotonic;
use crate::error::IoErrorKind;
use crate::random::SeededRandom;

/// Wall-clock time when a disk is made: 2023-11-14, 22:13:20 UTC.
const WALL_START_MS: i64 = 1_700_000_000_000;
/// How long a failed attempt at a lock takes, so that trying again comes to an end.
const LOCK_ATTEMPT_NS: u64 = 1_000_000;

/// The lock of a directory. The `Io`s of one process share it, and each that took it keeps it.
#[derive(Clone, Debug)]
pub(super) struct HeldLock {
    pub(super) life: u32,
    /// The living `Io`s that took it.
    pub(super) ios: BTreeSet<u32>,
    /// Those that took it and were killed: each keeps it as long as it has something in flight.
    pub(super) killed: BTreeSet<u32>,
}

/// Independent random numbers, so that drawing more of one kind does not shift the others.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    pub(super) schedule: SeededRandom,
    pub(super) faults: SeededRandom,
    pub(super) late: SeededRandom,
    pub(super) harm: SeededRandom,
    pub(super) processes: SeededRandom,
}

impl Streams {
    pub(super) fn new(seed: u64) -> Self {
        let root = SeededRandom::new(seed);
        Streams {
            schedule: root.split("schedule"),
            faults: root.split("faults"),
            late: root.split("late landings"),
            harm: root.split("harm"),
            processes: root.split("processes"),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Core {
    pub(super) seed: u64,
    pub(super) profile: SimProfile,
    pub(super) now: Monotonic,
    pub(super) wall_ms: i64,
    pub(super) tree: Tree,
    pub(super) flights: BTreeMap<u64, Flight>,
    pub(super) locks: BTreeMap<NodeId, HeldLock>,
    pub(super) rules: Vec<FaultRule>,
    /// What rules have struck since the last healing: verbs and paths.
    pub(super) struck: BTreeSet<(&'static str, PathBuf)>,
    pub(super) planted: Planted,
    pub(super) random: Streams,
    pub(super) trace: Trace,
    pub(super) hung: bool,
    pub(super) boundaries: u64,
    pub(super) stop_at: Option<u64>,
    pub(super) reports: u64,
    pub(super) next_life: u32,
    pub(super) next_io: u32,
    queue: BTreeMap<(Monotonic, u64), (u64, Step)>,
    next_event: u64,
    next_operation: u64,
    slow_until: Monotonic,
}

impl Core {
    pub(super) fn new(seed: u64, profile: SimProfile) -> Self {
        let trace = Trace::new(profile.trace_lines);
        Core {
            seed,
            profile,
            now: Monotonic(1_000_000_000),
            wall_ms: WALL_START_MS,
            tree: Tree::new(),
            flights: BTreeMap::new(),
            locks: BTreeMap::new(),
            rules: Vec::new(),
            struck: BTreeSet::new(),
            planted: Planted::Nothing,
            random: Streams::new(seed),
            trace,
            hung: false,
            boundaries: 0,
            stop_at: None,
            reports: 0,
            next_life: 1,
            next_io: 1,
            queue: BTreeMap::new(),
            next_event: 0,
            next_operation: 1,
            slow_until: Monotonic(0),
        }
    }

    /// Counts a boundary; returns whether the process is to die here.
    pub(super) fn boundary(&mut self) -> bool {
        self.boundaries += 1;
        self.stop_at.is_some_and(|stop| self.boundaries >= stop)
    }

    /// Returns the number of the next operation.
    pub(super) fn number(&mut self) -> u64 {
        self.next_operation += 1;
        self.next_operation - 1
    }

    /// Chooses the fault of an operation about to be submitted.
    pub(super) fn choose_fault(&mut self, flight: &Flight) -> Option<Fault> {
        let path = flight.path.to_string_lossy();
        let mut struck = None;
        for (index, rule) in self.rules.iter_mut().enumerate() {
            if rule.strikes(flight.verb, &path, flight.work.changes()) && struck.is_none() {
                struck = Some(index);
            }
        }
        if let Some(index) = struck {
            let fault = self.rules[index].fault().clone();
            if !self.rules[index].lasts() {
                self.rules.remove(index);
            }
            self.struck.insert((flight.verb, flight.path.clone()));
            return Some(fault);
        }
        let FaultRates {
            read_error,
            bit_flip,
            misdirected_write,
            lost_write,
            stale_block,
            write_error,
            flush_error,
            no_space,
            slow_spell: _,
        } = self.profile.faults;
        let full = Fault::Refuse(IoErrorKind::NoSpace);
        let rates: &[(u32, Fault)] = match &flight.work {
            Work::Read { .. } => &[(read_error, Fault::ReadError), (bit_flip, Fault::BitFlip)],
            Work::Write { .. } => &[
                (misdirected_write, Fault::MisdirectedWrite),
                (lost_write, Fault::LostWrite),
                (stale_block, Fault::StaleBlock),
                (write_error, Fault::WriteError),
                (no_space, full),
            ],
            Work::Flush { .. } | Work::SyncDirectory { .. } => &[(flush_error, Fault::FlushError)],
            Work::Allocate { .. } | Work::CreateDirectory { .. } | Work::Rename { .. } => {
                &[(no_space, full)]
            }
            Work::Open { .. } if flight.work.changes() => &[(no_space, full)],
            _ => &[],
        };
        let mut drawn = u32::try_from(self.random.faults.below(1_000_000)).unwrap_or(u32::MAX);
        for (rate, fault) in rates {
            if drawn < *rate {
                return Some(fault.clone());
            }
            drawn -= rate;
        }
        None
    }

    fn push(&mut self, at: Monotonic, operation: u64, step: Step) {
        self.next_event += 1;
        self.queue.insert((at, self.next_event), (operation, step));
    }

    /// Puts an operation in flight: chooses when it takes effect and when it ends.
    pub(super) fn launch(&mut self, flight: Flight) {
        let spell = self.profile.faults.slow_spell;
        let drawn = self.random.faults.below(1_000_000);
        if drawn < u64::from(spell) {
            self.slow_until = self.now.plus(self.profile.slow_spell_length);
            self.trace.count("slow spell", 1);
        }
        if let Some(fault) = &flight.fault {
            self.trace.count(fault.name(), 1);
        }
        let slow = self.now < self.slow_until || flight.fault == Some(Fault::Slow);
        let Latency { min, max } = flight.work.latency(&self.profile);
        let min = u64::try_from(min.as_nanos()).unwrap_or(u64::MAX);
        let max = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX).max(min);
        let random = &mut self.random.schedule;
        let mut latency = min + random.below((max - min).saturating_add(1));
        latency =
            latency.max(1) * if slow { u64::from(self.profile.slow_factor.max(1)) } else { 1 };
        let effect = random.below(latency + 1);
        let part = random.below(effect + 1);
        let at = |nanos| Monotonic(self.now.0.saturating_add(nanos));
        let (part, effect, finish) = (at(part), at(effect), at(latency));
        if let Work::Write { part: Some(_), .. } = flight.work {
            self.push(part, flight.id, Step::Part);
        }
        self.push(effect, flight.id, Step::Effect);
        self.push(finish, flight.id, Step::Finish);
        self.hung |= flight.fault == Some(Fault::Hang);
        self.flights.insert(flight.id, flight);
    }

    /// Lets a failed attempt at a lock take its time.
    pub(super) fn delay_lock(&mut self, operation: u64) {
        self.queue.retain(|_, (queued, _)| *queued != operation);
        self.push(Monotonic(self.now.0.saturating_add(LOCK_ATTEMPT_NS)), operation, Step::Finish);
    }

    /// Returns when something happens next.
    pub(super) fn next_at(&self) -> Option<Monotonic> {
        if self.hung {
            return None;
        }
        self.queue.first_key_value().map(|((at, _), _)| (*at).max(self.now))
    }

    /// Takes out what is due by now, one step.
    pub(super) fn due(&mut self) -> Option<(u64, Step)> {
        if self.hung {
            return None;
        }
        let entry = self.queue.first_entry()?;
        if entry.key().0 > self.now { None } else { Some(entry.remove()) }
    }

    /// Turns what a dead life has in flight loose: changes land later, the rest is dropped.
    pub(super) fn orphan(&mut self, life: u32) {
        let mut dropped = BTreeSet::new();
        let mut landing = Vec::new();
        // To the kernel these have happened: a later flush of any process covers them.
        let of_life = self.flights.values().filter(|flight| flight.life == life);
        let effective = of_life.filter(|flight| flight.io.is_some() && flight.result.is_some());
        let effective: Vec<_> =
            effective.map(|flight| (flight.id, flight.touched.clone())).collect();
        for (id, touched) in effective {
            self.mark_reported(id, &touched, false);
        }
        for (id, flight) in &mut self.flights {
            if flight.life != life || flight.io.is_none() {
                continue;
            }
            flight.io = None;
            dropped.insert(*id);
            if flight.result.is_none() && flight.work.changes() {
                // A kernel worker that had not begun is stopped with its process.
                flight.cancelled = self.random.late.chance(1, 16);
                landing.push(*id);
            }
        }
        self.queue.retain(|_, (operation, _)| !dropped.contains(operation));
        let max = u64::try_from(self.profile.late_landing_max.as_nanos()).unwrap_or(u64::MAX);
        for id in &landing {
            dropped.remove(id);
            // Half a binary order of magnitude at a time: many land soon, some very late.
            let late = self.random.late.below(max.max(1)) >> self.random.late.below(14);
            // Never at once: who looks at the disk right after the kill finds it in flight.
            self.push(Monotonic(self.now.0.saturating_add(late + 1)), *id, Step::Effect);
            self.trace.note(self.now, "will land late", [*id, late, 0], String::new);
        }
        self.flights.retain(|id, _| !dropped.contains(id));
    }

    /// Forgets everything in flight, as a power cut does.
    pub(super) fn forget_flights(&mut self) {
        self.flights.clear();
        self.queue.clear();
        self.locks.clear();
        self.hung = false;
    }

    /// Returns which process keeps a directory locked.
    pub(super) fn lock_holder(&self, node: NodeId) -> Option<u32> {
        let lock = self.locks.get(&node)?;
        let mut flights = self.flights.values();
        let mut writing = || flights.any(|flight| lock.killed.contains(&flight.owner));
        (!lock.ios.is_empty() || writing()).then_some(lock.life)
    }

    /// Lets the locks of a killed process go once what it has in flight has landed.
    pub(super) fn release_locks(&mut self, life: u32) {
        if self.planted == Planted::LockDroppedAtKill {
            self.locks.retain(|_, lock| lock.life != life);
        }
        for lock in self.locks.values_mut().filter(|lock| lock.life == life) {
            lock.killed.append(&mut lock.ios);
        }
    }

    /// Marks what an operation changed as reported.
    pub(super) fn mark_reported(&mut self, id: u64, touched: &[NodeId], acknowledged: bool) {
        let reports = self.reports;
        self.reports += 1;
        for node in touched {
            // One operation leaves its changes side by side, mostly near the end.
            let mark = |origins: &mut dyn Iterator<Item = &mut Origin>| {
                let own = origins.skip_while(|origin| origin.operation != id);
                for origin in own.take_while(|origin| origin.operation == id) {
                    origin.reported = Some(reports);
                    origin.acknowledged = acknowledged;
                }
            };
            if let Some(file) = self.tree.file_mut(*node) {
                mark(&mut file.pending.iter_mut().rev().map(|pending| &mut pending.origin));
            } else if let Some(directory) = self.tree.directory_mut(*node) {
                mark(&mut directory.pending.iter_mut().rev().map(|pending| &mut pending.origin));
            }
        }
    }

    /// Frees files that nothing can reach any more.
    pub(super) fn collect(&mut self) {
        if !self.tree.has_nameless() {
            return;
        }
        let in_use = self.flights.values().filter_map(|flight| flight.work.node()).collect();
        self.tree.collect(in_use);
    }
}
