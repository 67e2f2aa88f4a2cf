//! Watching the marks of a log; costs a log nobody watches one load of a counter.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use highwater_io::clock::monotonic_now;
use highwater_segment::{Generation, Offset};

use crate::error::{Error, ErrorKind, Result};
use crate::marks::{Isolation, Marks};
use crate::shared::LogShared;

/// The isolations, in the order of [`Lookout::awaited`].
const ISOLATIONS: [Isolation; 3] = [Isolation::Written, Isolation::Committed, Isolation::Durable];

#[derive(Debug, Default)]
struct State {
    /// The log's shard is gone: nothing moves any more.
    ended: bool,
    blocked: usize,
    tasks: Vec<Waker>,
    /// Those that wait for an offset.
    blocked_followers: usize,
    follower_tasks: Vec<Waker>,
}

/// Where the watchers of a log wait, for any move, and its followers, for one that shows them more.
#[derive(Debug)]
pub(crate) struct Lookout {
    watchers: AtomicUsize,
    /// The lowest offset of each isolation that a follower waits to see passed.
    awaited: [AtomicU64; 3],
    state: Mutex<State>,
    moved: Condvar,
    passed: Condvar,
}

impl Default for Lookout {
    fn default() -> Self {
        Lookout {
            watchers: AtomicUsize::new(0),
            awaited: [const { AtomicU64::new(u64::MAX) }; 3],
            state: Mutex::default(),
            moved: Condvar::new(),
            passed: Condvar::new(),
        }
    }
}

/// What a follower waits for: that the limit of its isolation passes what it has read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awaited {
    pub(crate) next: Offset,
    pub(crate) isolation: Isolation,
    pub(crate) generation: Generation,
}

impl Lookout {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What it guards is changed by single assignments and pushes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all, after something was published under the log's lock.
    pub(crate) fn tell(&self) {
        self.wake(self.lock());
        self.wake_followers(self.lock());
    }

    /// Wakes those whom these marks concern, after they were published under the log's lock. A
    /// watcher counts itself, and a follower says what it waits for, before it takes that lock to
    /// look: either it sees what was published, or it is seen here.
    pub(crate) fn tell_marks(&self, marks: &Marks) {
        if self.watchers.load(Ordering::Relaxed) > 0 {
            self.wake(self.lock());
        }
        let mut awaited = ISOLATIONS.iter().zip(&self.awaited);
        if awaited
            .any(|(isolation, awaited)| marks.limit(*isolation).0 > awaited.load(Ordering::Relaxed))
        {
            self.wake_followers(self.lock());
        }
    }

    /// Says that nothing will move any more.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.tell();
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

    fn wake_followers(&self, mut state: MutexGuard<'_, State>) {
        // Who wants more says so again.
        for awaited in &self.awaited {
            awaited.store(u64::MAX, Ordering::Relaxed);
        }
        let tasks = std::mem::take(&mut state.follower_tasks);
        let blocked = state.blocked_followers > 0;
        drop(state);
        if blocked {
            self.passed.notify_all();
        }
        for task in tasks {
            task.wake();
        }
    }
}

impl LogShared {
    /// Waits until a follower can look again: there is more, or the log was cut.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`]; the log's failure, or [`ErrorKind::Closed`].
    pub(crate) fn wait_for(&self, awaited: &Awaited, timeout: Option<Duration>) -> Result<()> {
        let deadline = timeout.map(|timeout| monotonic_now().plus(timeout));
        let mut state = self.lookout.lock();
        loop {
            if let Some(told) = self.look_for(awaited, &state) {
                return told;
            }
            let left = deadline.map(|deadline| deadline.since(monotonic_now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(Error::new(ErrorKind::Timeout, "follow log", &self.name)
                    .detail("the time given is over"));
            }
            state.blocked_followers += 1;
            let passed = &self.lookout.passed;
            state = match left {
                None => passed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    passed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.blocked_followers -= 1;
        }
    }

    /// As [`wait_for`](Self::wait_for), for a task.
    #[cfg(feature = "stream")]
    pub(crate) fn poll_for(
        &self,
        awaited: &Awaited,
        context: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        let mut state = self.lookout.lock();
        if let Some(told) = self.look_for(awaited, &state) {
            return Poll::Ready(told);
        }
        if !state.follower_tasks.iter().any(|task| task.will_wake(context.waker())) {
            state.follower_tasks.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Says what is waited for, and looks whether it is there.
    fn look_for(&self, awaited: &Awaited, state: &State) -> Option<Result<()>> {
        let place = ISOLATIONS.iter().position(|isolation| *isolation == awaited.isolation);
        let place = &self.lookout.awaited[place.unwrap_or_default()];
        place.fetch_min(awaited.next.0, Ordering::Relaxed);
        let (marks, generation, failure) = {
            let published = self.lock();
            (published.marks, published.generation, published.failure.clone())
        };
        let is_there = marks.limit(awaited.isolation) > awaited.next
            || generation != awaited.generation
            || awaited.next < marks.log_start;
        if is_there {
            return Some(Ok(()));
        }
        let closed = || {
            Error::new(ErrorKind::Closed, "follow log", &self.name).detail("the engine is closed")
        };
        failure.or_else(|| state.ended.then(closed)).map(Err)
    }
}

/// Tells each move of a log's marks, or rather: that they have moved since it told last. Moves in
/// between are not told one by one.
///
/// ```
/// # use highwater::{Ack, Engine, LogOptions, Options, RecordBatch};
/// # let directory = std::env::temp_dir().join(format!("highwater-watch-{}", std::process::id()));
/// # let engine = Engine::open(Options::at(&directory))?;
/// # let log = engine.log("orders", LogOptions::default())?;
/// let mut watcher = log.watch();
/// log.append(RecordBatch::builder().value(b"news").build()?, Ack::LEADER)?.wait()?;
/// let mut marks = watcher.seen();
/// while marks.written.0 < 1 {
///     marks = watcher.changed(None)?;
/// }
/// # engine.close()?;
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
