//! Counters, histograms and the exposure of a log, owned by its shard: plain numbers, no lock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use highwater_io::{Backend, Monotonic};
use highwater_segment::Offset;

pub use crate::histogram::Histogram;

/// The most steps of the acked end that are remembered between two flushes; beyond it the newest
/// takes in what comes, which makes its age an upper bound.
const STEPS_MAX: usize = 64;

/// Why logs were flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushReasons {
    /// An append, or a call of `flush`, waited for it. Writes durable by themselves count here.
    pub waited: u64,
    /// The policy asks for a flush behind every group.
    pub every_group: u64,
    /// The policy's number of records was reached.
    pub records: u64,
    /// The policy's number of bytes was reached.
    pub bytes: u64,
    /// The policy's time was over.
    pub interval: u64,
    /// The segment was sealed.
    pub roll: u64,
    /// The log was closed or taken for maintenance.
    pub close: u64,
    /// Too many receipts waited to be told of the flush.
    pub receipts: u64,
}

impl FlushReasons {
    /// Returns the number of flushes.
    #[must_use]
    pub fn total(&self) -> u64 {
        let FlushReasons { waited, every_group, records, bytes, interval, roll, close, receipts } =
            *self;
        waited + every_group + records + bytes + interval + roll + close + receipts
    }

    /// Returns each reason's name and count.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("waited", self.waited),
            ("every_group", self.every_group),
            ("records", self.records),
            ("bytes", self.bytes),
            ("interval", self.interval),
            ("roll", self.roll),
            ("close", self.close),
            ("receipts", self.receipts),
        ]
    }

    pub(crate) fn count(&mut self, reason: FlushReason) {
        *match reason {
            FlushReason::Waited => &mut self.waited,
            FlushReason::EveryGroup => &mut self.every_group,
            FlushReason::Records => &mut self.records,
            FlushReason::Bytes => &mut self.bytes,
            FlushReason::Interval => &mut self.interval,
            FlushReason::Roll => &mut self.roll,
            FlushReason::Close => &mut self.close,
            FlushReason::Receipts => &mut self.receipts,
        } += 1;
    }
}

/// Why one flush was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlushReason {
    Waited,
    EveryGroup,
    Records,
    Bytes,
    Interval,
    Roll,
    Close,
    Receipts,
}

/// What is acked but not flushed, at one instant: what a power cut of this replica would take from
/// those who were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// Records.
    pub records: u64,
    /// Bytes of the log, batch headers included.
    pub bytes: u64,
    /// For how long the oldest of them has been acked.
    pub time: Duration,
}

impl Exposure {
    fn raise(&mut self, other: &Exposure) {
        self.records = self.records.max(other.records);
        self.bytes = self.bytes.max(other.bytes);
        self.time = self.time.max(other.time);
    }
}

/// What a log did since this engine was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogMetrics {
    /// Groups formed: writes of batches.
    pub groups: u64,
    /// Batches that got an offset.
    pub batches: u64,
    /// Records that got an offset.
    pub records: u64,
    /// Numbered batches that the log had already: acked, not appended again.
    pub duplicates: u64,
    /// Bytes of those batches, headers and padding to 8 bytes included.
    pub bytes: u64,
    /// Bytes handed to the device for them: whole blocks, tail blocks each time they are rewritten.
    pub written_bytes: u64,
    /// Flushes, writes durable by themselves included.
    pub flushes: u64,
    /// Of those, writes durable by themselves.
    pub durable_writes: u64,
    /// Why.
    pub flush_reasons: FlushReasons,
    /// Records that each flush made durable.
    pub records_per_flush: Histogram,
    /// Bytes of each group.
    pub group_bytes: Histogram,
    /// From handing a write to the kernel until it was seen complete, in nanoseconds.
    pub write_time: Histogram,
    /// The same of flushes, and of writes durable by themselves.
    pub flush_time: Histogram,
    /// From the call of an append until its ack, in nanoseconds.
    pub ack_time: Histogram,
    /// What is acked but not flushed now.
    pub exposure: Exposure,
    /// The most there ever was, each by itself.
    pub exposure_max: Exposure,
}

impl LogMetrics {
    /// Adds everything `other` has counted; exposures of several logs are added up.
    pub fn merge(&mut self, other: &LogMetrics) {
        self.groups += other.groups;
        self.batches += other.batches;
        self.records += other.records;
        self.duplicates += other.duplicates;
        self.bytes += other.bytes;
        self.written_bytes += other.written_bytes;
        self.flushes += other.flushes;
        self.durable_writes += other.durable_writes;
        let (mine, theirs) = (&mut self.flush_reasons, &other.flush_reasons);
        mine.waited += theirs.waited;
        mine.every_group += theirs.every_group;
        mine.records += theirs.records;
        mine.bytes += theirs.bytes;
        mine.interval += theirs.interval;
        mine.roll += theirs.roll;
        mine.close += theirs.close;
        mine.receipts += theirs.receipts;
        self.records_per_flush.merge(&other.records_per_flush);
        self.group_bytes.merge(&other.group_bytes);
        self.write_time.merge(&other.write_time);
        self.flush_time.merge(&other.flush_time);
        self.ack_time.merge(&other.ack_time);
        for (mine, theirs) in
            [(&mut self.exposure, &other.exposure), (&mut self.exposure_max, &other.exposure_max)]
        {
            mine.records += theirs.records;
            mine.bytes += theirs.bytes;
            mine.time = mine.time.max(theirs.time);
        }
    }
}

