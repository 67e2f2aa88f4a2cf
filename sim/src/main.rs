//! `highwater-sim`: the simulator from the command line.
#![forbid(unsafe_code)]

mod args;

use std::process::ExitCode;

fn main() -> ExitCode {
    args::run()
}
