//! The command line.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use highwater_io::clock::monotonic_now;
use highwater_sim::corruption::{
    CASES, Outcomes, flip_bits, image_names, run_bad_writes, run_case,
};
use highwater_sim::coverage::{Coverage, SEEDS_FOR_COVERAGE};
use highwater_sim::crash_states::{Summary, WORKLOADS, Workload, run_workload};
use highwater_sim::nth_failures::{Way, run_once, run_workload as run_nth_workload};
use highwater_sim::report::catch_panic_messages;
use highwater_sim::storage::{Config, Damage, SeedResult, run_seed};

/// Deterministic simulation of Highwater.
#[derive(Debug, Parser)]
#[command(name = "highwater-sim", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// Run seeds: random operations, faults and crashes on one node's storage.
    ///
    /// Ends with 0 if every promise held, 1 if not (with the seed, the promise, the end of the
    /// trace and the command that shows it again).
    Storage(Storage),
    /// Try every crash state of small named workloads.
    CrashStates(CrashStates),
    /// Flip every bit of small logs, one at a time, then open and read them.
    BitFlips(BitFlips),
    /// Damage the same logs in every way of a table: swapped, zeroed and stale blocks, files cut
    /// short, gone, of another log, or put back as they once were.
    Corruptions(Corruptions),
    /// Let every I/O operation of the same workloads fail, once and for ever.
    NthFailures(NthFailures),
}

#[derive(Debug, Args)]
struct CrashStates {
    /// Only this workload.
    #[arg(long)]
    workload: Option<String>,
    /// Try one in so many states.
    #[arg(long, default_value_t = 1)]
    sample: u64,
}

#[derive(Debug, Args)]
struct BitFlips {
    /// Only this log.
    #[arg(long)]
    image: Option<String>,
    /// Flip one in so many bits.
    #[arg(long, default_value_t = 1)]
    sample: u64,
}

#[derive(Debug, Args)]
struct Corruptions {
    /// Only this case.
    #[arg(long)]
    case: Option<String>,
    /// Do one in so many damages.
    #[arg(long, default_value_t = 1)]
    sample: u64,
}

#[derive(Debug, Args)]
struct NthFailures {
    /// Only this workload.
    #[arg(long)]
    workload: Option<String>,
    /// Fail one in so many operations.
    #[arg(long, default_value_t = 1)]
    sample: u64,
    /// Only this way, such as `EIO once` or `ENOSPC for ever`.
    #[arg(long)]
    way: Option<String>,
    /// Only this operation, counted from 1, and print what happened.
    #[arg(long, requires = "workload", requires = "way")]
    operation: Option<u64>,
}

#[derive(Debug, Args)]
struct Storage {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Operations of each seed, at least.
    #[arg(long, default_value_t = 240)]
    operations: u64,
    /// Print the whole trace of every seed.
    #[arg(long)]
    trace: bool,
    /// Damage the media in every seed.
    #[arg(long, conflicts_with = "no_damage")]
    damage: bool,
    /// Damage the media in no seed.
    #[arg(long)]
    no_damage: bool,
    /// Go on after a failure and count them.
    #[arg(long)]
    keep_going: bool,
}

/// Lets the allocator keep what is freed: a seed and a crash state allocate windows of a MiB again
/// and again, and giving each back to the kernel costs more than the simulation. The GNU allocator
/// takes its limits from the largest block it saw freed; to others this does nothing.
fn keep_freed_memory() {
    drop(std::hint::black_box(vec![0_u8; 31 << 20]));
}

/// Runs what the command line asks for.
pub(crate) fn run() -> ExitCode {
    let line = CommandLine::parse();
    keep_freed_memory();
    catch_panic_messages();
    match line.command {
        Subject::Storage(storage) => run_storage(&storage),
        Subject::CrashStates(states) => run_crash_states(&states),
        Subject::BitFlips(flips) => run_bit_flips(&flips),
        Subject::Corruptions(corruptions) => run_corruptions(&corruptions),
        Subject::NthFailures(failures) => run_nth_failures(&failures),
    }
}

