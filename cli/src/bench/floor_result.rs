//! The floor as it stands in results.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::floor::{Durable, FloorFile, Streamed, Variant};
use super::latency::{Percentiles, show_micros, table_head, table_line};
use super::numbers::{count, micros, per_second, real, round};

/// What the disk does at the best, measured beside a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FloorResult {
    pub(crate) block_bytes: u64,
    pub(crate) depth: usize,
    /// Whether every block is made durable for itself.
    pub(crate) flush: bool,
    pub(crate) io: &'static str,
    pub(crate) backend: &'static str,
    /// The variant that is called the floor: the one with the lowest median.
    pub(crate) best: Option<&'static str>,
    pub(crate) bytes_per_s: f64,
    pub(crate) writes_per_s: f64,
    /// A write with its flush, of the best variant.
    pub(crate) latency_us: Option<Percentiles>,
    pub(crate) cpu_us_per_write: f64,
    /// All variants with a flush, by name.
    pub(crate) variants: BTreeMap<&'static str, VariantResult>,
    /// The bytes in a second of each round without a flush: how much the machine varies.
    pub(crate) rounds_bytes_per_s: Vec<f64>,
}

/// One way to make a block durable.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct VariantResult {
    pub(crate) latency_us: Percentiles,
    pub(crate) writes_per_s: f64,
    pub(crate) cpu_us_per_write: f64,
}

impl FloorResult {
    fn new(floor: &FloorFile, block_bytes: usize, depth: usize) -> Self {
        FloorResult {
            block_bytes: count(block_bytes),
            depth,
            flush: false,
            io: io_name(floor.is_direct()),
            backend: floor.backend_name(),
            best: None,
            bytes_per_s: 0.0,
            writes_per_s: 0.0,
            latency_us: None,
            cpu_us_per_write: 0.0,
            variants: BTreeMap::new(),
            rounds_bytes_per_s: Vec::new(),
        }
    }

    /// Returns the floor of streams: all bytes by all time.
    pub(crate) fn of_streams(
        floor: &FloorFile,
        block_bytes: usize,
        depth: usize,
        rounds: &[Streamed],
    ) -> Self {
        let mut sum = Streamed::default();
        for round in rounds {
            sum.bytes += round.bytes;
            sum.writes += round.writes;
            sum.time += round.time;
            sum.cpu += round.cpu;
        }
        let speed = |streamed: &Streamed| round(per_second(streamed.bytes, streamed.time), 0);
        FloorResult {
            bytes_per_s: speed(&sum),
            writes_per_s: round(per_second(sum.writes, sum.time), 1),
            cpu_us_per_write: each(sum.cpu, sum.writes),
            rounds_bytes_per_s: rounds.iter().map(speed).collect(),
            ..Self::new(floor, block_bytes, depth)
        }
    }

    /// Returns the floor of durable writes: of the variant with the lowest median, or the lowest
    /// mean where there are few samples.
    pub(crate) fn of_durable(
        floor: &FloorFile,
        block_bytes: usize,
        durable: &BTreeMap<Variant, Durable>,
    ) -> Self {
        let variants: BTreeMap<_, _> =
            durable.iter().map(|(variant, sum)| (variant.name(), VariantResult::of(sum))).collect();
        let best =
            durable.iter().filter(|(_, sum)| sum.latency.samples() > 0).min_by_key(|(_, sum)| {
                let mean = sum.time / u32::try_from(sum.latency.samples()).unwrap_or(u32::MAX);
                sum.latency.at_per_mille(500).unwrap_or(mean)
            });
        let mut result = FloorResult { flush: true, ..Self::new(floor, block_bytes, 1) };
        if let Some(best) = best.map(|(variant, _)| variant.name()) {
            let of_best = &variants[best];
            result.best = Some(best);
            result.writes_per_s = of_best.writes_per_s;
            result.bytes_per_s = round(of_best.writes_per_s * real(count(block_bytes)), 0);
            result.latency_us = Some(of_best.latency_us.clone());
            result.cpu_us_per_write = of_best.cpu_us_per_write;
        }
        FloorResult { variants, ..result }
    }

    /// Returns the median of a write with its flush.
    pub(crate) fn flush_p50(&self) -> Option<f64> {
        self.latency_us.as_ref().and_then(|latency| latency.p50)
    }

    /// Returns the lines that tell of it.
    pub(crate) fn lines(&self) -> Vec<String> {
        let block = self.block_bytes >> 10;
        if !self.flush {
            let speed = self.bytes_per_s / 1e6;
            let rounds: Vec<_> =
                self.rounds_bytes_per_s.iter().map(|bytes| format!("{:.0}", bytes / 1e6)).collect();
            return vec![format!(
                "floor: {speed:.0} MB/s, writes of {block} KiB at depth {}, a flush every 128 MiB \
                 and at the end ({}, {}; rounds {})",
                self.depth,
                self.backend,
                self.io,
                rounds.join(" ")
            )];
        }
        let mut lines = vec![table_head(&format!("floor: {block} KiB and a flush"))];
        for (name, variant) in &self.variants {
            let mark = if Some(*name) == self.best { "  <- the floor" } else { "" };
            let line = table_line(&format!("  {name}"), &variant.latency_us.columns());
            let (speed, cpu) = (variant.writes_per_s, show_micros(variant.cpu_us_per_write));
            lines.push(format!("{line}{speed:>9.0}/s  cpu {cpu}{mark}"));
        }
        lines
    }
}

impl VariantResult {
    fn of(sum: &Durable) -> Self {
        let samples = sum.latency.samples();
        VariantResult {
            latency_us: sum.latency.percentiles(),
            writes_per_s: round(per_second(samples, sum.time), 1),
            cpu_us_per_write: each(sum.cpu, samples),
        }
    }
}

/// Returns the microseconds for each of so many.
fn each(time: Duration, many: u64) -> f64 {
    if many == 0 { 0.0 } else { round(micros(time) / real(many), 2) }
}

/// Returns how results call the way to the disk.
pub(crate) fn io_name(direct: bool) -> &'static str {
    if direct { "direct" } else { "page cache" }
}
