//! Threads: the only place that starts them.

use std::path::PathBuf;
use std::thread::JoinHandle;

use crate::error::{IoError, IoErrorKind};

/// Starts a named thread.
///
/// # Errors
/// [`IoErrorKind::Resources`] if the kernel refuses another thread.
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, IoError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|error| IoError {
        kind: IoErrorKind::Resources,
        operation: "start thread",
        path: PathBuf::from(name),
        position: None,
        errno: error.raw_os_error(),
    })
}

/// Makes the timed waits of the calling thread end as soon as the kernel can, instead of up to
/// 50 us later (`prctl(2)`, `PR_SET_TIMERSLACK`): for a thread that acts at given times.
pub fn wake_on_time() {
    // One nanosecond is the least; zero would mean the default again.
    let slack: libc::c_ulong = 1;
    // SAFETY: the call takes numbers and touches no memory of ours. Where a sandbox refuses it,
    // waits are only less exact.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack) };
}
