//! The handle a harness holds: processes, crashes, faults, time and damage.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::content::{narrow, page_bytes, wide};
use super::core::{Core, Streams};
use super::fault::{FaultRule, Planted};
use super::io::SimPlatform;
use super::machine::Machine;
use super::profile::{FaultRates, SimProfile};
use super::survival::{PieceSurvival, Survival, UnsyncedPiece};
use super::tree::{NodeId, Tree};
use crate::clock::Monotonic;

/// A simulated disk and the machine around it. Processes come and go; the disk stays.
///
/// A clone is a deep copy: it shares nothing, and to it every process is dead.
pub struct SimDisk {
    machine: Shared,
}

/// What disk, processes and their `Io`s share.
pub(super) type Shared = Arc<Mutex<Machine>>;

/// Returns the machine also after a panic: what a failed test left is still of use.
pub(super) fn enter(machine: &Shared) -> MutexGuard<'_, Machine> {
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clone for SimDisk {
    fn clone(&self) -> Self {
        SimDisk { machine: Arc::new(Mutex::new(self.enter().fork())) }
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.enter();
        let (seed, boundaries) = (machine.core.seed, machine.core.boundaries);
        write!(f, "SimDisk(seed {seed}, {boundaries} boundaries)")
    }
}

impl SimDisk {
    /// Returns an empty disk; `seed` and the calls that follow decide everything that happens.
    #[must_use]
    pub fn new(seed: u64, profile: SimProfile) -> Self {
        SimDisk { machine: Arc::new(Mutex::new(Machine::new(Core::new(seed, profile)))) }
    }

