//! What this process has used of the machine.

use std::time::Duration;

/// What this process has used since it began, all its threads - the kernel's workers for its rings
/// too - taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in its own code.
    pub user: Duration,
    /// Processor time in the kernel for it.
    pub system: Duration,
    /// The most memory it held at once, in bytes.
    pub peak_resident_bytes: u64,
}

/// Returns what this process has used so far: `getrusage(2)`, `RUSAGE_SELF`.
///
/// # Panics
/// If the kernel does not know the call.
#[must_use]
pub fn process_usage() -> Usage {
    usage_of(libc::RUSAGE_SELF)
}

/// Returns what the calling thread has used so far: `getrusage(2)`, `RUSAGE_THREAD`. The memory is
/// that of the process.
///
/// # Panics
/// If the kernel does not know the call.
#[must_use]
pub fn thread_usage() -> Usage {
    usage_of(libc::RUSAGE_THREAD)
}

fn usage_of(whose: libc::c_int) -> Usage {
    // SAFETY: `rusage` is plain numbers, for which all zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is writable and of the type the kernel fills.
    let result = unsafe { libc::getrusage(whose, &raw mut usage) };
    assert_eq!(result, 0, "getrusage(2) of the own process or thread cannot fail");
    let time = |time: libc::timeval| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let micros = u64::try_from(time.tv_usec).unwrap_or(0);
        Duration::from_secs(seconds) + Duration::from_micros(micros)
    };
    Usage {
        user: time(usage.ru_utime),
        system: time(usage.ru_stime),
        // The kernel counts it in KiB.
        peak_resident_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_only_grows_and_counts_what_is_touched() {
        let before = process_usage();
        let touched = vec![1_u8; 64 << 20];
        let sum: u64 = touched.iter().map(|byte| u64::from(*byte)).sum();
        let after = process_usage();
        assert_eq!(sum, 64 << 20);
        assert!(after.user + after.system >= before.user + before.system);
        assert!(after.peak_resident_bytes >= 64 << 20);
    }

    #[test]
    fn a_thread_has_used_no_more_than_its_process() {
        let (thread, process) = (thread_usage(), process_usage());
        assert!(thread.user + thread.system <= process.user + process.system);
    }
}
