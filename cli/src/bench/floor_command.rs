//! `highwater bench floor`: what the disk does without an engine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::SCHEMA_VERSION;
use super::environment::Environment;
use super::floor::{self, Durable, FloorFile, Variant};
use super::floor_result::FloorResult;
use super::numbers::length;
use super::progress::Progress;
use crate::args::{self, BackendName, Format};
use crate::interrupt::Interrupt;
use crate::output::{Exit, Failure, Output, tell};

/// How long all variants together are measured unless told otherwise.
const DURATION_DEFAULT: Duration = Duration::from_secs(8);
/// How long one variant is measured at a time.
const SLICE: Duration = Duration::from_millis(100);
/// The bytes of a stream unless told otherwise.
const TOTAL_DEFAULT: u64 = 2 << 30;
/// A stream of more bytes goes over the file again and again.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// The file under durable writes.
const FLUSH_FILE_BYTES: u64 = 64 << 20;
/// A stream is measured in so many rounds.
const ROUNDS: u64 = 4;

const EXAMPLE: &str = "\
Examples:
  highwater bench floor --dir ./data --block-bytes 4KiB --flush
  highwater bench floor --dir ./data --block-bytes 256KiB --depth 8 --no-flush

Over a file that was written with zeros and flushed before the clock starts, past the page cache
where the file system allows it. The file is gone afterwards, also if the bench is killed.";

/// Measure the disk itself: raw writes, no log, no format.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// A directory on the disk to measure; it must exist.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The bytes of one write: a multiple of 4 KiB up to 16 MiB.
    #[arg(long, value_name = "N", default_value = "4KiB", value_parser = floor::block_bytes)]
    block_bytes: u64,
    /// How many writes are in flight, without --flush.
    #[arg(long, value_name = "Q", value_parser = clap::value_parser!(u16).range(1..=128))]
    depth: Option<u16>,
    /// Make each block durable before the next, in four ways; the best one is the floor.
    #[arg(long, conflicts_with = "no_flush", required_unless_present = "no_flush")]
    flush: bool,
    /// Stream blocks, with a flush behind each 128 MiB and at the end.
    #[arg(long, required_unless_present = "flush")]
    no_flush: bool,
    /// How many bytes to stream, with --no-flush [default: 2GiB].
    #[arg(long, value_name = "T", value_parser = args::byte_count)]
    total_bytes: Option<u64>,
    /// How many seconds to measure all ways together, with --flush [default: 8].
    #[arg(long, value_name = "S", value_parser = super::flags::seconds)]
    duration: Option<Duration>,
    /// Which backend writes.
    #[arg(long, value_enum, default_value = "auto")]
    backend: BackendName,
    /// How the result is written to standard output.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// The result as JSON: what it has in common with that of `bench append`.
#[derive(Debug, Serialize)]
struct FloorReport<'a> {
    schema_version: u32,
    verb: &'static str,
    floor: &'a FloorResult,
    env: &'a Environment,
    warnings: &'a [String],
    interrupted: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    check(arguments)?;
    let interrupt = Interrupt::listen()?;
    let env = Environment::of(&arguments.dir);
    let mut warnings = env.warnings();
    let progress = Progress::start();
    let floor = if arguments.flush {
        measure_flush(arguments, &interrupt, &progress)
    } else {
        measure_stream(arguments, &interrupt, &progress)
    };
    progress.end();
    let floor = floor?;
    warnings.extend(env.too_good(floor.flush_p50()));
    if floor.io != "direct" {
        warnings
            .push("this file system has no direct I/O: writes go through the page cache".into());
    }
    if floor.backend == "threads" && arguments.backend == BackendName::Auto {
        warnings.push("io_uring cannot be had here: worker threads write".into());
    }
    let interrupted = interrupt.is_asked();
    tell_result(arguments, &floor, &env, &warnings, interrupted)?;
    Ok(if interrupted { Exit::Interrupted } else { Exit::Ok })
}

