//! `highwater bench open`: how long opening for appends takes, and how much of the disk it reads,
//! beside raw reads of the same disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::{BackendChoice, Engine, Options};
use highwater_io::clock::monotonic_now;
use serde::Serialize;

use super::SCHEMA_VERSION;
use super::environment::Environment;
use super::floor::read_raw;
use super::numbers::{count, per_second, ratio, real, round};
use crate::args::{BackendName, Format};
use crate::output::{Exit, Failure, Output, tell};
use crate::text;

/// The raw reads beside: as an opening reads.
const BLOCK_BYTES: usize = 256 << 10;
const DEPTH: usize = 4;

const EXAMPLE: &str = "\
Examples:
  highwater bench append --dir ./data --keep --rate max --total-bytes 10GiB &
  sleep 5; kill -9 $!; highwater bench open --dir ./data

What a crash left unflushed is scanned, everything before it is not. The first opening after a crash
counts: it leaves the log as if it had just been flushed. Closes cleanly at the end.";

/// Measure opening all logs of a directory for appends, as after a crash.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// The directory that holds the logs.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// What the engine reads and writes with.
    #[arg(long, value_enum, default_value = "auto")]
    backend: BackendName,
    /// How the result is written to standard output.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// The result as JSON.
#[derive(Debug, Serialize)]
struct OpenResult {
    schema_version: u32,
    verb: &'static str,
    version: &'static str,
    logs: usize,
    logs_failed: usize,
    segments: usize,
    log_bytes: u64,
    elapsed_s: f64,
    bytes_scanned: u64,
    bytes_replayed: u64,
    process_bytes_read: Option<u64>,
    floor_block_bytes: usize,
    floor_depth: usize,
    floor_bytes_per_s: f64,
    floor_s: f64,
    ratio_to_floor: Option<f64>,
    backend: &'static str,
    env: Environment,
    warnings: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    // Refuses a directory that is not there: an opening would make it.
    if highwater::inspect::summaries(&arguments.dir)?.is_empty() {
        let what = format!("there is no log in {}", arguments.dir.display());
        return Err(Failure::new(Exit::Error, what));
    }
    let env = Environment::of(&arguments.dir);
    let mut warnings = env.warnings();
    let segments = segments(&arguments.dir)?;
    let before = process_bytes_read();
    let started = monotonic_now();
    let choice = BackendChoice::from(arguments.backend);
    let engine = Engine::open(Options { backend: choice, ..Options::at(&arguments.dir) })?;
    let elapsed = monotonic_now().since(started);
    let read = before.zip(process_bytes_read()).map(|(from, to)| to.saturating_sub(from));
    let recovery = engine.recovery();
    let (scanned, replayed) = recovery.logs.iter().fold((0, 0), |(scanned, replayed), log| {
        (scanned + log.bytes_scanned, replayed + log.producers.bytes_replayed)
    });
    let (logs, logs_failed) = (recovery.logs.len(), recovery.failed.len());
    for (name, error) in &recovery.failed {
        warnings.push(format!("log {name} does not open: {error}"));
    }
    if recovery.logs.iter().all(|log| log.log_end == log.mark) {
        warnings.push(
            "nothing was left behind the marks: this is not how a crash leaves logs; kill an \
             appender first"
                .to_owned(),
        );
    }
    let backend = engine.backend().name();
    engine.close()?;
    let (raw_bytes, raw_time) = raw(&segments)?;
    let raw_per_second = per_second(raw_bytes, raw_time).max(1.0);
    let floor_s = real(read.unwrap_or(scanned + replayed)) / raw_per_second;
    let result = OpenResult {
        schema_version: SCHEMA_VERSION,
        verb: "open",
        version: env!("CARGO_PKG_VERSION"),
        logs,
        logs_failed,
        segments: segments.len(),
        log_bytes: segments.iter().map(|segment| segment.bytes).sum(),
        elapsed_s: round(elapsed.as_secs_f64(), 6),
        bytes_scanned: scanned,
        bytes_replayed: replayed,
        process_bytes_read: read,
        floor_block_bytes: BLOCK_BYTES,
        floor_depth: DEPTH,
        floor_bytes_per_s: round(raw_per_second, 0),
        floor_s: round(floor_s, 6),
        ratio_to_floor: ratio(elapsed.as_secs_f64(), floor_s),
        backend,
        env,
        warnings,
    };
    tell_result(arguments, &result)?;
    Ok(if logs_failed > 0 { Exit::Error } else { Exit::Ok })
}

/// A segment's file.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    bytes: u64,
    changed: std::time::SystemTime,
}

/// Returns the segments of all logs, the one that changed last first.
fn segments(root: &Path) -> Result<Vec<Segment>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Error, format!("cannot list {}: {error}", root.display()))
    };
    let mut found = Vec::new();
    for log in highwater::inspect::summaries(root)? {
        for entry in std::fs::read_dir(root.join(&log.name)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let about = entry.metadata().map_err(failed)?;
                let changed = about.modified().map_err(failed)?;
                found.push(Segment { path, bytes: about.len(), changed });
            }
        }
    }
    found.sort_by_key(|segment| std::cmp::Reverse(segment.changed));
    Ok(found)
}

/// Reads the segments raw that changed last, two of them as an opening would.
fn raw(segments: &[Segment]) -> Result<(u64, Duration), Failure> {
    let paths: Vec<_> = segments.iter().take(2).map(|segment| segment.path.clone()).collect();
    Ok(read_raw(&paths, BLOCK_BYTES, DEPTH).map_err(highwater::Error::from)?)
}

/// Returns how many bytes this process has had the disk read, if the kernel counts them.
fn process_bytes_read() -> Option<u64> {
    let counters = std::fs::read_to_string("/proc/self/io").ok()?;
    let line = counters.lines().find_map(|line| line.strip_prefix("read_bytes: "))?;
    line.trim().parse().ok()
}

fn tell_result(arguments: &Arguments, result: &OpenResult) -> Result<(), Failure> {
    let mut output = Output::new();
    if arguments.format == Format::Json {
        output.json(result)?;
        return output.flush();
    }
    let read = result.process_bytes_read.unwrap_or(result.bytes_scanned);
    output.line(&format!(
        "opened {} with {} in {} in {:.1} ms, {} scanned, {} read in all",
        text::counted(count(result.logs), "log"),
        text::bytes(result.log_bytes),
        text::counted(count(result.segments), "segment"),
        result.elapsed_s * 1e3,
        text::bytes(result.bytes_scanned),
        text::bytes(read),
    ))?;
    output.line(&format!(
        "floor  {} x raw reads of as many bytes ({:.1} ms at {:.0} MB/s, {} KiB at depth {})",
        result.ratio_to_floor.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
        result.floor_s * 1e3,
        result.floor_bytes_per_s / 1e6,
        BLOCK_BYTES >> 10,
        DEPTH,
    ))?;
    output.line(&format!("disk   {}", result.env.disk_line()))?;
    output.flush()?;
    result.warnings.iter().for_each(|warning| tell(&format!("warning: {warning}")));
    Ok(())
}
