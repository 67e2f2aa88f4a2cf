//! Clocks: the only place that reads them.

use std::time::Duration;

/// A point in monotonic time, in nanoseconds from an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// Returns the time from `earlier` to `self`, zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Monotonic) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Returns the point `duration` later, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Monotonic {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Monotonic(self.0.saturating_add(nanos))
    }
}

/// Returns the monotonic time of this machine.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn monotonic_now() -> Monotonic {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    Monotonic(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

/// Returns wall-clock time in milliseconds since 1970-01-01 UTC; 0 for a clock set before that.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn wall_clock_ms() -> i64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_1970.ok().and_then(|d| i64::try_from(d.as_millis()).ok()).unwrap_or(0)
}
