//! `highwater bench follow`: what readers at the tail cost an appender.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater::{Ack, Engine, ErrorKind, Isolation, Log, LogOptions, Options, RecordBatch};
use highwater_io::clock::monotonic_now;
use highwater_io::random::SeededRandom;
use highwater_io::usage::{Usage, process_usage, thread_usage};
use serde::Serialize;

use super::SCHEMA_VERSION;
use super::environment::Environment;
use super::numbers::{count, per_second, ratio, real, round};
use super::place::Place;
use crate::args::{self, Format};
use crate::interrupt::Interrupt;
use crate::output::{Exit, Failure, Output, tell};
use crate::text;

/// Batches in flight: enough that the disk never waits for the producer.
const IN_FLIGHT: usize = 64;
/// How many different batches are sent in turn, all made before any clock starts.
const BATCHES: usize = 64;
/// What the log keeps: small enough that segments are used again during the run.
const RETENTION_BYTES: u64 = 512 << 20;
/// How long a reader waits before it looks whether the round is over.
const READER_WAIT: Duration = Duration::from_millis(50);

const EXAMPLE: &str = "\
Examples:
  highwater bench follow --dir ./data
  highwater bench follow --dir ./data --readers 4 --record-bytes 100 --batch-records 100

Appends as fast as it can in rounds, in turns with and without readers that follow the tail; each
pair of rounds gives a ratio, and their median is the figure.";

/// Measure what readers at the tail cost an appender.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// The directory to measure in.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The log to make for it; removed in the end.
    #[arg(long, value_name = "LOG", default_value = "bench", value_parser = args::log_name)]
    log: String,
    /// How many readers follow.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    readers: u16,
    /// How many pairs of rounds.
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pairs: u16,
    /// How long a round takes, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 2,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// The bytes of a record's value.
    #[arg(long, value_name = "BYTES", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    record_bytes: u32,
    /// The records of a batch.
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch_records: u32,
    /// How the result is written to standard output.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// The result as JSON.
#[derive(Debug, Serialize)]
struct FollowResult {
    schema_version: u32,
    verb: &'static str,
    version: &'static str,
    readers: u16,
    record_bytes: u32,
    batch_records: u32,
    round_s: u64,
    backend: &'static str,
    pairs: Vec<Pair>,
    /// The median of the pairs' ratios.
    ratio: Option<f64>,
    env: Environment,
    warnings: Vec<String>,
    interrupted: bool,
}

#[derive(Debug, Serialize)]
struct Pair {
    alone_bytes_per_s: f64,
    followed_bytes_per_s: f64,
    ratio: Option<f64>,
    /// Processor time by GiB appended, without that of the readers' threads.
    alone_cpu_s_per_gib: Option<f64>,
    followed_cpu_s_per_gib: Option<f64>,
    /// What the slowest reader had read when the last append was acked, of what was appended.
    read: Option<f64>,
}

/// One round.
struct Round {
    bytes_per_s: f64,
    cpu_s_per_gib: Option<f64>,
    read: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let interrupt = Interrupt::listen()?;
    let mut place = Place::look(&arguments.dir, std::slice::from_ref(&arguments.log), false)?;
    let engine = Engine::open(Options::at(&arguments.dir))?;
    place.enter();
    let options = LogOptions { retention_bytes: Some(RETENTION_BYTES), ..LogOptions::default() };
    let log = engine.log(&arguments.log, options)?;
    let env = Environment::of(&arguments.dir);
    let warnings = env.warnings();
    let batches = batches(arguments)?;
    // Unmeasured: the log reaches its size, and segments are used again.
    append(&log, arguments, &batches, 0)?;
    let mut pairs = Vec::new();
    for pair in 0..arguments.pairs {
        if interrupt.is_asked() {
            break;
        }
        let followed_first = pair % 2 == 1;
        let order = if followed_first { [arguments.readers, 0] } else { [0, arguments.readers] };
        let [first, second] = [
            append(&log, arguments, &batches, order[0])?,
            append(&log, arguments, &batches, order[1])?,
        ];
        let (alone, followed) = if followed_first { (second, first) } else { (first, second) };
        pairs.push(Pair {
            alone_bytes_per_s: round(alone.bytes_per_s, 0),
            followed_bytes_per_s: round(followed.bytes_per_s, 0),
            ratio: ratio(followed.bytes_per_s, alone.bytes_per_s),
            alone_cpu_s_per_gib: alone.cpu_s_per_gib,
            followed_cpu_s_per_gib: followed.cpu_s_per_gib,
            read: Some(round(followed.read, 4)),
        });
    }
    let result = FollowResult {
        schema_version: SCHEMA_VERSION,
        verb: "follow",
        version: env!("CARGO_PKG_VERSION"),
        readers: arguments.readers,
        record_bytes: arguments.record_bytes,
        batch_records: arguments.batch_records,
        round_s: arguments.seconds,
        backend: engine.backend().name(),
        ratio: median(&pairs),
        pairs,
        env,
        warnings,
        interrupted: interrupt.is_asked(),
    };
    engine.close()?;
    place.leave()?;
    tell_result(arguments, &result)?;
    Ok(if result.interrupted { Exit::Interrupted } else { Exit::Ok })
}

