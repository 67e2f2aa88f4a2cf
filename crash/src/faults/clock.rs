//! A clock that jumps. Wall-clock time is only data here: timestamps, and retention by age.
//!
//! The machine's clock is left alone: the engine gets its time through its `Io`, and here that one
//! lies. What waits is measured by the monotonic clock, which no jump moves.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use highwater::{
    Ack, FlushPolicy, Isolation, LocalEngine, LocalLog, LogOptions, Marks, Offset, Options,
    Preparation,
};
use highwater_io::system::SystemPlatform;
use highwater_io::{
    Backend, Completion, Io, IoError, Monotonic, Operation, Platform, Token, Wait, Waker,
};

use super::{Found, Site};
use crate::binary::expect;
use crate::command::find;
use crate::records::{batch, id_at};
use crate::scratch::Scratch;
use crate::timeline::RecordId;
use crate::workload::Failure;

const HOUR_MS: i64 = 3_600_000;
/// Records older than this go, whole segments of them.
const RETENTION: Duration = Duration::from_secs(600);
const SEGMENT_BYTES: u64 = 64 << 10;
/// What nobody waits for is flushed after this.
const INTERVAL: Duration = Duration::from_millis(20);
/// Records of a stretch: a few segments.
const STRETCH: u64 = 600;

/// An `Io` or a platform whose wall clock is off by some milliseconds.
#[derive(Clone, Debug)]
struct Off<T> {
    inner: T,
    by_ms: Arc<AtomicI64>,
}

impl<P: Platform> Platform for Off<P> {
    type ShardIo = Off<P::ShardIo>;
    type ControlIo = Off<P::ControlIo>;
    type ReaderIo = P::ReaderIo;

    fn shard_io(&self) -> Result<Self::ShardIo, IoError> {
        Ok(Off { inner: self.inner.shard_io()?, by_ms: Arc::clone(&self.by_ms) })
    }

    fn control_io(&self) -> Result<Self::ControlIo, IoError> {
        Ok(Off { inner: self.inner.control_io()?, by_ms: Arc::clone(&self.by_ms) })
    }

    fn reader_io(&self) -> Result<Self::ReaderIo, IoError> {
        self.inner.reader_io()
    }
}

