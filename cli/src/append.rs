//! `highwater append`: one record for each line of standard input.

use std::io::IsTerminal;
use std::time::Duration;

use clap::ValueEnum;
use highwater::{
    Compression, Engine, Error, ErrorKind, FlushPolicy, Log, LogOptions, Mode, Offset, Options,
    Outcome, Producer, ProducerEpoch, ProducerId,
};
use highwater_io::clock::monotonic_now;
use serde::Serialize;

use crate::acks::{AckEnd, Tally};
use crate::args::{self, AckChoice, BackendName, Format, LogPlace, ModeName};
use crate::batches::{Batching, Stop, append_input, lines_there};
use crate::findings;
use crate::output::{Exit, Failure, tell};
use crate::text;

/// The largest `--batch-records`: so many empty lines fill the largest batch.
const BATCH_RECORDS_MAX: u32 = 4 << 20;
/// The largest `--in-flight`.
const IN_FLIGHT_MAX: u32 = 1 << 16;

const EXAMPLE: &str = "\
Examples:
  highwater append --dir ./data --log demo < README.md
  tail -f app.log | highwater append --dir ./data --log app --ack leader-flushed --acks jsonl
  highwater append --dir ./data --log demo --producer 7 < orders.txt

With --producer the log counts the lines it has of this producer: after an interruption the same
command with the same input goes on behind them, and appends each line once. At most 2147483647
lines.

Batches hold up to 1024 lines or 60 KiB; when the input pauses, what is there goes at once.
Each line may hold any bytes; at most 16 MiB.";

/// Append one record for each line of standard input.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: LogPlace,
    /// What an append waits for before it is acked.
    #[arg(long, value_enum, default_value = "leader")]
    ack: AckChoice,
    /// When to flush what nobody waits for: group, records=N, bytes=N, interval=MS joined by
    /// commas, whichever comes first; or none [default: bytes=16MiB,interval=100].
    #[arg(long, value_name = "POLICY", value_parser = args::flush_policy)]
    flush: Option<FlushPolicy>,
    /// Put exactly so many lines into a batch (the last may have fewer).
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_RECORDS_MAX)))]
    batch_records: Option<u32>,
    /// How batches are compressed: none, lz4, zstd, or zstd:LEVEL. One that does not get smaller
    /// by an eighth is stored as it is.
    #[arg(long, value_name = "CODEC", default_value = "none", value_parser = args::compression)]
    compression: Compression,
    /// The most batches appended and not yet acked.
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(IN_FLIGHT_MAX)))]
    in_flight: u32,
    /// Number the lines as records of this producer, so that the same input appended again after an
    /// interruption goes on behind what the log has of it. Any number; one for each input.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(0..))]
    producer: Option<i64>,
    /// The epoch of the producer: a higher one than the log knows begins the input anew and locks
    /// out the older [default: the newest the log knows, or 0].
    #[arg(long, value_name = "E", requires = "producer",
        value_parser = clap::value_parser!(i16).range(0..))]
    producer_epoch: Option<i16>,
    /// Print a line on standard output for each batch, after its ack.
    #[arg(long, value_name = "FORMAT", value_enum)]
    acks: Option<AcksFormat>,
    /// Which backend writes.
    #[arg(long, value_enum, default_value = "auto")]
    backend: BackendName,
    /// Whether to write past the page cache or through it; the latter for comparison.
    #[arg(long, value_enum, default_value = "direct")]
    mode: ModeName,
    /// The size of a new log's segments, such as 64MiB [default: 128MiB].
    #[arg(long, value_name = "BYTES", value_parser = args::segment_bytes)]
    segment_bytes: Option<u64>,
    /// For a new log on a device that can tear a 512-byte sector: never write a block again that
    /// holds flushed bytes.
    #[arg(long)]
    never_rewrite_flushed: bool,
    /// How the summary on standard error is written.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AcksFormat {
    /// `{"base_offset":..,"records":..,"written":..,"flushed":..}`, one object per line.
    Jsonl,
}

