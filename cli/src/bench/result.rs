//! The result of `bench append`, as it is published: `docs/bench-result.schema.json`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::environment::Environment;
use super::floor_result::FloorResult;
use super::latency::Percentiles;

/// Everything that one run gives.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AppendResult {
    pub(crate) schema_version: u32,
    pub(crate) verb: &'static str,
    pub(crate) version: &'static str,
    pub(crate) config: Config,

    /// What was acked of what counts.
    pub(crate) records: u64,
    pub(crate) batches: u64,
    pub(crate) payload_bytes: u64,
    /// From the first batch that counts to the end of the last flush.
    pub(crate) elapsed_s: f64,
    pub(crate) final_flush_us: f64,
    pub(crate) records_per_s: f64,
    pub(crate) payload_bytes_per_s: f64,
    pub(crate) offered_records_per_s: Option<f64>,

    pub(crate) disk_bytes: u64,
    pub(crate) disk_bytes_per_payload_byte: Option<f64>,
    pub(crate) log_bytes_written: u64,
    pub(crate) device_bytes_written: Option<u64>,
    pub(crate) device_flushes: Option<u64>,

    pub(crate) ack_us: Percentiles,
    pub(crate) service_us: Percentiles,
    pub(crate) flush_us: Percentiles,
    pub(crate) send_lag_us: Percentiles,
    pub(crate) stage_us: BTreeMap<&'static str, Percentiles>,

    pub(crate) flushes: u64,
    pub(crate) flush_reasons: BTreeMap<&'static str, u64>,
    pub(crate) groups: u64,
    pub(crate) flushes_per_s: f64,
    pub(crate) records_per_flush: Option<f64>,

    pub(crate) cpu_user_s: f64,
    pub(crate) cpu_sys_s: f64,
    pub(crate) cpu_s_per_gib: Option<f64>,
    pub(crate) cpu_us_per_batch: Option<f64>,
    pub(crate) peak_rss_bytes: u64,

    pub(crate) exposure_max_records: u64,
    pub(crate) exposure_max_bytes: u64,
    pub(crate) exposure_max_ms: f64,

    pub(crate) backend: &'static str,
    pub(crate) io: &'static str,
    pub(crate) prewritten: bool,
    pub(crate) overloaded: bool,
    pub(crate) interrupted: bool,
    pub(crate) wake_round_trip_us: f64,

    pub(crate) floor: Option<FloorResult>,
    /// Above 1: faster than the floor. What is compared stands beside it.
    pub(crate) ratio_to_floor: Option<f64>,
    pub(crate) ratio_of: Option<&'static str>,

    pub(crate) env: Environment,
    pub(crate) warnings: Vec<String>,
}

/// What was run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Config {
    pub(crate) record_bytes: u64,
    pub(crate) batch_records: u32,
    pub(crate) total_bytes: Option<u64>,
    pub(crate) duration_s: Option<f64>,
    pub(crate) warmup_s: f64,
    pub(crate) flush: String,
    pub(crate) ack: &'static str,
    pub(crate) producers: u32,
    pub(crate) logs: u64,
    /// `None`: one for each core.
    pub(crate) shards: Option<u32>,
    pub(crate) pinned: bool,
    pub(crate) shared_flush: bool,
    /// Of a closed loop.
    pub(crate) in_flight: Option<u32>,
    /// Of an open loop.
    pub(crate) rate_records_per_s: Option<f64>,
    pub(crate) arrival: Option<&'static str>,
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) segment_bytes: Option<u64>,
    pub(crate) payload: &'static str,
    pub(crate) compression: String,
    pub(crate) prepare: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) local: bool,
}
