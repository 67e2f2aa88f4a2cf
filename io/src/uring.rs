//! `io_uring(7)` for one shard thread.
//!
//! Reads, writes, flushes and allocations go through the ring. What works on names, and what has no
//! operation on every kernel we support, runs on one helper thread, because the kernel would block
//! the shard's thread or hand it to a worker anyway; its end wakes the ring. A poll costs one
//! system call, or none if there is nothing to start and nothing to wait for.

mod flights;
mod reader;
mod setup;
mod signal;

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use io_uring::squeue::Entry;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};

use crate::buffer::AlignedBuffer;
use crate::clock::{Monotonic, monotonic_now, wall_clock_ms};
use crate::error::IoError;
use crate::execute::{Done, Holdings, IN_FLIGHT_MAX, LOCKS_MAX, Outcome};
use crate::lock::{DirectoryLock, Owner};
use crate::operation::{Completion, Operation, Token};
use crate::pool::{Mailbox, Pool};
use crate::random::kernel_u64;
use crate::sys::errno_of;
use crate::waker::Waker;
use crate::{Backend, Io, Wait};

use flights::{Flights, Landing};
use signal::Signal;

pub use reader::ReaderIo;
pub use setup::remedy;
pub(crate) use setup::{NAME, ring};

/// The `user_data` of the wake-up's read; no operation has it, for places are below it.
const WAKE_UP: u64 = u64::MAX;

/// How often in a row the kernel may refuse to take operations for want of memory before we give
/// up; it has taken none of them, and nobody above could do better than to try again.
const REFUSALS_MAX: u32 = 1 << 16;

/// Files by `io_uring(7)`, for the thread that made it.
///
/// Operations start at the next [`poll`](Io::poll). Dropping it starts what was submitted, waits
/// for the end of all, and gives the locks back.
pub struct UringIo {
    ring: IoUring,
    flights: Flights,
    /// A durable write that was submitted with nothing else in flight; the kernel does not know of
    /// it yet.
    alone: Option<Entry>,
    helper: Pool,
    helper_in_flight: usize,
    mailbox: Arc<Mailbox>,
    signal: Arc<Signal>,
    /// Where the kernel puts the count of the wake-up's read; it is the kernel's while `armed`.
    count: AlignedBuffer,
    armed: bool,
    refusals: u32,
    /// Reused: results of the kernel and of the helper on their way to the submitter.
    landed: Vec<(u64, i32)>,
    arrived: Vec<Done>,
    holdings: Holdings,
    /// The kernel accepts a ring's work from one thread only, and so do we.
    one_thread: PhantomData<*mut ()>,
}

impl UringIo {
    /// Makes a ring for the calling thread, with the best setup this kernel has, and starts its
    /// helper thread.
    ///
    /// # Errors
    /// [`Unsupported`](crate::IoErrorKind::Unsupported) if the kernel has no ring or too old a one,
    /// [`PermissionDenied`](crate::IoErrorKind::PermissionDenied) if a container or the
    /// administrator forbids it, [`Resources`](crate::IoErrorKind::Resources) if memory,
    /// descriptors or threads are out. [`remedy`] says what helps.
    pub fn new() -> Result<Self, IoError> {
        Self::of(Owner::default())
    }

    /// As [`new`](UringIo::new), sharing directory locks with the owner's others.
    pub(crate) fn of(owner: Owner) -> Result<Self, IoError> {
        Self::on(ring()?, owner)
    }

    fn on(ring: IoUring, owner: Owner) -> Result<Self, IoError> {
        let signal =
            Signal::new().map_err(|errno| IoError::from_errno(errno, "wake", NAME.into(), None))?;
        let (mailbox, signal) = (Arc::new(Mailbox::default()), Arc::new(signal));
        let deliver = {
            let (mailbox, signal) = (Arc::clone(&mailbox), Arc::clone(&signal));
            move |done| {
                mailbox.put(done);
                signal.send();
            }
        };
        let mut io = UringIo {
            ring,
            flights: Flights::new(),
            alone: None,
            helper: Pool::new("highwater-names", 1, deliver)?,
            helper_in_flight: 0,
            mailbox,
            signal,
            count: AlignedBuffer::zeroed(size_of::<u64>()),
            armed: false,
            refusals: 0,
            landed: Vec::new(),
            arrived: Vec::new(),
            holdings: Holdings::of(owner),
            one_thread: PhantomData,
        };
        io.arm();
        Ok(io)
    }

    /// Queues the read that ends a wait.
    fn arm(&mut self) {
        let bytes = u32::try_from(size_of::<u64>()).unwrap_or(u32::MAX);
        let fd = Fd(self.signal.descriptor());
        let entry = opcode::Read::new(fd, self.count.as_mut_ptr(), bytes).build();
        self.armed = true;
        self.push(&entry.user_data(WAKE_UP));
    }

