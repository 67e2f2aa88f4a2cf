//! `highwater bench`: figures one can trust - or is told why not.

mod environment;
mod flags;
mod floor;
mod floor_command;
mod floor_result;
mod interrupt;
mod latency;
mod numbers;
mod progress;

use crate::output::{Exit, Failure};

/// The version of the results' schema, `docs/bench-result.schema.json`.
const SCHEMA_VERSION: u32 = 1;

/// Measure this machine and the engine on it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Floor(floor_command::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.what {
        What::Floor(arguments) => floor_command::run(arguments),
    }
}
