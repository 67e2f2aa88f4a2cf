//! The two ways into the engine, as a producer sees them, and what else of the engine's surface
//! the bench leans on: everything that follows a change of it stands here.

use std::sync::Arc;
use std::time::Duration;

use highwater::{
    Ack, Appended, BackendChoice, Engine, ErrorKind, Exposure, LocalEngine, LocalLog, Log,
    LogMetrics, LogOptions, Marks, Mode, Options, Preparation, Receipt, RecordBatch, Result,
    Ticket,
};
use highwater_io::Monotonic;
use highwater_io::clock::monotonic_now;
use highwater_io::system::SystemPlatform;

use super::flags::PrepareName;

/// The longest wait without a look at whether the run was interrupted.
const LOOK_UP: Duration = Duration::from_millis(100);

/// The limit of a wait that has none.
pub(crate) const NEVER: Monotonic = Monotonic(u64::MAX);

/// The names of an append's stages, in the order of [`stages`].
pub(crate) const STAGES: [&str; 5] = ["queued", "submitted", "written", "flush_waited", "flushed"];
/// So many of them come before the flush.
pub(crate) const STAGES_TO_WRITTEN: usize = 3;

/// Returns how long an append spent in each stage.
pub(crate) fn stages(appended: &Appended) -> [Duration; STAGES.len()] {
    let stages = appended.stages;
    [stages.queued, stages.submitted, stages.written, stages.flush_waited, stages.flushed]
}

/// What a log counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogCounters {
    pub(crate) flushes: u64,
    pub(crate) flush_reasons: [(&'static str, u64); FLUSH_REASONS],
    pub(crate) groups: u64,
    /// Whole blocks handed to the device, tail blocks each time.
    pub(crate) written_bytes: u64,
    /// The most there ever was.
    pub(crate) exposure_max: Exposure,
}

/// How many reasons to flush the engine tells apart.
const FLUSH_REASONS: usize = 8;

impl From<&LogMetrics> for LogCounters {
    fn from(metrics: &LogMetrics) -> Self {
        LogCounters {
            flushes: metrics.flushes,
            flush_reasons: metrics.flush_reasons.named(),
            groups: metrics.groups,
            written_bytes: metrics.written_bytes,
            exposure_max: metrics.exposure_max,
        }
    }
}

impl LogCounters {
    /// Returns what was counted since `earlier`; what was the most stays the most.
    pub(crate) fn since(&self, earlier: &LogCounters) -> LogCounters {
        let mut counted = *self;
        counted.flushes -= earlier.flushes;
        counted.groups -= earlier.groups;
        counted.written_bytes -= earlier.written_bytes;
        for (mine, theirs) in counted.flush_reasons.iter_mut().zip(earlier.flush_reasons) {
            mine.1 -= theirs.1;
        }
        counted
    }
}

/// What a bench asks of a new log.
#[derive(Clone, Debug)]
pub(crate) struct LogWishes {
    /// At least one.
    pub(crate) names: Vec<String>,
    pub(crate) flush: highwater::FlushPolicy,
    pub(crate) segment_bytes: Option<u64>,
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) prepare: PrepareName,
    pub(crate) mode: Mode,
}

impl LogWishes {
    fn options(&self) -> LogOptions {
        LogOptions {
            segment_bytes: self.segment_bytes,
            flush: self.flush,
            mode: self.mode,
            retention_bytes: self.retention_bytes,
            prepare: match self.prepare {
                PrepareName::Never => Preparation::Never,
                PrepareName::Ahead => Preparation::Ahead,
                PrepareName::AtOpen => Preparation::AtOpen,
            },
            ..LogOptions::default()
        }
    }
}

/// A way to append: what producers are generic over.
pub(crate) trait Way {
    /// The end of an append to come.
    type Handle;

    fn append(&mut self, batch: RecordBatch, ack: Ack) -> Result<Self::Handle>;
    fn acked(&self, handle: &Self::Handle) -> Option<Result<Appended>>;
    fn flushed(&self, handle: &Self::Handle) -> Option<Result<Appended>>;
    /// Waits for the ack of `handle`, or until `until`; with a limit perhaps only a little.
    fn wait(&mut self, handle: &Self::Handle, until: Monotonic);
    /// Waits until `until`, or a little; with a thread of its own the engine works on.
    fn idle(&mut self, until: Monotonic);
    /// Flushes the logs; returns when that is done.
    fn flush(&mut self) -> Result<()>;
    fn marks(&self) -> Vec<Marks>;
    /// Returns what the logs counted since they were made; zeros of an engine that has stopped.
    fn counters(&mut self) -> LogCounters;
}

/// Returns how long it is until then, at most a little.
fn up_to(until: Monotonic) -> Duration {
    until.since(monotonic_now()).min(LOOK_UP)
}

/// Through the queues to the shards' own threads.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    engine: Arc<Engine>,
    logs: Vec<Log>,
    next: usize,
}

impl Queued {
    /// Returns the way of another producer, which begins with another log.
    pub(crate) fn share(&self, producer: u32) -> Queued {
        let step = usize::try_from(producer).unwrap_or(0).wrapping_mul(31);
        Queued { next: step % self.logs.len(), ..self.clone() }
    }
}

impl Way for Queued {
    type Handle = Receipt;

    fn append(&mut self, batch: RecordBatch, ack: Ack) -> Result<Receipt> {
        self.next = (self.next + 1) % self.logs.len();
        self.logs[self.next].append(batch, ack)
    }