    fn push(&mut self, entry: &Entry) {
        let mut queue = self.ring.submission();
        // SAFETY: the memory and the descriptor that `entry` names stay ours, alive and in place
        // until its completion is reaped: those of an operation lie in `flights` (a buffer's
        // address does not change when the buffer value moves), those of the wake-up in `count`
        // and `signal`; and dropping this value first waits for all of them.
        let pushed = unsafe { queue.push(entry) };
        assert!(pushed.is_ok(), "the submission queue holds every operation in flight");
    }

    /// Queues the lone write, if there is one: it is alone no more, or shall not block.
    fn push_alone(&mut self) {
        if let Some(entry) = self.alone.take() {
            self.push(&entry);
        }
    }

    /// Starts what is queued and waits as told; one system call, or none.
    fn enter(&mut self, wait: Wait) {
        let wants = usize::from(wait != Wait::No);
        let queue = self.ring.submission();
        let pending = queue.taskrun() || queue.cq_overflow() || !queue.is_empty();
        drop(queue);
        if wants == 0 && !pending {
            return;
        }
        let submitter = self.ring.submitter();
        let result = match wait {
            Wait::AtMost(time) => {
                let time = Timespec::from(time);
                submitter.submit_with_args(wants, &SubmitArgs::new().timespec(&time))
            }
            Wait::No | Wait::Forever => submitter.submit_and_wait(wants),
        };
        match result.map_err(|error| errno_of(&error)) {
            // Time over, a signal, or completions to be reaped first: the caller polls again.
            Ok(_) | Err(libc::ETIME | libc::EINTR | libc::EBUSY) => self.refusals = 0,
            Err(libc::EAGAIN | libc::ENOMEM) => {
                self.refusals += 1;
                let refusals = self.refusals;
                assert!(refusals < REFUSALS_MAX, "the kernel has no memory for operations");
                std::thread::yield_now();
            }
            Err(errno) => panic!("io_uring_enter: {}", std::io::Error::from_raw_os_error(errno)),
        }
    }

    /// Takes what the kernel has completed; reports what has ended and continues what has not.
    fn reap(&mut self, completions: &mut Vec<Completion>) {
        let mut landed = std::mem::take(&mut self.landed);
        landed.extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result())));
        for (key, result) in landed.drain(..) {
            if key == WAKE_UP {
                self.armed = false;
                self.signal.received();
                continue;
            }
            match self.flights.land(key, result) {
                Landing::Again(entry) => self.push(&entry),
                Landing::Ended(job, result) => {
                    completions.push(self.holdings.settle(job.finish(result)));
                }
            }
        }
        self.landed = landed;
    }

    /// Takes what the helper has completed.
    fn collect(&mut self, completions: &mut Vec<Completion>) {
        if self.helper_in_flight == 0 {
            return;
        }
        let mut arrived = std::mem::take(&mut self.arrived);
        self.mailbox.collect(Wait::No, &mut arrived);
        self.helper_in_flight -= arrived.len();
        for mut done in arrived.drain(..) {
            if let Ok(Outcome::Locked(lock)) = &done.result
                && let Err(errno) = self.register(lock)
            {
                let path = NAME.into();
                done.result = Err(IoError::from_errno(errno, "keep a lock in", path, None));
            }
            completions.push(self.holdings.settle(done));
        }
        self.arrived = arrived;
    }

    /// Makes the ring itself hold the open file description of a lock.
    ///
    /// When a process is killed its descriptors are closed at once, but a write the device has
    /// already got lands later, and the ring lives on in the kernel until then. Its registered
    /// files live as long as it does. So the lock - which belongs to the open file description -
    /// is free only when no write of this ring can land any more.
    fn register(&self, lock: &DirectoryLock) -> Result<(), i32> {
        let descriptor = lock.as_fd().as_raw_fd();
        let held = self.holdings.locks();
        let submitter = self.ring.submitter();
        let result = if held == 0 {
            let mut table = [-1; LOCKS_MAX];
            table[0] = descriptor;
            submitter.register_files(&table)
        } else {
            let place = u32::try_from(held).unwrap_or(u32::MAX);
            submitter.register_files_update(place, &[descriptor]).map(|_| ())
        };
        result.map_err(|error| errno_of(&error))
    }
}

