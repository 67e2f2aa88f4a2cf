//! Every answer of the kernel to every I/O operation of the named workloads: the first operation
//! fails, then the second, and so on until a run passes untouched; once, and for ever.
//!
//! After each run, in the same process and after every way to end it (see `trial`):
//!
//! * errors are of the kinds that such a failure may have, and name operation and file;
//! * nothing that was acked is lost, as far as the oracle holds the engine to it (D1, D2, D4), no
//!   damage is reported where there was none, and every request was answered (L5);
//! * a log that refuses writes moves no mark and is never marked clean (D3);
//! * once: opening again works at once; for ever: it works or says why, and works when the failure
//!   is over.

mod trial;

use std::panic::{AssertUnwindSafe, catch_unwind};

use highwater_io::sim::Trouble;

use crate::crash_states::Workload;
use crate::failure::{Check, Failure};
use crate::report::last_panic;
use trial::Trial;

/// The most operations of a workload.
const OPERATIONS_MAX: u64 = 10_000;

/// How a failure comes: which answer, and whether it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The answer.
    pub trouble: Trouble,
    /// Every operation behind it fails too.
    pub for_ever: bool,
}

impl Way {
    /// Returns every way.
    #[must_use]
    pub fn all() -> Vec<Way> {
        let both = |trouble| [false, true].map(|for_ever| Way { trouble, for_ever });
        Trouble::ALL.into_iter().flat_map(both).collect()
    }

    /// Returns its name, as in reports.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {}", self.trouble.name(), if self.for_ever { "for ever" } else { "once" })
    }
}

/// What came of one workload and one way.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs in which an operation failed.
    pub runs: u64,
    /// States opened after them.
    pub states: u64,
    /// Errors that were looked at.
    pub errors: u64,
    /// Logs with flushed records that a power cut took with their directory's name, whose sync had
    /// failed: a stated limit.
    pub vanished: u64,
    /// The broken promise, and the number of the failing operation, counted from 1.
    pub failure: Option<(u64, Failure)>,
}

/// Fails one operation in `sample` of a workload.
#[must_use]
pub fn run_workload(workload: &Workload, way: Way, sample: u64) -> Summary {
    let mut summary = Summary::default();
    let mut at = 0;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        every_operation(workload, way, sample.max(1), &mut summary, &mut at)
    }));
    summary.failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some((at, failure)),
        Err(_) => Some((at, Failure { invariant: "PANIC", message: last_panic() })),
    };
    summary
}

/// Fails one operation of a workload, counted from 1; returns how the run went, in words.
#[must_use]
pub fn run_once(workload: &Workload, way: Way, operation: u64) -> (Vec<String>, Option<Failure>) {
    let mut trial = Trial::new(workload, way, operation.saturating_sub(1));
    trial.disk.record_trace(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| trial.run(&mut Summary::default())));
    let failure = match outcome {
        Ok(Ok(_)) => None,
        Ok(Err(failure)) => Some(failure),
        Err(_) => Some(Failure { invariant: "PANIC", message: last_panic() }),
    };
    let mut lines = trial.disk.trace_lines();
    lines.append(&mut trial.notes);
    (lines, failure)
}

fn every_operation(
    workload: &Workload,
    way: Way,
    sample: u64,
    summary: &mut Summary,
    at: &mut u64,
) -> Check {
    // Not always the same ones.
    let first = u64::try_from(workload.name.len()).unwrap_or(0) % sample;
    if !workload.before.is_empty() {
        // Its steps alone would find no log.
        return Ok(());
    }
    for number in (0..OPERATIONS_MAX).filter(|number| number % sample == first) {
        *at = number + 1;
        let struck = Trial::new(workload, way, number).run(summary)?;
        if !struck {
            return Ok(());
        }
        summary.runs += 1;
    }
    Err(Failure { invariant: "L6", message: "the workload does not end".to_owned() })
}
