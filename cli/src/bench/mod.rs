//! `highwater bench`: figures one can trust - or is told why not.

mod append;
mod environment;
mod fail_if;
mod flags;
mod floor;
mod floor_command;
mod floor_result;
mod follow;
mod latency;
mod measured;
mod numbers;
mod open;
mod pace;
mod payload;
mod place;
mod producer;
mod progress;
mod read;
mod report;
mod result;
mod stats;
mod wake;
mod way;

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
    Append(Box<flags::Arguments>),
    Read(read::Arguments),
    Follow(follow::Arguments),
    Open(open::Arguments),
    Floor(floor_command::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.what {
        What::Append(arguments) => append::run(arguments),
        What::Read(arguments) => read::run(arguments),
        What::Follow(arguments) => follow::run(arguments),
        What::Open(arguments) => open::run(arguments),
        What::Floor(arguments) => floor_command::run(arguments),
    }
}
