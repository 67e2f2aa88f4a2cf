//! A histogram that costs an idle log nothing.

/// Each power of two is divided into so many buckets: values are known to an eighth.
const STEPS: usize = 8;
/// Values below this have a bucket each.
const EXACT: u64 = 8;

/// How often which values occurred, in buckets of an eighth of their size; exact below 8, and
/// exact in `count`, `sum` and `max`.
///
/// Histograms of several logs or shards can be [merged](Histogram::merge); their percentiles must
/// never be averaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Grows to the highest value that occurred: at most 496 buckets.
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Histogram {
    /// Counts `value` once.
    pub fn record(&mut self, value: u64) {
        let bucket = bucket_of(value);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }

    /// Counts a duration once, in nanoseconds.
    pub fn record_time(&mut self, time: std::time::Duration) {
        self.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds everything `other` has counted.
    pub fn merge(&mut self, other: &Histogram) {
        if other.buckets.len() > self.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// Returns how many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the sum of all values.
    #[must_use]
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// Returns the largest value; 0 without any.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Returns the mean, rounded down; 0 without any value.
    #[must_use]
    pub fn mean(&self) -> u64 {
        let mean = self.sum.checked_div(u128::from(self.count)).unwrap_or(0);
        u64::try_from(mean).unwrap_or(u64::MAX)
    }

    /// Returns the value that at least `parts` of `whole` values do not exceed - `(99, 100)` for
    /// the 99th percentile - as the upper end of its bucket, never above [`max`](Self::max).
    /// `None` without any value.
    ///
    /// # Panics
    /// If `parts` is more than `whole`, or `whole` is 0.
    #[must_use]
    pub fn quantile(&self, parts: u64, whole: u64) -> Option<u64> {
        assert!(parts <= whole && whole > 0, "{parts} of {whole} is no part");
        let rank = (u128::from(self.count) * u128::from(parts)).div_ceil(u128::from(whole)).max(1);
        let mut seen = 0;
        self.buckets().find_map(|(upper, count)| {
            seen += u128::from(count);
            (seen >= rank).then_some(upper.min(self.max))
        })
    }

    /// Returns the buckets that are not empty, lowest first: the largest value that belongs there,
    /// and how many did.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let counted = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(bucket, count)| (upper_end(bucket), *count))
    }
}

fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn bucket_of(value: u64) -> usize {
    if value < EXACT {
        return index(value);
    }
    // The three bits behind the leading one choose the step.
    let exponent = value.ilog2();
    let step = index(value >> (exponent - 3)) - STEPS;
    index(u64::from(exponent) - 2) * STEPS + step
}

fn upper_end(bucket: usize) -> u64 {
    let (power, step) = (bucket / STEPS, bucket % STEPS);
    let step = u128::try_from(step).unwrap_or_default();
    if power == 0 {
        return u64::try_from(step).unwrap_or_default();
    }
    let end = ((8 + step + 1) << (power - 1)) - 1;
    u64::try_from(end).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_the_bucket_is_an_eighth_wide() {
        let borders = (0..64).flat_map(|bit| {
            let power = 1_u64 << bit;
            [power - 1, power, power + power / 8, power + (power - 1) / 2]
        });
        for value in borders.chain([u64::MAX]) {
            let bucket = bucket_of(value);
            let below = if bucket == 0 { None } else { Some(upper_end(bucket - 1)) };
            assert!(value <= upper_end(bucket), "{value} in {bucket}");
            assert!(below.is_none_or(|below| below < value), "{value} above {below:?}");
            assert!(upper_end(bucket) - value <= value / 8, "{value} to an eighth");
        }
    }

    #[test]
    fn quantiles_and_merges_are_those_of_the_values() {
        let (mut all, mut odd, mut even) =
            (Histogram::default(), Histogram::default(), Histogram::default());
        assert_eq!(all.quantile(1, 2), None);
        for value in 1..=1000 {
            all.record(value);
            if value % 2 == 0 { even.record(value) } else { odd.record(value) }
        }
        odd.merge(&even);
        assert_eq!(odd, all);
        assert_eq!((all.count(), all.sum(), all.max(), all.mean()), (1000, 500_500, 1000, 500));
        for (parts, exact) in [(0, 1), (500, 500), (990, 990), (1000, 1000)] {
            let quantile = all.quantile(parts, 1000).unwrap();
            assert!(quantile >= exact && quantile - exact <= exact / 8, "{parts}: {quantile}");
        }
    }
}