/// What an engine did since it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineMetrics {
    /// Which backend serves the shards.
    pub backend: Backend,
    /// How often the shards looked for work.
    pub turns: u64,
    /// Flushes of logs that were spared because that of another log's file served them too (see
    /// [`Options::shared_flush`](crate::Options::shared_flush)).
    pub shared_flushes: u64,
    /// Each log by its name.
    pub logs: BTreeMap<String, LogMetrics>,
}

impl EngineMetrics {
    /// Takes in what another shard of the engine has counted.
    pub(crate) fn merge(&mut self, other: EngineMetrics) {
        self.turns += other.turns;
        self.shared_flushes += other.shared_flushes;
        self.logs.extend(other.logs);
    }

    /// Returns all logs together.
    #[must_use]
    pub fn total(&self) -> LogMetrics {
        let mut total = LogMetrics::default();
        for log in self.logs.values() {
            total.merge(log);
        }
        total
    }
}

/// The counters of a log inside its shard.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) log: LogMetrics,
    /// The acked end in records and bytes, and when it got there; those at or below the flushed
    /// mark are forgotten. Oldest first.
    steps: VecDeque<(Offset, u64, Monotonic)>,
    flushed: (Offset, u64),
}

impl Counters {
    /// Starts from what is flushed, keeping what was counted so far.
    pub(crate) fn restart(&mut self, flushed: Offset) {
        self.steps.clear();
        self.flushed = (flushed, 0);
    }

    /// Notes that everything below `end`, at `bytes`, is acked.
    pub(crate) fn acked(&mut self, end: Offset, bytes: u64, now: Monotonic) {
        let highest = self.steps.back().map_or(self.flushed.0, |step| step.0);
        if end <= highest {
            return;
        }
        let full = self.steps.len() == STEPS_MAX;
        match self.steps.back_mut() {
            Some(step) if step.2 == now => *step = (end, bytes, now),
            Some(step) if full => *step = (end, bytes, step.2),
            _ => self.steps.push_back((end, bytes, now)),
        }
    }

    /// Notes that everything below `end`, at `bytes`, is flushed now.
    pub(crate) fn flushed(&mut self, end: Offset, bytes: u64, now: Monotonic) {
        self.note_exposure(now);
        self.log.flushes += 1;
        self.log.records_per_flush.record(end.0 - self.flushed.0.0);
        self.flushed = (end, bytes);
        while self.steps.front().is_some_and(|step| step.0 <= end) {
            self.steps.pop_front();
        }
    }

    fn exposure(&self, now: Monotonic) -> Exposure {
        let (Some(oldest), Some(newest)) = (self.steps.front(), self.steps.back()) else {
            return Exposure::default();
        };
        Exposure {
            records: newest.0.0 - self.flushed.0.0,
            bytes: newest.1 - self.flushed.1,
            time: now.since(oldest.2),
        }
    }

    fn note_exposure(&mut self, now: Monotonic) {
        let exposure = self.exposure(now);
        self.log.exposure_max.raise(&exposure);
    }

    /// Returns the metrics as they are now.
    pub(crate) fn snapshot(&mut self, now: Monotonic) -> LogMetrics {
        self.note_exposure(now);
        self.log.exposure = self.exposure(now);
        self.log.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposure_is_what_is_acked_and_not_flushed() {
        let mut counters = Counters::default();
        counters.restart(Offset(10));
        counters.acked(Offset(12), 200, Monotonic(1_000));
        counters.acked(Offset(15), 500, Monotonic(2_000));
        counters.acked(Offset(14), 400, Monotonic(3_000));
        let time = Duration::from_nanos(4_000);
        let exposure = counters.snapshot(Monotonic(5_000)).exposure;
        assert_eq!(exposure, Exposure { records: 5, bytes: 500, time });
        counters.flushed(Offset(12), 200, Monotonic(6_000));
        let snapshot = counters.snapshot(Monotonic(6_000));
        let time = Duration::from_nanos(4_000);
        assert_eq!(snapshot.exposure, Exposure { records: 3, bytes: 300, time });
        assert_eq!(snapshot.exposure_max.time, Duration::from_nanos(5_000));
        counters.flushed(Offset(20), 900, Monotonic(7_000));
        assert_eq!(counters.snapshot(Monotonic(9_000)).exposure, Exposure::default());
        assert_eq!(counters.log.records_per_flush.sum(), 10);
    }

    #[test]
    fn many_acks_between_two_flushes_stay_bounded_and_keep_the_oldest_age() {
        let mut counters = Counters::default();
        for step in 1..1000_u64 {
            counters.acked(Offset(step), step * 10, Monotonic(step));
        }
        assert!(counters.steps.len() <= STEPS_MAX);
        let exposure = counters.snapshot(Monotonic(1000)).exposure;
        let time = Duration::from_nanos(999);
        assert_eq!(exposure, Exposure { records: 999, bytes: 9990, time });
        counters.flushed(Offset(999), 9990, Monotonic(1001));
        assert_eq!(counters.snapshot(Monotonic(1002)).exposure, Exposure::default());
    }
}
