//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::engines::{EngineName, Goal, Phase};

/// Compares embeddable log engines on one directory, doing the same work in turns.
#[derive(Debug, Parser)]
#[command(name = "compare", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) task: Option<Task>,
    #[command(flatten)]
    pub(crate) rounds: RoundsArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// One run of one engine in this process; prints one JSON object. For profilers, too.
    Run(RunArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RoundsArgs {
    /// Where the runs make their directories, one after the other; each is removed again.
    #[arg(long, default_value = "./highwater-compare")]
    pub(crate) dir: PathBuf,
    /// How often each engine has its turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// The engines; without it all of them.
    #[arg(long, value_delimiter = ',')]
    pub(crate) engine: Vec<EngineName>,
    /// The workloads; without it all of them.
    #[arg(long, value_delimiter = ',')]
    pub(crate) workload: Vec<Workload>,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Where the run makes its directory; it is removed again.
    #[arg(long, default_value = "./highwater-compare")]
    pub(crate) dir: PathBuf,
    #[arg(long)]
    pub(crate) engine: EngineName,
    #[arg(long)]
    pub(crate) workload: Workload,
    #[arg(long, value_enum, default_value_t = Phase::Cold)]
    pub(crate) phase: Phase,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
}

#[derive(Clone, Copy, Debug, clap::Args, Serialize, Deserialize)]
pub(crate) struct SizeArgs {
    /// The payload of a throughput run: a number with or without KiB, MiB, GiB.
    #[arg(long, default_value = "2GiB", value_parser = parse_bytes)]
    pub(crate) total_bytes: u64,
    /// The appends of a durable run; a twentieth as many go before, not counted.
    #[arg(long, default_value_t = 5000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) durable_appends: u32,
    /// The most appends of a throughput run that wait for their ack, where an engine can have more
    /// than one.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) in_flight: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// What is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Workload {
    /// Batches of 16 records of 1 KiB, acked before they are flushed.
    #[value(name = "1kib-x16")]
    #[serde(rename = "1kib-x16")]
    KibTimes16,
    /// Batches of 100 records of 100 bytes, acked before they are flushed.
    #[value(name = "100b-x100")]
    #[serde(rename = "100b-x100")]
    SmallTimes100,
    /// One record of 1 KiB after the other, each flushed before the next.
    #[value(name = "durable-1kib")]
    #[serde(rename = "durable-1kib")]
    DurableKib,
}

impl Workload {
    pub(crate) const ALL: [Workload; 3] =
        [Workload::KibTimes16, Workload::SmallTimes100, Workload::DurableKib];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::KibTimes16 => "1kib-x16",
            Workload::SmallTimes100 => "100b-x100",
            Workload::DurableKib => "durable-1kib",
        }
    }

    pub(crate) fn goal(self) -> Goal {
        match self {
            Workload::KibTimes16 | Workload::SmallTimes100 => Goal::Throughput,
            Workload::DurableKib => Goal::Durable,
        }
    }

    /// Returns the bytes of a record and the records of a batch.
    pub(crate) fn shape(self) -> (usize, usize) {
        match self {
            Workload::KibTimes16 => (1024, 16),
            Workload::SmallTimes100 => (100, 100),
            Workload::DurableKib => (1024, 1),
        }
    }
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)];
    let found = units.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)));
    let parsed =
        found.and_then(|(number, unit)| number.trim().parse::<u64>().ok()?.checked_mul(*unit));
    let bytes =
        parsed.ok_or_else(|| format!("{text} is not a number of bytes, KiB, MiB or GiB"))?;
    if bytes < 1 << 20 { Err("at least 1MiB".to_owned()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn sizes_are_numbers_with_or_without_a_unit() {
        let good = [("2GiB", 2 << 30), ("64 MiB", 64 << 20), ("1048576", 1 << 20)];
        for (text, bytes) in good {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GiB", "1.5GiB", "-1", "17179869184GiB", "1KiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