impl<I: Io> Io for Off<I> {
    fn submit(&mut self, token: Token, operation: Operation) {
        self.inner.submit(token, operation);
    }

    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        self.inner.poll(wait, completions);
    }

    fn is_alone(&self) -> bool {
        self.inner.is_alone()
    }

    fn run_alone(&mut self, completions: &mut Vec<Completion>) {
        self.inner.run_alone(completions);
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn capacity(&self) -> usize {
        self.inner.capacity()
    }

    fn backend(&self) -> Backend {
        self.inner.backend()
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn now(&self) -> Monotonic {
        self.inner.now()
    }

    fn wall_clock_ms(&self) -> i64 {
        self.inner.wall_clock_ms() + self.by_ms.load(Ordering::Relaxed)
    }

    fn random_u64(&mut self) -> u64 {
        self.inner.random_u64()
    }
}

/// An engine with one log, driven by this thread.
struct Driven {
    engine: LocalEngine<Off<SystemPlatform>>,
    log: LocalLog,
    next: RecordId,
}

impl Driven {
    fn open(platform: Off<SystemPlatform>, options: &Options, next: u64) -> Result<Self, Failure> {
        let mut engine = LocalEngine::open(platform, options)?;
        let settings = LogOptions {
            segment_bytes: Some(SEGMENT_BYTES),
            retention: Some(RETENTION),
            prepare: Preparation::Never,
            flush: FlushPolicy { interval: Some(INTERVAL), ..FlushPolicy::NONE },
            ..LogOptions::default()
        };
        let log = engine.log("log", &settings)?;
        Ok(Driven { engine, log, next })
    }

    /// Appends a few segments of records, each named by its offset.
    fn stretch(&mut self) -> Result<Marks, Failure> {
        for _ in 0..STRETCH {
            let ticket = self.engine.append(self.log, batch([self.next])?, Ack::LEADER)?;
            let appended = self.engine.run_until(&ticket)?;
            if appended.base_offset.0 != self.next {
                return Err(
                    format!("record {} has offset {}", self.next, appended.base_offset).into()
                );
            }
            self.next += 1;
        }
        // Nobody waits for a flush: the interval has to bring it.
        for _ in 0..500 {
            let marks = self.engine.marks(self.log);
            if marks.flushed == marks.log_end {
                return Ok(marks);
            }
            self.engine.poll(INTERVAL);
        }
        Err("the flush interval is over 500 times, and nothing is flushed".into())
    }

    /// Reads all there is and checks it; returns the first and the last timestamp.
    fn check(&self) -> Result<(i64, i64), Failure> {
        let start = self.engine.marks(self.log).log_start;
        let (mut next, mut times) = (start.0, Vec::new());
        for batch in self.engine.read(self.log, start, Isolation::Durable)? {
            for record in batch?.records() {
                let record = record.map_err(|error| error.to_string())?;
                if record.offset != Offset(next) || id_at(&record) != Some(next) {
                    return Err(format!("offset {next} is not what was appended").into());
                }
                times.push(record.timestamp_ms);
                next += 1;
            }
        }
        match (times.first(), times.last()) {
            (Some(first), Some(last)) if next == self.next => Ok((*first, *last)),
            _ => Err(format!("{next} is the end, not {}", self.next).into()),
        }
    }
}

pub(super) fn jumps(site: &Site) -> Result<Found, Failure> {
    let mut found = Found::new();
    let scratch = Scratch::new("faults")?;
    let options = Options::at(scratch.path().join("data"));
    let by_ms = Arc::new(AtomicI64::new(0));
    let platform = Off { inner: SystemPlatform::new(site.backend), by_ms: Arc::clone(&by_ms) };
    let mut driven = Driven::open(platform.clone(), &options, 0)?;
    let before = driven.stretch()?;
    let (_, now) = driven.check()?;
    if before.log_start != Offset(0) {
        return Err(format!("nothing is old yet: {before:?}").into());
    }

    by_ms.store(HOUR_MS, Ordering::Relaxed);
    let ahead = driven.stretch()?;
    let (first, last) = driven.check()?;
    if ahead.log_start == Offset(0) || ahead.log_start > before.log_end || last < now + HOUR_MS {
        return Err(format!("an hour ahead: {ahead:?}, timestamps {first} to {last}").into());
    }
    found.push(format!(
        "an hour ahead: timestamps follow, what is older than {} s by that clock goes: the start \
         moves to {} of {}; flushes by interval go on",
        RETENTION.as_secs(),
        ahead.log_start,
        ahead.log_end
    ));

    by_ms.store(-HOUR_MS, Ordering::Relaxed);
    let behind = driven.stretch()?;
    let (first, last) = driven.check()?;
    if last > now || behind.log_start < ahead.log_start || behind.log_start > before.log_end {
        return Err(format!("an hour behind: {behind:?}, timestamps {first} to {last}").into());
    }
    found.push(format!(
        "an hour behind: timestamps fall, offsets do not; nothing more goes (start {}); flushes \
         by interval go on",
        behind.log_start
    ));
    driven.engine.close()?;
    let next = driven.next;
    let driven = Driven::open(platform, &options, next)?;
    driven.check()?;
    driven.engine.close()?;
    found.push(format!("opened again: {} records, lost 0", next - behind.log_start.0));
    found.push(elsewhere(site)?);
    Ok(found)
}

/// The monotonic clock itself cannot jump; that it begins elsewhere means nothing.
fn elsewhere(site: &Site) -> Result<String, Failure> {
    let Some(unshare) = find("unshare") else { return Ok("no unshare: not tried".to_owned()) };
    let scratch = Scratch::new("faults")?;
    let append = site.binary.append(&scratch.path().join("data"), "log", site.backend);
    for offset in ["0", "1000000000"] {
        let mut command = Command::new(&unshare);
        command.args(["--time", "--fork", "--monotonic", offset, "--boottime", offset]);
        command.arg(append.get_program()).args(append.get_args());
        command.args(["--flush", "interval=5"]).stdin(Stdio::null());
        expect(&mut command, 0)?;
    }
    Ok("a monotonic clock 31 years on (a time namespace): append works".to_owned())
}
