//! What it costs to wake a thread and be woken by it: the price of every queue between threads,
//! on this machine, at this time.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use highwater_io::clock::monotonic_now;
use highwater_io::thread::spawn;

use super::latency::Latency;
use crate::output::{Exit, Failure};

/// Not counted at first.
const WARMUP_ROUNDS: u32 = 200;
const ROUNDS: u32 = 2000;

/// A ball that one of two threads has.
#[derive(Debug, Default)]
struct Table {
    far: Mutex<bool>,
    changed: Condvar,
}

impl Table {
    /// Waits for the ball on the side `far` and plays it to the other.
    fn play(&self, far: bool) {
        let mut side = self.far.lock().unwrap_or_else(PoisonError::into_inner);
        while *side != far {
            side = self.changed.wait(side).unwrap_or_else(PoisonError::into_inner);
        }
        *side = !far;
        self.changed.notify_one();
    }
}

/// Returns the median time from waking another thread to being woken by it in turn.
pub(crate) fn round_trip() -> Result<Duration, Failure> {
    let table = Arc::new(Table::default());
    let other = Arc::clone(&table);
    let partner = spawn("bench-partner", move || {
        (0..WARMUP_ROUNDS + ROUNDS).for_each(|_| other.play(true));
    });
    let partner = partner.map_err(|error| Failure::new(Exit::Error, error.to_string()))?;
    let mut latency = Latency::new();
    let mut before = monotonic_now();
    for round in 0..WARMUP_ROUNDS + ROUNDS {
        table.play(false);
        let now = monotonic_now();
        if round > WARMUP_ROUNDS {
            latency.record(now.since(before));
        }
        before = now;
    }
    if partner.join().is_err() {
        return Err(Failure::new(Exit::Error, "the partner of the wake-up measurement died"));
    }
    Ok(latency.at_per_mille(500).unwrap_or_default())
}
