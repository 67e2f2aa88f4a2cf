//! One producer: builds batches, sends them when it is time, and sees them acked and flushed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use highwater::{Ack, BatchBuilder, Compression, Error, ErrorKind, RecordBatch};
use highwater_io::Monotonic;
use highwater_io::clock::monotonic_now;

use super::numbers::count;
use super::pace::Arrivals;
use super::payload::Payload;
use super::stats::{Sending, Shared, Snapshot, Stats};
use super::way::{NEVER, Way};
use crate::output::{Exit, Failure};

/// What surrounds a value of up to 1 MiB; of a larger one a byte or two are missing.
const RECORD_OVERHEAD_BYTES: usize = 12;
/// The most receipts kept for their flush, of all producers together. Beyond it appends are sent
/// and acked as ever, only their flush is not seen; what is kept costs the engine something.
const UNFLUSHED_MAX: usize = 1 << 14;

/// How many flushes of several logs are looked at, each time.
const OUT_OF_ORDER_MAX: usize = 64;

/// Who decides when this producer sends.
#[derive(Clone, Debug)]
pub(crate) enum Turn {
    /// Its acks: so many batches in flight.
    Closed { window: usize },
    /// The clock.
    Open(Arrivals),
}

/// What a producer does.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) payload: Payload,
    pub(crate) batch_records: u32,
    pub(crate) compression: Compression,
    pub(crate) ack: Ack,
    pub(crate) turn: Turn,
    pub(crate) producers: u32,
    /// Acks come in the order of appends: there is one log.
    pub(crate) in_order: bool,
}

/// What is next.
enum Next {
    Send { intended: Monotonic, counts: bool },
    Wait { until: Monotonic },
    End,
}

/// An append that is acked and not flushed.
struct Unflushed<H> {
    handle: H,
    sending: Sending,
}

/// One producer on one way into the engine.
pub(crate) struct Producer<W: Way> {
    way: W,
    task: Task,
    shared: Arc<Shared>,
    directory: std::path::PathBuf,
    stats: Stats,
    unacked: VecDeque<(W::Handle, Sending)>,
    unflushed: VecDeque<Unflushed<W::Handle>>,
    unflushed_max: usize,
}

/// A producer whose appends are all acked.
pub(crate) struct Sent<W: Way> {
    pub(crate) way: W,
    pub(crate) stats: Stats,
    unflushed: VecDeque<Unflushed<W::Handle>>,
}

impl<W: Way> Sent<W> {
    /// Records the flushes that are known by now, the log having been flushed.
    pub(crate) fn finish(mut self) -> Result<(W, Stats), Failure> {
        for kept in self.unflushed {
            let Some(flushed) = self.way.flushed(&kept.handle) else { return Err(unflushed()) };
            let flushed = flushed?;
            self.stats.flushed(&kept.sending, &flushed);
        }
        Ok((self.way, self.stats))
    }
}

fn unflushed() -> Failure {
    let what = "an append behind a flush of the whole log is not flushed; this is a bug";
    Failure::new(Exit::Error, what)
}

impl<W: Way> Producer<W> {
    pub(crate) fn new(
        way: W,
        task: Task,
        shared: &Arc<Shared>,
        directory: &std::path::Path,
    ) -> Self {
        let producers = usize::try_from(task.producers).unwrap_or(usize::MAX);
        Producer {
            way,
            unflushed_max: (UNFLUSHED_MAX / producers).max(1),
            task,
            shared: Arc::clone(shared),
            directory: directory.to_owned(),
            stats: Stats::new(),
            unacked: VecDeque::new(),
            unflushed: VecDeque::new(),
        }
    }

