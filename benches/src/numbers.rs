//! Percentiles of one run, medians of several.

use std::time::Duration;

/// How many samples have to lie beyond a percentile for it to be given.
const BEYOND_MIN: usize = 10;

/// Returns a count as a float; exact below 2^53.
#[must_use]
pub fn to_f64(count: u64) -> f64 {
    let low = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

/// Percentiles of all samples of one run, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "compare", derive(serde::Serialize, serde::Deserialize))]
pub struct Percentiles {
    /// The number of samples.
    pub n: u64,
    /// The median.
    pub p50: f64,
    /// `None` if fewer than ten samples lie beyond, as below.
    pub p90: Option<f64>,
    /// 99 of 100 samples are not above.
    pub p99: Option<f64>,
    /// 999 of 1000 samples are not above.
    pub p999: Option<f64>,
    /// The largest.
    pub max: f64,
}

impl Percentiles {
    /// Returns the percentiles of the samples; `None` if there are none.
    #[must_use]
    pub fn of(mut samples: Vec<Duration>) -> Option<Self> {
        samples.sort_unstable();
        let count = samples.len();
        let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
        let at = |per_mille: usize| samples[(count * per_mille).div_ceil(1000).max(1) - 1];
        let guarded = |per_mille: usize| {
            let beyond = count - (count * per_mille).div_ceil(1000);
            (beyond >= BEYOND_MIN).then(|| micros(at(per_mille)))
        };
        let max = micros(*samples.last()?);
        Some(Percentiles {
            n: u64::try_from(count).unwrap_or(u64::MAX),
            p50: micros(at(500)),
            p90: guarded(900),
            p99: guarded(990),
            p999: guarded(999),
            max,
        })
    }
}

/// The same figure of several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "compare", derive(serde::Serialize, serde::Deserialize))]
pub struct Spread {
    /// The middle one; the mean of the two middle ones of an even number.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many.
    pub n: u64,
}

impl Spread {
    /// Returns the spread of the figures; `None` if there are none.
    #[must_use]
    pub fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let odd = figures.len() % 2 == 1;
        let median =
            if odd { figures[middle] } else { f64::midpoint(figures[middle - 1], figures[middle]) };
        Some(Spread { median, min, max, n: u64::try_from(figures.len()).unwrap_or(u64::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_and_are_left_out_where_too_few_lie_beyond() {
        let samples: Vec<_> = (1..=1000).rev().map(Duration::from_micros).collect();
        let found = Percentiles::of(samples).expect("samples");
        assert_eq!((found.n, found.p50, found.max), (1000, 500.0, 1000.0));
        assert_eq!((found.p90, found.p99, found.p999), (Some(900.0), Some(990.0), None));
        let one = Percentiles::of(vec![Duration::from_micros(7)]).expect("a sample");
        assert_eq!((one.p50, one.p90, one.max), (7.0, None, 7.0));
        assert_eq!(Percentiles::of(Vec::new()), None);
    }

    #[test]
    fn the_median_is_the_middle_of_odd_and_even_numbers_of_runs() {
        let check =
            |figures: &[f64]| Spread::of(figures.to_vec()).map(|s| (s.median, s.min, s.max));
        assert_eq!(check(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(check(&[4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(check(&[]), None);
    }

    #[test]
    fn counts_become_floats_unchanged() {
        for count in [0, 1, u64::from(u32::MAX), 1 << 32, (1 << 53) - 1] {
            assert_eq!(format!("{:.0}", to_f64(count)), count.to_string());
        }
    }
}
