//! `compare`: the same work done by Highwater and by other embeddable log engines.
//!
//! Every run is a process of its own, so that processor time, memory and caches of one engine are
//! not another's. The rounds are interleaved: each engine once, then all again.
#![forbid(unsafe_code)]

mod args;
mod engines;
mod rounds;
mod run;
mod table;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Format, Task};
use engines::Failure;

fn main() -> ExitCode {
    match work(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn work(args: &Args) -> Result<ExitCode, Failure> {
    if let Some(Task::Run(run)) = &args.task {
        println!("{}", serde_json::to_string(&run::run(run)?)?);
        return Ok(ExitCode::SUCCESS);
    }
    let comparison = rounds::compare(&args.rounds)?;
    match args.rounds.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&comparison)?),
        Format::Text => print!("{}", table::text(&comparison)),
    }
    Ok(if comparison.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
