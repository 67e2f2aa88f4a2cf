//! `highwater bench read`: how fast sealed segments are read with every batch verified, beside the
//! same bytes read raw.

use std::path::PathBuf;
use std::time::Duration;

use highwater::inspect::OutsideReader;
use highwater::{Isolation, Offset};
use highwater_io::clock::monotonic_now;
use serde::Serialize;

use super::SCHEMA_VERSION;
use super::environment::Environment;
use super::floor::{cpu_time, read_raw};
use super::latency::grouped;
use super::numbers::{count, per_second, ratio, real, round};
use super::progress::Progress;
use crate::args::{self, Format};
use crate::interrupt::Interrupt;
use crate::output::{Exit, Failure, Output, tell};
use crate::text;

/// The engine's readers read so much at once, and keep so many reads in flight; the floor does the
/// same.
const BLOCK_BYTES: usize = 256 << 10;
const DEPTH: usize = 4;

const EXAMPLE: &str = "\
Examples:
  highwater bench append --dir ./data --keep --rate max --total-bytes 2GiB
  highwater bench read --dir ./data

Reads each sealed segment twice, in turns: raw, and through a reader that verifies every batch.
Writes nothing. The last segment is not read: it is still written to.";

/// Measure reading a log's sealed segments, every batch verified.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// The directory that holds the log.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The log to read.
    #[arg(long, value_name = "LOG", default_value = "bench", value_parser = args::log_name)]
    log: String,
    /// End after so many bytes of segments [default: all].
    #[arg(long, value_name = "T", value_parser = args::byte_count)]
    total_bytes: Option<u64>,
    /// How the result is written to standard output.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// The result as JSON.
#[derive(Debug, Serialize)]
struct ReadResult {
    schema_version: u32,
    verb: &'static str,
    version: &'static str,
    segments: usize,
    records: u64,
    batches: u64,
    bytes: u64,
    elapsed_s: f64,
    bytes_per_s: f64,
    records_per_s: f64,
    cpu_s_per_gib: Option<f64>,
    floor_block_bytes: usize,
    floor_depth: usize,
    floor_bytes_per_s: f64,
    ratio_to_floor: Option<f64>,
    env: Environment,
    warnings: Vec<String>,
    interrupted: bool,
}

/// What was counted over all segments.
#[derive(Debug, Default)]
struct Sums {
    segments: usize,
    records: u64,
    batches: u64,
    bytes: u64,
    time: Duration,
    cpu: Duration,
    raw_bytes: u64,
    raw_time: Duration,
}

/// A segment that no append goes to any more.
#[derive(Debug)]
struct Sealed {
    base: Offset,
    end: Offset,
    path: PathBuf,
    bytes: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let interrupt = Interrupt::listen()?;
    // Refuses a directory or a log that is not there, in the words of all verbs.
    drop(OutsideReader::open(&arguments.dir, &arguments.log, first(arguments)?, ISOLATION)?);
    let sealed = sealed(arguments)?;
    if sealed.is_empty() {
        return Err(Failure::new(
            Exit::Error,
            format!(
                "log {} has no sealed segment yet, only the one that is written to: append more \
                 (a segment holds 128 MiB by default), such as with `highwater bench append --keep`",
                arguments.log
            ),
        ));
    }
    let env = Environment::of(&arguments.dir);
    let warnings = env.warnings();
    let progress = Progress::start();
    progress.say("reading");
    let sums = read_all(arguments, &sealed, &interrupt, &progress);
    progress.end();
    let result = result(&sums?, env, warnings, interrupt.is_asked());
    tell_result(arguments, &result)?;
    Ok(if result.interrupted { Exit::Interrupted } else { Exit::Ok })
}

const ISOLATION: Isolation = Isolation::Committed;

/// Returns the first offset there is.
fn first(arguments: &Arguments) -> Result<Offset, Failure> {
    let logs = highwater::inspect::summaries(&arguments.dir)?;
    let found = logs.into_iter().find(|summary| summary.name == arguments.log);
    Ok(found.map_or(Offset(0), |summary| summary.log_start))
}

/// Returns the sealed segments: all but the last.
fn sealed(arguments: &Arguments) -> Result<Vec<Sealed>, Failure> {
    let directory = arguments.dir.join(&arguments.log);
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Error, format!("cannot list {}: {error}", directory.display()))
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let base = name.strip_suffix(".log").and_then(|base| base.parse().ok());
        if let Some(base) = base {
            let bytes = entry.metadata().map_err(failed)?.len();
            found.push((Offset(base), entry.path(), bytes));
        }
    }
    found.sort();
    let ends: Vec<_> = found.iter().skip(1).map(|(base, ..)| *base).collect();
    let sealed = found.into_iter().zip(ends);
    Ok(sealed.map(|((base, path, bytes), end)| Sealed { base, end, path, bytes }).collect())
}

