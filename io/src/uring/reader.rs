//! Files for one reader: everything by plain system calls, but several reads at once by a ring.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use io_uring::IoUring;
use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};

use super::flights::{Flights, Landing};
use super::setup;
use crate::clock::{Monotonic, monotonic_now, wall_clock_ms};
use crate::execute::{Holdings, IN_FLIGHT_MAX, Job};
use crate::lock::Owner;
use crate::operation::{Completion, Operation, Token};
use crate::pool::Mailbox;
use crate::random::kernel_u64;
use crate::sys::errno_of;
use crate::waker::Waker;
use crate::{Backend, Io, Wait};

/// The most reads in the kernel at once; more run when they are polled for.
const READS_MAX: usize = 16;

/// How often in a row the kernel may refuse to take reads for want of memory.
const REFUSALS_MAX: u32 = 1 << 16;

/// Files for one reader.
///
/// Like [`InlineIo`](crate::threads::InlineIo) it runs operations on the thread that polls; but a
/// read that is submitted beside another, and all from then on, go to a ring, and the kernel reads
/// while the thread works on what it has. Where no ring is to be had all reads run inside `poll`,
/// one after the other. It can move between threads.
#[derive(Debug, Default)]
pub struct ReaderIo {
    queue: VecDeque<Job>,
    holdings: Holdings,
    mailbox: Arc<Mailbox>,
    ring: Ring,
}

#[derive(Debug, Default)]
enum Ring {
    #[default]
    NotMade,
    Refused,
    Made(Box<Ahead>),
}

/// The reads in the kernel.
struct Ahead {
    ring: IoUring,
    flights: Flights,
    /// Reused: results on their way to the submitter.
    landed: Vec<(u64, i32)>,
}

impl ReaderIo {
    /// Returns a new one. Takes no descriptor before its first use.
    #[must_use]
    pub fn new() -> Self {
        ReaderIo::default()
    }

    /// As [`new`](ReaderIo::new), sharing directory locks with the owner's others.
    pub(crate) fn of(owner: Owner) -> Self {
        let (queue, mailbox, ring) = Default::default();
        ReaderIo { queue, holdings: Holdings::of(owner), mailbox, ring }
    }

    fn reads(&self) -> usize {
        match &self.ring {
            Ring::Made(ahead) => ahead.flights.len(),
            Ring::NotMade | Ring::Refused => 0,
        }
    }

    /// Returns the ring, for a read that is not alone.
    fn ring(&mut self) -> Option<&mut Ahead> {
        if let Ring::NotMade = self.ring {
            // Bound to no thread, as its reader is not.
            self.ring = match setup::build_small(&IoUring::builder()) {
                Ok(ring) => {
                    let (flights, landed) = (Flights::new(), Vec::new());
                    Ring::Made(Box::new(Ahead { ring, flights, landed }))
                }
                Err(_) => Ring::Refused,
            };
        }
        match &mut self.ring {
            Ring::Made(ahead) if ahead.flights.len() < READS_MAX => Some(ahead),
            _ => None,
        }
    }
}

impl Ahead {
    fn push(&mut self, entry: &Entry) {
        let mut queue = self.ring.submission();
        // SAFETY: the buffer and the descriptor that `entry` names stay in `flights`, alive and in
        // place, until its completion is reaped (a buffer's address does not change when the buffer
        // value moves); and dropping this value first waits for all of them.
        let pushed = unsafe { queue.push(entry) };
        assert!(pushed.is_ok(), "the submission queue holds every read in flight");
    }

    /// Starts what is queued and waits as told.
    fn enter(&mut self, wait: Wait) {
        let mut refusals = 0;
        loop {
            let submitter = self.ring.submitter();
            let result = match wait {
                Wait::No => submitter.submit(),
                Wait::Forever => submitter.submit_and_wait(1),
                Wait::AtMost(time) => {
                    let time = Timespec::from(time);
                    submitter.submit_with_args(1, &SubmitArgs::new().timespec(&time))
                }
            };
            match result.map_err(|error| errno_of(&error)) {
                // Time over, a signal, or completions to be reaped first: the caller polls again.
                Ok(_) | Err(libc::ETIME | libc::EINTR | libc::EBUSY) => return,
                Err(libc::EAGAIN | libc::ENOMEM) => {
                    refusals += 1;
                    assert!(refusals < REFUSALS_MAX, "the kernel has no memory for reads");
                    std::thread::yield_now();
                }
                Err(errno) => {
                    panic!("io_uring_enter: {}", std::io::Error::from_raw_os_error(errno))
                }
            }
        }
    }

