//! `highwater-fuzz-explain TARGET FILE`: says what an input of a fuzz target stands for, and runs
//! it once.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use highwater_fuzz_targets::{TARGETS, describe, run};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (target, path) = (arguments.next(), arguments.next());
    let name = target.and_then(|name| name.into_string().ok());
    let known = TARGETS.iter().find(|target| Some(target.name) == name.as_deref());
    let (Some(target), Some(path)) = (known, path) else {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        say(&format!("usage: highwater-fuzz-explain TARGET FILE; targets: {}", names.join(", ")));
        return ExitCode::from(2);
    };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            say(&format!("cannot read {}: {error}", path.display()));
            return ExitCode::from(1);
        }
    };
    say(&describe(target.name, &bytes));
    // A broken promise panics, and says which.
    run(target.name, &bytes);
    say(&format!("{} holds for these {} bytes", target.name, bytes.len()));
    ExitCode::SUCCESS
}

fn say(line: &str) {
    // A closed pipe is the reader's choice.
    drop(writeln!(std::io::stdout(), "{line}"));
}
