//! Seeds: one node's storage under random operations, faults and crashes, over several lives.
//!
//! Everything follows from the seed: the plan (sizes, which faults this seed knows), the
//! operations, the disk's schedule, and the crashes. The engine is the real one, driven by its
//! own [`LocalEngine`](highwater::LocalEngine).

mod damage;
mod harm;
mod life;
mod numbered;
mod operations;
mod plan;
mod probe;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use highwater_io::sim::Planted;

use crate::coverage::Coverage;
use crate::failure::Failure;
use crate::report::last_panic;
use world::World;

/// How seeds are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Operations of a seed, at least.
    pub operations: u64,
    /// Whether a fraction of the seeds damages the media, or all, or none.
    pub damage: Damage,
    /// Keep every line of the trace.
    pub keep_trace: bool,
    /// A mistake of the simulated kernel, to see that the oracle notices.
    pub planted: Planted,
}

/// Which seeds damage the media below the flushed mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// None.
    Never,
    /// One in eight.
    Sometimes,
    /// All.
    Always,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            operations: 240,
            damage: Damage::Sometimes,
            keep_trace: false,
            planted: Planted::Nothing,
        }
    }
}

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct SeedResult {
    /// The seed.
    pub seed: u64,
    /// The broken promise and the operation it was seen at, if one was.
    pub failure: Option<(u64, Failure)>,
    /// The end of the trace, or all of it.
    pub trace: Vec<String>,
    /// A hash over the whole trace and everything the disk did.
    pub digest: u64,
    /// What was met.
    pub coverage: Coverage,
}

/// Runs one seed.
#[must_use]
pub fn run_seed(seed: u64, config: &Config) -> SeedResult {
    let mut world = World::new(seed, config);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(_) => Some(Failure { invariant: "PANIC", message: last_panic() }),
    };
    let operation = world.operation;
    let (trace, digest, coverage) = world.finish();
    SeedResult { seed, failure: failure.map(|f| (operation, f)), trace, digest, coverage }
}
