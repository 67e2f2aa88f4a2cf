//! When an open loop sends.

use std::time::Duration;

use highwater_io::Monotonic;
use highwater_io::random::SeededRandom;

use super::flags::Arrival;
use super::numbers::real;

/// The same arrivals in every run.
const SEED: u64 = 7;

/// The times at which one producer of an open loop should send, one after the other. They depend
/// on nothing that happens.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    start: Monotonic,
    /// Seconds from the start to the next one.
    next: f64,
    /// Mean seconds between two.
    interval: f64,
    arrival: Arrival,
    random: SeededRandom,
}

impl Arrivals {
    /// Returns the arrivals of producer `index` of `producers`, which send `batches_per_s` all
    /// together; those of fixed distance take turns.
    pub(crate) fn new(
        start: Monotonic,
        batches_per_s: f64,
        arrival: Arrival,
        [index, producers]: [u32; 2],
    ) -> Self {
        let interval = f64::from(producers) / batches_per_s;
        let random = SeededRandom::new(SEED).split(&format!("producer {index}"));
        let mut arrivals = Arrivals { start, next: 0.0, interval, arrival, random };
        arrivals.next = match arrival {
            Arrival::Fixed => f64::from(index) / batches_per_s,
            Arrival::Poisson => arrivals.distance(),
        };
        arrivals
    }

    /// Returns when the next batch should go.
    pub(crate) fn next(&self) -> Monotonic {
        self.start.plus(Duration::try_from_secs_f64(self.next).unwrap_or(Duration::MAX))
    }

    pub(crate) fn advance(&mut self) {
        self.next += self.distance();
    }

    fn distance(&mut self) -> f64 {
        match self.arrival {
            Arrival::Fixed => self.interval,
            Arrival::Poisson => {
                // Above 0 and at most 1.
                let uniform = (real(self.random.next_u64() >> 11) + 1.0) / real(1 << 53);
                -uniform.ln() * self.interval
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrival: Arrival, batches_per_s: f64, of: [u32; 2], many: usize) -> Vec<u64> {
        let mut arrivals = Arrivals::new(Monotonic(0), batches_per_s, arrival, of);
        let mut times = Vec::new();
        for _ in 0..many {
            times.push(arrivals.next().0);
            arrivals.advance();
        }
        times
    }

    #[test]
    fn producers_of_fixed_arrivals_take_turns() {
        assert_eq!(times(Arrival::Fixed, 4.0, [0, 2], 3), [0, 500_000_000, 1_000_000_000]);
        assert_eq!(times(Arrival::Fixed, 4.0, [1, 2], 2), [250_000_000, 750_000_000]);
    }

    #[test]
    fn poisson_arrivals_have_their_rate_and_repeat() {
        let once = times(Arrival::Poisson, 1000.0, [0, 1], 100_001);
        assert_eq!(once, times(Arrival::Poisson, 1000.0, [0, 1], 100_001));
        assert!(once.windows(2).all(|pair| pair[0] <= pair[1]));
        let seconds = real(once[100_000]) / 1e9;
        assert!((98.0..102.0).contains(&seconds), "{seconds}");
        // Memoryless: about 1/e of the distances are above the mean.
        let long = once.windows(2).filter(|pair| pair[1] - pair[0] > 1_000_000).count();
        assert!((36_000..38_000).contains(&long), "{long}");
        assert_ne!(once[..9], times(Arrival::Poisson, 1000.0, [1, 2], 9));
    }
}