    /// Sends until the run ends, then waits for every ack.
    ///
    /// An error stops the other producers, too.
    pub(crate) fn run(mut self) -> Result<Sent<W>, Error> {
        highwater_io::thread::wake_on_time();
        match self.send_all() {
            Ok(()) => Ok(Sent { way: self.way, stats: self.stats, unflushed: self.unflushed }),
            Err(error) => {
                self.shared.failed.store(true, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    fn send_all(&mut self) -> Result<(), Error> {
        loop {
            self.collect()?;
            match self.next() {
                Next::Send { intended, counts } => self.send(intended, counts)?,
                Next::Wait { until } => self.wait(until),
                Next::End => break,
            }
        }
        while !self.unacked.is_empty() {
            self.wait(NEVER);
            self.collect()?;
        }
        Ok(())
    }

    fn next(&mut self) -> Next {
        if self.shared.shall_stop() {
            return Next::End;
        }
        let now = monotonic_now();
        let intended = match &self.task.turn {
            Turn::Closed { window } if self.unacked.len() >= *window => {
                return Next::Wait { until: NEVER };
            }
            Turn::Closed { .. } => now,
            Turn::Open(arrivals) => arrivals.next(),
        };
        // Also of an open loop that is behind: what it did not come to is not sent any more.
        if self.shared.ends_at.is_some_and(|end| intended >= end || now >= end) {
            return Next::End;
        }
        if intended > now {
            return Next::Wait { until: intended };
        }
        // By when it goes: an open loop that fell behind in the warm-up shows what came of it.
        let counts = now >= self.shared.counts_from;
        if !self.shared.take(counts) {
            return Next::End;
        }
        if let Turn::Open(arrivals) = &mut self.task.turn {
            arrivals.advance();
        }
        Next::Send { intended, counts }
    }

    fn send(&mut self, intended: Monotonic, counts: bool) -> Result<(), Error> {
        if counts {
            let Producer { way, directory, shared, .. } = self;
            shared.begin.get_or_init(|| Snapshot::begin(directory, way.counters()));
        }
        let began = monotonic_now();
        let batch = self.batch();
        let called = monotonic_now();
        let handle = self.way.append(batch, self.task.ack)?;
        self.unacked.push_back((handle, Sending { intended, began, called, counts }));
        Ok(())
    }

    fn batch(&mut self) -> RecordBatch {
        let records = usize::try_from(self.task.batch_records).unwrap_or(0);
        let record_bytes = self.task.payload.record_bytes() + RECORD_OVERHEAD_BYTES;
        let mut builder = BatchBuilder::with_capacity(record_bytes.saturating_mul(records));
        for _ in 0..self.task.batch_records {
            builder.push(None, None, Some(self.task.payload.next()), &[]);
        }
        match builder.compression(self.task.compression).build() {
            Ok(batch) => batch,
            Err(error) => panic!("the flags were checked: {error}"),
        }
    }

    fn wait(&mut self, until: Monotonic) {
        match self.unacked.front() {
            Some((handle, _)) => self.way.wait(handle, until),
            None => self.way.idle(until),
        }
    }

    /// Takes every ack that is there, and then every flush.
    fn collect(&mut self) -> Result<(), Error> {
        let (mut acked, mut now) = (0, Monotonic::default());
        let mut index = 0;
        while let Some((handle, _)) = self.unacked.get(index) {
            let Some(result) = self.way.acked(handle) else {
                if self.task.in_order {
                    break;
                }
                index += 1;
                continue;
            };
            let appended = result?;
            if acked == 0 {
                now = monotonic_now();
            }
            acked += 1;
            let Some((handle, sending)) = self.unacked.remove(index) else { break };
            if sending.counts {
                self.stats.acked(&sending, &appended, now);
                self.keep(handle, sending);
            }
        }
        if acked > 0 {
            let records = acked * u64::from(self.task.batch_records);
            let bytes = records * count(self.task.payload.record_bytes());
            self.shared.counted.add(records, bytes);
            self.collect_flushes()?;
        }
        Ok(())
    }

    fn keep(&mut self, handle: W::Handle, sending: Sending) {
        if self.unflushed.len() < self.unflushed_max {
            self.unflushed.push_back(Unflushed { handle, sending });
        }
    }

    fn collect_flushes(&mut self) -> Result<(), Error> {
        let mut index = 0;
        while let Some(kept) = self.unflushed.get(index) {
            match self.way.flushed(&kept.handle) {
                Some(flushed) => {
                    self.stats.flushed(&kept.sending, &flushed?);
                    self.unflushed.remove(index);
                }
                // Others are looked at as far as one wait may have brought them.
                None if self.task.in_order || index >= OUT_OF_ORDER_MAX => break,
                None => index += 1,
            }
        }
        Ok(())
    }
}

/// Whether an error only says that the engine stopped because of another one.
pub(crate) fn is_consequence(error: &Error) -> bool {
    error.kind() == &ErrorKind::Closed
}
