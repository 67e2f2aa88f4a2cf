//! Plain system calls: on worker threads, or on the polling thread itself.
//!
//! [`ThreadsIo`] serves a shard where `io_uring(7)` is forbidden (containers) and is its partner in
//! differential tests; [`InlineIo`] serves readers and straight-line control code.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::{Monotonic, monotonic_now, wall_clock_ms};
use crate::error::IoError;
use crate::execute::{Done, Holdings, IN_FLIGHT_MAX, Job};
use crate::lock::Owner;
use crate::operation::{Completion, Operation, Token};
use crate::pool::{Mailbox, Pool};
use crate::random::kernel_u64;
use crate::waker::Waker;
use crate::{Backend, Io, Wait};

/// The most worker threads of one [`ThreadsIo`].
pub const WORKERS_MAX: usize = 64;

/// The worker threads a shard uses unless told otherwise: enough to keep a disk busy and a flush
/// beside the writes, few enough to cost nothing.
pub const WORKERS_DEFAULT: usize = 4;

/// Files by blocking system calls on a few worker threads.
///
/// Operations start when they are submitted, as soon as a worker is free, and run in any order.
/// Dropping it runs what was submitted to its end, waits for that, and gives the locks back.
#[derive(Debug)]
pub struct ThreadsIo {
    pool: Pool,
    holdings: Holdings,
    mailbox: Arc<Mailbox>,
    arrived: Vec<Done>,
    in_flight: usize,
}

impl ThreadsIo {
    /// Starts `worker_count` threads, at least one and at most [`WORKERS_MAX`].
    ///
    /// # Errors
    /// [`IoErrorKind::Resources`](crate::IoErrorKind::Resources) if the kernel refuses a thread.
    pub fn new(worker_count: usize) -> Result<Self, IoError> {
        Self::of(Owner::default(), worker_count)
    }

    /// As [`new`](ThreadsIo::new), sharing directory locks with the owner's others.
    pub(crate) fn of(owner: Owner, worker_count: usize) -> Result<Self, IoError> {
        let mailbox = Arc::new(Mailbox::default());
        let deliver = {
            let mailbox = Arc::clone(&mailbox);
            move |done| mailbox.put(done)
        };
        Ok(ThreadsIo {
            pool: Pool::new("highwater-io", worker_count.clamp(1, WORKERS_MAX), deliver)?,
            holdings: Holdings::of(owner),
            mailbox,
            arrived: Vec::new(),
            in_flight: 0,
        })
    }
}

impl Io for ThreadsIo {
    fn submit(&mut self, token: Token, operation: Operation) {
        assert!(self.in_flight < IN_FLIGHT_MAX, "more than {IN_FLIGHT_MAX} operations in flight");
        self.pool.submit(self.holdings.job(token, operation));
        self.in_flight += 1;
    }

    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        self.mailbox.collect(wait, &mut self.arrived);
        self.in_flight -= self.arrived.len();
        for done in self.arrived.drain(..) {
            completions.push(self.holdings.settle(done));
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn capacity(&self) -> usize {
        IN_FLIGHT_MAX
    }

    fn backend(&self) -> Backend {
        Backend::Threads
    }

    fn waker(&self) -> Waker {
        let mailbox = Arc::clone(&self.mailbox);
        Waker::new(move || mailbox.wake())
    }

    fn now(&self) -> Monotonic {
        monotonic_now()
    }

    fn wall_clock_ms(&self) -> i64 {
        wall_clock_ms()
    }

    fn random_u64(&mut self) -> u64 {
        kernel_u64()
    }
}

impl Drop for ThreadsIo {
    fn drop(&mut self) {
        // Collected too, not only ended: a waker that outlives this keeps the mailbox, which shall
        // keep no file and no lock.
        let mut ended = Vec::new();
        while self.in_flight > 0 {
            self.poll(Wait::Forever, &mut ended);
            ended.clear();
        }
    }
}

/// Files by blocking system calls on the thread that polls.
///
/// Operations run inside [`poll`](Io::poll), in the order of their submission, whatever `wait`
/// says; it waits only when nothing was submitted. Dropping it runs what was submitted and gives
/// the locks back.
#[derive(Debug, Default)]
pub struct InlineIo {
    queue: VecDeque<Job>,
    holdings: Holdings,
    mailbox: Arc<Mailbox>,
}

impl InlineIo {
    /// Returns a new one. Starts no thread and takes no descriptor.
    #[must_use]
    pub fn new() -> Self {
        InlineIo::default()
    }

    /// As [`new`](InlineIo::new), sharing directory locks with the owner's others.
    pub(crate) fn of(owner: Owner) -> Self {
        let holdings = Holdings::of(owner);
        InlineIo { queue: VecDeque::new(), holdings, mailbox: Arc::default() }
    }
}

impl Io for InlineIo {
    fn submit(&mut self, token: Token, operation: Operation) {
        let room = self.queue.len() < IN_FLIGHT_MAX;
        assert!(room, "more than {IN_FLIGHT_MAX} operations in flight");
        self.queue.push_back(self.holdings.job(token, operation));
    }

    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        if self.queue.is_empty() {
            // Nothing is ever put into this mailbox: it serves the waiting and the waker.
            self.mailbox.collect(wait, &mut Vec::new());
        }
        for job in self.queue.drain(..) {
            completions.push(self.holdings.settle(job.execute()));
        }
    }

    fn in_flight(&self) -> usize {
        self.queue.len()
    }

    fn capacity(&self) -> usize {
        IN_FLIGHT_MAX
    }

    fn backend(&self) -> Backend {
        Backend::Inline
    }

    fn waker(&self) -> Waker {
        let mailbox = Arc::clone(&self.mailbox);
        Waker::new(move || mailbox.wake())
    }

    fn now(&self) -> Monotonic {
        monotonic_now()
    }

    fn wall_clock_ms(&self) -> i64 {
        wall_clock_ms()
    }

    fn random_u64(&mut self) -> u64 {
        kernel_u64()
    }
}

impl Drop for InlineIo {
    fn drop(&mut self) {
        for job in self.queue.drain(..) {
            drop(job.execute());
        }
    }
}
