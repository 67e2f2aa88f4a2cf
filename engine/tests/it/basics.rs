//! Append, read, reopen, truncate, close.

use std::path::PathBuf;

use highwater::{
    Ack, BackendChoice, Engine, ErrorKind, FlushPolicy, Isolation, LogOptions, Offset, Options,
    RecordBatch,
};

/// A directory that goes away with its test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let base =
            std::env::var_os("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = base.join(format!("highwater-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        Scratch(path)
    }

    pub(crate) fn options(&self, backend: BackendChoice) -> Options {
        Options { backend, ..Options::at(&self.0) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

pub(crate) fn batch(first: u64, count: u64, bytes: usize) -> RecordBatch {
    let mut builder = RecordBatch::builder();
    for number in first..first + count {
        let mut value = number.to_le_bytes().to_vec();
        value.resize(bytes.max(8), b'x');
        builder.push(None, None, Some(&value), &[]);
    }
    builder.build().expect("it fits")
}

/// Reads the numbers back and checks that they are the offsets.
pub(crate) fn read_all(log: &highwater::Log, from: u64, isolation: Isolation) -> u64 {
    let mut expected = from;
    for batch in log.read(Offset(from), isolation).expect("readable") {
        for record in batch.expect("undamaged").records() {
            let record = record.expect("well formed");
            let number = record.value.and_then(|v| v.first_chunk()).map(|b| u64::from_le_bytes(*b));
            assert_eq!((record.offset.0, number), (expected, Some(expected)));
            expected += 1;
        }
    }
    expected
}

pub(crate) fn on_each_backend(name: &str, check: impl Fn(&Scratch, BackendChoice)) {
    for backend in [BackendChoice::Auto, BackendChoice::Threads] {
        check(&Scratch::new(&format!("{name}-{backend:?}")), backend);
    }
}

#[test]
fn what_was_appended_is_read_back_after_a_close_and_after_a_mere_drop() {
    on_each_backend("roundtrip", |scratch, backend| {
        let mut next = 0;
        for life in 0..4_u64 {
            let engine = Engine::open(scratch.options(backend)).expect("opens");
            let options = LogOptions { segment_bytes: Some(1 << 20), ..Default::default() };
            let log = engine.log("orders", options).expect("opens");
            assert_eq!(log.marks().log_end, Offset(next));
            let mut receipts = Vec::new();
            for _ in 0..300 {
                let ack =
                    [Ack::NONE, Ack::LEADER, Ack::LEADER_FLUSHED, Ack::ISR][receipts.len() % 4];
                receipts.push((next, log.append(batch(next, 5, 300), ack).expect("appends")));
                next += 5;
            }
            for (base, receipt) in receipts {
                let appended = receipt.wait().expect("acked");
                assert_eq!(appended.base_offset, Offset(base));
            }
            log.flush().expect("flushes").wait().expect("flushed");
            assert_eq!(log.marks().flushed, Offset(next));
            assert_eq!(read_all(&log, 0, Isolation::Durable), next);
            assert_eq!(read_all(&log, next / 2 + 3, Isolation::Written), next);
            drop(log);
            if life % 2 == 0 {
                engine.close().expect("closes");
            }
        }
    });
}

#[test]
fn truncation_removes_the_suffix_for_good_and_appends_go_on() {
    on_each_backend("truncate", |scratch, backend| {
        let engine = Engine::open(scratch.options(backend)).expect("opens");
        let options = LogOptions { segment_bytes: Some(256 << 10), ..Default::default() };
        let log = engine.log("t", options).expect("opens");
        let append = |first: u64, count| {
            let receipt = log.append(batch(first, count, 1000), Ack::LEADER_FLUSHED);
            receipt.expect("appends").wait().expect("flushed");
        };
        for first in (0..1000).step_by(10) {
            append(first, 10);
        }
        for to in [995, 700, 705, 333, 330, 0] {
            let cut = to - to % 10;
            let marks = log.truncate(Offset(to)).expect("truncates");
            assert_eq!((marks.log_end, marks.flushed), (Offset(cut), Offset(cut)));
            append(cut, 10);
            append(cut + 10, 7);
            assert_eq!(read_all(&log, 0, Isolation::Committed), cut + 17);
            log.truncate(Offset(cut)).expect("truncates");
        }
        append(0, 3);
        drop(log);
        engine.close().expect("closes");
        let engine = Engine::open(scratch.options(backend)).expect("opens");
        let log = engine.log("t", LogOptions::default()).expect("opens");
        assert_eq!(read_all(&log, 0, Isolation::Committed), 3);
    });
}

#[test]
fn bad_input_is_refused_with_its_kind_and_changes_nothing() {
    let scratch = Scratch::new("bad");
    let engine = Engine::open(scratch.options(BackendChoice::Auto)).expect("opens");
    for name in ["", "a/b", "..", ".hidden"] {
        let error = engine.log(name, LogOptions::default()).expect_err("bad name");
        assert_eq!(error.kind(), &ErrorKind::Config, "{error}");
    }
    let options = LogOptions { segment_bytes: Some(64 << 10), ..Default::default() };
    let log = engine.log("small", options).expect("opens");
    let error = log.append(batch(0, 1, 64 << 10), Ack::LEADER).expect_err("too large");
    assert_eq!(error.kind(), &ErrorKind::TooLarge, "{error}");
    let error = log.append(batch(0, 1, 8), Ack::isr_flushed_on(2)).expect_err("one replica");
    assert_eq!(error.kind(), &ErrorKind::NotEnoughReplicas, "{error}");
    let other = LogOptions { segment_bytes: Some(128 << 10), ..Default::default() };
    assert_eq!(engine.log("small", other).expect_err("differs").kind(), &ErrorKind::Config);
    let second = Engine::open(scratch.options(BackendChoice::Auto)).expect_err("locked");
    assert!(second.to_string().contains("in use by process"), "{second}");
    assert_eq!(log.marks().log_end, Offset(0));
}

#[test]
fn every_flush_policy_lets_appends_through_and_a_batch_fills_its_segment_exactly() {
    let scratch = Scratch::new("policies");
    let engine = Engine::open(scratch.options(BackendChoice::Auto)).expect("opens");
    let policies = [
        FlushPolicy::NONE,
        FlushPolicy::EVERY_GROUP,
        FlushPolicy { records: Some(3), ..FlushPolicy::NONE },
        FlushPolicy { bytes: Some(10_000), ..FlushPolicy::NONE },
        FlushPolicy { interval: Some(std::time::Duration::from_millis(1)), ..FlushPolicy::NONE },
    ];
    for (index, flush) in policies.into_iter().enumerate() {
        for never_rewrite_flushed in [false, true] {
            let options = LogOptions {
                segment_bytes: Some(64 << 10),
                never_rewrite_flushed: Some(never_rewrite_flushed),
                flush,
                ..LogOptions::default()
            };
            let name = format!("log-{index}-{never_rewrite_flushed}");
            let log = engine.log(&name, options).expect("opens");
            let mut next = 0;
            for size in [8, 100, 5000, 61_000, 20, 30_000, 30_000, 30_000, 1] {
                log.append(batch(next, 1, size), Ack::LEADER)
                    .expect("appends")
                    .wait()
                    .expect("acked");
                next += 1;
            }
            assert_eq!(read_all(&log, 0, Isolation::Written), next);
        }
    }
    engine.close().expect("closes");
}

#[test]
fn who_is_told_of_an_append_can_read_it_at_once() {
    let scratch = Scratch::new("told");
    let engine = Engine::open(scratch.options(BackendChoice::Auto)).expect("opens");
    let log = engine.log("l", LogOptions::default()).expect("opens");
    for next in 0..200 {
        let (ack, isolation) = if next % 2 == 0 {
            (Ack::LEADER, Isolation::Committed)
        } else {
            (Ack::LEADER_FLUSHED, Isolation::Durable)
        };
        log.append(batch(next, 1, 50), ack).expect("appends").wait().expect("acked");
        assert_eq!(read_all(&log, next, isolation), next + 1);
    }
}