/// Refuses what does not go together.
fn check(arguments: &Arguments) -> Result<(), Failure> {
    let refuse = |why: &str| Err(Failure::new(Exit::Usage, why));
    if arguments.flush && arguments.depth.is_some_and(|depth| depth != 1) {
        return refuse(
            "--depth does not go with --flush: each block waits for its own flush, so one is in \
             flight; use --depth 1 or leave it out",
        );
    }
    if arguments.flush && arguments.total_bytes.is_some() {
        return refuse("--total-bytes does not go with --flush: use --duration");
    }
    if arguments.no_flush && arguments.duration.is_some() {
        return refuse("--duration does not go with --no-flush: use --total-bytes");
    }
    if arguments.total_bytes.is_some_and(|total| total < arguments.block_bytes) {
        return refuse("--total-bytes is less than one block of --block-bytes");
    }
    Ok(())
}

fn measure_flush(
    arguments: &Arguments,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<FloorResult, Failure> {
    progress.say("floor: preparing");
    let block_bytes = length(arguments.block_bytes);
    let sizes = [arguments.block_bytes, FLUSH_FILE_BYTES.max(arguments.block_bytes)];
    let mut file = FloorFile::prepare(&arguments.dir, arguments.backend.into(), sizes)?;
    let mut sums = BTreeMap::new();
    let duration = arguments.duration.unwrap_or(DURATION_DEFAULT);
    progress.say("floor: a write and its flush");
    measure_durable(&mut file, block_bytes, duration, interrupt, &mut sums)?;
    Ok(FloorResult::of_durable(&file, block_bytes, &sums))
}

/// Measures all variants in turn, in short slices, so that what disturbs one disturbs all.
pub(crate) fn measure_durable(
    file: &mut FloorFile,
    block_bytes: usize,
    duration: Duration,
    interrupt: &Interrupt,
    sums: &mut BTreeMap<Variant, Durable>,
) -> Result<(), Failure> {
    let variants = file.variants();
    let share = duration / u32::try_from(variants.len()).unwrap_or(u32::MAX);
    let slice = share.min(SLICE);
    let mut spent = Duration::ZERO;
    while spent < share && !interrupt.is_asked() {
        for variant in &variants {
            let sum = sums.entry(*variant).or_insert_with(Durable::new);
            file.durable(*variant, block_bytes, slice, sum)?;
        }
        spent += slice;
    }
    Ok(())
}

fn measure_stream(
    arguments: &Arguments,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<FloorResult, Failure> {
    progress.say("floor: preparing");
    let (block_bytes, depth) = (arguments.block_bytes, arguments.depth.unwrap_or(1));
    let depth = usize::from(depth);
    let total = arguments.total_bytes.unwrap_or(TOTAL_DEFAULT);
    let sizes = [block_bytes, total.clamp(block_bytes, FILE_BYTES_MAX)];
    let mut file = FloorFile::prepare(&arguments.dir, arguments.backend.into(), sizes)?;
    let mut rounds = Vec::new();
    progress.say("floor: a stream of writes");
    let share = (total / ROUNDS).max(block_bytes);
    while rounds.is_empty() || (rounds.len() < length(ROUNDS) && !interrupt.is_asked()) {
        rounds.push(file.stream(length(block_bytes), depth, share, Duration::from_secs(3600))?);
    }
    Ok(FloorResult::of_streams(&file, length(block_bytes), depth, &rounds))
}

fn tell_result(
    arguments: &Arguments,
    floor: &FloorResult,
    env: &Environment,
    warnings: &[String],
    interrupted: bool,
) -> Result<(), Failure> {
    let mut output = Output::new();
    if arguments.format == Format::Json {
        let (schema_version, verb) = (SCHEMA_VERSION, "floor");
        output.json(&FloorReport { schema_version, verb, floor, env, warnings, interrupted })?;
        return output.flush();
    }
    for line in floor.lines() {
        output.line(&line)?;
    }
    output.line(&format!("disk: {}", env.disk_line()))?;
    output.flush()?;
    for warning in warnings {
        tell(&format!("warning: {warning}"));
    }
    Ok(())
}