impl Io for UringIo {
    fn submit(&mut self, token: Token, operation: Operation) {
        assert!(self.in_flight() < IN_FLIGHT_MAX, "more than {IN_FLIGHT_MAX} operations in flight");
        self.push_alone();
        let alone =
            self.in_flight() == 0 && matches!(operation, Operation::Write { dsync: true, .. });
        let job = self.holdings.job(token, operation);
        match &job.operation {
            Operation::Read { .. }
            | Operation::Write { .. }
            | Operation::Flush { .. }
            | Operation::Allocate { .. } => {
                let entry = self.flights.start(job);
                if alone {
                    self.alone = Some(entry);
                } else {
                    self.push(&entry);
                }
            }
            _ => {
                self.helper_in_flight += 1;
                self.helper.submit(job);
            }
        }
    }

    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        let before = completions.len();
        self.push_alone();
        self.reap(completions);
        self.collect(completions);
        // Behind the reaping: it may just have taken the last wake-up, and a wait without an armed
        // read would never hear of the next.
        if !self.armed {
            self.arm();
        }
        let satisfied = completions.len() > before || self.signal.is_woken();
        if !satisfied && self.in_flight() == 0 && wait != Wait::No {
            // Only a wake-up can end this, and waiting for that alone is cheaper outside the ring.
            self.signal.wait(wait);
        } else {
            self.enter(if satisfied { Wait::No } else { wait });
        }
        self.reap(completions);
        self.collect(completions);
        if wait != Wait::No {
            self.signal.forget_woken();
        }
    }

    fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    fn run_alone(&mut self, completions: &mut Vec<Completion>) {
        let Some(entry) = self.alone.take() else { panic!("no write is alone") };
        assert_eq!(self.in_flight(), 1, "a lone write is alone");
        let job = self.flights.withdraw(entry.get_user_data());
        completions.push(self.holdings.settle(job.execute()));
    }

    fn in_flight(&self) -> usize {
        self.flights.len() + self.helper_in_flight
    }

    fn capacity(&self) -> usize {
        IN_FLIGHT_MAX
    }

    fn backend(&self) -> Backend {
        Backend::Uring
    }

    fn waker(&self) -> Waker {
        let signal = Arc::clone(&self.signal);
        Waker::new(move || signal.wake())
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

impl Drop for UringIo {
    fn drop(&mut self) {
        let mut ended = Vec::new();
        while self.in_flight() > 0 {
            self.poll(Wait::Forever, &mut ended);
            ended.clear();
        }
        // The wake-up's read, too, has memory of ours.
        while self.armed {
            self.signal.send();
            self.enter(Wait::Forever);
            self.reap(&mut ended);
        }
    }
}

impl fmt::Debug for UringIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_flight = self.in_flight();
        f.debug_struct("UringIo").field("in_flight", &in_flight).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Blocking;
    use crate::buffer::BLOCK_BYTES;
    use crate::operation::Access;

    #[test]
    fn every_setup_this_kernel_takes_moves_bytes_and_wakes() {
        let path = std::env::temp_dir().join(format!("highwater-setups-{}", std::process::id()));
        for (rung, setup) in setup::ladder().iter().enumerate() {
            let ring = match setup::build(setup) {
                Ok(ring) => ring,
                Err(error) => {
                    println!("skipped setup {rung}: {error}");
                    continue;
                }
            };
            let mut io = UringIo::on(ring, Owner::default()).unwrap();
            io.waker().wake();
            io.poll(Wait::Forever, &mut Vec::new());
            io.poll(Wait::AtMost(std::time::Duration::from_millis(1)), &mut Vec::new());
            let mut io = Blocking::new(io);
            let (file, _) = io.open(&path, Access::CreateNew, true).unwrap();
            let mut buffer = AlignedBuffer::zeroed(BLOCK_BYTES);
            buffer.fill(7);
            let (_, written) = io.write(file, 0, buffer, BLOCK_BYTES, true);
            let (buffer, read) = io.read(file, 0, AlignedBuffer::zeroed(BLOCK_BYTES), BLOCK_BYTES);
            let flushed = io.flush(file);
            io.remove(&path).unwrap();
            assert_eq!((written, read, flushed), (Ok(()), Ok(BLOCK_BYTES), Ok(())));
            assert!(buffer.iter().all(|byte| *byte == 7));
        }
    }

    /// Found as a wait that never ended: the helper's signal, reaped at the head of a poll after
    /// its work had been collected by an earlier one, left the ring waiting without a wake-up
    /// armed.
    #[test]
    fn a_wait_starts_with_the_wake_up_armed_even_if_a_late_signal_was_just_reaped() {
        let [_, _, plain] = setup::ladder();
        let ring = match setup::build(&plain) {
            Ok(ring) => ring,
            Err(error) => return println!("skipped: {error}"),
        };
        let mut io = UringIo::on(ring, Owner::default()).unwrap();
        io.poll(Wait::No, &mut Vec::new());
        // The count lands in the completion queue before the next poll begins.
        io.signal.send();
        io.poll(Wait::AtMost(std::time::Duration::ZERO), &mut Vec::new());
        assert!(io.armed, "a wait without the read would not hear of a wake-up");
    }
}