/// The end of an append, as JSON.
#[derive(Debug, Serialize)]
struct Summary {
    records: u64,
    bytes: u64,
    first_offset: Option<u64>,
    end_offset: Option<u64>,
    written: u64,
    flushed: u64,
    seconds: f64,
    mb_per_s: f64,
    backend: &'static str,
    mode: &'static str,
    /// False with `--mode buffered`, and where the file system refuses it.
    direct_io: bool,
    /// What opening found and did, and what else is worth knowing.
    notes: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let options =
        Options { backend: arguments.backend.into(), ..Options::at(&arguments.place.dir) };
    let engine = Engine::open(options)?;
    let mut notes = Notes { format: arguments.format, kept: Vec::new() };
    if let Some(reason) = engine.backend_fallback_reason() {
        notes.add(format!("note: io_uring is not used: {reason}"));
    }
    for finding in findings::of_opening(engine.recovery(), &arguments.place.log) {
        notes.add(finding);
    }
    let log = match open_log(&engine, arguments) {
        Ok(log) => log,
        Err(failure) => {
            // The first error is the one to tell.
            drop(engine.close());
            return Err(failure);
        }
    };
    if log.recovery().page_cache {
        let dir = arguments.place.dir.display();
        notes.add(format!(
            "note: the file system of {dir} refuses direct I/O (O_DIRECT): the page cache is used"
        ));
    }
    if std::io::stdin().is_terminal() {
        tell("note: reading lines from the terminal; Ctrl-D ends them");
    }
    let (started, first_end) = (monotonic_now(), log.marks().log_end);
    let batching = Batching {
        ack: arguments.ack.into(),
        exactly: arguments.batch_records,
        compression: arguments.compression,
        in_flight: arguments.in_flight,
        print: arguments.acks.is_some(),
    };
    let producer = producer(&log, arguments)?;
    if let Some(there) = producer.as_ref().map(lines_there).filter(|there| *there > 0) {
        notes
            .add(format!("note: {} of the input in the log already", text::counted(there, "line")));
    }
    let (stop, acks) = append_input(&log, batching, producer)?;
    let flushed = log.flush().and_then(|receipt| receipt.wait()).map(drop);
    let end = acks.tally.end.unwrap_or(first_end);
    let cut = acks.failed.as_ref().is_some_and(|(_, error)| cut_behind(&log, error, end));
    let backend = engine.backend().name();
    let closed = engine.close();
    let took = monotonic_now().since(started);
    notes.summarize(arguments, &log, &acks.tally, backend, took);
    judge(stop, acks, cut, flushed.and(ours(closed, &log)))?;
    if arguments.format == Format::Text {
        let dir = text::shell_word(&arguments.place.dir);
        tell(&format!("next: {} read --dir {dir} --log {}", text::program(), log.name()));
    }
    Ok(Exit::Ok)
}

/// Opens the log, or makes it; a log that refuses appends is an error before any input is read.
fn open_log(engine: &Engine, arguments: &Arguments) -> Result<Log, Failure> {
    let options = LogOptions {
        segment_bytes: arguments.segment_bytes,
        never_rewrite_flushed: arguments.never_rewrite_flushed.then_some(true),
        flush: arguments.flush.unwrap_or_default(),
        mode: arguments.mode.into(),
        ..LogOptions::default()
    };
    let log = engine.log(&arguments.place.log, options)?;
    log.failure().map_or(Ok(log), |error| Err(error.into()))
}

/// Returns the producer whose records the lines are, if there is one.
fn producer(log: &Log, arguments: &Arguments) -> Result<Option<Producer>, Failure> {
    let Some(id) = arguments.producer.map(ProducerId) else { return Ok(None) };
    let known = log.producer(id)?;
    match arguments.producer_epoch.map(ProducerEpoch) {
        Some(epoch) if epoch < known.epoch() => Err(Failure::new(
            Exit::Error,
            format!(
                "cannot append to log {}: producer {id} has been taken over by epoch {}; leave \
                 --producer-epoch out to go on in it, or give a higher one",
                log.name(),
                known.epoch()
            ),
        )),
        Some(epoch) if epoch > known.epoch() => Ok(Some(Producer::new(id, epoch)?)),
        _ => Ok(Some(known)),
    }
}