    fn enter(&self) -> MutexGuard<'_, Machine> {
        enter(&self.machine)
    }

    /// Returns the seed it was made with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.enter().core.seed
    }

    /// Returns a deep copy, as [`Clone`] does: for enumerating crashes, or for an old backup.
    #[must_use]
    pub fn clone_state(&self) -> SimDisk {
        self.clone()
    }

    /// Draws everything from here on from another seed, so that copies go separate ways.
    pub fn reseed(&self, seed: u64) {
        let mut machine = self.enter();
        machine.core.seed = seed;
        machine.core.random = Streams::new(seed);
    }

    /// Starts a process. Others may be alive (a reader beside a writer).
    #[must_use]
    pub fn start_process(&self) -> SimPlatform {
        let life = self.enter().start_life();
        SimPlatform::new(Arc::clone(&self.machine), life)
    }

    /// Kills every process: what they submit from now on fails with
    /// [`IoErrorKind::Dead`](crate::IoErrorKind::Dead), what they had in flight lands later.
    pub fn kill(&self) {
        self.enter().kill_all();
    }

    /// Returns whether some process is alive.
    #[must_use]
    pub fn has_process(&self) -> bool {
        self.enter().any_alive()
    }

    /// Cuts the power: every process is dead, nothing is in flight, and of what was not on the
    /// media `survival` remains.
    pub fn power_cut(&self, survival: Survival) {
        let mut machine = self.enter();
        machine.kill_all();
        machine.core.power_cut(survival);
    }

    /// Cuts the power as [`power_cut`](SimDisk::power_cut); `decide` says what remains of each
    /// piece.
    pub fn power_cut_with(&self, decide: &mut dyn FnMut(&UnsyncedPiece) -> PieceSurvival) {
        self.kill();
        // Not while holding the machine: `decide` may look at the disk.
        let pieces = self.unsynced();
        let fates = pieces.iter().map(|piece| (piece.id, decide(piece))).collect();
        self.enter().core.power_cut_with(fates);
    }

    /// Returns what a power cut now would decide on.
    #[must_use]
    pub fn unsynced(&self) -> Vec<UnsyncedPiece> {
        self.enter().core.unsynced()
    }

    /// Loses everything on the disk and every process, as a replaced device does.
    pub fn reformat(&self) {
        let mut machine = self.enter();
        machine.kill_all();
        machine.core.forget_flights();
        machine.core.tree = Tree::new();
    }

    /// Returns how many I/O boundaries have been passed: each submission, each effect and each
    /// end of an operation is one.
    #[must_use]
    pub fn boundaries(&self) -> u64 {
        self.enter().core.boundaries
    }

    /// Kills every process as soon as so many boundaries have been passed.
    pub fn stop_at_boundary(&self, boundary: u64) {
        let mut machine = self.enter();
        machine.core.stop_at = Some(boundary);
        if machine.core.boundaries >= boundary {
            machine.kill_all();
        }
    }

    /// Returns what operations of dead processes are on whose effect has not landed yet.
    #[must_use]
    pub fn late(&self) -> Vec<PathBuf> {
        let machine = self.enter();
        let late = machine.core.flights.values().filter(|flight| flight.io.is_none());
        late.map(|flight| flight.path.clone()).collect()
    }

    /// Makes one coming operation go wrong.
    pub fn inject(&self, rule: FaultRule) {
        self.enter().core.rules.push(rule);
    }

    /// Returns how many rules have not struck yet.
    #[must_use]
    pub fn rules_left(&self) -> usize {
        self.enter().core.rules.len()
    }

    /// Returns verb and path of every operation that a rule has struck since the last
    /// [`heal`](SimDisk::heal), each once.
    #[must_use]
    pub fn struck(&self) -> Vec<(&'static str, PathBuf)> {
        self.enter().core.struck.iter().cloned().collect()
    }

    /// Takes back every rule, and forgets what they struck. What they did stays done.
    pub fn heal(&self) {
        let mut machine = self.enter();
        machine.core.rules.clear();
        machine.core.struck.clear();
    }

    /// Changes how often faults happen by themselves.
    pub fn set_fault_rates(&self, rates: FaultRates) {
        self.enter().core.profile.faults = rates;
    }

    /// Changes how many bytes fit the disk.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.enter().core.profile.capacity_bytes = bytes;
    }

    /// Returns how many bytes are taken, the blocks of names included.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.enter().core.tree.used_pages() * page_bytes()
    }

    /// Plants a deliberate mistake in the simulated kernel.
    pub fn set_planted(&self, planted: Planted) {
        self.enter().core.planted = planted;
    }

    /// Lets the disk hang: nothing takes effect or ends until [`thaw`](SimDisk::thaw) or a power
    /// cut. Waiting for ever or dropping a busy `Io` then panics; after a kill, dropping is free.
    pub fn hang(&self) {
        self.enter().core.hung = true;
    }

    /// Lets a hung disk go on.
    pub fn thaw(&self) {
        self.enter().core.hung = false;
    }

    /// Returns the virtual time.
    #[must_use]
    pub fn now(&self) -> Monotonic {
        self.enter().core.now
    }

    /// Moves the virtual time on, letting happen what is due on the way.
    pub fn advance(&self, duration: Duration) {
        let mut machine = self.enter();
        let to = machine.core.now.plus(duration);
        machine.advance(to);
    }

    /// Returns when something happens next on this disk, if it does by itself: for a scheduler of
    /// several disks.
    #[must_use]
    pub fn next_event(&self) -> Option<Monotonic> {
        self.enter().core.next_at()
    }

    /// Moves the wall clock by so many milliseconds, forward or back.
    pub fn jump_wall_clock(&self, milliseconds: i64) {
        let mut machine = self.enter();
        machine.core.wall_ms = machine.core.wall_ms.saturating_add(milliseconds);
    }

    /// Returns a hash over every submission, effect and end so far, with their times.
    #[must_use]
    pub fn trace_digest(&self) -> u64 {
        self.enter().core.trace.digest()
    }

    /// Starts or ends keeping the trace as text.
    pub fn record_trace(&self, recording: bool) {
        self.enter().core.trace.record(recording);
    }

    /// Returns the last lines of the trace.
    #[must_use]
    pub fn trace_lines(&self) -> Vec<String> {
        self.enter().core.trace.lines()
    }

    /// Returns how often each interesting thing has happened, to see whether a test tested it.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.enter().core.trace.counts()
    }

    /// Returns every file a process sees, sorted.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.enter().core.tree.paths()
    }

    /// Returns the bytes of a file as a process sees them.
    #[must_use]
    pub fn read_file(&self, path: &Path) -> Option<Vec<u8>> {
        let machine = self.enter();
        let node = machine.core.tree.resolve_file(path).ok()?;
        machine.core.tree.file(node).map(super::file::SimFile::shown_bytes)
    }

    /// Returns the bytes the media holds of the file that has this name for a process.
    #[must_use]
    pub fn media_file(&self, path: &Path) -> Option<Vec<u8>> {
        let machine = self.enter();
        let node = machine.core.tree.resolve_file(path).ok()?;
        machine.core.tree.file(node).map(|file| file.media.bytes())
    }

    /// Replaces bytes of a file wherever they are kept: on the media, in caches and in writes on
    /// their way.
    ///
    /// # Panics
    /// If the file does not exist or the bytes go beyond its end.
    pub fn overwrite_media(&self, path: &Path, position: u64, bytes: &[u8]) {
        let mut machine = self.enter();
        let node = machine.core.tree.resolve_file(path);
        let Ok(node) = node else { panic!("there is no file {}", path.display()) };
        let file = machine.core.file(node);
        let end = position + wide(bytes.len());
        assert!(end <= file.view.length(), "damage lies inside the file");
        for page in position / page_bytes()..end.div_ceil(page_bytes()) {
            let start = page * page_bytes();
            let from = position.max(start);
            let to = end.min(start + page_bytes());
            let new = &bytes[narrow(from - position)..narrow(to - position)];
            file.damage(page, |page| {
                page[narrow(from - start)..narrow(to - start)].copy_from_slice(new);
            });
        }
    }

    /// Makes blocks of a file unreadable until they are rewritten.
    ///
    /// # Panics
    /// If the file does not exist.
    pub fn break_blocks(&self, path: &Path, position: u64, length: u64) {
        let mut machine = self.enter();
        let node: Result<NodeId, i32> = machine.core.tree.resolve_file(path);
        let Ok(node) = node else { panic!("there is no file {}", path.display()) };
        let (first, end) = (position / page_bytes(), (position + length).div_ceil(page_bytes()));
        machine.core.file(node).mark_bad(first, end);
    }
}
