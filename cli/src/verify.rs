//! `highwater verify`: reads and checks every byte of the logs, without writing one.

use highwater::inspect::{Damage, LogVerdict, verify};
use serde::Serialize;

use crate::args::{self, Directory, Format};
use crate::output::{Exit, Failure, Output, tell};
use crate::text;

const EXAMPLE: &str = "\
Example:
  highwater verify --dir ./data

A torn tail - the unflushed end a crash leaves; the next append cuts it - is named and is not
corruption: exit code 0. Damage to what was flushed is: exit code 6.";

/// Check every byte of the logs of a directory; writes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: Directory,
    /// Check only this log.
    #[arg(long, value_name = "LOG", value_parser = args::log_name)]
    log: Option<String>,
    /// How the findings are printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    state: &'a str,
    batches: u64,
    records: u64,
    bytes: u64,
    log_end: u64,
    damages: Vec<DamageRow>,
    torn_tail: Option<DamageRow>,
    notes: &'a [String],
}

#[derive(Debug, Serialize)]
struct DamageRow {
    file: String,
    position: u64,
    first_offset: u64,
    end_offset: u64,
    case: &'static str,
    what: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let logs = verify(&arguments.directory.dir, arguments.log.as_deref())?;
    let damages: usize = logs.iter().map(|log| log.damages.len()).sum();
    match print(&logs, arguments.format) {
        // Nobody reads it, but the exit code still tells.
        Ok(()) | Err(Failure::OutputClosed) => {}
        Err(failure) => return Err(failure),
    }
    if damages == 0 {
        return Ok(Exit::Ok);
    }
    let places = text::counted(u64::try_from(damages).unwrap_or(u64::MAX), "damage");
    tell(&format!(
        "error: corruption: {places} found; restore the files from a copy, or cut with \
         `highwater repair`"
    ));
    Ok(Exit::Corruption)
}

fn print(logs: &[LogVerdict], format: Format) -> Result<(), Failure> {
    let mut output = Output::new();
    match format {
        Format::Json => output.json(&logs.iter().map(row).collect::<Vec<_>>())?,
        Format::Text => logs.iter().try_for_each(|log| print_log(log, &mut output))?,
    }
    output.flush()
}

fn row(log: &LogVerdict) -> Row<'_> {
    Row {
        name: &log.name,
        state: &log.state,
        batches: log.batches,
        records: log.records,
        bytes: log.bytes,
        log_end: log.log_end.0,
        damages: log.damages.iter().map(damage_row).collect(),
        torn_tail: log.torn_tail.as_ref().map(damage_row),
        notes: &log.notes,
    }
}

fn damage_row(damage: &Damage) -> DamageRow {
    DamageRow {
        file: damage.file.display().to_string(),
        position: damage.position,
        first_offset: damage.offsets.start.0,
        end_offset: damage.offsets.end.0,
        case: damage.case,
        what: damage.what.clone(),
    }
}

fn print_log(log: &LogVerdict, output: &mut Output) -> Result<(), Failure> {
    let verdict = match log.damages.len() {
        0 => "no damage".to_owned(),
        count => text::counted(u64::try_from(count).unwrap_or(u64::MAX), "damage"),
    };
    output.line(&format!(
        "log {}: {verdict}; {}; {} in {}, {} checked; ends at offset {}",
        log.name,
        log.state,
        text::counted(log.records, "record"),
        text::counted(log.batches, "batch").replace("batchs", "batches"),
        text::bytes(log.bytes),
        log.log_end
    ))?;
    for damage in &log.damages {
        output.line(&format!("  damage: {}", sentence(damage)))?;
    }
    if let Some(tail) = &log.torn_tail {
        output.line(&format!("  torn tail: {}", sentence(tail)))?;
    }
    log.notes.iter().try_for_each(|note| output.line(&format!("  note: {note}")))
}

fn sentence(damage: &Damage) -> String {
    format!(
        "{} at byte {}, offsets {}..{}, case {}: {}",
        damage.file.display(),
        damage.position,
        damage.offsets.start,
        damage.offsets.end,
        damage.case,
        damage.what
    )
}
