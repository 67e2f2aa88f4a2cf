//! The whole public API against a model that is a list: random operations, closes and crashes (an
//! engine that is dropped), on [`Engine`] with both backends and on [`LocalEngine`].
//!
//! The model says exactly what may be there: what was seen to be written survives the crash, and
//! nothing that was not appended appears; the log ends behind a batch. After a close all of it is
//! there.

use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use highwater::{
    Ack, BackendChoice, Engine, Error, ErrorKind, FlushPolicy, Isolation, LocalEngine, LocalLog,
    Log, LogOptions, Marks, Offset, Options, Receipt, RecordBatch, Result, Ticket,
};
use highwater_io::Io;
use highwater_io::system::SystemPlatform;
use highwater_io::threads::InlineIo;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::basics::Scratch;

/// Set it to run what an earlier run printed.
const SEED: &str = "HIGHWATER_SEED";
/// Histories on each kind of engine.
const CASES: u32 = 16;
const OPERATIONS_MAX: usize = 30;
const LOG: &str = "orders";

/// One call, or one end of a life.
#[derive(Clone, Debug)]
enum Operation {
    Append { records: u8, bytes: u16, ack: u8, wait: bool, by: By },
    Flush { wait: bool },
    Read { from: u8, isolation: u8 },
    Trim { to: u8 },
    Truncate { to: u8 },
    Reopen,
    Close,
    Crash,
}

/// Which call appends.
#[derive(Clone, Copy, Debug)]
enum By {
    Append,
    TryAppend,
    Reserve,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let by = prop_oneof![Just(By::Append), Just(By::TryAppend), Just(By::Reserve)];
    let append = (any::<u8>(), any::<u16>(), any::<u8>(), any::<bool>(), by).prop_map(
        |(records, bytes, ack, wait, by)| Operation::Append { records, bytes, ack, wait, by },
    );
    let read = (any::<u8>(), any::<u8>())
        .prop_map(|(from, isolation)| Operation::Read { from, isolation });
    let operation = prop_oneof![
        10 => append,
        2 => any::<bool>().prop_map(|wait| Operation::Flush { wait }),
        4 => read,
        1 => any::<u8>().prop_map(|to| Operation::Trim { to }),
        1 => any::<u8>().prop_map(|to| Operation::Truncate { to }),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::Close),
        1 => Just(Operation::Crash),
    ];
    prop::collection::vec(operation, 1..OPERATIONS_MAX)
}

/// A kind of engine, open.
trait Subject: Sized {
    /// What tells of an append.
    type Answer;

    fn open(scratch: &Scratch) -> Self;
    fn append(&mut self, batch: RecordBatch, ack: Ack, by: By) -> Result<Self::Answer>;
    fn wait(&mut self, answer: &Self::Answer) -> Result<u64>;
    fn flush(&mut self) -> Result<Self::Answer>;
    fn marks(&self) -> Marks;
    /// Returns the offsets and values from `from` to the end of what `isolation` shows.
    fn read(&self, from: u64, isolation: Isolation) -> Result<Vec<(u64, Vec<u8>)>>;
    fn trim(&mut self, to: u64) -> Result<Marks>;
    fn truncate(&mut self, to: u64) -> Result<Marks>;
    fn reopen(&mut self) -> Result<Marks>;
    fn close(self) -> Result<()>;
}

fn log_options() -> LogOptions {
    LogOptions {
        segment_bytes: Some(64 << 10),
        flush: FlushPolicy { bytes: Some(30_000), ..FlushPolicy::NONE },
        ..LogOptions::default()
    }
}

fn collect<I: Io>(reader: highwater::Reader<I>) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut found = Vec::new();
    for batch in reader {
        for record in batch?.records() {
            let record = record.expect("what is served is well formed");
            found.push((record.offset.0, record.value.unwrap_or_default().to_vec()));
        }
    }
    Ok(found)
}

/// An engine with a thread of its own, on the backend that is asked for.
struct Threaded<const THREADS: bool> {
    engine: Engine,
    log: Log,
}

impl<const THREADS: bool> Subject for Threaded<THREADS> {
    type Answer = Receipt;

    fn open(scratch: &Scratch) -> Self {
        let backend = if THREADS { BackendChoice::Threads } else { BackendChoice::Auto };
        let engine = Engine::open(scratch.options(backend)).expect("opens");
        let log = engine.log(LOG, log_options()).expect("opens");
        Threaded { engine, log }
    }

    fn append(&mut self, batch: RecordBatch, ack: Ack, by: By) -> Result<Receipt> {
        match by {
            By::Append => self.log.append(batch, ack),
            By::TryAppend => self.log.try_append(batch, ack).map_err(|(_, error)| error),
            By::Reserve => {
                let mut context = Context::from_waker(Waker::noop());
                let mut permit =
                    pin!(self.log.reserve(usize::try_from(batch.disk_bytes()).expect("small")));
                match permit.as_mut().poll(&mut context) {
                    Poll::Ready(permit) => permit?.append(batch, ack),
                    // A full queue: as good a moment to ask again as any.
                    Poll::Pending => self.log.append(batch, ack),
                }
            }
        }
    }

