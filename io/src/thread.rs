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
