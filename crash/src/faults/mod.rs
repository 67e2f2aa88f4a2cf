//! Faults of the system around one node, on real file systems: what it says, and what is left.
//!
//! Every case is a name in [`CASES`]. It makes its fault, looks at what appenders and readers are
//! told meanwhile, ends the fault, and checks that nothing acknowledged is gone. What each of them
//! found stands in a table in `docs/durability.md`.

mod clock;
mod device;
mod frozen;
mod full;
mod ground;
mod limits;
mod read_only;
mod readers;
mod removed;
mod thin;
mod writers;

use std::fmt;

use highwater::BackendChoice;

use crate::binary::Binary;
use crate::error::RigError;
use crate::workload::Failure;

/// What a case did and found, a sentence each.
pub(crate) type Found = Vec<String>;

/// What a case works with.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// The `highwater` binary.
    pub(crate) binary: Binary,
    /// What engines write with.
    pub(crate) backend: BackendChoice,
}

/// How often a case is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backends {
    /// Once for each backend that was asked for.
    Each,
    /// Once: it is about the choice of the backend.
    Once,
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name, for `--case`.
    pub name: &'static str,
    /// The fault, in a few words.
    pub fault: &'static str,
    backends: Backends,
    run: fn(&Site) -> Result<Found, Failure>,
}

/// Every case.
pub const CASES: &[Case] = &[
    Case {
        name: "frozen-ext4",
        fault: "the file system is frozen (ext4)",
        backends: Backends::Each,
        run: frozen::ext4,
    },
    Case {
        name: "frozen-xfs",
        fault: "the file system is frozen (XFS)",
        backends: Backends::Each,
        run: frozen::xfs,
    },
    Case {
        name: "full-ext4",
        fault: "the file system is full (ext4)",
        backends: Backends::Each,
        run: full::ext4,
    },
    Case {
        name: "full-xfs",
        fault: "the file system is full (XFS)",
        backends: Backends::Each,
        run: full::xfs,
    },
    Case {
        name: "device-ext4",
        fault: "the device under the file system fails (ext4)",
        backends: Backends::Each,
        run: device::ext4,
    },
    Case {
        name: "device-xfs",
        fault: "the device under the file system fails (XFS)",
        backends: Backends::Each,
        run: device::xfs,
    },
    Case {
        name: "thin-disk",
        fault: "the disk under the file system is full before the file system is",
        backends: Backends::Each,
        run: thin::disk,
    },
    Case {
        name: "aborted-ext4",
        fault: "the file system meets an error of its own and becomes read-only (ext4)",
        backends: Backends::Each,
        run: read_only::ext4_abort,
    },
    Case {
        name: "shut-down-xfs",
        fault: "the file system shuts down (XFS)",
        backends: Backends::Each,
        run: read_only::xfs_shut_down,
    },
    Case {
        name: "read-only",
        fault: "the file system is mounted read-only",
        backends: Backends::Each,
        run: read_only::mounted,
    },
    Case {
        name: "removed-directory",
        fault: "the directory is removed under the engine",
        backends: Backends::Each,
        run: removed::directory,
    },
    Case {
        name: "removed-segment",
        fault: "a segment is removed under the engine",
        backends: Backends::Each,
        run: removed::segment,
    },
    Case {
        name: "few-descriptors",
        fault: "the process may open few files (RLIMIT_NOFILE)",
        backends: Backends::Each,
        run: limits::descriptors,
    },
    Case {
        name: "file-size",
        fault: "no file may grow beyond a size (RLIMIT_FSIZE, SIGXFSZ)",
        backends: Backends::Each,
        run: limits::file_size,
    },
    Case {
        name: "locked-memory",
        fault: "hardly any memory may be locked (RLIMIT_MEMLOCK)",
        backends: Backends::Each,
        run: limits::locked_memory,
    },
    Case {
        name: "no-uring",
        fault: "a seccomp filter forbids io_uring",
        backends: Backends::Once,
        run: limits::no_uring,
    },
    Case {
        name: "clock-jumps",
        fault: "the wall clock jumps by an hour, forward and back",
        backends: Backends::Each,
        run: clock::jumps,
    },
    Case {
        name: "readers-beside",
        fault: "readers beside a writer that rolls, trims and uses segments again",
        backends: Backends::Each,
        run: readers::beside,
    },
    Case {
        name: "two-writers",
        fault: "two processes write to one directory",
        backends: Backends::Each,
        run: writers::two,
    },
    Case {
        name: "killed-in-flight",
        fault: "the writer is killed while the kernel still writes for it",
        backends: Backends::Each,
        run: writers::killed_in_flight,
    },
];

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Only the case of this name.
    pub case: Option<String>,
    /// The backends, one after the other.
    pub backends: Vec<BackendChoice>,
    /// The binary.
    pub binary: Binary,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Cases run, each backend counted.
    pub runs: usize,
    /// Of them those that were not as they must be.
    pub failed: usize,
    /// Cases that this machine cannot make.
    pub skipped: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { runs, failed, skipped } = self;
        write!(f, "faults: runs {runs}, failed {failed}, skipped {skipped}")
    }
}

/// Runs the cases of `plan`, telling `tell` what each did and found.
///
/// # Errors
/// If there is no case of the name that was asked for.
pub fn run(plan: &Plan, mut tell: impl FnMut(&str)) -> Result<Summary, Failure> {
    let asked = |case: &&Case| plan.case.as_ref().is_none_or(|name| name == case.name);
    let cases: Vec<&Case> = CASES.iter().filter(asked).collect();
    if cases.is_empty() {
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        return Err(format!("there is no such case; there are {}", names.join(", ")).into());
    }
    let mut summary = Summary::default();
    for case in cases {
        for backend in case.backends.of(plan) {
            let site = Site { binary: plan.binary.clone(), backend };
            let what = format!("{} {}", case.name, name_of(backend));
            tell(&format!("{what}: {}", case.fault));
            match (case.run)(&site) {
                Ok(found) => {
                    summary.runs += 1;
                    found.iter().for_each(|line| tell(&format!("{what}:   {line}")));
                }
                Err(failure) => {
                    if let Some(RigError::Missing(why)) = failure.downcast_ref() {
                        summary.skipped += 1;
                        tell(&format!("{what}: SKIPPED: {why}"));
                    } else {
                        summary.runs += 1;
                        summary.failed += 1;
                        tell(&format!("{what}: FAILED: {failure}"));
                    }
                }
            }
        }
    }
    Ok(summary)
}

impl Backends {
    fn of(self, plan: &Plan) -> Vec<BackendChoice> {
        match self {
            Backends::Each => plan.backends.clone(),
            Backends::Once => vec![BackendChoice::Auto],
        }
    }
}

fn name_of(backend: BackendChoice) -> &'static str {
    match backend {
        BackendChoice::Auto => "auto",
        BackendChoice::Uring => "uring",
        BackendChoice::Threads => "threads",
    }
}

#[cfg(test)]
mod tests {
    use super::CASES;

    #[test]
    fn every_case_has_a_name_of_its_own_and_a_row_in_the_table() {
        let table = include_str!("../../../docs/durability.md");
        for (index, case) in CASES.iter().enumerate() {
            assert!(table.contains(&format!("`{}`", case.name)), "{} has no row", case.name);
            assert!(CASES[..index].iter().all(|other| other.name != case.name), "{}", case.name);
        }
    }
}