    fn reap(&mut self, holdings: &mut Holdings, completions: &mut Vec<Completion>) {
        let mut landed = std::mem::take(&mut self.landed);
        landed.extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result())));
        for (key, result) in landed.drain(..) {
            match self.flights.land(key, result) {
                Landing::Again(entry) => self.push(&entry),
                Landing::Ended(job, result) => {
                    completions.push(holdings.settle(job.finish(result)));
                }
            }
        }
        self.landed = landed;
    }
}

impl Io for ReaderIo {
    fn submit(&mut self, token: Token, operation: Operation) {
        assert!(self.in_flight() < IN_FLIGHT_MAX, "more than {IN_FLIGHT_MAX} operations in flight");
        let is_read = matches!(operation, Operation::Read { .. });
        let beside = is_read && (self.in_flight() > 0 || matches!(self.ring, Ring::Made(_)));
        let job = self.holdings.job(token, operation);
        match if beside { self.ring() } else { None } {
            Some(ahead) => {
                let entry = ahead.flights.start(job);
                ahead.push(&entry);
            }
            None => self.queue.push_back(job),
        }
    }

    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        let before = completions.len();
        if let Ring::Made(ahead) = &mut self.ring
            && ahead.flights.len() > 0
        {
            // First into the kernel, so that it works while this thread does.
            let wait = if self.queue.is_empty() { wait } else { Wait::No };
            ahead.reap(&mut self.holdings, completions);
            ahead.enter(if completions.len() > before { Wait::No } else { wait });
            ahead.reap(&mut self.holdings, completions);
        } else if self.queue.is_empty() {
            // Nothing is ever put into this mailbox: it serves the waiting and the waker.
            self.mailbox.collect(wait, &mut Vec::new());
        }
        for job in self.queue.drain(..) {
            completions.push(self.holdings.settle(job.execute()));
        }
    }

    fn in_flight(&self) -> usize {
        self.queue.len() + self.reads()
    }

    fn capacity(&self) -> usize {
        IN_FLIGHT_MAX
    }

    fn backend(&self) -> Backend {
        Backend::Inline
    }

    /// Ends a poll that waits for nothing but time; reads end by themselves.
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

impl Drop for ReaderIo {
    fn drop(&mut self) {
        let mut ended = Vec::new();
        while self.in_flight() > 0 {
            self.poll(Wait::Forever, &mut ended);
            ended.clear();
        }
    }
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ahead").field("reads", &self.flights.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::{AlignedBuffer, BLOCK_BYTES};
    use crate::operation::{Access, Output};
    use crate::{Blocking, FileId};

    fn numbered_file(name: &str, blocks: u8) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("highwater-{name}-{}", std::process::id()));
        let bytes: Vec<u8> = (0..blocks).flat_map(|block| vec![block; BLOCK_BYTES]).collect();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn read(io: &mut ReaderIo, file: FileId, block: u64) {
        let (position, buffer) = (block * 4096, AlignedBuffer::zeroed(BLOCK_BYTES));
        let length = BLOCK_BYTES;
        io.submit(Token(block), Operation::Read { file, position, buffer, length });
    }

    #[test]
    fn many_reads_at_once_each_bring_their_own_bytes_on_whatever_thread() {
        let path = numbered_file("reader-io", 40);
        let mut blocking = Blocking::new(ReaderIo::new());
        let (file, _) = blocking.open(&path, Access::Read, true).unwrap();
        let mut io = blocking.into_io();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for round in 0..20 {
                    let count = 1 + round * 2;
                    (0..count).for_each(|block| read(&mut io, file, block));
                    let mut completions = Vec::new();
                    while io.in_flight() > 0 {
                        io.poll(Wait::Forever, &mut completions);
                    }
                    assert_eq!(u64::try_from(completions.len()).unwrap(), count);
                    for completion in completions {
                        assert_eq!(completion.result, Ok(Output::Bytes(BLOCK_BYTES)));
                        let byte = completion.buffer.unwrap()[100];
                        assert_eq!(u64::from(byte), completion.token.0);
                    }
                }
                // Dropped with reads in flight, it waits for them.
                (0..8).for_each(|block| read(&mut io, file, block));
                io.poll(Wait::No, &mut Vec::new());
            });
        });
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn reads_behind_the_end_are_short() {
        let path = numbered_file("reader-end", 3);
        let mut blocking = Blocking::new(ReaderIo::new());
        let (file, _) = blocking.open(&path, Access::Read, true).unwrap();
        let mut io = blocking.into_io();
        (0..6).for_each(|block| read(&mut io, file, block));
        let mut completions = Vec::new();
        while io.in_flight() > 0 {
            io.poll(Wait::Forever, &mut completions);
        }
        for completion in completions {
            let there = if completion.token.0 < 3 { BLOCK_BYTES } else { 0 };
            assert_eq!(completion.result, Ok(Output::Bytes(there)), "{:?}", completion.token);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
