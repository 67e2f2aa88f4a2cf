//! Waking a ring: an event counter the ring keeps a read of.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys;

/// Ends the wait of a ring from any thread.
#[derive(Debug)]
pub(super) struct Signal {
    counter: OwnedFd,
    /// Whether a count is on its way to the ring, so that more wake-ups cost no system call.
    sent: AtomicBool,
    /// Whether the next waiting poll shall return.
    woken: AtomicBool,
}

impl Signal {
    pub(super) fn new() -> Result<Self, i32> {
        let counter = sys::event_counter()?;
        Ok(Signal { counter, sent: AtomicBool::new(false), woken: AtomicBool::new(false) })
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.counter.as_raw_fd()
    }

    /// Makes the current or the next waiting poll return.
    pub(super) fn wake(&self) {
        // Before `send`: who sees the count must see this.
        self.woken.store(true, Ordering::Release);
        self.send();
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