    fn wait(&mut self, receipt: &Receipt) -> Result<u64> {
        receipt.wait().map(|appended| appended.base_offset.0)
    }

    fn flush(&mut self) -> Result<Receipt> {
        self.log.flush()
    }

    fn marks(&self) -> Marks {
        self.log.marks()
    }

    fn read(&self, from: u64, isolation: Isolation) -> Result<Vec<(u64, Vec<u8>)>> {
        collect(self.log.read(Offset(from), isolation)?)
    }

    fn trim(&mut self, to: u64) -> Result<Marks> {
        self.log.trim(Offset(to))
    }

    fn truncate(&mut self, to: u64) -> Result<Marks> {
        self.log.truncate(Offset(to))
    }

    fn reopen(&mut self) -> Result<Marks> {
        self.log.reopen()
    }

    fn close(self) -> Result<()> {
        drop(self.log);
        self.engine.close()
    }
}

/// An engine that its caller drives.
struct Local {
    engine: LocalEngine<SystemPlatform>,
    log: LocalLog,
}

impl Subject for Local {
    type Answer = Ticket;

    fn open(scratch: &Scratch) -> Self {
        let platform = SystemPlatform::default();
        let mut engine = LocalEngine::open(platform, &Options::at(&scratch.0)).expect("opens");
        let log = engine.log(LOG, &log_options()).expect("opens");
        Local { engine, log }
    }

    fn append(&mut self, batch: RecordBatch, ack: Ack, _: By) -> Result<Ticket> {
        self.engine.append(self.log, batch, ack)
    }

    fn wait(&mut self, ticket: &Ticket) -> Result<u64> {
        self.engine.run_until(ticket).map(|appended| appended.base_offset.0)
    }

    fn flush(&mut self) -> Result<Ticket> {
        Ok(self.engine.flush(self.log))
    }

    fn marks(&self) -> Marks {
        self.engine.marks(self.log)
    }

    fn read(&self, from: u64, isolation: Isolation) -> Result<Vec<(u64, Vec<u8>)>> {
        collect(self.engine.read(self.log, Offset(from), isolation)?)
    }

    fn trim(&mut self, to: u64) -> Result<Marks> {
        let ticket = self.engine.trim(self.log, Offset(to));
        self.engine.run_until(&ticket).map(|_| self.engine.marks(self.log))
    }

    fn truncate(&mut self, to: u64) -> Result<Marks> {
        self.engine.truncate(self.log, Offset(to))
    }

    fn reopen(&mut self) -> Result<Marks> {
        self.engine.reopen(self.log)
    }

    fn close(self) -> Result<()> {
        self.engine.close()
    }
}

/// The list.
#[derive(Debug, Default)]
struct Model {
    /// The value at each offset.
    values: Vec<Vec<u8>>,
    /// Where batches end.
    ends: Vec<u64>,
    start: u64,
    /// Everything below was seen to be written, or flushed.
    written: u64,
    flushed: u64,
    attempts: u64,
}

impl Model {
    fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Returns an offset of the log, its end included.
    fn share(&self, share: u8) -> u64 {
        self.start + (self.end() - self.start) * u64::from(share) / 255
    }

    fn make(&mut self, records: u8, bytes: u16) -> RecordBatch {
        let mut builder = RecordBatch::builder();
        // Three of the large ones fill a segment.
        let (count, most) = if records > 220 { (1, 20_000) } else { (1 + records % 9, 900) };
        for _ in 0..count {
            self.attempts += 1;
            let mut value = self.attempts.to_le_bytes().to_vec();
            value.resize(8 + usize::from(bytes % most), b'x');
            builder.push(None, None, Some(&value), &[]);
            self.values.push(value);
        }
        self.ends.push(u64::try_from(self.values.len()).expect("few"));
        builder.build().expect("it fits")
    }

    fn observe(&mut self, marks: &Marks) {
        let Marks { log_start, flushed, written, log_end, .. } = *marks;
        assert!(log_start <= flushed && flushed <= written && written <= log_end, "{marks:?}");
        assert!(log_end.0 <= self.end(), "D7: {marks:?}, {} were appended", self.end());
        assert!(self.written <= written.0 && self.flushed <= flushed.0, "marks rise: {marks:?}");
        assert_eq!(log_start.0, self.start, "the start moves only when it is asked to");
        (self.written, self.flushed) = (written.0, flushed.0);
    }

    /// The log ends at `end` now, and all of it counts as flushed.
    fn settle(&mut self, end: u64) {
        assert!(end == 0 || self.ends.contains(&end), "D4: {end} is not behind a batch");
        self.ends.retain(|own| *own <= end);
        self.values.truncate(usize::try_from(end).expect("few"));
        self.start = self.start.min(end);
        (self.written, self.flushed) = (end, end);
    }

    fn check_read(&self, from: u64, floor: u64, found: &[(u64, Vec<u8>)]) {
        for (expected, (offset, value)) in (from..).zip(found) {
            let at = usize::try_from(*offset).expect("few");
            assert_eq!(*offset, expected, "A1: offsets are dense");
            assert_eq!(Some(value), self.values.get(at), "D7: the value at {offset}");
        }
        let read_to = from + u64::try_from(found.len()).expect("few");
        assert!(read_to >= floor, "the read ended at {read_to}, below {floor}");
    }
}

