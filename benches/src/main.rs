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

use std::path::Path;
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
        let outcome = in_directory(&run.dir, || run::run(run))?;
        println!("{}", serde_json::to_string(&outcome)?);
        return Ok(ExitCode::SUCCESS);
    }
    let comparison = in_directory(&args.rounds.dir, || rounds::compare(&args.rounds))?;
    match args.rounds.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&comparison)?),
        Format::Text => print!("{}", table::text(&comparison)),
    }
    Ok(if comparison.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Does the work in a directory that is made for it if need be, and then removed again.
fn in_directory<T>(
    directory: &Path,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let is_made = !directory.exists();
    let result = work();
    if is_made {
        // Where something is left in it, or it was never made, there is nothing to do.
        drop(std::fs::remove_dir(directory));
    }
    result
}
