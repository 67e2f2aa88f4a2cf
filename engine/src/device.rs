//! What all shards of an engine know of the file system their logs share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use highwater_io::IoError;

use crate::error::{Error, ErrorKind, Result};

/// The file system under an engine: how often a write or a flush failed on it.
///
/// The kernel reports a failed flush once, to one of those who asked, and the device may have
/// dropped the unflushed bytes of any log. Who is told of it tells all shards here, before
/// anything else; each looks before it believes a completion (D3).
#[derive(Debug, Default)]
pub(crate) struct Device {
    failures: AtomicU64,
    last: Mutex<Option<IoError>>,
}

impl Device {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Notes a failed write, flush or sync of a directory.
    pub(crate) fn note_failure(&self, error: &IoError) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        // Behind the error: who sees the count finds it.
        self.failures.fetch_add(1, Ordering::Release);
    }

    /// Returns how many failures were noted so far.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// Returns the newest failure if there was one since `seen` was brought up to date.
    pub(crate) fn failure_since(&self, seen: &mut u64) -> Option<IoError> {
        let failures = self.failures();
        if std::mem::replace(seen, failures) == failures {
            return None;
        }
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fails if there was a failure since there had been so many: what `operation` was told of its
    /// own writes and flushes is in doubt.
    pub(crate) fn check_since(
        &self,
        mut seen: u64,
        operation: &'static str,
        log: &str,
    ) -> Result<()> {
        let Some(failure) = self.failure_since(&mut seen) else { return Ok(()) };
        Err(Error::new(ErrorKind::Io, operation, log)
            .detail(format!("the device failed meanwhile: {failure}"))
            .remedy("check the device, then open the log again"))
    }
}