/// Runs one history.
fn check<S: Subject>(scratch: &Scratch, operations: &[Operation]) {
    drop(std::fs::remove_dir_all(&scratch.0));
    let mut model = Model::default();
    let mut subject = S::open(scratch);
    for operation in operations {
        subject = step(subject, scratch, &mut model, operation);
        model.observe(&subject.marks());
    }
    subject.close().expect("closes");
    let subject = S::open(scratch);
    assert_eq!(subject.marks().log_end.0, model.end(), "a close keeps everything");
    let found = subject.read(model.start, Isolation::Durable).expect("readable");
    model.check_read(model.start, model.end(), &found);
}

fn step<S: Subject>(
    mut subject: S,
    scratch: &Scratch,
    model: &mut Model,
    operation: &Operation,
) -> S {
    match *operation {
        Operation::Append { records, bytes, ack, wait, by } => {
            let ack = [Ack::NONE, Ack::LEADER, Ack::LEADER_FLUSHED, Ack::ISR_FLUSHED]
                [usize::from(ack) % 4];
            let base = model.end();
            let batch = model.make(records, bytes);
            let answer = subject.append(batch, ack, by).expect("there is room");
            if wait {
                assert_eq!(subject.wait(&answer).expect("acked"), base, "A9");
                let marks = subject.marks();
                assert!(ack == Ack::NONE || marks.written.0 >= model.end(), "D1: {marks:?}");
                let flushed = ack != Ack::LEADER_FLUSHED && ack != Ack::ISR_FLUSHED;
                assert!(flushed || marks.flushed.0 >= model.end(), "D1: {marks:?}");
            }
        }
        Operation::Flush { wait } => {
            let answer = subject.flush().expect("asked for");
            if wait {
                subject.wait(&answer).expect("flushed");
                assert!(subject.marks().flushed.0 >= model.end(), "D1: {:?}", subject.marks());
            }
        }
        Operation::Read { from, isolation } => read(&subject, model, from, isolation),
        Operation::Trim { to } => {
            // What is queued has no offset yet.
            let to = model.share(to).min(subject.marks().log_end.0);
            let marks = subject.trim(to).expect("inside the log");
            assert_eq!(marks.log_start.0, to, "a trim to {to}");
            model.start = to;
        }
        Operation::Truncate { to } => {
            let to = model.share(to);
            let marks = subject.truncate(to).expect("inside the log");
            let cut = model.ends.iter().rev().copied().find(|end| *end <= to).unwrap_or(0);
            assert_eq!(marks.log_end.0, cut, "a truncation to {to}");
            model.settle(cut);
        }
        Operation::Reopen => {
            let marks = subject.reopen().expect("nothing is wrong");
            assert_eq!(marks.log_end.0, model.end(), "what was queued is written first");
            model.settle(marks.log_end.0);
        }
        Operation::Close => {
            subject.close().expect("closes");
            subject = S::open(scratch);
            assert_eq!(subject.marks().log_end.0, model.end(), "a close keeps everything");
            model.settle(model.end());
        }
        Operation::Crash => {
            model.observe(&subject.marks());
            drop(subject);
            subject = S::open(scratch);
            let end = subject.marks().log_end.0;
            assert!(end >= model.written, "D4: {end}, but {} was written", model.written);
            model.settle(end);
        }
    }
    subject
}

fn read<S: Subject>(subject: &S, model: &mut Model, from: u8, isolation: u8) {
    let all = [Isolation::Written, Isolation::Committed, Isolation::Durable];
    let isolation = all[usize::from(isolation) % 3];
    model.observe(&subject.marks());
    let floor = if isolation == Isolation::Durable { model.flushed } else { model.written };
    if from == 0 && model.start > 0 {
        let below = subject.read(model.start - 1, isolation);
        let kind = below.map_err(|error| Error::kind(&error).clone());
        assert_eq!(kind, Err(ErrorKind::Trimmed { log_start: Offset(model.start) }));
    }
    let from = model.share(from);
    let found = subject.read(from, isolation).expect("nothing is damaged");
    model.check_read(from, floor, &found);
}

fn conform<S: Subject>(name: &str) {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| InlineIo::new().random_u64());
    println!("again: {SEED}={seed} cargo test -p highwater --test it {name}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: CASES,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let scratch = Scratch::new(name);
    let result = TestRunner::new_with_rng(config, random).run(&operations(), |operations| {
        check::<S>(&scratch, &operations);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn an_engine_on_the_best_backend_is_a_list() {
    conform::<Threaded<false>>("an_engine_on_the_best_backend_is_a_list");
}

#[test]
fn an_engine_on_threads_is_a_list() {
    conform::<Threaded<true>>("an_engine_on_threads_is_a_list");
}

#[test]
fn a_local_engine_is_a_list() {
    conform::<Local>("a_local_engine_is_a_list");
}