fn run_crash_states(asked: &CrashStates) -> ExitCode {
    let chosen = WORKLOADS.iter().filter(|workload| {
        asked.workload.as_ref().is_none_or(|name| workload.name == name.as_str())
    });
    let began = monotonic_now();
    let (mut states, mut failed, mut workloads) = (0, 0, 0);
    for workload in chosen {
        let summary = run_workload(workload, asked.sample);
        (states, workloads) = (states + summary.states, workloads + 1);
        let Summary { boundaries, states, .. } = summary;
        say(&format!("{:<28} {boundaries:>6} boundaries {states:>9} states", workload.name));
        if let Some((boundary, state, failure)) = summary.failure {
            failed += 1;
            say(&format!(
                "FAILED {} at boundary {boundary}, {state}: {failure}\nagain: cargo run --release \
                 -p highwater-sim -- crash-states --workload {} --sample {}",
                workload.name, workload.name, asked.sample
            ));
        }
    }
    if workloads == 0 {
        let names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        say(&format!("there is no such workload; there are {}", names.join(", ")));
        return ExitCode::from(2);
    }
    let seconds = monotonic_now().since(began).as_secs_f64();
    let rate = f64::from(u32::try_from(states).unwrap_or(u32::MAX)) / seconds.max(1e-9) * 3600.0;
    say(&format!(
        "{workloads} workloads, {states} states, {failed} failed, {seconds:.1} s, {rate:.0} states \
         per core-hour"
    ));
    ExitCode::from(u8::from(failed > 0))
}

fn run_nth_failures(asked: &NthFailures) -> ExitCode {
    let named = |workload: &&Workload| {
        asked.workload.as_ref().is_none_or(|name| workload.name == name.as_str())
    };
    let ways = Way::all()
        .into_iter()
        .filter(|way| asked.way.as_ref().is_none_or(|name| way.name() == *name));
    let ways: Vec<_> = ways.collect();
    let began = monotonic_now();
    let (mut runs, mut states, mut errors, mut failed, mut vanished) = (0, 0, 0, 0, 0);
    for workload in WORKLOADS.iter().filter(named) {
        let mut own = (0, 0);
        for way in &ways {
            if let Some(operation) = asked.operation {
                let (lines, failure) = run_once(workload, *way, operation);
                lines.iter().for_each(|line| say(line));
                say(&failure.as_ref().map_or("passed".to_owned(), ToString::to_string));
                return ExitCode::from(u8::from(failure.is_some()));
            }
            let summary = run_nth_workload(workload, *way, asked.sample);
            own = (own.0 + summary.runs, own.1 + summary.states);
            errors += summary.errors;
            vanished += summary.vanished;
            let Some((operation, failure)) = summary.failure else { continue };
            failed += 1;
            let (name, way) = (workload.name, way.name());
            say(&format!(
                "FAILED {name}, {way} at operation {operation}: {failure}\nagain: cargo run \
                 --release -p highwater-sim -- nth-failures --workload {name} --way '{way}' \
                 --operation {operation}"
            ));
        }
        (runs, states) = (runs + own.0, states + own.1);
        say(&format!("{:<36} {:>6} failures {:>8} states", workload.name, own.0, own.1));
    }
    let seconds = monotonic_now().since(began).as_secs_f64();
    say(&format!(
        "{runs} failing operations, {errors} errors seen, {states} states opened after them, \
         {vanished} logs gone with their directory's name (a stated limit), {failed} failed, \
         {seconds:.1} s"
    ));
    if runs == 0 {
        say("nothing was run: there is no such workload or way");
        return ExitCode::from(2);
    }
    ExitCode::from(u8::from(failed > 0))
}

fn run_bit_flips(asked: &BitFlips) -> ExitCode {
    let began = monotonic_now();
    let (mut flips, mut failed) = (0, 0);
    for file in flip_bits(asked.image.as_deref(), asked.sample) {
        let count: u64 = file.outcomes.values().sum();
        flips += count;
        say(&format!("{:<36} {count:>8} flips  {}", file.name, outcomes(&file.outcomes)));
        if let Some((bit, failure)) = file.failure {
            failed += 1;
            say(&format!("FAILED {} at bit {bit}: {failure}", file.name));
        }
    }
    let seconds = monotonic_now().since(began).as_secs_f64();
    say(&format!("{flips} flips, {failed} failed, {seconds:.1} s"));
    if flips == 0 {
        say(&format!("there is no such log; there are {}", image_names().join(", ")));
        return ExitCode::from(2);
    }
    ExitCode::from(u8::from(failed > 0))
}

