//! Looking from outside while the log is trimmed: at every operation of the look in turn.

use std::cell::Cell;
use std::path::Path;

use highwater::inspect::{OutsideReader, summaries_with, verify_with};
use highwater::{
    Ack, BackendChoice, Engine, ErrorKind, Isolation, Log, LogOptions, Offset, Preparation,
};
use highwater_io::threads::InlineIo;
use highwater_io::{Backend, Completion, Io, Monotonic, Operation, Token, Wait, Waker};

use crate::basics::{Scratch, batch};

/// An `Io` that does something else before one of its operations.
struct Interrupted<'a> {
    io: InlineIo,
    left: usize,
    first: &'a dyn Fn(),
}

impl Io for Interrupted<'_> {
    fn submit(&mut self, token: Token, operation: Operation) {
        if self.left == 0 {
            (self.first)();
        }
        self.left = self.left.wrapping_sub(1);
        self.io.submit(token, operation);
    }

    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        self.io.poll(wait, completions);
    }

    fn in_flight(&self) -> usize {
        self.io.in_flight()
    }

    fn capacity(&self) -> usize {
        self.io.capacity()
    }

    fn backend(&self) -> Backend {
        self.io.backend()
    }

    fn waker(&self) -> Waker {
        self.io.waker()
    }

    fn now(&self) -> Monotonic {
        self.io.now()
    }

    fn wall_clock_ms(&self) -> i64 {
        self.io.wall_clock_ms()
    }

    fn random_u64(&mut self) -> u64 {
        self.io.random_u64()
    }
}

/// Appends until there are some segments.
fn fill(log: &Log) {
    for _ in 0..12 {
        log.append(batch(0, 2, 12_000), Ack::LEADER).expect("taken").wait().expect("written");
    }
}

/// Trims all but the newest records, and waits until the files are gone.
fn trim(log: &Log, directory: &Path) {
    log.trim(Offset(log.marks().written.0 - 1)).expect("trimmed");
    let segments = || {
        let names = std::fs::read_dir(directory).expect("listed").map(|entry| entry.expect("one"));
        names.filter(|name| name.path().extension().is_some_and(|end| end == "log")).count()
    };
    // The older of two segments that hold the marks of log.meta stays.
    while segments() > 2 {
        let receipt = log.append(batch(0, 1, 10), Ack::LEADER_FLUSHED).expect("taken");
        receipt.wait().expect("flushed");
        std::thread::yield_now();
    }
}

fn logs(io: Interrupted<'_>, root: &Path, _: Offset, operation: usize) {
    let lines = summaries_with(io, root).expect("listed");
    assert!(lines[0].error.is_none(), "logs, operation {operation}: {lines:?}");
}

fn verifies(io: Interrupted<'_>, root: &Path, _: Offset, operation: usize) {
    let verdicts = verify_with(io, root, None).expect("verified");
    assert!(verdicts[0].damages.is_empty(), "verify, operation {operation}: {verdicts:?}");
}

fn reads_written(io: Interrupted<'_>, root: &Path, from: Offset, operation: usize) {
    reads(io, root, from, Isolation::Written, operation);
}

fn reads_durable(io: Interrupted<'_>, root: &Path, from: Offset, operation: usize) {
    reads(io, root, from, Isolation::Durable, operation);
}

fn reads(io: Interrupted<'_>, root: &Path, from: Offset, isolation: Isolation, operation: usize) {
    let read = OutsideReader::open_with(io, root, "log", from, isolation)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let case = format!("{isolation:?}, operation {operation}");
    match read {
        Ok(batches) => assert!(!batches.is_empty(), "{case}: nothing"),
        Err(error) => {
            let trimmed = matches!(error.kind(), ErrorKind::Trimmed { .. });
            assert!(trimmed, "{case}: {error}");
        }
    }
}

/// Found by readers beside a writer with a small retention: `logs` said that there is no such file.
#[test]
fn a_segment_that_is_trimmed_while_one_looks_is_neither_an_error_nor_damage() {
    let scratch = Scratch::new("interleaved");
    let engine = Engine::open(scratch.options(BackendChoice::Threads)).expect("opens");
    let options = LogOptions {
        segment_bytes: Some(64 << 10),
        prepare: Preparation::Never,
        ..LogOptions::default()
    };
    let log = engine.log("log", options).expect("made");
    let directory = scratch.0.join("log");
    for way in [logs, verifies, reads_written, reads_durable] {
        let mut operation = 0;
        loop {
            fill(&log);
            let reached = Cell::new(false);
            let first = || {
                reached.set(true);
                trim(&log, &directory);
            };
            let io = Interrupted { io: InlineIo::new(), left: operation, first: &first };
            way(io, &scratch.0, log.marks().log_start, operation);
            if !reached.get() {
                break;
            }
            operation += 1;
        }
        assert!(operation > 10, "a look has more than {operation} operations");
    }
    engine.close().expect("closes");
}
