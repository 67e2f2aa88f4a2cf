//! Every crash at every I/O boundary of small named workloads.
//!
//! For each boundary the workload runs again until it dies there. Each state that a kill or a
//! power cut can leave (see `enumerate`) is opened, and:
//!
//! * a crash comes at *every* boundary of that recovery for the kill, nothing, everything and the
//!   random subsets; at one boundary, chosen by the state's number, for the others;
//! * then another life opens, checks the oracle, appends, reads everything, loses the power and
//!   opens once more.
//!
//! A boundary whose unsynced pieces and promises are those of the one before is not tried again.

mod enumerate;
pub(crate) mod stage;
pub(crate) mod workloads;

use std::panic::{AssertUnwindSafe, catch_unwind};

use highwater_io::sim::{SimDisk, SimProfile, Survival};

use crate::coverage::Coverage;
use crate::failure::{Check, Failure, ensure};
use crate::oracle::LogModel;
use crate::report::last_panic;
use enumerate::{State, states};
use stage::Stage;
pub use workloads::{WORKLOADS, Workload};

/// The seed of every workload's disk: the states are enumerated, not drawn.
const SEED: u64 = 7;
/// Ways to tear what two processes wrote.
const TEARS: u64 = 16;
/// The smallest segment.
const SEGMENT_BYTES: u64 = 64 << 10;

/// What came of one workload.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// I/O boundaries of the workload.
    pub boundaries: u64,
    /// States opened, those with a crash inside recovery included.
    pub states: u64,
    /// The broken promise and where: boundary, state.
    pub failure: Option<(u64, String, Failure)>,
    /// What was met.
    pub coverage: Coverage,
}

/// Tries the crash states of a workload, one in `sample` of them.
#[must_use]
pub fn run_workload(workload: &Workload, sample: u64) -> Summary {
    let mut summary = Summary::default();
    let mut at = (0, String::new());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        every_boundary(workload, sample.max(1), &mut summary, &mut at)
    }));
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(_) => Some(Failure { invariant: "PANIC", message: last_panic() }),
    };
    summary.failure = failure.map(|failure| (at.0, at.1, failure));
    summary
}

/// Returns where a workload begins: on an empty disk, or with a log that has lived before.
fn begin(workload: &Workload) -> Check<Stage> {
    let (disk, models) = beginning(workload);
    let mut stage = Stage::new(disk, models, workload);
    let lived = stage.run(workload.before)?;
    ensure(lived, "L6", || "what comes before the workload does not end".to_owned())?;
    Ok(stage)
}

/// Returns the empty disk of a workload and what is known of its logs.
pub(crate) fn beginning(workload: &Workload) -> (SimDisk, Vec<LogModel>) {
    let profile =
        SimProfile { tear_sectors: workload.never_rewrite_flushed, ..SimProfile::default() };
    let model = |index: usize| {
        let name = format!("log-{index}");
        let mut model = LogModel::new(&name, SEGMENT_BYTES, workload.never_rewrite_flushed);
        model.retained = workload.retention_bytes.is_some();
        model
    };
    let models = (0..workload.logs).map(model).collect();
    (SimDisk::new(SEED, profile), models)
}

fn every_boundary(
    workload: &Workload,
    sample: u64,
    summary: &mut Summary,
    at: &mut (u64, String),
) -> Check {
    let first = begin(workload)?;
    let began = first.disk.boundaries();
    let mut whole = first.on(first.disk.clone_state());
    let lived = whole.run(workload.steps)?;
    ensure(lived, "L6", || "the workload does not end".to_owned())?;
    let ended = whole.disk.boundaries();
    summary.boundaries = ended - began;
    let mut before = String::new();
    let mut number = 0;
    for boundary in began + 1..=ended {
        *at = (boundary - began, "the workload itself".to_owned());
        let mut stage = first.on(first.disk.clone_state());
        stage.disk.stop_at_boundary(boundary);
        stage.run(workload.steps)?;
        stage.disk.kill();
        stage.disk.set_capacity(None);
        let pieces = stage.disk.unsynced();
        let promises: Vec<_> = stage.models.iter().map(LogModel::promises).collect();
        let same = format!("{pieces:?} {promises:?} {}", stage.disk.late().len());
        if same == before {
            continue;
        }
        before = same;
        for state in states(&pieces, boundary, workload.never_rewrite_flushed) {
            number += 1;
            if number % sample == 0 {
                *at = (boundary - began, format!("{state:?}"));
                try_state(&stage, &state, number, summary, at)?;
                if matches!(state, State::Killed) && !workload.before.is_empty() {
                    tear_twice(&stage, number, summary, at)?;
                }
            }
        }
    }
    Ok(())
}

fn copy_of(stage: &Stage, state: &State) -> Stage {
    let disk = stage.disk.clone_state();
    state.apply(&disk);
    let mut copy = stage.on(disk);
    if !matches!(state, State::Killed) {
        copy.power_was_cut();
    }
    copy
}

/// Kills the process, and cuts the power in the opening behind it, at every boundary and in many
/// ways: what two processes wrote after each other is torn together.
fn tear_twice(dead: &Stage, number: u64, summary: &mut Summary, at: &mut (u64, String)) -> Check {
    let mut measured = copy_of(dead, &State::Killed);
    let began = measured.disk.boundaries();
    measured.run(&[stage::Step::Open])?;
    let boundaries = measured.disk.boundaries() - began;
    drop(measured);
    for boundary in 1..boundaries {
        let mut opening = copy_of(dead, &State::Killed);
        opening.disk.stop_at_boundary(began + boundary);
        opening.run(&[stage::Step::Open])?;
        opening.disk.kill();
        for way in 0..TEARS {
            at.1 = format!("killed, power cut {way} at boundary {boundary} of recovery");
            let mut torn = opening.on(opening.disk.clone_state());
            torn.power_cut(Survival::Random(number * TEARS * boundaries + boundary * TEARS + way));
            summary.states += 1;
            let opened = torn.run(&[stage::Step::Open])?;
            ensure(opened, "L6", || "the engine does not open".to_owned())?;
            torn.run(&[stage::Step::Kill])?;
        }
    }
    Ok(())
}

/// Opens one state: whole, and with crashes inside.
fn try_state(
    dead: &Stage,
    state: &State,
    number: u64,
    summary: &mut Summary,
    at: &mut (u64, String),
) -> Check {
    let mut opened = copy_of(dead, state);
    let began = opened.disk.boundaries();
    let mut measured = copy_of(dead, state);
    measured.run(&[stage::Step::Open])?;
    let boundaries = measured.disk.boundaries() - began;
    drop(measured);
    summary.states += 1;
    opened.another_life()?;
    summary.coverage.merge(&opened.coverage);
    let inside: Vec<u64> = if state.is_thorough() {
        (1..boundaries).collect()
    } else {
        vec![1 + number % boundaries.max(1)]
    };
    for boundary in inside {
        at.1 = format!("{state:?}, crash at boundary {boundary} of recovery");
        let mut again = copy_of(dead, state);
        again.disk.stop_at_boundary(began + boundary);
        again.run(&[stage::Step::Open])?;
        again.disk.kill();
        match (boundary + number) % 4 {
            0 => again.power_cut(Survival::Nothing),
            1 => again.power_cut(Survival::Everything),
            2 => again.power_cut(Survival::Random(number)),
            _ => {}
        }
        again.disk.stop_at_boundary(again.disk.boundaries() + 1_000_000);
        summary.states += 1;
        again.another_life()?;
    }
    Ok(())
}