fn batches(arguments: &Arguments) -> Result<Vec<RecordBatch>, Failure> {
    let mut random = SeededRandom::new(7);
    let words = arguments.record_bytes.div_ceil(8);
    let made = (0..BATCHES).map(|_| {
        let mut builder = RecordBatch::builder();
        for _ in 0..arguments.batch_records {
            let value: Vec<u8> = (0..words).flat_map(|_| random.next_u64().to_le_bytes()).collect();
            let length = usize::try_from(arguments.record_bytes).unwrap_or(value.len());
            builder.push(None, None, value.get(..length), &[]);
        }
        builder.build().map_err(|error| Failure::new(Exit::Usage, error.to_string()))
    });
    made.collect()
}

/// Appends for the time of a round, with so many readers beside it.
fn append(
    log: &Log,
    arguments: &Arguments,
    batches: &[RecordBatch],
    readers: u16,
) -> Result<Round, Failure> {
    let over = AtomicBool::new(false);
    let (start, used) = (log.marks().log_end, process_usage());
    std::thread::scope(|scope| {
        let reading: Vec<_> =
            (0..readers).map(|_| scope.spawn(|| follow(log, start, &over))).collect();
        let appended = send(log, arguments, batches);
        over.store(true, Ordering::Relaxed);
        let (mut read, mut cpu) = (u64::MAX, cpu_of(process_usage()));
        for reading in reading {
            match reading.join() {
                Ok(followed) => {
                    let (records, used) = followed?;
                    (read, cpu) = (read.min(records), cpu.saturating_sub(used));
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let (bytes, time) = appended?;
        let cpu = cpu.saturating_sub(cpu_of(used)).as_secs_f64();
        let records = log.marks().log_end.0 - start.0;
        let part = ratio(per_second(read.min(records), time), per_second(records, time));
        Ok(Round {
            bytes_per_s: per_second(bytes, time),
            cpu_s_per_gib: ratio(cpu * real(1 << 30), real(bytes)),
            read: part.unwrap_or_default(),
        })
    })
}

fn cpu_of(usage: Usage) -> Duration {
    usage.user + usage.system
}

/// Reads what comes until the round is over; returns how many records that were, and the processor
/// time it took.
fn follow(
    log: &Log,
    start: highwater::Offset,
    over: &AtomicBool,
) -> Result<(u64, Duration), Failure> {
    let mut follower = log.follow(start, Isolation::Committed)?;
    while !over.load(Ordering::Relaxed) {
        match follower.wait(Some(READER_WAIT)) {
            Ok(_) => {}
            Err(error) if *error.kind() == ErrorKind::Timeout => {}
            // It fell behind what the log keeps.
            Err(error) if matches!(error.kind(), ErrorKind::Trimmed { .. }) => {
                follower.seek(log.marks().log_end)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((follower.next_offset().0 - start.0, cpu_of(thread_usage())))
}

/// Appends as fast as the engine takes it, and waits for all acks; returns the bytes and the time.
fn send(
    log: &Log,
    arguments: &Arguments,
    batches: &[RecordBatch],
) -> Result<(u64, Duration), Failure> {
    let started = monotonic_now();
    let end = started.plus(Duration::from_secs(arguments.seconds));
    let mut unacked = VecDeque::new();
    let mut sent = 0_u64;
    for batch in batches.iter().cycle() {
        if monotonic_now() >= end {
            break;
        }
        if unacked.len() >= IN_FLIGHT
            && let Some(oldest) = unacked.pop_front()
        {
            let oldest: highwater::Receipt = oldest;
            oldest.wait()?;
        }
        unacked.push_back(log.append(batch.clone(), Ack::LEADER)?);
        sent += 1;
    }
    for receipt in unacked {
        receipt.wait()?;
    }
    let bytes = u64::from(arguments.record_bytes) * u64::from(arguments.batch_records);
    Ok((sent * bytes, monotonic_now().since(started)))
}

fn median(pairs: &[Pair]) -> Option<f64> {
    let mut ratios: Vec<_> = pairs.iter().filter_map(|pair| pair.ratio).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied()
}

fn tell_result(arguments: &Arguments, result: &FollowResult) -> Result<(), Failure> {
    let mut output = Output::new();
    if arguments.format == Format::Json {
        output.json(result)?;
        return output.flush();
    }
    for pair in &result.pairs {
        output.line(&format!(
            "alone {:>6.0} MB/s   followed {:>6.0} MB/s   ratio {:.3}   cpu/GiB {:.2} s, {:.2} s   read {:.0} %",
            pair.alone_bytes_per_s / 1e6,
            pair.followed_bytes_per_s / 1e6,
            pair.ratio.unwrap_or_default(),
            pair.alone_cpu_s_per_gib.unwrap_or_default(),
            pair.followed_cpu_s_per_gib.unwrap_or_default(),
            pair.read.unwrap_or_default() * 100.0,
        ))?;
    }
    output.line(&format!(
        "an append beside {} goes at {:.3} of its pace alone (median of {})",
        text::counted(u64::from(result.readers), "reader"),
        result.ratio.unwrap_or_default(),
        text::counted(count(result.pairs.len()), "pair"),
    ))?;
    output.line(&format!("disk   {}", result.env.disk_line()))?;
    if result.interrupted {
        output.line("INTERRUPTED: these are the figures so far")?;
    }
    output.flush()?;
    result.warnings.iter().for_each(|warning| tell(&format!("warning: {warning}")));
    Ok(())
}
