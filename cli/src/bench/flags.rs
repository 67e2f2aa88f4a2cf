//! The flags of `bench append`, and what they come to: checked as a whole before anything is
//! touched.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use highwater::{
    Ack, Compression, DEFAULT_SEGMENT_BYTES, FlushPolicy, MAX_BATCH_BYTES, MAX_RECORD_BYTES,
};

use super::fail_if::Condition;
use super::numbers::{count, round};
use super::payload::PayloadName;
use super::way::LogWishes;
use crate::args::{self, AckChoice, BackendName, Format, ModeName};
use crate::output::{Exit, Failure};

/// The longest run, in seconds.
const SECONDS_MAX: f64 = 86_400.0;
/// How long a run is unless told otherwise.
pub(crate) const DURATION_DEFAULT: Duration = Duration::from_secs(20);
/// A run that is not told how much to append ends here at the latest.
pub(crate) const TOTAL_DEFAULT: u64 = 4 << 30;
/// What is not counted at the start unless told otherwise.
const WARMUP_DEFAULT: Duration = Duration::from_secs(2);
const IN_FLIGHT_DEFAULT: u32 = 64;
const IN_FLIGHT_MAX: i64 = 1 << 16;
const PRODUCERS_MAX: i64 = 64;
const LOGS_MAX: i64 = 4096;
const SHARDS_MAX: i64 = 256;
const BATCH_RECORDS_MAX: i64 = 4 << 20;
const RATE_MAX: f64 = 1e9;
/// What a record's own encoding takes at the most, without key and headers.
const RECORD_OVERHEAD: u64 = 32;

const EXAMPLE: &str = "\
Examples:
  highwater bench append --dir ./data
  highwater bench append --dir ./data --rate 20k --arrival poisson --ack leader-flushed
  highwater bench append --dir ./data --rate max --in-flight 64 --producers 2 --record-bytes 100 \\
      --batch-records 1 --ack leader-flushed --format json --fail-if 'ack_us.p99>2000'
  highwater bench append --dir ./data --rate max --logs 500 --shards 2 --record-bytes 100 \\
      --batch-records 1 --ack leader-flushed

Without --rate: an open loop at half of what the disk's floor can flush in a second. With a rate,
latency counts from the time each batch should have been sent. With `--rate max` or --in-flight: a
closed loop, so many batches in flight. The log is made for the run and removed after it, unless
--keep. How every figure is made: docs/measuring.md. All figures: docs/bench-result.schema.json.
Ctrl-C ends the run, tells what was measured, and leaves a clean log; a second one kills.";

