//! Worker threads that run jobs, and the place where finished jobs wait to be collected.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::Wait;
use crate::error::IoError;
use crate::execute::{Done, IN_FLIGHT_MAX, Job};
use crate::thread::spawn;

/// Locks; what these mutexes guard is whole between any two statements, so a panic of another
/// thread takes nothing away.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Arrived {
    done: Vec<Done>,
    woken: bool,
}

/// Finished jobs and wake-ups, for one collecting thread.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    arrived: Mutex<Arrived>,
    changed: Condvar,
}

impl Mailbox {
    /// Puts a finished job in.
    pub(crate) fn put(&self, done: Done) {
        lock(&self.arrived).done.push(done);
        self.changed.notify_one();
    }

    /// Makes the current or the next waiting [`collect`](Mailbox::collect) return.
    pub(crate) fn wake(&self) {
        lock(&self.arrived).woken = true;
        self.changed.notify_one();
    }

    /// Waits as `wait` says for a finished job or a wake-up, and moves all jobs to `into`.
    pub(crate) fn collect(&self, wait: Wait, into: &mut Vec<Done>) {
        let nothing = |arrived: &mut Arrived| arrived.done.is_empty() && !arrived.woken;
        let arrived = lock(&self.arrived);
        let mut arrived = match wait {
            Wait::No => arrived,
            Wait::AtMost(time) => {
                self.changed
                    .wait_timeout_while(arrived, time, nothing)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            Wait::Forever => {
                self.changed.wait_while(arrived, nothing).unwrap_or_else(PoisonError::into_inner)
            }
        };
        if wait != Wait::No {
            arrived.woken = false;
        }
        into.append(&mut arrived.done);
    }
}

#[derive(Debug)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// A few threads that run jobs by blocking calls.
///
/// Dropping it waits until all jobs have run: their buffers belong to the kernel until then.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `worker_count` threads that give each finished job to `deliver`.
    pub(crate) fn new(
        name: &str,
        worker_count: usize,
        deliver: impl Fn(Done) + Send + Sync + 'static,
    ) -> Result<Self, IoError> {
        let jobs = VecDeque::with_capacity(IN_FLIGHT_MAX);
        let queue = Mutex::new(Queue { jobs, closed: false });
        let shared = Arc::new(Shared { queue, changed: Condvar::new() });
        let deliver = Arc::new(deliver);
        // Dropped on an early return, it ends the threads that did start.
        let mut pool = Pool { shared, workers: Vec::with_capacity(worker_count) };
        for index in 0..worker_count {
            let (shared, deliver) = (Arc::clone(&pool.shared), Arc::clone(&deliver));
            let work = move || work(&shared, &*deliver);
            pool.workers.push(spawn(&format!("{name}-{index}"), work)?);
        }
        Ok(pool)
    }

    /// Queues a job for the next free thread.
    ///
    /// # Panics
    /// If more than [`IN_FLIGHT_MAX`] wait, which an [`Io`](crate::Io) checks for its caller.
    pub(crate) fn submit(&self, job: Job) {
        let mut queue = lock(&self.shared.queue);
        assert!(queue.jobs.len() < IN_FLIGHT_MAX, "more than {IN_FLIGHT_MAX} jobs wait");
        queue.jobs.push_back(job);
        drop(queue);
        self.shared.changed.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            let ended_well = worker.join().is_ok();
            assert!(ended_well || std::thread::panicking(), "an I/O worker panicked");
        }
    }
}

fn work(shared: &Shared, deliver: &impl Fn(Done)) {
    loop {
        let mut queue = lock(&shared.queue);
        while queue.jobs.is_empty() && !queue.closed {
            queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let Some(job) = queue.jobs.pop_front() else { return };
        drop(queue);
        deliver(job.execute());
    }
}
