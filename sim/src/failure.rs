//! A broken promise.

use std::fmt;

/// An invariant that did not hold, and how that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which, such as `D4`; `PANIC` for a panic in the engine.
    pub invariant: &'static str,
    /// What was seen.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.message)
    }
}

/// What a check returns.
pub(crate) type Check<T = ()> = Result<T, Failure>;

/// Returns the failure of `invariant`.
pub(crate) fn broken<T>(invariant: &'static str, message: impl Into<String>) -> Check<T> {
    Err(Failure { invariant, message: message.into() })
}

/// Fails with what `message` returns unless `holds`.
pub(crate) fn ensure(
    holds: bool,
    invariant: &'static str,
    message: impl FnOnce() -> String,
) -> Check {
    if holds { Ok(()) } else { broken(invariant, message()) }
}
