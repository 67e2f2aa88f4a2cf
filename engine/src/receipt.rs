//! Receipts: how an append tells its end.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use highwater_io::Monotonic;
use highwater_io::clock::monotonic_now;
use highwater_segment::{Epoch, Offset};

use crate::error::{Error, ErrorKind, Result};
use crate::marks::Marks;

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
    waker: Option<std::task::Waker>,
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

    /// Gives the ack. The first word counts.
    pub(crate) fn ack(&self, result: Result<Appended>) {
        let mut state = self.lock();
        if state.acked.is_some() {
            return;
        }
        if result.is_err() && state.flushed.is_none() {
            state.flushed = Some(result.clone());
        }
        state.acked = Some(result);
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Says that the append is flushed, or that this will not be known.
    pub(crate) fn flush(&self, result: Result<Appended>) {
        let mut state = self.lock();
        if state.flushed.is_none() {
            state.flushed = Some(result);
            drop(state);
            self.changed.notify_all();
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
}

impl std::ops::Deref for Promise {
    type Target = ReceiptCell;

    fn deref(&self) -> &ReceiptCell {
        &self.0
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.is_heard() && !self.is_settled() {
            let error = Error::new(ErrorKind::Closed, "append to", "a log")
                .detail("the engine stopped before it was acked")
                .unknown();
            self.ack(Err(error.clone()));
            self.flush(Err(error));
        }
    }
}

/// The end of an append to come. Dropping it cancels nothing.
///
/// It is a future; any executor will do. It can be waited on at two levels: for the ack its policy
/// asks for, and then for the flush.
#[derive(Debug)]
#[must_use = "an append is acked only when its receipt says so"]
pub struct Receipt {
    pub(crate) cell: Arc<ReceiptCell>,
}

impl Receipt {
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
    /// # Errors
    /// [`ErrorKind::Timeout`] (outcome unknown; wait again), or as [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Appended> {
        self.wait_for(Some(timeout), |state| state.acked.clone())
    }

    /// Waits until the append is flushed on this replica, whatever its ack policy. This alone does
    /// not make the log due: use [`Log::flush`](crate::Log::flush) or a policy for that.
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

    fn wait_for(
        &self,
        timeout: Option<Duration>,
        pick: impl Fn(&State) -> Option<Result<Appended>>,
    ) -> Result<Appended> {
        let deadline = timeout.map(|timeout| monotonic_now().plus(timeout));
        let mut state = self.cell.lock();
        loop {
            if let Some(result) = pick(&state) {
                return result;
            }
            state = match deadline {
                None => self.cell.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.since(monotonic_now());
                    if left.is_zero() {
                        return Err(Error::new(ErrorKind::Timeout, "wait for", "an append")
                            .detail("the time given is over")
                            .unknown());
                    }
                    let waited = self.cell.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Future for Receipt {
    type Output = Result<Appended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.cell.lock();
        match state.acked.clone() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