fn read_all(
    arguments: &Arguments,
    sealed: &[Sealed],
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Sums, Failure> {
    let mut sums = Sums::default();
    let total = arguments.total_bytes.unwrap_or(u64::MAX);
    for (index, segment) in sealed.iter().enumerate() {
        if interrupt.is_asked() || sums.bytes >= total {
            break;
        }
        // In turns first and second: whatever keeps bytes beneath us helps the second.
        if index % 2 == 0 {
            read_raw_segment(segment, &mut sums)?;
        }
        read_verified(arguments, segment, &mut sums)?;
        if index % 2 == 1 {
            read_raw_segment(segment, &mut sums)?;
        }
        sums.segments += 1;
        progress.counted.add(segment.end.0 - segment.base.0, segment.bytes);
    }
    Ok(sums)
}

fn read_raw_segment(segment: &Sealed, sums: &mut Sums) -> Result<(), Failure> {
    let paths = std::slice::from_ref(&segment.path);
    let read = read_raw(paths, BLOCK_BYTES, DEPTH).map_err(highwater::Error::from);
    let (bytes, time) = read?;
    sums.raw_bytes += bytes;
    sums.raw_time += time;
    Ok(())
}

/// Reads every record of a segment; the reader checks each batch's place, header and records.
fn read_verified(arguments: &Arguments, segment: &Sealed, sums: &mut Sums) -> Result<(), Failure> {
    let reader = OutsideReader::open(&arguments.dir, &arguments.log, segment.base, ISOLATION)?;
    let (started, cpu) = (monotonic_now(), cpu_time());
    for batch in reader {
        let batch = batch?;
        let header = batch.header();
        if header.base_offset >= segment.end {
            break;
        }
        sums.records += u64::from(header.record_count);
        sums.batches += 1;
        if header.end_offset() >= segment.end {
            break;
        }
    }
    sums.time += monotonic_now().since(started);
    sums.cpu += cpu_time().saturating_sub(cpu);
    sums.bytes += segment.bytes;
    Ok(())
}

fn result(sums: &Sums, env: Environment, warnings: Vec<String>, interrupted: bool) -> ReadResult {
    let (ours, raw) =
        (per_second(sums.bytes, sums.time), per_second(sums.raw_bytes, sums.raw_time));
    let cpu = sums.cpu.as_secs_f64() * real(1 << 30);
    ReadResult {
        schema_version: SCHEMA_VERSION,
        verb: "read",
        version: env!("CARGO_PKG_VERSION"),
        segments: sums.segments,
        records: sums.records,
        batches: sums.batches,
        bytes: sums.bytes,
        elapsed_s: round(sums.time.as_secs_f64(), 6),
        bytes_per_s: round(ours, 0),
        records_per_s: round(per_second(sums.records, sums.time), 1),
        cpu_s_per_gib: ratio(cpu, real(sums.bytes)),
        floor_block_bytes: BLOCK_BYTES,
        floor_depth: DEPTH,
        floor_bytes_per_s: round(raw, 0),
        ratio_to_floor: ratio(ours, raw),
        env,
        warnings,
        interrupted,
    }
}

fn tell_result(arguments: &Arguments, result: &ReadResult) -> Result<(), Failure> {
    let mut output = Output::new();
    if arguments.format == Format::Json {
        output.json(result)?;
        return output.flush();
    }
    output.line(&format!(
        "read {} records of {}, {}, every batch verified: {:.0} MB/s, {:.0} records/s",
        grouped(result.records),
        text::counted(count(result.segments), "sealed segment"),
        text::bytes(result.bytes),
        result.bytes_per_s / 1e6,
        result.records_per_s,
    ))?;
    output.line(&format!(
        "floor  {:.2} of raw reads of the same files ({:.0} MB/s, {} KiB at depth {})",
        result.ratio_to_floor.unwrap_or_default(),
        result.floor_bytes_per_s / 1e6,
        BLOCK_BYTES >> 10,
        DEPTH,
    ))?;
    output.line(&format!("disk   {}", result.env.disk_line()))?;
    if result.interrupted {
        output.line("INTERRUPTED: these are the figures so far")?;
    }
    output.flush()?;
    result.warnings.iter().for_each(|warning| tell(&format!("warning: {warning}")));
    Ok(())
}
