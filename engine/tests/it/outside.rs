//! Looking at a directory from outside.

use std::path::Path;

use highwater::inspect::{OutsideReader, summaries, summaries_with, verify, verify_with};
use highwater::{Ack, BackendChoice, Engine, Isolation, Log, LogOptions, Offset};
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
    let scratch = Scratch::new("overtaken");
    let engine = Engine::open(scratch.options(BackendChoice::Threads)).expect("opens");
    let options = LogOptions { segment_bytes: Some(256 << 10), ..LogOptions::default() };
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
        let batches = reader.expect("opens").map(|batch| batch.expect("undamaged"));
        batches.last().expect("not empty").header().end_offset()
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
