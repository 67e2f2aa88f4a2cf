//! From what was recorded to the figures of the result.

use std::time::Duration;

use highwater::{Ack, FlushPolicy};

use super::SCHEMA_VERSION;
use super::environment::{DeviceCounters, Environment};
use super::flags::{Arrival, Pace, Plan, PrepareName};
use super::floor_result::FloorResult;
use super::numbers::{count, micros, per_second, ratio, real, round};
use super::result::{AppendResult, Config};
use super::stats::{Snapshot, Stats};
use super::way::STAGES;

/// A generator is behind when one batch in a hundred went later than this, ...
const LAG_P99_MAX: Duration = Duration::from_millis(10);
/// ... or any of them later than this, ...
const LAG_MAX: Duration = Duration::from_millis(500);
/// ... or the last ack came later than this behind the end of the sending.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// What surrounds the run.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) env: Environment,
    pub(crate) warnings: Vec<String>,
    pub(crate) backend: &'static str,
    pub(crate) io: &'static str,
    pub(crate) wake_round_trip: Duration,
    pub(crate) floor: FloorResult,
    pub(crate) interrupted: bool,
    pub(crate) bytes_per_record: f64,
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) plan: Plan,
    pub(crate) stats: Stats,
    /// `None` if the run ended before anything counted.
    pub(crate) begin: Option<Snapshot>,
    pub(crate) end: Snapshot,
    pub(crate) final_flush: Duration,
    pub(crate) facts: Facts,
}

impl Measured {
    pub(crate) fn result(self) -> AppendResult {
        let (plan, stats) = (&self.plan, &self.stats);
        let begin = self.begin.unwrap_or(self.end);
        let elapsed = self.end.at.since(begin.at);
        let payload_bytes = stats.records * count(plan.record_bytes);
        let bytes_per_s = per_second(payload_bytes, elapsed);
        let log = self.end.log.since(&begin.log);
        let flushes_per_s = per_second(log.flushes, elapsed);
        let user = self.end.usage.user.saturating_sub(begin.usage.user).as_secs_f64();
        let system = self.end.usage.system.saturating_sub(begin.usage.system).as_secs_f64();
        let device = self.end.device.zip(begin.device).map(|(end, begin)| end.since(begin));
        let stage = STAGES.iter().zip(&stats.stages);
        let disk_bytes = self.facts.bytes_per_record * real(stats.records);
        let (ratio_of, ratio_to_floor) = self.compare(bytes_per_s, flushes_per_s);
        AppendResult {
            schema_version: SCHEMA_VERSION,
            verb: "append",
            version: env!("CARGO_PKG_VERSION"),
            config: config(plan),
            records: stats.records,
            batches: stats.batches,
            payload_bytes,
            elapsed_s: round(elapsed.as_secs_f64(), 6),
            final_flush_us: round(micros(self.final_flush), 1),
            records_per_s: round(per_second(stats.records, elapsed), 1),
            payload_bytes_per_s: round(bytes_per_s, 0),
            offered_records_per_s: config(plan).rate_records_per_s,
            disk_bytes: whole(disk_bytes),
            disk_bytes_per_payload_byte: ratio(disk_bytes, real(payload_bytes)),
            log_bytes_written: log.written_bytes,
            device_bytes_written: device.map(|device| device.bytes_written),
            device_flushes: device.and_then(|device| device.flushes),
            ack_us: stats.ack.percentiles(),
            service_us: stats.service.percentiles(),
            flush_us: stats.flush.percentiles(),
            send_lag_us: stats.lag.percentiles(),
            stage_us: stage.map(|(name, latency)| (*name, latency.percentiles())).collect(),
            flushes: log.flushes,
            flush_reasons: log.flush_reasons.into_iter().collect(),
            groups: log.groups,
            flushes_per_s: round(flushes_per_s, 1),
            records_per_flush: ratio(real(stats.records), real(log.flushes)),
            cpu_user_s: round(user, 6),
            cpu_sys_s: round(system, 6),
            cpu_s_per_gib: ratio((user + system) * real(1 << 30), real(payload_bytes)),
            cpu_us_per_batch: ratio((user + system) * 1e6, real(stats.batches)),
            peak_rss_bytes: self.end.usage.peak_resident_bytes,
            exposure_max_records: log.exposure_max.records,
            exposure_max_bytes: log.exposure_max.bytes,
            exposure_max_ms: round(micros(log.exposure_max.time) / 1e3, 3),
            backend: self.facts.backend,
            io: self.facts.io,
            prewritten: plan.wishes.prepare != PrepareName::Never,
            overloaded: self.is_overloaded(),
            interrupted: self.facts.interrupted,
            wake_round_trip_us: round(micros(self.facts.wake_round_trip), 1),
            ratio_to_floor,
            ratio_of: ratio_to_floor.is_some().then_some(ratio_of),
            warnings: self.warnings(device, log.flushes),
            floor: Some(self.facts.floor),
            env: self.facts.env,
        }
    }

