//! The real machine: picks `io_uring(7)` or worker threads for shards.

use std::sync::{Arc, OnceLock};

use crate::clock::Monotonic;
use crate::error::IoError;
use crate::lock::Owner;
use crate::operation::{Completion, Operation, Token};
use crate::threads::{InlineIo, ThreadsIo, WORKERS_DEFAULT};
use crate::uring::{ReaderIo, UringIo, remedy};
use crate::waker::Waker;
use crate::{Backend, Io, Platform, Wait};

/// Which backend shards shall use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// `io_uring` where it can be had, worker threads where not.
    #[default]
    Auto,
    /// `io_uring`, or an error.
    Uring,
    /// Worker threads.
    Threads,
}

/// The real machine.
///
/// A platform and its clones are one owner of directory locks: when an [`Io`] of one has locked a
/// directory, locking it again from another of the same family joins in, and the lock is given
/// back when the last of them is dropped. Another platform - of another engine in this process,
/// too - is refused. So every ring that writes into a directory can keep its lock.
#[derive(Clone, Debug, Default)]
pub struct SystemPlatform {
    /// Which backend shards use.
    choice: BackendChoice,
    /// Why a shard had to do without `io_uring`; the same for all clones.
    fallback: Arc<OnceLock<String>>,
    owner: Owner,
}

impl SystemPlatform {
    /// Returns the platform whose shards use `choice`. Touches nothing yet.
    #[must_use]
    pub fn new(choice: BackendChoice) -> Self {
        SystemPlatform { choice, ..SystemPlatform::default() }
    }

    /// Returns which backend shards were asked to use.
    #[must_use]
    pub fn choice(&self) -> BackendChoice {
        self.choice
    }

    /// Returns why a shard uses threads although [`BackendChoice::Auto`] looked for `io_uring`, and
    /// what would help; `None` while every shard got it.
    #[must_use]
    pub fn fallback_reason(&self) -> Option<String> {
        self.fallback.get().cloned()
    }
}

impl Platform for SystemPlatform {
    type ShardIo = SystemIo;
    type ControlIo = InlineIo;
    type ReaderIo = ReaderIo;

    fn shard_io(&self) -> Result<SystemIo, IoError> {
        let uring = || UringIo::of(self.owner.clone()).map(|io| SystemIo::Uring(Box::new(io)));
        match self.choice {
            BackendChoice::Threads => {}
            BackendChoice::Uring => return uring(),
            BackendChoice::Auto => match uring() {
                Ok(io) => return Ok(io),
                Err(error) => {
                    self.fallback.get_or_init(|| format!("{error}; {}", remedy(&error)));
                }
            },
        }
        ThreadsIo::of(self.owner.clone(), WORKERS_DEFAULT).map(SystemIo::Threads)
    }

    fn control_io(&self) -> Result<InlineIo, IoError> {
        Ok(InlineIo::of(self.owner.clone()))
    }

    fn device_written_in_place(&self, path: &std::path::Path) -> Result<u64, IoError> {
        crate::space::device_written_in_place(path)
    }

    fn reader_io(&self) -> Result<ReaderIo, IoError> {
        Ok(ReaderIo::of(self.owner.clone()))
    }
}

/// What a shard on the real machine uses.
#[derive(Debug)]
pub enum SystemIo {
    /// `io_uring(7)`.
    Uring(Box<UringIo>),
    /// Worker threads.
    Threads(ThreadsIo),
}

impl Io for SystemIo {
    fn submit(&mut self, token: Token, operation: Operation) {
        match self {
            SystemIo::Uring(io) => io.submit(token, operation),
            SystemIo::Threads(io) => io.submit(token, operation),
        }
    }

    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        match self {
            SystemIo::Uring(io) => io.poll(wait, completions),
            SystemIo::Threads(io) => io.poll(wait, completions),
        }
    }

    fn is_alone(&self) -> bool {
        match self {
            SystemIo::Uring(io) => io.is_alone(),
            SystemIo::Threads(io) => io.is_alone(),
        }
    }

    fn run_alone(&mut self, completions: &mut Vec<Completion>) {
        match self {
            SystemIo::Uring(io) => io.run_alone(completions),
            SystemIo::Threads(io) => io.run_alone(completions),
        }
    }

    fn in_flight(&self) -> usize {
        match self {
            SystemIo::Uring(io) => io.in_flight(),
            SystemIo::Threads(io) => io.in_flight(),
        }
    }

    fn capacity(&self) -> usize {
        match self {
            SystemIo::Uring(io) => io.capacity(),
            SystemIo::Threads(io) => io.capacity(),
        }
    }

    fn backend(&self) -> Backend {
        match self {
            SystemIo::Uring(io) => io.backend(),
            SystemIo::Threads(io) => io.backend(),
        }
    }

    fn waker(&self) -> Waker {
        match self {
            SystemIo::Uring(io) => io.waker(),
            SystemIo::Threads(io) => io.waker(),
        }
    }

    fn now(&self) -> Monotonic {
        match self {
            SystemIo::Uring(io) => io.now(),
            SystemIo::Threads(io) => io.now(),
        }
    }

    fn wall_clock_ms(&self) -> i64 {
        match self {
            SystemIo::Uring(io) => io.wall_clock_ms(),
            SystemIo::Threads(io) => io.wall_clock_ms(),
        }
    }

    fn random_u64(&mut self) -> u64 {
        match self {
            SystemIo::Uring(io) => io.random_u64(),
            SystemIo::Threads(io) => io.random_u64(),
        }
    }
}
