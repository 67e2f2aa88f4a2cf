//! Exporting through the `metrics` crate.

use std::time::Duration;

use crate::metrics::{EngineMetrics, Exposure, Histogram, LogMetrics};

impl EngineMetrics {
    /// Hands every figure to the recorder the program has installed with the `metrics` crate:
    /// counters and gauges named `highwater_*`, labelled with `log` and `backend`. Call it as
    /// often as the figures shall be fresh.
    ///
    /// Histograms leave as gauges of their percentiles, labelled with `quantile`.
    pub fn export(&self) {
        let backend = self.backend.name();
        for (name, log) in &self.logs {
            export(log, name, backend);
        }
    }
}

fn export(log: &LogMetrics, name: &str, backend: &'static str) {
    let counters = [
        ("highwater_groups_total", log.groups),
        ("highwater_batches_total", log.batches),
        ("highwater_records_total", log.records),
        ("highwater_duplicates_total", log.duplicates),
        ("highwater_bytes_total", log.bytes),
        ("highwater_written_bytes_total", log.written_bytes),
        ("highwater_durable_writes_total", log.durable_writes),
    ];
    for (figure, value) in counters {
        metrics::counter!(figure, "log" => name.to_owned(), "backend" => backend).absolute(value);
    }
    for (reason, count) in log.flush_reasons.named() {
        let labels = [("log", name.to_owned()), ("reason", reason.to_owned())];
        metrics::counter!("highwater_flushes_total", &labels).absolute(count);
    }
    export_exposure("", &log.exposure, name);
    export_exposure("_max", &log.exposure_max, name);
    export_histogram("highwater_records_per_flush", &log.records_per_flush, name);
    export_histogram("highwater_group_bytes", &log.group_bytes, name);
    export_histogram("highwater_write_nanoseconds", &log.write_time, name);
    export_histogram("highwater_flush_nanoseconds", &log.flush_time, name);
    export_histogram("highwater_ack_nanoseconds", &log.ack_time, name);
}

fn gauge(value: u64) -> f64 {
    // A gauge is a float: exact up to 2^53, then rounded.
    let low = u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
    let high = u32::try_from(value >> u32::BITS).unwrap_or_default();
    f64::from(high) * (f64::from(u32::MAX) + 1.0) + f64::from(low)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn export_exposure(suffix: &str, exposure: &Exposure, name: &str) {
    for (figure, value) in [
        ("records", exposure.records),
        ("bytes", exposure.bytes),
        ("nanoseconds", nanoseconds(exposure.time)),
    ] {
        let figure = format!("highwater_exposure_{figure}{suffix}");
        metrics::gauge!(figure, "log" => name.to_owned()).set(gauge(value));
    }
}

fn export_histogram(figure: &'static str, histogram: &Histogram, name: &str) {
    for (label, parts) in [("0.5", 500), ("0.9", 900), ("0.99", 990), ("0.999", 999), ("1", 1000)] {
        if let Some(value) = histogram.quantile(parts, 1000) {
            let labels = [("log", name.to_owned()), ("quantile", label.to_owned())];
            metrics::gauge!(figure, &labels).set(gauge(value));
        }
    }
    let count = format!("{figure}_count");
    metrics::counter!(count, "log" => name.to_owned()).absolute(histogram.count());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_the_number() {
        for value in [0, 1, 1 << 31, 1 << 32, (1 << 53) - 1] {
            assert_eq!(format!("{:.0}", gauge(value)), value.to_string());
        }
    }

    #[test]
    fn export_without_a_recorder_does_nothing() {
        let mut log = LogMetrics::default();
        log.ack_time.record(7);
        let backend = highwater_io::Backend::Sim;
        let logs = [("l".to_owned(), log)].into();
        EngineMetrics { backend, turns: 1, logs }.export();
    }
}