/// Measure appends: latency to the ack and to the flush, throughput, cost, and the disk's floor.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// A directory on the disk to measure: new, empty, or one with logs of Highwater's.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The log to make; it must not exist.
    #[arg(long, value_name = "LOG", default_value = "bench", value_parser = args::log_name)]
    log: String,
    /// Leave the log there.
    #[arg(long)]
    pub(crate) keep: bool,
    /// The bytes of a record's value.
    #[arg(long, value_name = "N", default_value = "1KiB", value_parser = args::byte_count)]
    record_bytes: u64,
    /// The records of a batch.
    #[arg(long, value_name = "B", default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=BATCH_RECORDS_MAX))]
    batch_records: u32,
    /// What values are made of [default: random; text with --compression].
    #[arg(long, value_enum)]
    payload: Option<PayloadName>,
    /// How batches are compressed, on the producers' threads: none, lz4, zstd, or zstd:LEVEL.
    #[arg(long, value_name = "CODEC", default_value = "none", value_parser = args::compression)]
    compression: Compression,
    /// Append so many bytes of values (after the warm-up) [default: what --duration says; without
    /// it at most 4GiB].
    #[arg(long, value_name = "T", value_parser = args::byte_count, conflicts_with = "duration")]
    total_bytes: Option<u64>,
    /// Append for so many seconds (after the warm-up) [default: 20].
    #[arg(long, value_name = "S", value_parser = seconds)]
    duration: Option<Duration>,
    /// What is not counted at the start, in seconds [default: 2; 0 with --total-bytes].
    #[arg(long, value_name = "S", value_parser = seconds)]
    warmup: Option<Duration>,
    /// When to flush what nobody waits for: group, records=N, bytes=N, interval=MS joined by
    /// commas, whichever comes first; or none.
    #[arg(long, value_name = "POLICY", default_value = "group", value_parser = args::flush_policy)]
    flush: FlushPolicy,
    /// What an append waits for before it is acked.
    #[arg(long, value_enum, default_value = "leader")]
    ack: AckChoice,
    /// Append to so many logs in turn: LOG-0, LOG-1 and so on.
    #[arg(long, value_name = "L", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=LOGS_MAX))]
    logs: u32,
    /// How many shards own them, each a thread [default: one for each core].
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=SHARDS_MAX),
        conflicts_with = "local")]
    shards: Option<u32>,
    /// Keep each shard to a core of its own, if there are as many.
    #[arg(long, conflicts_with = "local")]
    pinned: bool,
    /// Let due logs of a shard share one flush of the file system (ext4 or XFS, prepared segments).
    #[arg(long)]
    shared_flush: bool,
    /// How many threads append.
    #[arg(long, value_name = "P", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=PRODUCERS_MAX))]
    producers: u32,
    /// A closed loop with so many batches in flight, of all producers together [default with
    /// --rate max: 64].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=IN_FLIGHT_MAX))]
    in_flight: Option<u32>,
    /// An open loop with so many records a second, such as 20k; or max, a closed loop.
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<Rate>,
    /// How the batches of an open loop arrive [default: fixed].
    #[arg(long, value_enum)]
    arrival: Option<Arrival>,
    /// Remove the oldest segments while the others hold so many bytes: their files are used again.
    #[arg(long, value_name = "N", value_parser = args::byte_count)]
    retention_bytes: Option<u64>,
    /// The size of a segment, such as 64MiB [default: 128MiB].
    #[arg(long, value_name = "N", value_parser = args::segment_bytes)]
    segment_bytes: Option<u64>,
    /// When segments are written ahead of their use.
    #[arg(long, value_enum, default_value = "ahead")]
    prepare: PrepareName,
    /// Whether to write past the page cache or through it, as Kafka does. The floor is always past
    /// it.
    #[arg(long, value_enum, default_value = "direct")]
    mode: ModeName,
    /// Which backend writes.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) backend: BackendName,
    /// Append on the producer's own thread (`LocalEngine`): no queue, no other thread.
    #[arg(long)]
    local: bool,
    /// Exit with 1 if this holds of the result, such as ack_us.p99>500; can be given repeatedly.
    #[arg(long, value_name = "EXPR", value_parser = condition)]
    pub(crate) fail_if: Vec<Condition>,
    /// How the result is written to standard output.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

/// How fast batches are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    /// As fast as they are acked.
    Max,
    /// So many records a second.
    Records(f64),
}

/// How the batches of an open loop are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrival {
    /// At equal distances.
    Fixed,
    /// At random, independent of each other.
    Poisson,
}

/// When segments are written ahead of their use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrepareName {
    /// Never: segments grow as they are filled.
    Never,
    /// While a segment fills, the next one is prepared beside it.
    Ahead,
    /// As ahead, and the first one is prepared before the run.
    AtOpen,
}

/// What the flags come to.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) wishes: LogWishes,
    pub(crate) record_bytes: usize,
    pub(crate) batch_records: u32,
    /// The values of one batch.
    pub(crate) batch_bytes: u64,
    /// The most batches that are counted.
    pub(crate) batches_max: u64,
    /// Whether that is what the flags ask for, and not only a bound.
    pub(crate) is_told_total: bool,
    pub(crate) duration: Option<Duration>,
    pub(crate) warmup: Duration,
    pub(crate) payload: PayloadName,
    pub(crate) compression: Compression,
    pub(crate) ack: Ack,
    pub(crate) producers: u32,
    pub(crate) shards: Option<u32>,
    pub(crate) pinned: bool,
    pub(crate) shared_flush: bool,
    pub(crate) pace: Pace,
    pub(crate) local: bool,
}

/// Who decides when the next batch is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// The acks: so many batches in flight in total.
    Closed { in_flight: u32 },
    /// The clock; `None` until the floor is known.
    Open { records_per_s: Option<f64>, arrival: Arrival },
}

