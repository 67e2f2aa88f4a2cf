//! Looking at a directory from outside.

use std::path::Path;

use highwater::inspect::{OutsideReader, summaries, summaries_with, verify, verify_with};
use highwater::{Ack, BackendChoice, Engine, ErrorKind, Isolation, Log, LogOptions, Offset};
use highwater_io::clock::Monotonic;
use highwater_io::threads::InlineIo;
use highwater_io::{Backend, Completion, Io, Operation, Token, Wait, Waker};

use crate::basics::{Scratch, batch};

/// Beside each read, a writer appends more than was read.
struct Overtaken<'a> {
    io: InlineIo,
    log: &'a Log,
    appends: u64,
}

impl<'a> Overtaken<'a> {
    /// A walk over what there is at first takes fewer reads than this by far.
    const APPENDS_MAX: u64 = 300;

    fn by(log: &'a Log) -> Self {
        Overtaken { io: InlineIo::new(), log, appends: 0 }
    }
}

impl Io for Overtaken<'_> {
    fn submit(&mut self, token: Token, operation: Operation) {
        if matches!(operation, Operation::Read { .. }) {
            self.appends += 1;
            assert!(self.appends < Self::APPENDS_MAX, "this runs after the writer");
            let receipt = self.log.append(batch(0, 8, 10_000), Ack::LEADER).expect("appends");
            receipt.wait().expect("acked");
        }
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

/// Found by a program that listed the logs beside a fast writer and never came to an end.
#[test]
fn who_looks_beside_a_faster_writer_comes_to_an_end_and_sees_what_was_there() {
    let segment_bytes = Some(256 << 10);
    look_beside("overtaken", LogOptions { segment_bytes, ..LogOptions::default() });
}

/// The segments that one looks at are gone before one has seen them all, each time.
#[test]
fn who_looks_beside_a_writer_that_trims_faster_comes_to_an_end_without_an_error() {
    let (segment_bytes, retention_bytes) = (Some(256 << 10), Some(512 << 10));
    look_beside("outlived", LogOptions { segment_bytes, retention_bytes, ..LogOptions::default() });
}

fn look_beside(directory: &str, options: LogOptions) {
    let scratch = Scratch::new(directory);
    let engine = Engine::open(scratch.options(BackendChoice::Threads)).expect("opens");
    let trims = options.retention_bytes.is_some();
    let log = engine.log("busy", options).expect("opens");
    let check = |name: &str, look: &dyn Fn(Overtaken<'_>, &Path) -> Offset| {
        let before = log.marks();
        let end = look(Overtaken::by(&log), &scratch.0);
        assert!(end >= before.written && end <= log.marks().written, "{name}: {end} {before:?}");
    };
    for _ in 0..20 {
        log.append(batch(0, 8, 10_000), Ack::LEADER).expect("appends").wait().expect("acked");
    }
    check("logs", &|io, directory| {
        let lines = summaries_with(io, directory).expect("listed");
        assert!(lines[0].error.is_none(), "{lines:?}");
        lines[0].written
    });
    check("verify", &|io, directory| {
        let verdicts = verify_with(io, directory, None).expect("verified");
        assert!(verdicts[0].damages.is_empty(), "{verdicts:?}");
        verdicts[0].log_end
    });
    check("read", &|io, directory| {
        let from = log.marks().log_start;
        let reader = OutsideReader::open_with(io, directory, "busy", from, Isolation::Written);
        let read = reader.and_then(|reader| {
            reader.map(|batch| batch.map(|batch| batch.header().end_offset())).last().transpose()
        });
        match read {
            Ok(end) => end.expect("not empty"),
            // A reader that is too slow is told; the others go on with what is left.
            Err(error) if trims && matches!(error.kind(), ErrorKind::Trimmed { .. }) => {
                log.marks().written
            }
            Err(error) => panic!("{error}"),
        }
    });
    engine.close().expect("closes");
}

#[test]
fn a_log_whose_making_was_cut_short_is_empty_and_not_damaged() {
    let root = std::env::temp_dir().join(format!("highwater-cut-short-{}", std::process::id()));
    std::fs::create_dir_all(root.join(".pool")).expect("made");
    std::fs::create_dir_all(root.join("early")).expect("made");
    for meta in [None, Some(vec![]), Some(vec![0; 8192])] {
        if let Some(bytes) = meta {
            std::fs::write(root.join("early/log.meta"), bytes).expect("written");
        }
        for isolation in [Isolation::Committed, Isolation::Durable] {
            let reader = OutsideReader::open(&root, "early", Offset(0), isolation);
            assert_eq!(reader.expect("opens").count(), 0);
        }
        let lines = summaries(&root).expect("listed");
        assert!(lines.len() == 1 && lines[0].error.is_none(), "{lines:?}");
        assert!(verify(&root, None).expect("verified")[0].damages.is_empty());
    }
    std::fs::remove_dir_all(&root).expect("removed");
}

/// Found by flipping bits in the files of a killed log: a reader of what is durable took the mark
/// in front of the damage for the highest there is, and ended there without a word.
#[test]
fn damage_below_a_mark_that_only_a_later_batch_knows_is_told_at_every_isolation() {
    const BATCHES: usize = 6;
    let scratch = Scratch::new("outside-mark");
    let engine = Engine::open(scratch.options(BackendChoice::Threads)).expect("opens");
    let log = engine.log("log", LogOptions::default()).expect("opens");
    let meta = std::fs::read(scratch.0.join("log/log.meta")).expect("there");
    for _ in 0..BATCHES {
        let receipt = log.append(batch(0, 1, 500), Ack::LEADER_FLUSHED).expect("appends");
        receipt.wait().expect("acked");
    }
    let reader = log.read(Offset(0), Isolation::Durable).expect("reads");
    let ends = reader.map(|batch| {
        let batch = batch.expect("undamaged");
        let header = batch.header();
        header.position.0 + u64::from(header.total_bytes)
    });
    let ends: Vec<_> = ends.map(|end| usize::try_from(end).expect("small")).collect();
    let segment = "log/00000000000000000000.log";
    let bytes = std::fs::read(scratch.0.join(segment)).expect("there");
    engine.close().expect("closes");
    // As a crash leaves it: log.meta knows of nothing that was flushed.
    let copy = Scratch::new("outside-mark-copy");
    for directory in [".pool", "log"] {
        std::fs::create_dir_all(copy.0.join(directory)).expect("made");
    }
    std::fs::write(copy.0.join("log/log.meta"), meta).expect("written");
    for (damaged, end) in ends.iter().enumerate() {
        let mut bytes = bytes.clone();
        bytes[end - 9] ^= 4;
        std::fs::write(copy.0.join(segment), bytes).expect("written");
        for isolation in [Isolation::Written, Isolation::Durable] {
            let reader = OutsideReader::open(&copy.0, "log", Offset(0), isolation).expect("opens");
            let read: Vec<_> = reader.collect();
            let good = read.iter().take_while(|batch| batch.is_ok()).count();
            assert_eq!(good, damaged, "{isolation:?}");
            // Behind the last batch there is none that knows of it.
            let told = read.get(good).is_some_and(|batch| {
                matches!(batch, Err(error) if matches!(error.kind(), ErrorKind::Corrupt { .. }))
            });
            assert_eq!(told, damaged + 1 < BATCHES, "batch {damaged}, {isolation:?}");
        }
    }
}
