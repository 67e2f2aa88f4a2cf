//! Distributions of times: recorded by each thread for itself, merged, and shown only as far as
//! there are samples.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::numbers::{count, micros, round};

/// The longest time that is told from longer ones.
const LONGEST: Duration = Duration::from_secs(3600);
/// Times are kept to three significant digits.
const DIGITS: u8 = 3;
/// A percentile is shown only if so many samples lie beyond it.
const SAMPLES_BEYOND: u64 = 10;

/// A distribution of times.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    histogram: Histogram<u64>,
}

impl Latency {
    pub(crate) fn new() -> Self {
        let longest = u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX);
        match Histogram::new_with_bounds(1, longest, DIGITS) {
            Ok(histogram) => Latency { histogram },
            Err(error) => panic!("the bounds are fixed: {error}"),
        }
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes over all samples of another; percentiles are never averaged.
    pub(crate) fn merge(&mut self, other: &Latency) {
        let added = self.histogram.add(&other.histogram);
        assert!(added.is_ok(), "all have the same bounds");
    }

    pub(crate) fn samples(&self) -> u64 {
        self.histogram.len()
    }

    /// Returns the time that `per_mille` of the samples do not exceed, if enough lie beyond it.
    pub(crate) fn at_per_mille(&self, per_mille: u32) -> Option<Duration> {
        let beyond = self.samples().saturating_mul(u64::from(1000 - per_mille)) / 1000;
        let quantile = f64::from(per_mille) / 1000.0;
        (beyond >= SAMPLES_BEYOND)
            .then(|| Duration::from_nanos(self.histogram.value_at_quantile(quantile)))
    }

    pub(crate) fn max(&self) -> Option<Duration> {
        (self.samples() > 0).then(|| Duration::from_nanos(self.histogram.max()))
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let at = |per_mille| self.at_per_mille(per_mille).map(|time| round(micros(time), 1));
        Percentiles {
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            max: self.max().map(|time| round(micros(time), 1)),
            n: self.samples(),
        }
    }
}

/// What is told of a distribution, in microseconds. A percentile with fewer than ten samples
/// beyond it is not told.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) p999: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) n: u64,
}

impl Percentiles {
    /// Returns the columns of a table: `p50 p90 p99 p99.9 max n`.
    pub(crate) fn columns(&self) -> [String; 6] {
        let show = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), show_micros);
        [
            show(self.p50),
            show(self.p90),
            show(self.p99),
            show(self.p999),
            show(self.max),
            grouped(self.n),
        ]
    }
}

/// The names of [`Percentiles::columns`].
pub(crate) const COLUMNS: [&str; 6] = ["p50", "p90", "p99", "p99.9", "max", "n"];

/// Returns a line of a table of times.
pub(crate) fn table_line(name: &str, columns: &[String]) -> String {
    columns.iter().fold(format!("{name:<28}"), |line, column| format!("{line}{column:>11}"))
}

/// Returns the head of such a table.
pub(crate) fn table_head(name: &str) -> String {
    table_line(name, &COLUMNS.map(str::to_owned))
}

/// Returns microseconds with the unit that fits.
pub(crate) fn show_micros(micros: f64) -> String {
    if micros < 1_000.0 {
        format!("{micros:.1} us")
    } else if micros < 1_000_000.0 {
        format!("{:.2} ms", micros / 1_000.0)
    } else {
        format!("{:.2} s", micros / 1_000_000.0)
    }
}

/// Returns a number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (count(digits.len()) - count(index)).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: u64) -> Percentiles {
        let mut latency = Latency::new();
        for sample in 1..=samples {
            latency.record(Duration::from_micros(sample));
        }
        latency.percentiles()
    }

    #[test]
    fn a_percentile_is_told_only_with_ten_samples_beyond_it() {
        assert_eq!((of(0).p50, of(0).max, of(0).n), (None, None, 0));
        assert_eq!((of(19).p50, of(19).max.is_some()), (None, true));
        let some = of(999);
        assert!(some.p50.is_some() && some.p90.is_some() && some.p99.is_none(), "{some:?}");
        let more = of(1000);
        assert!(more.p99.is_some() && more.p999.is_none(), "{more:?}");
        assert!(of(10_000).p999.is_some());
    }

    #[test]
    fn merging_adds_samples_and_keeps_three_digits() {
        let (mut left, mut right) = (Latency::new(), Latency::new());
        for _ in 0..50 {
            left.record(Duration::from_micros(100));
            right.record(Duration::from_micros(900));
        }
        left.merge(&right);
        let merged = left.percentiles();
        assert_eq!(merged.n, 100);
        let near = |time: Option<f64>, wanted: f64| {
            time.is_some_and(|time| (time / wanted - 1.0).abs() < 0.001)
        };
        assert!(near(merged.p50, 100.0) && near(merged.p90, 900.0), "{merged:?}");
    }

    #[test]
    fn numbers_are_shown_as_people_read_them() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let shown = [0.4, 148.3, 1_920.0, 31_000_000.0].map(show_micros);
        assert_eq!(shown, ["0.4 us", "148.3 us", "1.92 ms", "31.00 s"]);
    }
}
