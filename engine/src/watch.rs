//! Watching the marks of a log; costs a log nobody watches one load of a counter.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use highwater_io::clock::monotonic_now;

use crate::error::{Error, ErrorKind, Result};
use crate::marks::Marks;
use crate::shared::LogShared;

#[derive(Debug, Default)]
struct State {
    /// The log's shard is gone: nothing moves any more.
    ended: bool,
    blocked: usize,
    tasks: Vec<Waker>,
}

/// Where the watchers of a log wait.
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    watchers: AtomicUsize,
    state: Mutex<State>,
    moved: Condvar,
}

impl Lookout {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What it guards is changed by single assignments and pushes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the watchers, after what they watch was published under the log's lock. A watcher
    /// counts itself before it takes that lock to look: either it sees what was published, or it
    /// is seen here.
    pub(crate) fn tell(&self) {
        if self.watchers.load(Ordering::Relaxed) > 0 {
            self.wake(self.lock());
        }
    }

    /// Says that nothing will move any more.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        self.wake(state);
    }

    /// Returns whether nothing will move any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let tasks = std::mem::take(&mut state.tasks);
        let blocked = state.blocked > 0;
        drop(state);
        if blocked {
            self.moved.notify_all();
        }
        for task in tasks {
            task.wake();
        }
    }
}

/// Tells each move of a log's marks, or rather: that they have moved since it told last. Moves in
/// between are not told one by one.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<LogShared>,
    seen: Marks,
}

impl Watcher {
    pub(crate) fn new(shared: &Arc<LogShared>) -> Self {
        shared.lookout.watchers.fetch_add(1, Ordering::SeqCst);
        Watcher { shared: Arc::clone(shared), seen: shared.marks() }
    }

    /// Returns the marks that were told last; at first, those at the watch's beginning.
    #[must_use]
    pub fn seen(&self) -> Marks {
        self.seen
    }

    /// Waits until the marks differ from those [`seen`](Self::seen), and returns them. They can be
    /// lower: a truncation takes records away.
    ///
    /// *Blocking*: until then, at most for `timeout` if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`]; the log's failure, or [`ErrorKind::Closed`], when the marks will
    /// not move any more - unless it is reopened.
    pub fn changed(&mut self, timeout: Option<Duration>) -> Result<Marks> {
        let shared = Arc::clone(&self.shared);
        let deadline = timeout.map(|timeout| monotonic_now().plus(timeout));
        let mut state = shared.lookout.lock();
        loop {
            if let Some(told) = self.look(&state) {
                return told;
            }
            let left = deadline.map(|deadline| deadline.since(monotonic_now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(Error::new(ErrorKind::Timeout, "watch log", &shared.name)
                    .detail("the time given is over"));
            }
            state.blocked += 1;
            let moved = &shared.lookout.moved;
            state = match left {
                None => moved.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    moved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.blocked -= 1;
        }
    }

    /// Returns a future of what [`changed`](Self::changed) returns, for any executor.
    pub fn moved(&mut self) -> Moved<'_> {
        Moved { watcher: self }
    }

    fn look(&mut self, state: &State) -> Option<Result<Marks>> {
        let (marks, failure) = {
            let published = self.shared.lock();
            (published.marks, published.failure.clone())
        };
        if marks != self.seen {
            self.seen = marks;
            return Some(Ok(marks));
        }
        let closed = || {
            Error::new(ErrorKind::Closed, "watch log", &self.shared.name)
                .detail("the engine is closed")
        };
        failure.or_else(|| state.ended.then(closed)).map(Err)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.lookout.watchers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The next move of a log's marks: see [`Watcher::moved`].
#[derive(Debug)]
#[must_use = "a future does nothing unless polled"]
pub struct Moved<'a> {
    watcher: &'a mut Watcher,
}

impl Future for Moved<'_> {
    type Output = Result<Marks>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = Arc::clone(&self.watcher.shared);
        let mut state = shared.lookout.lock();
        if let Some(told) = self.watcher.look(&state) {
            return Poll::Ready(told);
        }
        if !state.tasks.iter().any(|task| task.will_wake(context.waker())) {
            state.tasks.push(context.waker().clone());
        }
        Poll::Pending
    }
}
