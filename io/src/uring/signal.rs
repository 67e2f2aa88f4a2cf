//! Waking a ring: an event counter the ring keeps a read of.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::{Wait, sys};

/// Ends the wait of a ring from any thread.
#[derive(Debug)]
pub(super) struct Signal {
    counter: OwnedFd,
    /// Whether a count is on its way to the ring, so that more wake-ups cost no system call.
    sent: AtomicBool,
    /// Whether the next waiting poll shall return.
    woken: AtomicBool,
    /// Whether the ring's thread waits in [`wait`](Signal::wait), outside the ring.
    outside: AtomicBool,
    /// Held by that thread between looking at `woken` and waiting.
    door: Mutex<()>,
    opened: Condvar,
}

impl Signal {
    pub(super) fn new() -> Result<Self, i32> {
        let counter = sys::event_counter()?;
        Ok(Signal {
            counter,
            sent: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            outside: AtomicBool::new(false),
            door: Mutex::new(()),
            opened: Condvar::new(),
        })
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.counter.as_raw_fd()
    }

    /// Makes the current or the next waiting poll return.
    pub(super) fn wake(&self) {
        // Before `send`: who sees the count must see this. And in one order with the two lines of
        // `wait`: if the load finds nobody outside, who goes there later finds the wake-up.
        self.woken.store(true, Ordering::SeqCst);
        if self.outside.load(Ordering::SeqCst) {
            // Whoever holds the door has yet to look, or waits already.
            drop(self.door.lock().unwrap_or_else(PoisonError::into_inner));
            self.opened.notify_one();
        } else {
            self.send();
        }
    }

    /// Waits for a wake-up outside the ring, for a ring with nothing in flight.
    pub(super) fn wait(&self, wait: Wait) {
        self.outside.store(true, Ordering::SeqCst);
        let asleep = |(): &mut ()| !self.woken.load(Ordering::SeqCst);
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        match wait {
            Wait::No => drop(door),
            Wait::Forever => {
                drop(self.opened.wait_while(door, asleep).unwrap_or_else(PoisonError::into_inner));
            }
            Wait::AtMost(time) => {
                let waited = self.opened.wait_timeout_while(door, time, asleep);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
        self.outside.store(false, Ordering::SeqCst);
    }

    /// Makes the ring look at what other threads left for it before this call.
    pub(super) fn send(&self) {
        // The exchanges of `sent` are totally ordered. If the ring cleared it before this one, the
        // count below wakes it; if this one comes first, the ring has yet to clear it and sees,
        // after that, all that was done before this call.
        if !self.sent.swap(true, Ordering::AcqRel) {
            let sent = sys::event_signal(&self.counter);
            assert_eq!(sent, Ok(()), "an event counter takes a count");
        }
    }

    /// Notes that the ring has got the count. Look at what the others left *after* this.
    pub(super) fn received(&self) {
        self.sent.swap(false, Ordering::AcqRel);
    }

    /// Returns whether a poll shall not wait.
    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Forgets a wake-up: a waiting poll returns for it.
    pub(super) fn forget_woken(&self) {
        self.woken.swap(false, Ordering::AcqRel);
    }
}
