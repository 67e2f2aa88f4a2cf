//! What the verbs' arguments have in common, checked before anything is opened: a command that is
//! refused for its arguments has touched nothing.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use highwater::segment::compression::ZSTD_LEVELS;
use highwater::{Ack, BackendChoice, Compression, FlushPolicy, Isolation, MAX_NAME_BYTES, Mode};
use highwater_segment::{BLOCK_BYTES, MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES};

/// The directory of an engine.
#[derive(Debug, clap::Args)]
pub(crate) struct Directory {
    /// The directory that holds the logs.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// One log of an engine.
#[derive(Debug, clap::Args)]
pub(crate) struct LogPlace {
    /// The directory that holds the logs.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The log's name: 1 to 249 of a-z A-Z 0-9 . _ -, not starting with a dot.
    #[arg(long, value_name = "LOG", value_parser = log_name)]
    pub(crate) log: String,
}

/// Reports for people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What an append waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AckChoice {
    /// Nothing: acked once it has an offset.
    None,
    /// Written: survives the death of the process.
    Leader,
    /// Flushed: survives a power cut.
    LeaderFlushed,
}

impl From<AckChoice> for Ack {
    fn from(choice: AckChoice) -> Ack {
        match choice {
            AckChoice::None => Ack::NONE,
            AckChoice::Leader => Ack::LEADER,
            AckChoice::LeaderFlushed => Ack::LEADER_FLUSHED,
        }
    }
}

/// Which backend writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendName {
    /// `io_uring` where it can be had, threads where not.
    Auto,
    /// `io_uring`, or an error.
    Uring,
    /// System calls on worker threads.
    Threads,
}

impl From<BackendName> for BackendChoice {
    fn from(name: BackendName) -> BackendChoice {
        match name {
            BackendName::Auto => BackendChoice::Auto,
            BackendName::Uring => BackendChoice::Uring,
            BackendName::Threads => BackendChoice::Threads,
        }
    }
}

/// How segments are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeName {
    /// Past the page cache.
    Direct,
    /// Through the page cache, as Kafka does; for comparison.
    Buffered,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Mode {
        match name {
            ModeName::Direct => Mode::Direct,
            ModeName::Buffered => Mode::Buffered,
        }
    }
}

/// How far to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IsolationName {
    /// Everything that is written.
    Written,
    /// What enough replicas have written.
    Committed,
    /// What is known to be on stable media.
    Durable,
}

impl From<IsolationName> for Isolation {
    fn from(name: IsolationName) -> Isolation {
        match name {
            IsolationName::Written => Isolation::Written,
            IsolationName::Committed => Isolation::Committed,
            IsolationName::Durable => Isolation::Durable,
        }
    }
}

/// Checks a log's name as the engine does, but before the engine makes its directory.
pub(crate) fn log_name(name: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.starts_with('.');
    if fits && name.bytes().all(allowed) {
        return Ok(name.to_owned());
    }
    Err("a name is 1 to 249 of a-z A-Z 0-9 . _ - and does not start with a dot".to_owned())
}

/// Reads a point in time: milliseconds since 1970, or as RFC 3339 writes it. Returns milliseconds
/// since 1970; what is finer is rounded up, to the first whole one that is not before it.
pub(crate) fn timestamp_ms(text: &str) -> Result<i64, String> {
    if let Ok(milliseconds) = text.parse() {
        return Ok(milliseconds);
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        "neither milliseconds since 1970 nor a time such as 2026-01-31T12:00:00Z".to_owned()
    })?;
    let whole = time.as_millisecond();
    let is_later = time.as_nanosecond() > i128::from(whole) * 1_000_000;
    Ok(whole + i64::from(is_later))
}

/// Reads a number of bytes: digits, and KiB, MiB or GiB behind them if wanted.
pub(crate) fn byte_count(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let (digits, unit) = units
        .iter()
        .find_map(|(name, bytes)| text.strip_suffix(name).map(|digits| (digits, *bytes)))
        .unwrap_or((text, 1_u64));
    number(digits)?.checked_mul(unit).ok_or_else(|| "the number is too large".to_owned())
}

/// Reads the size of a segment.
pub(crate) fn segment_bytes(text: &str) -> Result<u64, String> {
    let bytes = byte_count(text)?;
    let in_bounds = (MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&bytes);
    if in_bounds && bytes.is_multiple_of(BLOCK_BYTES) {
        return Ok(bytes);
    }
    Err(format!("a multiple of {BLOCK_BYTES} between {MIN_SEGMENT_BYTES} and {MAX_SEGMENT_BYTES}"))
}

