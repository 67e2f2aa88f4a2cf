//! Writes that the device reports as done and that are not: lost, misdirected, or in part stale
//! after the next restart. Each write of one life goes wrong, one at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use highwater_io::sim::Fault;

use super::images::with_fault;
use super::judge::judge;
use super::{Outcome, Tally};
use crate::failure::{Check, Failure};
use crate::report::last_panic;

/// Writes of the life, at most.
const WRITES_MAX: u64 = 1000;

/// Lets each write to the log's files go wrong in each way; returns what it came to, by way.
#[must_use]
pub fn run_bad_writes() -> Vec<(&'static str, Tally)> {
    let ways = [
        ("lost-write", Fault::LostWrite),
        ("misdirected-write", Fault::MisdirectedWrite),
        ("stale-after-restart", Fault::StaleBlock),
    ];
    ways.into_iter().map(|(name, fault)| (name, every_write(&fault))).collect()
}

fn every_write(fault: &Fault) -> Tally {
    let mut tally = Tally::default();
    // The harness looks at both slots of a new log itself, and would notice before the engine.
    let made = 2;
    for (file, first, closes) in
        [(".log", 0, true), (".log", 0, false), ("log.meta", made, true), ("log.meta", made, false)]
    {
        for nth in first..WRITES_MAX {
            let outcome = catch_unwind(AssertUnwindSafe(|| try_write(file, fault, nth, closes)));
            let failure = match outcome {
                Ok(Ok(None)) => break,
                Ok(Ok(Some(outcome))) => {
                    tally.damages += 1;
                    *tally.outcomes.entry(outcome).or_default() += 1;
                    continue;
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure { invariant: "PANIC", message: last_panic() },
            };
            let end = if closes { "closed" } else { "killed" };
            tally.failure.get_or_insert((format!("write {nth} to {file}, {end}"), failure));
        }
    }
    tally
}

fn try_write(file: &str, fault: &Fault, nth: u64, closes: bool) -> Check<Option<Outcome>> {
    let Some(image) = with_fault(file, fault.clone(), nth, closes) else { return Ok(None) };
    judge(&image, &image.disk.clone_state(), None).map(Some)
}
