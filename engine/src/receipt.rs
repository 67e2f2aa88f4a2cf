//! Receipts: how an append tells its end.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use highwater_io::Monotonic;
use highwater_io::clock::monotonic_now;
use highwater_segment::{Epoch, Offset};

use crate::error::{Error, ErrorKind, Result};
use crate::marks::Marks;
use crate::shared::LogShared;

/// How long an append spent in each stage, one behind the other: their [`total`](Stages::total) is
/// the whole time from the call to this result. A stage that was not reached is zero.
///
/// A write that is durable by itself needs no flush behind it: all its time is in `written`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// From the call to the assignment of its offset, which is when its group is formed.
    pub queued: Duration,
    /// From there until the write of its group was handed to the kernel.
    pub submitted: Duration,
    /// From there until its bytes, and all before them, were seen to be written.
    pub written: Duration,
    /// From there until the flush that covers them was handed to the kernel.
    pub flush_waited: Duration,
    /// From there until that flush was seen to be complete.
    pub flushed: Duration,
}

impl Stages {
    /// Returns the whole time from the call to the result these stages came with.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.queued + self.submitted + self.written + self.flush_waited + self.flushed
    }
}

/// An acked append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// How many records it has.
    pub records: u32,
    /// The epoch it was appended in.
    pub epoch: Epoch,
    /// The log's marks at the instant of the ack.
    pub marks: Marks,
    /// Where the time went.
    pub stages: Stages,
}

impl Appended {
    /// Returns the offset behind the last record.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.base_offset.plus(self.records)
    }
}

#[derive(Debug, Default)]
struct State {
    acked: Option<Result<Appended>>,
    flushed: Option<Result<Appended>>,
    /// How many threads are blocked on this receipt: with none, telling costs no system call.
    blocked: u32,
    task: Option<Waker>,
}

impl State {
    fn someone_waits(&self) -> bool {
        self.blocked > 0 || self.task.is_some()
    }
}

/// What a receipt and the shard share.
#[derive(Debug)]
pub(crate) struct ReceiptCell {
    state: Mutex<State>,
    changed: Condvar,
    pub(crate) asked_at: Monotonic,
}

impl ReceiptCell {
    pub(crate) fn new(asked_at: Monotonic) -> Arc<Self> {
        Arc::new(ReceiptCell { state: Mutex::default(), changed: Condvar::new(), asked_at })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while holding this lock cannot leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the ack. The first word counts. Returns whether someone is to be woken.
    fn put_ack(&self, result: Result<Appended>) -> bool {
        let mut state = self.lock();
        if state.acked.is_some() {
            return false;
        }
        if result.is_err() && state.flushed.is_none() {
            state.flushed = Some(result.clone());
        }
        state.acked = Some(result);
        state.someone_waits()
    }

    /// Says that the append is flushed, or that this will not be known; and that it is acked, if
    /// that was not said before. Returns whether someone is to be woken.
    fn put_flush(&self, result: Result<Appended>) -> bool {
        let mut state = self.lock();
        if state.acked.is_none() {
            state.acked = Some(result.clone());
        }
        if state.flushed.is_none() {
            state.flushed = Some(result);
        }
        state.someone_waits()
    }

    /// Wakes everyone who waits: they see what was put before.
    fn wake(&self) {
        let mut state = self.lock();
        let blocked = state.blocked > 0;
        let task = if state.acked.is_some() { state.task.take() } else { None };
        drop(state);
        if blocked {
            self.changed.notify_all();
        }
        if let Some(task) = task {
            task.wake();
        }
    }

    fn is_settled(&self) -> bool {
        let state = self.lock();
        state.acked.is_some() && state.flushed.is_some()
    }

    pub(crate) fn acked(&self) -> Option<Result<Appended>> {
        self.lock().acked.clone()
    }

    pub(crate) fn flushed(&self) -> Option<Result<Appended>> {
        self.lock().flushed.clone()
    }

    /// Returns the ack; until it is there, `task` is woken when it is.
    fn poll_acked(&self, task: &Waker) -> Poll<Result<Appended>> {
        let mut state = self.lock();
        if let Some(result) = state.acked.clone() {
            return Poll::Ready(result);
        }
        let before = state.task.replace(task.clone());
        // It can own anything, the last handle of the engine too: that waits for shards to end,
        // and they for this lock.
        drop(state);
        drop(before);
        Poll::Pending
    }
}

/// The shard's side of a receipt. Whatever way it goes - answered, or dropped by a shard that
/// stopped or panicked - nobody waits for it for ever.
#[derive(Debug)]
pub(crate) struct Promise(Arc<ReceiptCell>);

impl Promise {
    pub(crate) fn new(cell: &Arc<ReceiptCell>) -> Self {
        Promise(Arc::clone(cell))
    }