    /// Compares with the floor: what the workload is bounded by.
    fn compare(&self, bytes_per_s: f64, flushes_per_s: f64) -> (&'static str, Option<f64>) {
        let floor = &self.facts.floor;
        match self.plan.pace {
            Pace::Closed { .. } if !self.plan.is_compared_by_flush() => {
                ("payload_bytes_per_s", ratio(bytes_per_s, floor.bytes_per_s))
            }
            Pace::Closed { .. } => ("flushes_per_s", ratio(flushes_per_s, floor.writes_per_s)),
            Pace::Open { .. } => {
                let ours = self.stats.flush.percentiles().p50;
                let both = floor.flush_p50().zip(ours);
                ("flush_p50", both.and_then(|(floor, ours)| ratio(floor, ours)))
            }
        }
    }

    /// Returns whether the generator of an open loop fell behind.
    fn is_overloaded(&self) -> bool {
        let Pace::Open { .. } = self.plan.pace else { return false };
        let stats = &self.stats;
        let late = stats.lag.at_per_mille(990).is_some_and(|lag| lag > LAG_P99_MAX);
        let very_late = stats.lag.max().is_some_and(|lag| lag > LAG_MAX);
        let slow = self.begin.zip(self.plan.duration).is_some_and(|(begin, duration)| {
            stats.last_ack > begin.at.plus(duration).plus(DRAIN_MAX)
        });
        late || very_late || slow
    }

    fn warnings(&self, device: Option<DeviceCounters>, flushes: u64) -> Vec<String> {
        let facts = &self.facts;
        let mut warnings = facts.warnings.clone();
        warnings.extend(facts.env.too_good(facts.floor.flush_p50()));
        if facts.io != "direct" {
            warnings.push("no direct I/O here: the log goes through the page cache".to_owned());
        }
        let silent = device.is_some_and(|device| device.flushes == Some(0));
        if silent && flushes > 0 && facts.env.cache.as_deref() == Some("write back") {
            warnings.push(
                "the disk has a volatile cache and saw no flush while the log flushed: the flush \
                 was lost on the way"
                    .to_owned(),
            );
        }
        warnings
    }
}

fn config(plan: &Plan) -> Config {
    let (in_flight, rate, arrival) = match plan.pace {
        Pace::Closed { in_flight } => (Some(in_flight), None, None),
        Pace::Open { records_per_s, arrival } => (None, records_per_s, Some(arrival)),
    };
    let counted = plan.batches_max.checked_mul(plan.batch_bytes);
    Config {
        record_bytes: count(plan.record_bytes),
        batch_records: plan.batch_records,
        total_bytes: counted.filter(|_| plan.batches_max < u64::MAX / plan.batch_bytes),
        duration_s: plan.duration.map(|duration| duration.as_secs_f64()),
        warmup_s: plan.warmup.as_secs_f64(),
        flush: policy_text(plan.wishes.flush),
        ack: ack_name(plan.ack),
        producers: plan.producers,
        logs: count(plan.wishes.names.len()),
        shards: plan.shards,
        pinned: plan.pinned,
        shared_flush: plan.shared_flush,
        in_flight,
        rate_records_per_s: rate.map(|rate| round(rate, 3)),
        arrival: arrival.map(|arrival| match arrival {
            Arrival::Fixed => "fixed",
            Arrival::Poisson => "poisson",
        }),
        retention_bytes: plan.wishes.retention_bytes,
        segment_bytes: plan.wishes.segment_bytes,
        payload: plan.payload.name(),
        compression: crate::args::compression_text(plan.compression),
        prepare: match plan.wishes.prepare {
            PrepareName::Never => "never",
            PrepareName::Ahead => "ahead",
            PrepareName::AtOpen => "at-open",
        },
        mode: plan.wishes.mode.name(),
        local: plan.local,
    }
}

/// Returns a policy as `--flush` takes it.
fn policy_text(policy: FlushPolicy) -> String {
    let parts = [
        policy.every_group.then(|| "group".to_owned()),
        policy.records.map(|records| format!("records={records}")),
        policy.bytes.map(|bytes| format!("bytes={bytes}")),
        policy.interval.map(|interval| format!("interval={}", interval.as_millis())),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(",") }
}

fn ack_name(ack: Ack) -> &'static str {
    match ack {
        Ack::NONE => "none",
        Ack::LEADER => "leader",
        _ => "leader-flushed",
    }
}

/// Returns the whole part of a number of bytes.
fn whole(number: f64) -> u64 {
    // Nanoseconds are as whole as bytes are.
    let as_time = Duration::try_from_secs_f64(number.round().max(0.0));
    as_time.map_or(u64::MAX, |time| time.as_secs())
}
