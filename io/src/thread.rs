//! Threads: the only place that starts them.

use std::path::PathBuf;
use std::thread::JoinHandle;

use crate::error::{IoError, IoErrorKind};

/// Starts a named thread, in which the limit of file sizes is an error and no signal: see
/// [`block_file_size_signal`].
///
/// # Errors
/// [`IoErrorKind::Resources`] if the kernel refuses another thread.
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, IoError> {
    let body = || {
        block_file_size_signal();
        body()
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|error| IoError {
        kind: IoErrorKind::Resources,
        operation: "start thread",
        path: PathBuf::from(name),
        position: None,
        errno: error.raw_os_error(),
    })
}

/// Lets a file that would grow beyond the limit (`RLIMIT_FSIZE`) end the calling thread's operation
/// with an error, and not the process by a signal: blocks `SIGXFSZ` in this thread and in those it
/// starts. Threads of this crate do so; a program that opens or makes logs on its own threads,
/// under such a limit, calls this on them or ignores the signal.
pub fn block_file_size_signal() {
    // SAFETY: a signal set is plain numbers, for which all zeros are valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a signal set, ours to write.
    unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: as above, and the signal's number is a valid one.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGXFSZ) };
    // SAFETY: `set` is initialised and outlives the call; nobody asks for the old mask. With a
    // valid set and a valid request it cannot fail.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
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

/// Returns the cores that the calling thread may run on, lowest first: its cpu set, not the whole
/// machine. Empty if the kernel does not say (more than 1024 cores).
#[must_use]
pub fn usable_cores() -> Vec<usize> {
    // SAFETY: a cpu set is plain bits, for which all zeros are the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours, and as long as we say.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if result != 0 {
        return Vec::new();
    }
    let size = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: the set is initialised, and the core is within its size.
    (0..size).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

/// Keeps the calling thread on one core from now on. Returns whether the kernel agreed.
pub fn pin_to(core: usize) -> bool {
    let size = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    if core >= size {
        return false;
    }
    // SAFETY: as above.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours, and the core is within its size.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set is initialised, and as long as we say.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_run_on_its_core_only() {
        let cores = usable_cores();
        let Some(last) = cores.last().copied() else { return };
        let pinned = spawn("pinned", move || (pin_to(last), usable_cores())).expect("starts");
        assert_eq!(pinned.join().expect("ends"), (true, vec![last]));
        assert_eq!(usable_cores(), cores, "the other threads are as free as before");
        assert!(!pin_to(1 << 20));
    }
}
