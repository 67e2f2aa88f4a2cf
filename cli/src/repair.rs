//! `highwater repair`: cuts a damaged log where the operator says, and only if asked twice.

use highwater::inspect::{LogSummary, RepairReport, repair, summaries};
use highwater::{Offset, Options};
use serde::Serialize;

use crate::args::{Format, LogPlace};
use crate::output::{Exit, Failure, Output};
use crate::text;

const EXAMPLE: &str = "\
Example:
  highwater verify --dir ./data                                  # where is the damage?
  highwater repair --dir ./data --log demo --to-offset 812       # what would be cut?
  highwater repair --dir ./data --log demo --to-offset 812 --yes

Copy the directory first: what is cut is gone. Without --yes nothing is changed: exit code 2.";

/// Cut a log to an offset, for good: what is damaged or unprovable from there on is removed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: LogPlace,
    /// The end the log shall have; a batch that it lies in goes whole.
    #[arg(long, value_name = "N")]
    to_offset: u64,
    /// Do it.
    #[arg(long)]
    yes: bool,
    /// How the report is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Report {
    log_end: u64,
    removed_segments: Vec<u64>,
    epoch: u32,
    generation: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let (dir, log) = (&arguments.place.dir, &arguments.place.log);
    // Also with --yes: what is not there is not made.
    let all = summaries(dir)?;
    let Some(summary) = all.iter().find(|summary| summary.name == *log) else {
        let dir = dir.display();
        let why = format!(
            "cannot repair log {log}: there is no such log in {dir}; `highwater logs` lists those \
             there are"
        );
        return Err(Failure::new(Exit::Error, why));
    };
    if summary.error.is_none() && arguments.to_offset > summary.log_end.0 {
        let (to, end) = (arguments.to_offset, summary.log_end);
        let why =
            format!("cannot repair log {log}: it ends at offset {end}, below {to}; verify it");
        return Err(Failure::new(Exit::Error, why));
    }
    if !arguments.yes {
        return Err(Failure::new(Exit::Usage, refusal(arguments, summary)));
    }
    let report = repair(&Options::at(dir), log, Offset(arguments.to_offset))?;
    let mut output = Output::new();
    match arguments.format {
        Format::Json => output.json(&json_report(&report))?,
        Format::Text => {
            output.line(&format!(
                "log {log} ends at offset {} now, in epoch {} and generation {}; {} removed",
                report.log_end,
                report.epoch,
                report.generation,
                text::counted(
                    u64::try_from(report.removed_segments.len()).unwrap_or(u64::MAX),
                    "segment"
                )
            ))?;
            let dir = text::shell_word(dir);
            output.line(&format!("next: {} verify --dir {dir} --log {log}", text::program()))?;
        }
    }
    output.flush()?;
    Ok(Exit::Ok)
}

fn refusal(arguments: &Arguments, summary: &LogSummary) -> String {
    let (dir, log, to) = (&arguments.place.dir, &arguments.place.log, arguments.to_offset);
    let loses = match summary.log_end.0.checked_sub(to) {
        None | Some(0) => "nothing that can be read now".to_owned(),
        Some(records) => format!("the {} from there on", text::counted(records, "readable record")),
    };
    format!(
        "cannot repair log {log} without --yes: it would end at offset {to} (now {}), and lose \
         {loses} and everything behind them, for good; copy {} first, then give --yes",
        summary.log_end,
        dir.display()
    )
}

fn json_report(report: &RepairReport) -> Report {
    Report {
        log_end: report.log_end.0,
        removed_segments: report.removed_segments.iter().map(|base| base.0).collect(),
        epoch: report.epoch.0,
        generation: report.generation.0,
    }
}