/// Everything of this log is flushed by now; a close that fails for another log's damage, which
/// opening told of, is not this command's failure.
fn ours(closed: highwater::Result<()>, log: &Log) -> highwater::Result<()> {
    let failure = log.failure().filter(|failure| failure.kind() != &ErrorKind::Closed);
    match closed {
        Err(error) if Exit::of(&error) == Exit::Corruption && failure.is_none() => Ok(()),
        other => other,
    }
}

/// After a batch was refused - the disk is full - later ones, in flight with it, may have found
/// room: lines behind a gap. Nobody was told of them; they are removed, so that the log holds a
/// prefix of the input and the rest can be appended again. Returns whether that is so.
fn cut_behind(log: &Log, refused: &Error, end: Offset) -> bool {
    refused.outcome() == Outcome::NotAppended
        && log.failure().is_none()
        && (log.marks().log_end <= end || log.truncate(end).is_ok())
}

/// Says what comes of it all: the earliest failure counts.
fn judge(stop: Stop, acks: AckEnd, cut: bool, ended: highwater::Result<()>) -> Result<(), Failure> {
    if let Some((lines, error)) = acks.failed {
        let rest = if cut {
            "are not appended"
        } else {
            "are not acked and may or may not be there: look with `highwater read` before \
             appending them again"
        };
        let message = format!("{error}; lines from {} on {rest}", lines.start());
        return Err(Failure::new(Exit::of(&error), message));
    }
    if let Stop::Refused(failure) = stop {
        return Err(failure);
    }
    ended?;
    match acks.unprinted {
        None => Ok(()),
        Some((offset, failure)) => {
            let why = match failure {
                Failure::OutputClosed => "standard output was closed".to_owned(),
                Failure::Told { message, .. } => message,
            };
            Err(Failure::new(
                Exit::Error,
                format!(
                    "cannot print the acks from about offset {offset} on: {why}; every line was \
                     appended and flushed all the same"
                ),
            ))
        }
    }
}

// -------------------------------------------------------------------------------------------------
// What is told on standard error

/// Notes: told at once as text, or kept for the summary as JSON.
struct Notes {
    format: Format,
    kept: Vec<String>,
}

impl Notes {
    fn add(&mut self, note: String) {
        match self.format {
            Format::Text => tell(&note),
            Format::Json => self.kept.push(note),
        }
    }

    fn summarize(
        self,
        arguments: &Arguments,
        log: &Log,
        tally: &Tally,
        backend: &'static str,
        took: Duration,
    ) {
        let marks = log.marks();
        let milliseconds = took.as_millis().max(1);
        let per_second = u128::from(tally.bytes) * 1000 / milliseconds;
        let per_second = u64::try_from(per_second).unwrap_or(u64::MAX);
        if arguments.format == Format::Json {
            let summary = Summary {
                records: tally.records,
                bytes: tally.bytes,
                first_offset: tally.first.map(|offset| offset.0),
                end_offset: tally.end.map(|offset| offset.0),
                written: marks.written.0,
                flushed: marks.flushed.0,
                seconds: took.as_secs_f64(),
                mb_per_s: f64::from(u32::try_from(per_second / 1000).unwrap_or(u32::MAX)) / 1000.0,
                backend,
                mode: Mode::from(arguments.mode).name(),
                direct_io: !log.recovery().page_cache && arguments.mode == ModeName::Direct,
                notes: self.kept,
            };
            tell(&serde_json::to_string(&summary).unwrap_or_default());
            return;
        }
        let place = match (tally.first, tally.end) {
            (Some(first), Some(end)) => format!(" at offsets {first}..{end}"),
            _ => String::new(),
        };
        tell(&format!(
            "acked {} ({}){place} in {}.{:03} s, {}/s; written {}, flushed {}; backend {backend}",
            text::counted(tally.records, "record"),
            text::bytes(tally.bytes),
            took.as_secs(),
            took.subsec_millis(),
            text::bytes(per_second),
            marks.written,
            marks.flushed,
        ));
    }
}