    fn acked(&self, receipt: &Receipt) -> Option<Result<Appended>> {
        receipt.poll()
    }

    fn flushed(&self, receipt: &Receipt) -> Option<Result<Appended>> {
        receipt.poll_flushed()
    }

    fn wait(&mut self, receipt: &Receipt, until: Monotonic) {
        // The answer is polled. A wait without a limit needs no timer.
        if until == NEVER {
            drop(receipt.wait());
        } else {
            drop(receipt.wait_timeout(up_to(until)));
        }
    }

    fn idle(&mut self, until: Monotonic) {
        std::thread::park_timeout(up_to(until));
    }

    fn flush(&mut self) -> Result<()> {
        let wishes: Vec<_> = self.logs.iter().map(Log::flush).collect::<Result<_>>()?;
        wishes.iter().try_for_each(|wish| wish.wait().map(drop))
    }

    fn marks(&self) -> Vec<Marks> {
        self.logs.iter().map(Log::marks).collect()
    }

    fn counters(&mut self) -> LogCounters {
        let total = self.engine.metrics().map(|metrics| metrics.total());
        total.map_or_else(|_| LogCounters::default(), |total| (&total).into())
    }
}

/// On the caller's own thread.
#[derive(Debug)]
pub(crate) struct Local {
    engine: LocalEngine<SystemPlatform>,
    logs: Vec<LocalLog>,
    next: usize,
}

impl Way for Local {
    type Handle = Ticket;

    fn append(&mut self, batch: RecordBatch, ack: Ack) -> Result<Ticket> {
        self.next = (self.next + 1) % self.logs.len();
        self.engine.append(self.logs[self.next], batch, ack)
    }

    fn acked(&self, ticket: &Ticket) -> Option<Result<Appended>> {
        ticket.acked()
    }

    fn flushed(&self, ticket: &Ticket) -> Option<Result<Appended>> {
        ticket.flushed()
    }

    fn wait(&mut self, ticket: &Ticket, until: Monotonic) {
        if until != NEVER || self.engine.run_until(ticket).is_err() {
            self.engine.poll(up_to(until));
        }
    }

    fn idle(&mut self, until: Monotonic) {
        self.engine.poll(up_to(until));
    }

    fn flush(&mut self) -> Result<()> {
        let tickets: Vec<_> = self.logs.iter().map(|log| self.engine.flush(*log)).collect();
        tickets.iter().try_for_each(|ticket| self.engine.run_until(ticket).map(drop))
    }

    fn marks(&self) -> Vec<Marks> {
        self.logs.iter().map(|log| self.engine.marks(*log)).collect()
    }

    fn counters(&mut self) -> LogCounters {
        (&self.engine.metrics().total()).into()
    }
}

/// An open engine, one way or the other, with the log of the bench.
#[derive(Debug)]
pub(crate) enum Opened {
    Queued(Arc<Engine>, Box<Queued>),
    Local(Box<Local>),
}

impl Opened {
    /// Opens the directory and makes the log.
    pub(crate) fn open(options: Options, local: bool, wishes: &LogWishes) -> Result<Opened> {
        if local {
            let platform = SystemPlatform::new(options.backend);
            let mut engine = LocalEngine::open(platform, &options)?;
            let options = wishes.options();
            let logs = wishes.names.iter().map(|name| engine.log(name, &options));
            let logs = logs.collect::<Result<_>>()?;
            return Ok(Opened::Local(Box::new(Local { engine, logs, next: 0 })));
        }
        let engine = Engine::open(options)?;
        let logs = wishes.names.iter().map(|name| engine.log(name, wishes.options()));
        match logs.collect::<Result<_>>() {
            Ok(logs) => {
                let engine = Arc::new(engine);
                let queued = Queued { engine: Arc::clone(&engine), logs, next: 0 };
                Ok(Opened::Queued(engine, Box::new(queued)))
            }
            Err(error) => {
                // The first error is the one to tell.
                drop(engine.close());
                Err(error)
            }
        }
    }

    pub(crate) fn backend_name(&self) -> &'static str {
        match self {
            Opened::Queued(engine, _) => engine.backend().name(),
            Opened::Local(local) => local.engine.backend().name(),
        }
    }

    /// Returns whether something else serves than what `asked` would like best, and why.
    pub(crate) fn fallback(&self, asked: BackendChoice) -> Option<String> {
        let reason = match self {
            Opened::Queued(engine, _) => engine.backend_fallback_reason(),
            Opened::Local(_) => None,
        };
        let fell = asked == BackendChoice::Auto && self.backend_name() != "uring";
        reason.or_else(|| fell.then(|| "the kernel or a container forbids it".to_owned()))
    }

    pub(crate) fn close(self) -> Result<()> {
        match self {
            Opened::Queued(engine, queued) => {
                drop(queued);
                close(engine)
            }
            Opened::Local(local) => local.engine.close(),
        }
    }
}

/// Closes the engine, which the caller is the last to hold.
pub(crate) fn close(engine: Arc<Engine>) -> Result<()> {
    let Some(engine) = Arc::into_inner(engine) else { panic!("the producers are gone") };
    engine.close()
}

/// Returns whether an error is a disk that is full.
pub(crate) fn is_full(error: &highwater::Error) -> bool {
    error.kind() == &ErrorKind::Full
}
