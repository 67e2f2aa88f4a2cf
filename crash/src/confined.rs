//! Running a program without `io_uring(7)`, as the seccomp filters of containers make it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use crate::workload::Failure;

/// The system calls of `io_uring(7)`: setup, enter, register. Their numbers are the same on every
/// architecture.
const IO_URING: [i64; 3] = [425, 426, 427];

/// Becomes the program `words` names, for which every system call of `io_uring(7)` ends with
/// `errno`. Returns only if that fails.
pub fn become_without_uring(errno: u32, words: &[OsString]) -> Failure {
    let [program, arguments @ ..] = words else { return "no program is named".into() };
    match filter(errno).and_then(|filter| Ok(apply_filter(&filter)?)) {
        Ok(()) => Command::new(program).args(arguments).exec().into(),
        Err(failure) => failure,
    }
}

fn filter(errno: u32) -> Result<BpfProgram, Failure> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let rules: BTreeMap<i64, _> = IO_URING.map(|number| (number, Vec::new())).into();
    let (others, these) = (SeccompAction::Allow, SeccompAction::Errno(errno));
    Ok(SeccompFilter::new(rules, others, these, architecture)?.try_into()?)
}
