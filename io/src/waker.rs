//! Ending a wait from another thread.

use std::fmt;
use std::sync::Arc;

/// Ends a waiting [`Io::poll`](crate::Io::poll) from any thread. Cheap to clone; using it after the
/// `Io` is gone does nothing.
#[derive(Clone)]
pub struct Waker {
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Waker {
    /// Returns a waker that calls `wake`, which must not block.
    #[must_use]
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Waker { wake: Arc::new(wake) }
    }

    /// Makes the current or the next waiting poll return.
    pub fn wake(&self) {
        (self.wake)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}