    /// Returns whether a receipt still listens.
    pub(crate) fn is_heard(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Returns when the append was asked for.
    pub(crate) fn asked_at(&self) -> Monotonic {
        self.0.asked_at
    }

    /// Gives the ack and wakes who waits for it. The first word counts.
    pub(crate) fn ack(&self, result: Result<Appended>) {
        if self.0.put_ack(result) {
            self.0.wake();
        }
    }

    /// Says that the append will not be known to be acked or flushed.
    pub(crate) fn fail(&self, error: &Error) {
        if self.0.put_ack(Err(error.clone())) | self.0.put_flush(Err(error.clone())) {
            self.0.wake();
        }
    }

    /// Gives the ack; who waits for it is woken with `wakes`.
    pub(crate) fn ack_with(&self, result: Appended, wakes: &mut Wakes) {
        if self.is_heard() && self.0.put_ack(Ok(result)) {
            wakes.0.push(Arc::clone(&self.0));
        }
    }

    /// Says that the append is flushed, and acked with that; who waits is woken with `wakes`.
    pub(crate) fn flush_with(&self, result: Appended, wakes: &mut Wakes) {
        if self.is_heard() && self.0.put_flush(Ok(result)) {
            wakes.0.push(Arc::clone(&self.0));
        }
    }
}

/// Receipts whose waiters are to be woken together, once all of a group are answered: a producer
/// then finds all of its acks instead of waking for each.
#[derive(Debug, Default)]
pub(crate) struct Wakes(Vec<Arc<ReceiptCell>>);

impl Wakes {
    pub(crate) fn wake_all(&mut self) {
        for cell in self.0.drain(..) {
            cell.wake();
        }
    }
}

impl Drop for Wakes {
    /// Whatever ends the shard, nobody goes on waiting for an ack that was given.
    fn drop(&mut self) {
        self.wake_all();
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.is_heard() && !self.0.is_settled() {
            let error = Error::new(ErrorKind::Closed, "append to", "a log")
                .detail("the engine stopped before it was acked")
                .unknown();
            self.fail(&error);
        }
    }
}

/// The end of an append to come. Dropping it cancels nothing.
///
/// It is a future; any executor will do. It can be waited on at two levels: for the ack its policy
/// asks for, and then for the flush.
///
/// ```
/// # use highwater::{Ack, Engine, LogOptions, Options, RecordBatch};
/// # let directory = std::env::temp_dir().join(format!("highwater-receipt-{}", std::process::id()));
/// # let engine = Engine::open(Options::at(&directory))?;
/// # let log = engine.log("orders", LogOptions::default())?;
/// let batch = RecordBatch::builder().value(b"two levels").build()?;
/// let receipt = log.append(batch, Ack::LEADER)?;
/// let written = receipt.wait()?;
/// println!("{} after {:?}", written.base_offset, written.stages.total());
/// log.flush()?; // or the log's policy makes it due
/// let flushed = receipt.wait_flushed()?;
/// assert!(flushed.marks.flushed >= flushed.end_offset());
/// # engine.close()?;
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "an append is acked only when its receipt says so"]
pub struct Receipt {
    cell: Arc<ReceiptCell>,
    /// Of the log: for what to say when the wait was too long.
    shared: Arc<LogShared>,
}

impl Receipt {
    pub(crate) fn new(cell: Arc<ReceiptCell>, shared: &Arc<LogShared>) -> Self {
        Receipt { cell, shared: Arc::clone(shared) }
    }

    /// Waits for the ack.
    ///
    /// *Blocking*: until the ack policy is met or the log fails.
    ///
    /// # Errors
    /// Why it was not acked; [`Error::outcome`] says whether it may have been appended.
    pub fn wait(&self) -> Result<Appended> {
        self.wait_for(None, |state| state.acked.clone())
    }

    /// Waits for the ack, at most for `timeout`.
    ///
    /// *Blocking*: until then.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] (outcome unknown; wait again), saying what the append waits for, or
    /// as [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Appended> {
        self.wait_for(Some(timeout), |state| state.acked.clone())
    }