fn outcomes(outcomes: &Outcomes) -> String {
    let counts: Vec<_> = outcomes.iter().map(|(what, times)| format!("{what:?} {times}")).collect();
    counts.join(", ")
}

fn run_corruptions(asked: &Corruptions) -> ExitCode {
    let began = monotonic_now();
    let (mut damages, mut failed) = (0, 0);
    let asked_for = |name: &str| asked.case.as_ref().is_none_or(|own| own == name);
    let chosen = CASES.iter().filter(|case| asked_for(case.name));
    let table = chosen.map(|case| (case.name, run_case(case, asked.sample)));
    let writes = run_bad_writes().into_iter().filter(|(name, _)| asked_for(name));
    for (name, tally) in table.chain(writes) {
        damages += tally.damages;
        let count = tally.damages;
        say(&format!("{name:<26} {count:>7} damages  {}", outcomes(&tally.outcomes)));
        if let Some((what, failure)) = tally.failure {
            failed += 1;
            say(&format!("FAILED {name} {what}: {failure}"));
        }
    }
    let seconds = monotonic_now().since(began).as_secs_f64();
    say(&format!("{damages} damages, {failed} cases failed, {seconds:.1} s"));
    ExitCode::from(if damages == 0 { 2 } else { u8::from(failed > 0) })
}

fn say(line: &str) {
    // A closed pipe is the reader's choice.
    drop(writeln!(std::io::stdout(), "{line}"));
}

fn run_storage(storage: &Storage) -> ExitCode {
    let damage = match (storage.damage, storage.no_damage) {
        (true, _) => Damage::Always,
        (_, true) => Damage::Never,
        _ => Damage::Sometimes,
    };
    let config = Config {
        operations: storage.operations,
        damage,
        keep_trace: storage.trace,
        ..Config::default()
    };
    let began = monotonic_now();
    let mut coverage = Coverage::default();
    let mut failures = 0;
    let last = storage.seed.saturating_add(storage.seeds);
    say(&format!("seeds {}..{last}", storage.seed));
    for seed in storage.seed..last {
        let result = run_seed(seed, &config);
        coverage.merge(&result.coverage);
        if storage.trace {
            say(&format!("seed {seed}"));
            result.trace.iter().for_each(|line| say(line));
            say(&format!("digest {:016x}", result.digest));
        }
        if result.failure.is_some() {
            failures += 1;
            show_failure(&result, storage);
            if !storage.keep_going {
                return ExitCode::from(1);
            }
        }
    }
    let seconds = monotonic_now().since(began).as_secs_f64();
    coverage.table().iter().for_each(|line| say(line));
    let count = storage.seeds;
    let rate = f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / seconds.max(1e-9) * 3600.0;
    say(&format!(
        "{count} seeds, {failures} failed, {seconds:.1} s, {rate:.0} seeds per core-hour"
    ));
    let missing = coverage.missing(damage != Damage::Never);
    if count >= SEEDS_FOR_COVERAGE && !missing.is_empty() {
        say(&format!("never met: {}", missing.join(", ")));
        return ExitCode::from(1);
    }
    ExitCode::from(u8::from(failures > 0))
}

fn show_failure(result: &SeedResult, storage: &Storage) {
    let Some((operation, failure)) = &result.failure else { return };
    say(&format!("FAILED seed {} at operation {operation}: {failure}", result.seed));
    if storage.keep_going {
        return;
    }
    result.trace.iter().for_each(|line| say(line));
    let flags = match (storage.damage, storage.no_damage) {
        (true, _) => " --damage",
        (_, true) => " --no-damage",
        _ => "",
    };
    say(&format!(
        "FAILED seed {} at operation {operation}: {failure}\nagain: cargo run --release -p \
         highwater-sim -- storage --seed {} --operations {}{flags} --trace",
        result.seed, result.seed, storage.operations
    ));
}
