//! Making a ring on whatever kernel there is.

use io_uring::{Builder, IoUring, Probe, opcode};

use crate::error::{IoError, IoErrorKind};
use crate::sys::errno_of;

/// Submission entries of a ring: twice the operations in flight, each of which has at most one
/// entry, and the wake-up's. So neither this queue nor the completion queue, twice as long by the
/// kernel's default, ever overflows.
const ENTRIES: u32 = 512;

/// Submission entries of a reader's ring: as above for its reads in flight.
const READER_ENTRIES: u32 = 32;

/// Kernel workers a ring may use for what cannot run inline on regular files (flushes, growing
/// writes), and for all else.
const KERNEL_WORKERS_MAX: [u32; 2] = [16, 4];

/// What the messages call a ring.
pub(crate) const NAME: &str = "io_uring";

/// Returns the setups to try, the best first.
///
/// `TASKRUN_FLAG` lets a poll that does not wait see without a system call that nothing happened.
pub(super) fn ladder() -> [Builder; 3] {
    let plain = IoUring::builder();
    let mut cooperative = plain.clone(); // From 5.19.
    cooperative.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
    let mut deferred = plain.clone(); // From 6.1.
    deferred.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
    [deferred, cooperative, plain]
}

fn failure(errno: i32) -> IoError {
    IoError::from_errno(errno, "set up", NAME.into(), None)
}

fn unsupported() -> IoError {
    let (kind, path) = (IoErrorKind::Unsupported, NAME.into());
    IoError { kind, operation: "find all needed operations in", path, position: None, errno: None }
}

/// Returns the best ring this kernel gives.
pub(crate) fn ring() -> Result<IoUring, IoError> {
    let [best, second, last] = ladder();
    let refused = |result: &Result<IoUring, IoError>| {
        result.as_ref().is_err_and(|error| error.errno == Some(libc::EINVAL))
    };
    let mut result = build(&best);
    for setup in [second, last] {
        if refused(&result) {
            result = build(&setup);
        }
    }
    result
}

/// Returns a ring of this setup that has every operation we use.
pub(super) fn build(setup: &Builder) -> Result<IoUring, IoError> {
    build_with(setup, ENTRIES)
}

/// As [`build`], for the few reads of a reader.
pub(super) fn build_small(setup: &Builder) -> Result<IoUring, IoError> {
    build_with(setup, READER_ENTRIES)
}

fn build_with(setup: &Builder, entries: u32) -> Result<IoUring, IoError> {
    let ring = setup.build(entries).map_err(|error| failure(errno_of(&error)))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|_| unsupported())?;
    let needed =
        [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE, opcode::Fallocate::CODE];
    let complete = needed.iter().all(|code| probe.is_supported(*code));
    // Waiting with a timeout came with 5.11; all kernels we support have it.
    if !complete || !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
        return Err(unsupported());
    }
    // From 5.15, and only a bound: a kernel that does not know it has bounds of its own.
    ring.submitter().register_iowq_max_workers(&mut KERNEL_WORKERS_MAX.clone()).ok();
    Ok(ring)
}

/// Returns what helps against a failure of [`UringIo::new`](super::UringIo::new), as a sentence
/// for the person at the machine.
#[must_use]
pub fn remedy(error: &IoError) -> &'static str {
    match (&error.kind, error.errno) {
        (IoErrorKind::PermissionDenied, _) => {
            "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile of \
             the container, and see that sysctl kernel.io_uring_disabled is 0"
        }
        (_, Some(libc::ENOSYS)) => {
            "use a kernel with io_uring (5.15 or later), and a container runtime that lets it through"
        }
        (IoErrorKind::Unsupported, _) => "use Linux 5.15 or later",
        (_, Some(libc::ENOMEM)) => {
            "raise the memory limit of the control group, or the limit of locked memory (ulimit -l)"
        }
        (IoErrorKind::Resources, _) => "raise the limit of open files (ulimit -n)",
        _ => "choose the threads backend",
    }
}