    /// Waits until the append is flushed on this replica, whatever its ack policy. This alone does
    /// not make the log due: use [`Log::flush`](crate::Log::flush) or a policy for that.
    ///
    /// *Blocking*: until then; with [`FlushPolicy::NONE`](crate::FlushPolicy::NONE) and nobody else
    /// who flushes for as long as the segment is not full.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_flushed(&self) -> Result<Appended> {
        self.wait_for(None, |state| state.flushed.clone())
    }

    /// Returns the ack if it is there.
    #[must_use]
    pub fn poll(&self) -> Option<Result<Appended>> {
        self.cell.acked()
    }

    /// Returns the flush, as [`wait_flushed`](Self::wait_flushed) would, if it is there.
    #[must_use]
    pub fn poll_flushed(&self) -> Option<Result<Appended>> {
        self.cell.flushed()
    }

    fn wait_for(
        &self,
        timeout: Option<Duration>,
        pick: impl Fn(&State) -> Option<Result<Appended>>,
    ) -> Result<Appended> {
        let deadline = timeout.map(|timeout| (monotonic_now().plus(timeout), timeout));
        let mut state = self.cell.lock();
        loop {
            if let Some(result) = pick(&state) {
                return result;
            }
            let left = deadline.map(|(deadline, _)| deadline.since(monotonic_now()));
            if let Some((_, given)) = deadline
                && left.is_some_and(|left| left.is_zero())
            {
                drop(state);
                return Err(too_slow(&self.shared.name, self.shared.marks(), given));
            }
            state.blocked += 1;
            let changed = &self.cell.changed;
            state = match left {
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.blocked -= 1;
        }
    }
}

/// Returns the error of a wait that ended before the append did: what it is that takes so long.
fn too_slow(log: &str, marks: Marks, given: Duration) -> Error {
    let Marks { flushed, written, log_end, .. } = marks;
    let what = if log_end > written {
        "a write"
    } else if written > flushed {
        "a flush"
    } else {
        "its turn: space, or the next segment"
    };
    Error::new(ErrorKind::Timeout, "see the end of an append to log", log)
        .detail(format!(
            "not acked after {} ms, the log waits for {what} (flushed {flushed}, written \
             {written}, end {log_end})",
            given.as_millis()
        ))
        .remedy(
            "the append goes on, wait again; if it stays so, the disk does not answer: look at the \
             file system (frozen by fsfreeze?) and at dmesg",
        )
        .unknown()
}

impl Future for Receipt {
    type Output = Result<Appended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.cell.poll_acked(context.waker())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::error::Outcome;

    /// Notes, when it is dropped, whether the receipt was locked.
    struct Looks(Arc<ReceiptCell>, Arc<AtomicBool>);

    impl Wake for Looks {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Looks {
        fn drop(&mut self) {
            self.1.store(self.0.state.try_lock().is_err(), Ordering::SeqCst);
        }
    }

    #[test]
    fn a_task_is_dropped_without_the_lock_when_another_takes_its_place() {
        let cell = ReceiptCell::new(monotonic_now());
        let was_locked = Arc::new(AtomicBool::new(true));
        let first = Arc::new(Looks(Arc::clone(&cell), Arc::clone(&was_locked))).into();
        assert!(cell.poll_acked(&first).is_pending());
        drop(first);
        assert!(cell.poll_acked(Waker::noop()).is_pending());
        assert!(!was_locked.load(Ordering::SeqCst), "it was dropped, and not under the lock");
    }

    #[test]
    fn a_wait_that_is_over_says_what_the_log_waits_for() {
        let said = |flushed, written, log_end| {
            let [flushed, written, log_end] = [flushed, written, log_end].map(Offset);
            let marks = Marks { flushed, written, log_end, ..Marks::default() };
            let error = too_slow("orders", marks, Duration::from_millis(7));
            assert_eq!((error.kind(), error.outcome()), (&ErrorKind::Timeout, Outcome::Unknown));
            error.to_string()
        };
        assert!(
            said(1, 2, 3).contains("log orders: not acked after 7 ms, the log waits for a write")
        );
        assert!(said(1, 3, 3).contains("waits for a flush (flushed 1, written 3, end 3)"));
        assert!(said(3, 3, 3).contains("waits for its turn"));
        assert!(said(3, 3, 3).contains("wait again"));
    }
}
