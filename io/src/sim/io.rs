//! What a simulated process holds: its platform and its `Io`s.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::disk::{Shared, enter};
use crate::clock::Monotonic;
use crate::error::{IoError, IoErrorKind};
use crate::operation::{Completion, Operation, Token};
use crate::waker::Waker;
use crate::{Backend, Io, Platform, Wait};

/// One life of a process on a [`SimDisk`](super::SimDisk).
#[derive(Clone)]
pub struct SimPlatform {
    machine: Shared,
    life: u32,
}

impl SimPlatform {
    pub(super) fn new(machine: Shared, life: u32) -> Self {
        SimPlatform { machine, life }
    }

    /// Returns whether the process has not been killed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        enter(&self.machine).is_alive(self.life)
    }

    /// Kills this process only.
    pub fn kill(&self) {
        enter(&self.machine).kill(self.life);
    }

    fn open(&self) -> Result<SimIo, IoError> {
        match enter(&self.machine).open_io(self.life) {
            Some(io) => Ok(SimIo { machine: Arc::clone(&self.machine), io }),
            None => {
                let (kind, operation) = (IoErrorKind::Dead, "start an Io for");
                let path = PathBuf::from(format!("process {}", self.life));
                Err(IoError { kind, operation, path, position: None, errno: None })
            }
        }
    }
}

impl Platform for SimPlatform {
    type ShardIo = SimIo;
    type ControlIo = SimIo;
    type ReaderIo = SimIo;

    fn shard_io(&self) -> Result<SimIo, IoError> {
        self.open()
    }

    fn control_io(&self) -> Result<SimIo, IoError> {
        self.open()
    }

    fn reader_io(&self) -> Result<SimIo, IoError> {
        self.open()
    }
}

impl fmt::Debug for SimPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimPlatform(process {})", self.life)
    }
}

/// An [`Io`] on a simulated disk. All those of one disk share its clock: a poll of one moves time
/// on for all.
pub struct SimIo {
    machine: Shared,
    io: u32,
}

impl Io for SimIo {
    fn submit(&mut self, token: Token, operation: Operation) {
        enter(&self.machine).submit(self.io, token, operation);
    }

    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        enter(&self.machine).poll(self.io, wait, completions);
    }

    fn is_alone(&self) -> bool {
        enter(&self.machine).is_alone(self.io)
    }

    fn run_alone(&mut self, completions: &mut Vec<Completion>) {
        enter(&self.machine).run_alone(self.io, completions);
    }

    fn in_flight(&self) -> usize {
        enter(&self.machine).in_flight(self.io)
    }

    fn capacity(&self) -> usize {
        enter(&self.machine).core.profile.queue_depth
    }

    fn backend(&self) -> Backend {
        Backend::Sim
    }

    fn waker(&self) -> Waker {
        let woken = enter(&self.machine).woken(self.io);
        Waker::new(move || woken.store(true, Ordering::SeqCst))
    }

    fn now(&self) -> Monotonic {
        enter(&self.machine).now(self.io)
    }

    fn wall_clock_ms(&self) -> i64 {
        let machine = enter(&self.machine);
        let passed = i64::try_from(machine.now(self.io).0 / 1_000_000).unwrap_or(i64::MAX);
        machine.core.wall_ms.saturating_add(passed)
    }

    fn random_u64(&mut self) -> u64 {
        enter(&self.machine).random_u64(self.io)
    }
}

impl Drop for SimIo {
    fn drop(&mut self) {
        enter(&self.machine).close_io(self.io, std::thread::panicking());
    }
}

impl fmt::Debug for SimIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimIo({})", self.io)
    }
}
