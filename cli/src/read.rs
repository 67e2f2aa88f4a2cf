//! `highwater read`: records on standard output, without writing a byte to the log.

use std::time::Duration;

use clap::ValueEnum;
use highwater::inspect::{OutsideReader, summaries};
use highwater::{Offset, ReadBatch, Record};

use crate::args::{self, IsolationName, LogPlace};
use crate::interrupt::Interrupt;
use crate::output::{Exit, Failure, Output, tell};
use crate::text::JsonRecord;

/// How soon a signal is seen at the end of a log that is followed.
const FOLLOW_WAIT: Duration = Duration::from_millis(100);

const EXAMPLE: &str = "\
Examples:
  highwater read --dir ./data --log demo
  highwater read --dir ./data --log demo --from 1000 --max 10 --format jsonl
  highwater read --dir ./data --log demo --from-time 2026-01-31T12:00:00Z
  highwater read --dir ./data --log demo --follow --isolation durable

Ends at the last record there is, also beside a running append; with --follow it waits there for
more, until Ctrl-C (exit code 130). It looks for more every 1 to 100 ms. If the log's start moves
past it, or a truncation takes what it has printed, it ends with an error. Damage ends it with exit
code 6 and a message, never silently.";

/// Print the records of a log, also while another process appends to it; writes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: LogPlace,
    /// The first offset to read [default: the first there is].
    #[arg(long, value_name = "OFFSET")]
    from: Option<u64>,
    /// Begin at the first record whose timestamp is TIME or later: milliseconds since 1970, or a
    /// time such as 2026-01-31T12:00:00Z. Timestamps need not rise along a log: what follows can
    /// be older.
    #[arg(long, value_name = "TIME", value_parser = args::timestamp_ms, conflicts_with = "from",
          allow_hyphen_values = true)]
    from_time: Option<i64>,
    /// The most records to read [default: all there are].
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Go on at the end: print what comes, until Ctrl-C.
    #[arg(long)]
    follow: bool,
    /// How far to read.
    #[arg(long, value_enum, default_value = "committed")]
    isolation: IsolationName,
    /// How records are printed.
    #[arg(long, value_enum, default_value = "lines")]
    format: RecordFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RecordFormat {
    /// The bytes of the value and a newline.
    Lines,
    /// `{"offset":..,"timestamp_ms":..,"key":..,"value":..}`; what is not UTF-8 as base64 under
    /// `key_base64` or `value_base64`.
    Jsonl,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let interrupt = arguments.follow.then(Interrupt::listen).transpose()?;
    let reader = open(arguments)?;
    let mut output = Output::new();
    let printed = match interrupt {
        Some(interrupt) => {
            let reader = reader.follow(arguments.isolation.into());
            follow(reader, arguments, &interrupt, &mut output)
        }
        None => print(reader, arguments, &mut output).map(|()| Exit::Ok),
    };
    // What was read before an error is good and goes out first.
    output.flush()?;
    printed
}

/// Prints what there is and what comes, until the signal.
fn follow(
    mut reader: OutsideReader,
    arguments: &Arguments,
    interrupt: &Interrupt,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let mut left = arguments.max.unwrap_or(u64::MAX);
    while left > 0 {
        if interrupt.is_asked() {
            return Ok(Exit::Interrupted);
        }
        // At the end, what is printed goes out before it waits.
        let batch = match reader.next_within(Duration::ZERO)? {
            Some(batch) => batch,
            None => {
                output.flush()?;
                let Some(batch) = reader.next_within(FOLLOW_WAIT)? else { continue };
                batch
            }
        };
        print_batch(&batch, arguments, &mut left, output)?;
    }
    Ok(Exit::Ok)
}

fn open(arguments: &Arguments) -> highwater::Result<OutsideReader> {
    let (dir, log) = (&arguments.place.dir, &arguments.place.log);
    let isolation = arguments.isolation.into();
    match (arguments.from, arguments.from_time) {
        (Some(offset), _) => OutsideReader::open(dir, log, Offset(offset), isolation),
        (None, Some(time)) => OutsideReader::open_at_time(dir, log, time, isolation),
        (None, None) => OutsideReader::open_at_start(dir, log, isolation),
    }
}

fn print(reader: OutsideReader, arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let mut left = arguments.max.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(());
    }
    let mut nothing = true;
    for batch in reader {
        nothing = false;
        print_batch(&batch?, arguments, &mut left, output)?;
        if left == 0 {
            return Ok(());
        }
    }
    if let (true, Some(from)) = (nothing, arguments.from) {
        note_end(arguments, from);
    }
    Ok(())
}

/// Prints the records of a batch, but not more than `left`.
fn print_batch(
    batch: &ReadBatch,
    arguments: &Arguments,
    left: &mut u64,
    output: &mut Output,
) -> Result<(), Failure> {
    for record in batch.records() {
        if *left == 0 {
            break;
        }
        let record = record.map_err(|error| {
            let log = &arguments.place.log;
            // What another build can read is no damage.
            let exit = if error.needs_another_build { Exit::Error } else { Exit::Corruption };
            Failure::new(exit, format!("cannot read log {log}: {error}"))
        })?;
        print_record(&record, arguments.format, output)?;
        *left -= 1;
    }
    Ok(())
}

/// An offset that is not there yet is no error, but seldom what was meant.
fn note_end(arguments: &Arguments, from: u64) {
    let (dir, log) = (&arguments.place.dir, &arguments.place.log);
    let end = summaries(dir).ok().and_then(|all| {
        all.iter().find(|summary| summary.name == *log).map(|summary| summary.log_end)
    });
    if let Some(end) = end.filter(|end| end.0 < from) {
        tell(&format!("note: log {log} ends at offset {end}; there is nothing from {from} on"));
    }
}

fn print_record(
    record: &Record<'_>,
    format: RecordFormat,
    output: &mut Output,
) -> Result<(), Failure> {
    match format {
        RecordFormat::Lines => {
            output.bytes(record.value.unwrap_or_default())?;
            output.bytes(b"\n")
        }
        RecordFormat::Jsonl => output.json(&JsonRecord(record)),
    }
}
