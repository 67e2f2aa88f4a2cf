//! The result of `bench append` for people.

use super::latency::{Percentiles, grouped, show_micros, table_head, table_line};
use super::numbers::real;
use super::result::AppendResult;
use super::way::STAGES;
use crate::text;

/// Returns the report, line by line. The headlines stand at its end, where the eye is.
pub(crate) fn lines(result: &AppendResult) -> Vec<String> {
    let mut lines = vec![workload(result), String::new(), table_head("")];
    let open = result.config.rate_records_per_s.is_some();
    let since = if open { "from intended" } else { "from send" };
    lines.push(row(&format!("ack ({since})"), &result.ack_us));
    if open {
        lines.push(row("ack (from actual send)", &result.service_us));
    }
    lines.push(row(&format!("flush ({since})"), &result.flush_us));
    if open {
        lines.push(row("sent late by", &result.send_lag_us));
    }
    for stage in STAGES {
        if let Some(percentiles) = result.stage_us.get(stage) {
            lines.push(row(&format!("  stage {stage}"), percentiles));
        }
    }
    lines.push(String::new());
    lines.extend(counts(result));
    if let Some(floor) = &result.floor {
        lines.push(String::new());
        lines.extend(floor.lines());
    }
    lines.push(String::new());
    lines.extend(headlines(result));
    lines
}

fn row(name: &str, percentiles: &Percentiles) -> String {
    table_line(name, &percentiles.columns())
}

fn workload(result: &AppendResult) -> String {
    let config = &result.config;
    let pace = match (config.in_flight, config.rate_records_per_s) {
        (Some(in_flight), _) => format!("closed loop, {in_flight} in flight"),
        (None, Some(rate)) => {
            format!("open loop, {rate:.0} records/s {}", config.arrival.unwrap_or("fixed"))
        }
        (None, None) => "open loop".to_owned(),
    };
    let compressed = match config.compression.as_str() {
        "none" => String::new(),
        codec => format!(" of {}, {codec}", config.payload),
    };
    let local = if config.local { ", LocalEngine" } else { "" };
    format!(
        "append {} x {} B{compressed}; ack {}; flush {}; {pace}; {}{local}; backend {}, {}, segments {}",
        config.batch_records,
        config.record_bytes,
        config.ack,
        config.flush,
        text::counted(u64::from(config.producers), "producer"),
        result.backend,
        result.io,
        if result.prewritten { "prepared ahead" } else { "growing" },
    )
}

fn counts(result: &AppendResult) -> Vec<String> {
    let whole = |number: Option<f64>, decimals: usize| {
        number.map_or_else(|| "-".to_owned(), |number| format!("{number:.decimals$}"))
    };
    let device = result.device_bytes_written.map_or_else(|| "-".to_owned(), text::bytes);
    let mb_per_s = result.payload_bytes_per_s / 1e6;
    vec![
        format!(
            "acked {} records, {} in {:.2} s: {:.0} records/s, {mb_per_s:.1} MB/s, final flush \
             included",
            grouped(result.records),
            text::bytes(result.payload_bytes),
            result.elapsed_s,
            result.records_per_s,
        ),
        format!(
            "disk: {} of log ({} a byte of payload), {} written in {} groups; {device} written by \
             the device for all users",
            text::bytes(result.disk_bytes),
            whole(result.disk_bytes_per_payload_byte, 2),
            text::bytes(result.log_bytes_written),
            grouped(result.groups),
        ),
        format!(
            "flushes: {} ({:.0}/s), {} records each; acked but not flushed at most: {} records, \
             {}, {:.1} ms",
            grouped(result.flushes),
            result.flushes_per_s,
            whole(result.records_per_flush, 1),
            grouped(result.exposure_max_records),
            text::bytes(result.exposure_max_bytes),
            result.exposure_max_ms,
        ),
        format!(
            "cpu: user {:.2} s, system {:.2} s ({} s a GiB, {} us a batch); peak memory {}; a \
             wake-up and back {}",
            result.cpu_user_s,
            result.cpu_sys_s,
            whole(result.cpu_s_per_gib, 2),
            whole(result.cpu_us_per_batch, 1),
            text::bytes(result.peak_rss_bytes),
            show_micros(result.wake_round_trip_us),
        ),
    ]
}

/// Two headlines, the ratio to the floor, and what the disk is.
fn headlines(result: &AppendResult) -> Vec<String> {
    let show = |percentiles: &Percentiles| match percentiles.p99 {
        Some(p99) => show_micros(p99),
        None => format!("- (only {} samples)", grouped(percentiles.n)),
    };
    let mut lines = vec![
        format!("ack p99    {}", show(&result.ack_us)),
        format!("flush p99  {}", show(&result.flush_us)),
    ];
    let floor = result.floor.as_ref().zip(result.ratio_to_floor).zip(result.ratio_of);
    lines.push(match floor {
        None => "floor      not measured".to_owned(),
        Some(((floor, ratio), of)) => {
            let (ours, best) = match of {
                "payload_bytes_per_s" => (
                    format!("{:.0} MB/s of values", result.payload_bytes_per_s / 1e6),
                    format!("{:.0} MB/s", floor.bytes_per_s / 1e6),
                ),
                "flushes_per_s" => (
                    format!("{:.0} flushes/s", result.flushes_per_s),
                    format!("{:.0}/s ({})", floor.writes_per_s, floor.best.unwrap_or("-")),
                ),
                _ => (
                    format!("flush p50 {}", show_micros(result.flush_us.p50.unwrap_or_default())),
                    format!(
                        "{} ({})",
                        show_micros(floor.flush_p50().unwrap_or_default()),
                        floor.best.unwrap_or("-")
                    ),
                ),
            };
            format!("floor      {ratio:.2} of the disk's floor: {ours}, floor {best}")
        }
    });
    lines.push(format!("disk       {}", result.env.disk_line()));
    if result.overloaded {
        let offered = result.offered_records_per_s.unwrap_or_default();
        lines.push(format!(
            "OVERLOADED: {offered:.0} records/s were offered and could not be kept up with; the \
             latencies hold for this overload only (sent {} later than intended at the most)",
            show_micros(result.send_lag_us.max.unwrap_or_default()),
        ));
    }
    if result.interrupted {
        let seconds = result.elapsed_s;
        lines.push(format!("INTERRUPTED after {seconds:.1} s: these are the figures so far"));
    }
    if real(result.records) < 1.0 {
        lines.push("nothing was measured".to_owned());
    }
    lines
}
