//! The record of everything that happened: a running hash, and lines on demand.

use std::collections::{BTreeMap, VecDeque};

use crate::clock::Monotonic;

#[derive(Clone, Debug)]
pub(super) struct Trace {
    digest: u64,
    lines: VecDeque<String>,
    limit: usize,
    recording: bool,
    counts: BTreeMap<&'static str, u64>,
}

fn mix(digest: &mut u64, bytes: &[u8]) {
    for byte in bytes {
        *digest = (*digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
}

impl Trace {
    pub(super) fn new(limit: usize) -> Self {
        Trace {
            digest: 0xcbf2_9ce4_8422_2325, // FNV-1a
            lines: VecDeque::new(),
            limit,
            recording: false,
            counts: BTreeMap::new(),
        }
    }

    pub(super) fn record(&mut self, recording: bool) {
        self.recording = recording;
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.clone()
    }

    /// Counts something interesting that happened.
    pub(super) fn count(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.counts.entry(what).or_default() += times;
        }
    }

    /// Notes an event: what and `numbers` (the first is the operation) always in the digest, all
    /// of it as a line when recording.
    pub(super) fn note(
        &mut self,
        now: Monotonic,
        what: &str,
        numbers: [u64; 3],
        detail: impl FnOnce() -> String,
    ) {
        mix(&mut self.digest, &now.0.to_le_bytes());
        mix(&mut self.digest, what.as_bytes());
        for number in numbers {
            mix(&mut self.digest, &number.to_le_bytes());
        }
        if self.recording {
            if self.lines.len() >= self.limit {
                self.lines.pop_front();
            }
            let (micros, [operation, ..], detail) = (now.0 / 1000, numbers, detail());
            self.lines.push_back(format!("{micros:>10} us  op {operation:<5} {what} {detail}"));
        }
    }
}