impl Arguments {
    /// Refuses what does not go together.
    pub(crate) fn plan(&self) -> Result<Plan, Failure> {
        let batch_bytes = self.record_bytes.saturating_mul(u64::from(self.batch_records));
        self.check_sizes(batch_bytes)?;
        let pace = self.pace()?;
        if self.local && self.producers > 1 {
            return refuse(
                "--local appends on the producer's own thread, so there is one: leave --producers \
                 out, or --local",
            );
        }
        if self.logs > 1 && self.log.len() + 5 > highwater::MAX_NAME_BYTES {
            return refuse("--log is too long for a number behind it");
        }
        if self.duration.is_some_and(|duration| duration.is_zero()) {
            return refuse("--duration 0 measures nothing");
        }
        let total = self.total_bytes.unwrap_or(match self.duration {
            Some(_) => u64::MAX,
            None => TOTAL_DEFAULT,
        });
        let warmup = match self.total_bytes {
            Some(_) => Duration::ZERO,
            None => WARMUP_DEFAULT,
        };
        Ok(Plan {
            wishes: LogWishes {
                names: self.log_names(),
                flush: self.flush,
                segment_bytes: self.segment_bytes,
                retention_bytes: self.retention_bytes,
                prepare: self.prepare,
                mode: self.mode.into(),
            },
            record_bytes: super::numbers::length(self.record_bytes),
            batch_records: self.batch_records,
            batch_bytes,
            batches_max: (total / batch_bytes.max(1)).max(1),
            is_told_total: self.total_bytes.is_some(),
            duration: self.duration.or(self.total_bytes.is_none().then_some(DURATION_DEFAULT)),
            warmup: self.warmup.unwrap_or(warmup),
            payload: self.payload.unwrap_or(match self.compression {
                Compression::None => PayloadName::Random,
                _ => PayloadName::Text,
            }),
            compression: self.compression,
            ack: self.ack.into(),
            producers: self.producers,
            shards: self.shards,
            pinned: self.pinned,
            shared_flush: self.shared_flush,
            pace,
            local: self.local,
        })
    }

    fn log_names(&self) -> Vec<String> {
        match self.logs {
            1 => vec![self.log.clone()],
            logs => (0..logs).map(|index| format!("{}-{index}", self.log)).collect(),
        }
    }

    fn check_sizes(&self, batch_bytes: u64) -> Result<(), Failure> {
        let (record_max, batch_max) = (count(MAX_RECORD_BYTES), count(MAX_BATCH_BYTES));
        if self.record_bytes == 0 || self.record_bytes > record_max {
            return refuse(&format!("--record-bytes must be between 1 and {record_max}"));
        }
        let encoded = batch_bytes + RECORD_OVERHEAD * (u64::from(self.batch_records) + 8);
        if encoded > batch_max {
            return refuse(&format!(
                "--record-bytes times --batch-records is {batch_bytes}: a batch holds at most \
                 {batch_max} bytes with its records' headers; use smaller batches"
            ));
        }
        let segment_bytes = self.segment_bytes.unwrap_or(DEFAULT_SEGMENT_BYTES);
        if encoded + 8192 > segment_bytes {
            return refuse(&format!(
                "a batch of {batch_bytes} bytes does not fit a segment of {segment_bytes}: use \
                 smaller batches or a larger --segment-bytes"
            ));
        }
        if self.total_bytes.is_some_and(|total| total < batch_bytes) {
            return refuse(&format!("--total-bytes is less than one batch of {batch_bytes} bytes"));
        }
        Ok(())
    }

    fn pace(&self) -> Result<Pace, Failure> {
        let records_per_s = match (self.rate, self.in_flight) {
            (Some(Rate::Records(_)), Some(_)) => {
                return refuse(
                    "--in-flight makes a closed loop, where the acks decide when the next batch \
                     goes; a --rate makes an open one, where the clock does: give one of them",
                );
            }
            (Some(Rate::Max), _) | (None, Some(_)) => {
                let in_flight =
                    self.in_flight.unwrap_or_else(|| IN_FLIGHT_DEFAULT.max(self.producers));
                if in_flight < self.producers {
                    return refuse(
                        "--in-flight is of all --producers together: each needs at least one",
                    );
                }
                if self.arrival.is_some() {
                    return refuse(
                        "--arrival spreads the batches of an open loop; --rate max and --in-flight \
                         make a closed one",
                    );
                }
                return Ok(Pace::Closed { in_flight });
            }
            (Some(Rate::Records(records_per_s)), None) => Some(records_per_s),
            (None, None) => None,
        };
        let arrival = self.arrival.unwrap_or(Arrival::Fixed);
        Ok(Pace::Open { records_per_s, arrival })
    }
}

