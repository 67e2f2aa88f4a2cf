//! `highwater`: logs from the command line.
//!
//! Exit codes: 0 ok, 1 error, 2 usage, 6 corruption found, 130 interrupted. Standard output carries
//! only what was asked for; everything else goes to standard error.
#![forbid(unsafe_code)]

mod acks;
mod append;
mod args;
mod batches;
mod bench;
mod dump;
mod findings;
mod input;
mod interrupt;
mod logs;
mod output;
mod read;
mod repair;
mod text;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::output::{Exit, Failure};

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 error, 2 usage, 6 corruption found, 130 interrupted.";

/// Append to, read and inspect record-batch logs.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Append(append::Arguments),
    Read(read::Arguments),
    Dump(dump::Arguments),
    Verify(verify::Arguments),
    Logs(logs::Arguments),
    Repair(repair::Arguments),
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    // Hundreds of logs take more descriptors than the usual limit; where it cannot be raised, the
    // error that comes of it says so.
    highwater_io::limits::raise_open_files();
    // A limit of file sizes is an error to tell, not an end without a word.
    highwater_io::thread::block_file_size_signal();
    let result = match CommandLine::parse().verb {
        Verb::Append(arguments) => append::run(&arguments),
        Verb::Read(arguments) => read::run(&arguments),
        Verb::Dump(arguments) => dump::run(&arguments),
        Verb::Verify(arguments) => verify::run(&arguments),
        Verb::Logs(arguments) => logs::run(&arguments),
        Verb::Repair(arguments) => repair::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
    };
    let exit = match result {
        Ok(exit) => exit,
        // Whoever read the output has seen enough.
        Err(Failure::OutputClosed) => Exit::Ok,
        Err(Failure::Told { exit, message }) => {
            output::tell(&format!("error: {message}"));
            exit
        }
    };
    exit.code()
}