/// Reads a flush policy: `group`, `records=N`, `bytes=N`, `interval=MS` joined by commas, or
/// `none`.
pub(crate) fn flush_policy(text: &str) -> Result<FlushPolicy, String> {
    if text == "none" {
        return Ok(FlushPolicy::NONE);
    }
    let mut policy = FlushPolicy::NONE;
    for part in text.split(',') {
        let given_before = match part.split_once('=') {
            None if part == "group" => std::mem::replace(&mut policy.every_group, true),
            Some(("records", count)) => policy.records.replace(at_least_one(count)?).is_some(),
            Some(("bytes", count)) => {
                let bytes = at_least_one(&byte_count(count)?.to_string())?;
                policy.bytes.replace(bytes).is_some()
            }
            Some(("interval", milliseconds)) => {
                let interval = Duration::from_millis(at_least_one(milliseconds)?);
                policy.interval.replace(interval).is_some()
            }
            None if part == "none" => return Err("none goes with nothing else".to_owned()),
            _ => {
                return Err(format!(
                    "{part:?} is not one of group, records=N, bytes=N, interval=MS, none"
                ));
            }
        };
        if given_before {
            return Err(format!("{part:?} is given twice"));
        }
    }
    Ok(policy)
}

/// Reads how batches are compressed: `none`, `lz4`, `zstd` or `zstd:LEVEL`.
pub(crate) fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "none" => return Ok(Compression::None),
        "lz4" => return Ok(Compression::Lz4),
        "zstd" => return Ok(Compression::ZSTD),
        _ => {}
    }
    let level = text.strip_prefix("zstd:").and_then(|digits| number(digits).ok());
    let level = level.and_then(|level| i32::try_from(level).ok());
    match level.filter(|level| ZSTD_LEVELS.contains(level)) {
        Some(level) => Ok(Compression::Zstd { level }),
        None => {
            let (first, last) = (ZSTD_LEVELS.start(), ZSTD_LEVELS.end());
            Err(format!("none, lz4, zstd, or zstd:LEVEL with a level from {first} to {last}"))
        }
    }
}

/// Returns a compression as `--compression` takes it.
pub(crate) fn compression_text(compression: Compression) -> String {
    match compression {
        Compression::Zstd { level } => format!("zstd:{level}"),
        other => other.codec().name().to_owned(),
    }
}

fn number(digits: &str) -> Result<u64, String> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits {
        return Err(format!("{digits:?} is not a number"));
    }
    u64::from_str(digits).map_err(|_| "the number is too large".to_owned())
}

fn at_least_one(digits: &str) -> Result<u64, String> {
    match number(digits)? {
        0 => Err("it must be at least 1".to_owned()),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flush_policies_join_and_contradictions_are_refused() {
        let all = FlushPolicy {
            every_group: true,
            records: Some(5),
            bytes: Some(1 << 20),
            interval: Some(Duration::from_millis(7)),
        };
        assert_eq!(flush_policy("group,records=5,bytes=1MiB,interval=7"), Ok(all));
        assert_eq!(flush_policy("none"), Ok(FlushPolicy::NONE));
        assert_eq!(flush_policy("group"), Ok(FlushPolicy::EVERY_GROUP));
        for bad in [
            "",
            ",",
            "group,",
            "none,group",
            "group,none",
            "records",
            "records=",
            "records=0",
            "records=-1",
            "records=+1",
            "bytes=1TB",
            "bytes=99999999999999999999",
            "bytes=99999999999GiB",
            "interval=1.5",
            "group,group",
            "records=1,records=2",
            "Group",
        ] {
            assert!(flush_policy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_milliseconds_or_rfc_3339_and_round_to_the_first_that_is_not_before() {
        for (text, time) in [
            ("0", 0),
            ("-5", -5),
            ("1769860800000", 1_769_860_800_000),
            ("2026-01-31T12:00:00Z", 1_769_860_800_000),
            ("2026-01-31T13:00:00+01:00", 1_769_860_800_000),
            ("2026-01-31T12:00:00.0001Z", 1_769_860_800_001),
            ("1969-12-31T23:59:59.9999Z", 0),
            ("1969-12-31T23:59:59.9989Z", -1),
        ] {
            assert_eq!(timestamp_ms(text), Ok(time), "{text}");
        }
        for bad in ["", "now", "1.5", "2026-01-31", "2026-01-31T12:00:00", "1e3"] {
            assert!(timestamp_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn compressions_are_read_as_they_are_shown_and_levels_are_checked() {
        for text in ["none", "lz4", "zstd:1", "zstd:3", "zstd:22"] {
            assert_eq!(compression(text).map(compression_text), Ok(text.to_owned()));
        }
        assert_eq!(compression("zstd"), Ok(Compression::Zstd { level: 3 }));
        for bad in ["", "gzip", "lz4:1", "zstd:", "zstd:0", "zstd:23", "zstd:-1", "ZSTD"] {
            assert!(compression(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn log_names_are_those_of_the_engine() {
        for good in ["a", "orders-2024_v1.2", &"x".repeat(MAX_NAME_BYTES)] {
            assert_eq!(log_name(good), Ok(good.to_owned()));
        }
        for bad in ["", ".", "..", ".pool", "a/b", "a b", "\u{fc}", &"x".repeat(MAX_NAME_BYTES + 1)]
        {
            assert!(log_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn segment_sizes_are_checked_at_their_borders() {
        assert_eq!(segment_bytes("64KiB"), Ok(MIN_SEGMENT_BYTES));
        assert_eq!(segment_bytes("2GiB"), Ok(MAX_SEGMENT_BYTES));
        for bad in ["0", "65537", "61440", "2147487744", "x", "64 KiB", "KiB"] {
            assert!(segment_bytes(bad).is_err(), "{bad}");
        }
    }
}