fn refuse<T>(why: &str) -> Result<T, Failure> {
    Err(Failure::new(Exit::Usage, why))
}

impl Plan {
    /// Returns the bytes of a block that holds a group of this run, and how many are in flight: the
    /// floor is measured with them. An estimate: how many batches go together depends on when they
    /// come.
    pub(crate) fn group(&self, waits_for_flush: bool) -> (usize, usize) {
        let batch = self.batch_disk_bytes();
        let in_flight = match self.pace {
            Pace::Closed { in_flight } => u64::from(in_flight),
            Pace::Open { .. } => 1,
        };
        let (batches, depth_max) = if waits_for_flush {
            // While one half is flushed the other half gathers.
            (in_flight.div_ceil(2), 1)
        } else {
            ((in_flight / DEPTH_MAX).max(1), DEPTH_MAX)
        };
        let group = (batch * batches).min(GROUP_BYTES.max(batch));
        let depth = (in_flight / batches).clamp(1, depth_max);
        let block = group.next_multiple_of(4096).min(16 << 20);
        (super::numbers::length(block), super::numbers::length(depth))
    }

    /// Returns about how many bytes a batch takes in a log, without padding.
    pub(crate) fn batch_disk_bytes(&self) -> u64 {
        self.batch_bytes + 128 + 8 * u64::from(self.batch_records)
    }

    /// Returns half of what the floor can do, in two digits: the rate of a run that is told none.
    pub(crate) fn rate_below(&self, floor_writes_per_s: f64) -> f64 {
        let half = (floor_writes_per_s / 2.0).max(1.0);
        let digits = 10_f64.powf((half.log10().floor() - 1.0).max(0.0));
        round((half / digits).floor() * digits, 0) * f64::from(self.batch_records)
    }
}

/// The most writes of a log in flight, and the most bytes of one: as the engine has them.
const DEPTH_MAX: u64 = 8;
const GROUP_BYTES: u64 = 256 << 10;

/// Reads a number of seconds, decimals allowed.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let digits = text.strip_suffix('s').unwrap_or(text);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match digits.parse::<f64>() {
        Ok(seconds) if plain && seconds <= SECONDS_MAX => Ok(Duration::from_secs_f64(seconds)),
        Ok(_) => Err("a number of seconds up to 86400".to_owned()),
        Err(_) => Err(format!("{text:?} is not a number of seconds")),
    }
}

/// Reads a rate: `max`, or records a second, with k or M behind them if wanted.
fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    let text = text.strip_suffix("/s").unwrap_or(text);
    let units = [("k", 1e3), ("M", 1e6)];
    let (digits, unit) = units
        .iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|digits| (digits, *unit)))
        .unwrap_or((text, 1.0));
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match digits.parse::<f64>() {
        Ok(number) if plain && number > 0.0 && number * unit <= RATE_MAX => {
            Ok(Rate::Records(number * unit))
        }
        Ok(_) => Err("a number of records a second above 0 and up to 1000M, or max".to_owned()),
        Err(_) => Err(format!("{text:?} is not a number of records a second, nor max")),
    }
}

fn condition(text: &str) -> Result<Condition, String> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_times_are_checked_at_their_borders() {
        assert_eq!(rate("max"), Ok(Rate::Max));
        for (text, records) in [("1", 1.0), ("2.5k", 2500.0), ("1M/s", 1e6), ("1000M", 1e9)] {
            assert_eq!(rate(text), Ok(Rate::Records(records)), "{text}");
        }
        for bad in ["", "0", "-1", "1e3", "inf", "nan", "k", "1001M", "5 k", "5K", "min"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert_eq!(seconds("1.5s"), Ok(Duration::from_millis(1500)));
        for bad in ["", "-1", "86401", "1e3", "inf", "s", "1m"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
