//! `highwater logs`: what logs there are, without writing a byte.

use highwater::inspect::{LogSummary, summaries};
use serde::Serialize;

use crate::args::{Directory, Format};
use crate::output::{Exit, Failure, Output, tell};

const EXAMPLE: &str = "\
Example:
  highwater logs --dir ./data --format text";

/// List the logs of a directory with their marks; writes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: Directory,
    /// How the list is printed.
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    log_start: u64,
    flushed: u64,
    written: u64,
    log_end: u64,
    epoch: u32,
    segments: usize,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let logs = summaries(&arguments.directory.dir)?;
    let rows: Vec<_> = logs.iter().map(row).collect();
    let mut output = Output::new();
    match arguments.format {
        Format::Json => output.json(&rows)?,
        Format::Text => table(&rows, &mut output)?,
    }
    output.flush()?;
    let mut exit = Exit::Ok;
    for error in logs.iter().filter_map(|log| log.error.as_ref()) {
        tell(&format!("error: {error}"));
        exit = exit.worst(Exit::of(error));
    }
    Ok(exit)
}

fn row(log: &LogSummary) -> Row<'_> {
    Row {
        name: &log.name,
        log_start: log.log_start.0,
        flushed: log.flushed.0,
        written: log.written.0,
        log_end: log.log_end.0,
        epoch: log.epoch.0,
        segments: log.segments,
        bytes: log.bytes,
        error: log.error.as_ref().map(ToString::to_string),
    }
}

fn table(rows: &[Row<'_>], output: &mut Output) -> Result<(), Failure> {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max("name".len());
    output.line(&format!(
        "{:width$}  {:>12}  {:>12}  {:>12}  {:>12}  {:>6}  {:>8}  {:>14}",
        "name", "log_start", "flushed", "written", "log_end", "epoch", "segments", "bytes"
    ))?;
    for row in rows {
        output.line(&format!(
            "{:width$}  {:>12}  {:>12}  {:>12}  {:>12}  {:>6}  {:>8}  {:>14}",
            row.name,
            row.log_start,
            row.flushed,
            row.written,
            row.log_end,
            row.epoch,
            row.segments,
            row.bytes
        ))?;
    }
    Ok(())
}
