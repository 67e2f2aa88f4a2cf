//! What producers record, each for itself, and what they share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use highwater::Appended;
use highwater_io::Monotonic;
use highwater_io::clock::monotonic_now;
use highwater_io::usage::{Usage, process_usage};

use super::environment::DeviceCounters;
use super::latency::Latency;
use super::progress::Counted;
use super::way::{LogCounters, STAGES, STAGES_TO_WRITTEN, stages};
use crate::interrupt::Interrupt;

/// What is read from outside at both ends of the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    pub(crate) at: Monotonic,
    pub(crate) usage: Usage,
    pub(crate) device: Option<DeviceCounters>,
    pub(crate) log: LogCounters,
}

impl Snapshot {
    /// Reads everything, and last the clock, which starts behind the reading.
    pub(crate) fn begin(directory: &std::path::Path, log: LogCounters) -> Self {
        let device = DeviceCounters::of(directory);
        Snapshot { log, device, usage: process_usage(), at: monotonic_now() }
    }

    /// Stops the clock and then reads the rest.
    pub(crate) fn end(directory: &std::path::Path) -> Self {
        let (at, usage) = (monotonic_now(), process_usage());
        let (device, log) = (DeviceCounters::of(directory), LogCounters::default());
        Snapshot { at, usage, device, log }
    }
}

/// What all producers of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// From when on batches count.
    pub(crate) counts_from: Monotonic,
    /// When no more are sent.
    pub(crate) ends_at: Option<Monotonic>,
    /// The most batches that count, and how many were taken.
    batches_max: u64,
    taken: AtomicU64,
    /// The most batches there is room for on the disk, and how many were sent.
    room: u64,
    sent: AtomicU64,
    /// Taken by whoever sends the first batch that counts.
    pub(crate) begin: OnceLock<Snapshot>,
    pub(crate) interrupt: Interrupt,
    /// A producer failed; the others stop.
    pub(crate) failed: AtomicBool,
    pub(crate) counted: Arc<Counted>,
}

impl Shared {
    pub(crate) fn new(
        start: Monotonic,
        [warmup, duration]: [Option<Duration>; 2],
        [batches_max, room]: [u64; 2],
        interrupt: &Interrupt,
        counted: &Arc<Counted>,
    ) -> Self {
        let counts_from = start.plus(warmup.unwrap_or_default());
        Shared {
            counts_from,
            ends_at: duration.map(|duration| counts_from.plus(duration)),
            batches_max,
            taken: AtomicU64::new(0),
            room,
            sent: AtomicU64::new(0),
            begin: OnceLock::new(),
            interrupt: interrupt.clone(),
            failed: AtomicBool::new(false),
            counted: Arc::clone(counted),
        }
    }

    pub(crate) fn shall_stop(&self) -> bool {
        self.interrupt.is_asked() || self.failed.load(Ordering::Relaxed)
    }

    /// Takes the right to send one batch; false when there is none, as the disk would be full or
    /// as all that count are taken.
    pub(crate) fn take(&self, counts: bool) -> bool {
        let fits = self.sent.fetch_add(1, Ordering::Relaxed) < self.room;
        fits && (!counts || self.taken.fetch_add(1, Ordering::Relaxed) < self.batches_max)
    }

    /// Returns whether the run ended because the disk would have been full.
    pub(crate) fn ran_out_of_room(&self) -> bool {
        self.sent.load(Ordering::Relaxed) > self.room
    }
}

/// When an append should have gone and when it went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) intended: Monotonic,
    /// Before its batch was built.
    pub(crate) began: Monotonic,
    /// When the engine was called.
    pub(crate) called: Monotonic,
    pub(crate) counts: bool,
}

/// What one producer recorded of the appends that count.
#[derive(Clone, Debug)]
pub(crate) struct Stats {
    pub(crate) records: u64,
    pub(crate) batches: u64,
    /// From the intended start to the ack.
    pub(crate) ack: Latency,
    /// From the actual start to the ack.
    pub(crate) service: Latency,
    /// From the intended start to the flush.
    pub(crate) flush: Latency,
    /// How much later than intended a batch was sent.
    pub(crate) lag: Latency,
    pub(crate) stages: [Latency; STAGES.len()],
    pub(crate) last_ack: Monotonic,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Stats {
            records: 0,
            batches: 0,
            ack: Latency::new(),
            service: Latency::new(),
            flush: Latency::new(),
            lag: Latency::new(),
            stages: std::array::from_fn(|_| Latency::new()),
            last_ack: Monotonic::default(),
        }
    }

    /// Takes over what another recorded.
    pub(crate) fn merge(&mut self, other: &Stats) {
        self.records += other.records;
        self.batches += other.batches;
        let own = [&mut self.ack, &mut self.service, &mut self.flush, &mut self.lag];
        let others = [&other.ack, &other.service, &other.flush, &other.lag];
        let stages = self.stages.iter_mut().zip(&other.stages);
        for (mine, theirs) in own.into_iter().zip(others).chain(stages) {
            mine.merge(theirs);
        }
        self.last_ack = self.last_ack.max(other.last_ack);
    }

    /// Records an ack that was seen at `now`.
    pub(crate) fn acked(&mut self, sending: &Sending, appended: &Appended, now: Monotonic) {
        self.records += u64::from(appended.records);
        self.batches += 1;
        self.ack.record(now.since(sending.intended));
        self.service.record(now.since(sending.began));
        self.lag.record(sending.began.since(sending.intended));
        let before_flush = self.stages.iter_mut().zip(stages(appended)).take(STAGES_TO_WRITTEN);
        before_flush.for_each(|(latency, time)| latency.record(time));
        self.last_ack = now;
    }

    /// Records a flush. Its time is the engine's own: nobody has to wait for it to see it.
    pub(crate) fn flushed(&mut self, sending: &Sending, appended: &Appended) {
        let to_flush = appended.stages.total();
        self.flush.record(sending.called.since(sending.intended) + to_flush);
        let of_flush = self.stages.iter_mut().zip(stages(appended)).skip(STAGES_TO_WRITTEN);
        of_flush.for_each(|(latency, time)| latency.record(time));
    }
}
