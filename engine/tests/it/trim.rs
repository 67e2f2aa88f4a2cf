//! Trim, retention, and segments that are used again.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use highwater::inspect::{OutsideReader, verify};
use highwater::{
    Ack, BackendChoice, Engine, ErrorKind, FlushPolicy, Isolation, LocalEngine, Log, LogOptions,
    Mode, Offset, Options, Preparation,
};
use highwater_io::IoErrorKind;
use highwater_io::sim::{Fault, FaultRule, SimDisk, SimProfile};

use crate::basics::{Scratch, batch, on_each_backend, read_all};

const SEGMENT_BYTES: u64 = 256 << 10;

fn options() -> LogOptions {
    LogOptions { segment_bytes: Some(SEGMENT_BYTES), ..Default::default() }
}

/// Appends `count` batches of ten records of about 1 KiB; returns the log's end.
fn fill(log: &Log, count: u64) -> u64 {
    let mut next = log.marks().log_end.0;
    for round in 0..count {
        let ack = if round % 7 == 0 { Ack::LEADER_FLUSHED } else { Ack::LEADER };
        log.append(batch(next, 10, 1000), ack).expect("appends").wait().expect("acked");
        next += 10;
    }
    next
}

fn names(directory: &Path, end: &str) -> usize {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names.filter(|name| name.to_string_lossy().ends_with(end)).count()
}

fn verify_clean(scratch: &Scratch) {
    for verdict in verify(&scratch.0, None).expect("verifies") {
        assert!(verdict.damages.is_empty(), "{verdict:?}");
    }
}

/// Waits, by turns of the shard, until the log's directory holds at most so many segments.
fn settle(log: &Log, directory: &Path, most: usize) {
    while names(directory, ".log") > most {
        log.flush().expect("runs").wait().expect("flushed");
    }
}

#[test]
fn what_is_trimmed_is_gone_at_once_and_for_good_and_the_rest_stays() {
    on_each_backend("trim", |scratch, backend| {
        let engine = Engine::open(scratch.options(backend)).expect("opens");
        let log = engine.log("orders", options()).expect("opens");
        let end = fill(&log, 200);
        let mut old_reader = log.read(Offset(0), Isolation::Written).expect("reads");
        let to = Offset(end / 2 + 3);
        let marks = log.trim(to).expect("trims");
        assert_eq!(marks.log_start, to);
        let first = old_reader.next().expect("an answer");
        let kind = first.expect_err("it is gone").kind().clone();
        assert_eq!(kind, ErrorKind::Trimmed { log_start: to });
        assert!(log.read(Offset(to.0 - 1), Isolation::Written).is_err());
        assert_eq!(read_all(&log, to.0, Isolation::Committed), end);
        assert_eq!(log.trim(Offset(5)).expect("changes nothing").log_start, to);
        let above = log.trim(Offset(end + 1)).expect_err("above the end");
        assert_eq!(above.kind(), &ErrorKind::Config);
        let end = fill(&log, 100);
        settle(&log, &scratch.0.join("orders"), 9);
        engine.close().expect("closes");
        verify_clean(scratch);
        let engine = Engine::open(scratch.options(backend)).expect("opens");
        let log = engine.log("orders", options()).expect("opens");
        assert_eq!(log.marks().log_start, to);
        assert_eq!(read_all(&log, to.0, Isolation::Durable), end);
    });
}

#[test]
fn a_trim_waits_for_the_flush_of_what_it_removes() {
    on_each_backend("trim-flush", |scratch, backend| {
        let engine = Engine::open(scratch.options(backend)).expect("opens");
        let log = engine.log("orders", options()).expect("opens");
        let end = fill(&log, 3);
        let marks = log.trim(Offset(end)).expect("trims all");
        assert!(marks.flushed >= Offset(end) && marks.log_start == Offset(end));
        assert_eq!(fill(&log, 1), end + 10);
        assert_eq!(read_all(&log, end, Isolation::Written), end + 10);
    });
}

#[test]
fn retention_keeps_the_disk_bounded_and_its_segments_are_used_again() {
    on_each_backend("retention", |scratch, backend| {
        let engine = Engine::open(scratch.options(backend)).expect("opens");
        let kept = 3 * SEGMENT_BYTES;
        let options = LogOptions { retention_bytes: Some(kept), ..options() };
        let log = engine.log("orders", options.clone()).expect("opens");
        let directory = scratch.0.join("orders");
        for _ in 0..10 {
            fill(&log, 100);
            settle(&log, &directory, 7);
            assert!(names(&scratch.0.join(".pool"), ".spare") <= 2);
        }
        let marks = log.marks();
        assert!(marks.log_start > Offset(0), "something was removed");
        let end = read_all(&log, marks.log_start.0, Isolation::Written);
        assert_eq!(Offset(end), marks.log_end);
        let outside =
            OutsideReader::open(&scratch.0, "orders", marks.log_start, Isolation::Written)
                .expect("opens");
        let counts = outside.map(|batch| batch.expect("undamaged").records().count());
        assert_eq!(u64::try_from(counts.sum::<usize>()), Ok(end - marks.log_start.0));
        // A mere drop: the next opening finds spares and recycled segments as a crash leaves them.
        drop((log, engine));
        verify_clean(scratch);
        let engine = Engine::open(scratch.options(backend)).expect("opens");
        let log = engine.log("orders", options).expect("opens");
        assert_eq!(log.marks().log_end, Offset(end));
        let more = fill(&log, 100);
        let start = log.marks().log_start;
        assert_eq!(read_all(&log, start.0, Isolation::Written), more);
        engine.close().expect("closes");
        verify_clean(scratch);
    });
}

/// Nobody pauses here, so the log always wants the next segment: the old ones must go all the same.
#[test]
fn retention_keeps_pace_with_a_writer_that_never_pauses() {
    const MOST: usize = 16;
    on_each_backend("pace", |scratch, backend| {
        let engine = Engine::open(scratch.options(backend)).expect("opens");
        let options = LogOptions {
            segment_bytes: Some(64 << 10),
            retention_bytes: Some(4 * (64 << 10)),
            prepare: Preparation::Ahead,
            flush: FlushPolicy { bytes: Some(64 << 10), ..FlushPolicy::NONE },
            ..LogOptions::default()
        };
        let log = engine.log("orders", options).expect("opens");
        let directory = scratch.0.join("orders");
        let mut waiting = VecDeque::new();
        for round in 0..2000 {
            waiting.push_back(log.append(batch(10 * round, 10, 1000), Ack::LEADER).expect("runs"));
            if waiting.len() > 32 {
                waiting.pop_front().expect("one").wait().expect("acked");
            }
            if round % 100 == 99 {
                let segments = names(&directory, ".log");
                assert!(segments <= MOST, "{segments} segments after {round} batches");
            }
        }
        for receipt in waiting {
            receipt.wait().expect("acked");
        }
        engine.close().expect("closes");
        verify_clean(scratch);
    });
}

#[test]
fn a_segment_that_is_prepared_ahead_becomes_the_next_one() {
    for prepare in [Preparation::Never, Preparation::Ahead, Preparation::AtOpen] {
        let scratch = Scratch::new(&format!("prepare-{prepare:?}"));
        let engine = Engine::open(scratch.options(BackendChoice::Auto)).expect("opens");
        let log = engine.log("orders", LogOptions { prepare, ..options() }).expect("opens");
        if prepare == Preparation::AtOpen {
            let path = scratch.0.join("orders/00000000000000000000.log");
            assert_eq!(std::fs::metadata(path).expect("there").len(), SEGMENT_BYTES);
        }
        let end = fill(&log, 60);
        let spares = names(&scratch.0.join(".pool"), ".spare");
        assert_eq!(spares > 0, prepare != Preparation::Never, "{prepare:?}: {spares} spares");
        assert_eq!(read_all(&log, 0, Isolation::Written), end);
        engine.close().expect("closes");
        verify_clean(&scratch);
    }
}

#[test]
fn a_file_in_the_pool_that_is_no_spare_is_removed_and_never_used() {
    let scratch = Scratch::new("pool-stock");
    let engine = Engine::open(scratch.options(BackendChoice::Auto)).expect("opens");
    let options = LogOptions { prepare: Preparation::AtOpen, ..options() };
    let log = engine.log("orders", options.clone()).expect("opens");
    let end = fill(&log, 60);
    engine.close().expect("closes");
    let pool = scratch.0.join(".pool");
    let spare =
        std::fs::read_dir(&pool).expect("a pool").next().expect("a spare").expect("an entry");
    // The segment itself under the spare's name: what a power cut in a roll can leave.
    let segment = scratch.0.join("orders/00000000000000000000.log");
    std::fs::remove_file(spare.path()).expect("removed");
    std::fs::hard_link(&segment, spare.path()).expect("linked");
    let before = std::fs::read(&segment).expect("readable");
    let engine = Engine::open(scratch.options(BackendChoice::Auto)).expect("opens");
    assert!(!spare.path().exists(), "its name in the pool is gone");
    let log = engine.log("orders", options).expect("opens");
    let more = fill(&log, 60);
    assert_eq!(read_all(&log, 0, Isolation::Written), more);
    assert!(more > end && std::fs::read(&segment).expect("readable") == before);
}

/// A spare takes its space ahead. When the disk is full, the log goes on in it, or it goes.
#[test]
fn a_full_disk_holds_as_much_with_spares_as_without() {
    let filled = |prepare| {
        let disk = SimDisk::new(5, SimProfile::default());
        let mut engine =
            LocalEngine::open(disk.start_process(), &Options::at("/data")).expect("opens");
        // Large enough that the active segment is not reserved whole when the spare is.
        let options = LogOptions { segment_bytes: Some(96 << 20), prepare, ..options() };
        disk.set_capacity(Some(disk.used_bytes() + (150 << 20)));
        let log = engine.log("orders", &options).expect("opens");
        let mut next = 0;
        // The first refusal may only have freed a spare's space.
        let mut refused = 0;
        while refused < 3 {
            let ticket = engine.append(log, batch(next, 10, 400_000), Ack::LEADER).expect("taken");
            match engine.run_until(&ticket) {
                Ok(_) => next += 10,
                Err(error) => {
                    assert_eq!(error.kind(), &ErrorKind::Full);
                    refused += 1;
                }
            }
        }
        disk.set_capacity(None);
        let ticket = engine.append(log, batch(next, 10, 1000), Ack::LEADER_FLUSHED);
        engine.run_until(&ticket.expect("taken")).expect("appends go on when there is space");
        engine.close().expect("closes");
        next
    };
    let without = filled(Preparation::Never);
    for prepare in [Preparation::Ahead, Preparation::AtOpen] {
        let with = filled(prepare);
        assert!(with * 10 >= without * 9, "{prepare:?}: {with} records, without spares {without}");
    }
}

/// Asks for trims while the log goes over to another mode and, if it `opens` so, appends behind.
fn trims_during_a_change_of_mode(batches: u64, opens: bool) {
    let case = format!("{batches} batches, it opens: {opens}");
    let disk = SimDisk::new(3, SimProfile::default());
    let mut engine = LocalEngine::open(disk.start_process(), &Options::at("/data")).expect("opens");
    let options = |mode| LogOptions { segment_bytes: Some(64 << 10), mode, ..options() };
    let log = engine.log("orders", &options(Mode::Direct)).expect("opens");
    let append = |engine: &mut LocalEngine<_>, number| {
        engine.append(log, batch(number * 10, 10, 600), Ack::LEADER_FLUSHED).expect("taken")
    };
    for number in 0..batches {
        let ticket = append(&mut engine, number);
        engine.run_until(&ticket).expect("flushed");
    }
    // Segments below may be on their way out, or held until log.meta has no mark in them.
    let trim = engine.trim(log, Offset(batches * 10 - 5));
    engine.run_until(&trim).expect("trimmed");
    (0..20).for_each(|_| engine.poll(Duration::from_millis(1)));
    if !opens {
        let refused = Fault::Refuse(IoErrorKind::Device);
        disk.inject(FaultRule::new("open", ".log", refused));
    }
    engine.log("orders", &options(Mode::Buffered)).expect("the mode is changed");
    let trims = [4, 0].map(|left| engine.trim(log, Offset(batches * 10 - left)));
    assert!(trims.iter().all(|trim| trim.acked().is_none()), "{case}: it is on its way");
    let ticket = append(&mut engine, batches);
    for trim in &trims {
        match engine.run_until(trim) {
            Ok(_) => assert!(opens, "{case}"),
            Err(error) => assert!(!opens && error.kind() == &ErrorKind::Io, "{case}: {error}"),
        }
    }
    assert_eq!(engine.run_until(&ticket).is_ok(), opens, "{case}");
    assert!(!opens || engine.marks(log).log_start == Offset(batches * 10), "{case}");
    assert_eq!(engine.close().is_ok(), opens, "{case}");
}

/// Asks at every turn, from before the log begins to go over until it has. Retention has just
/// moved the log's start, or is about to, and segments below it wait for their way out.
fn trims_at_every_turn_of_a_change_of_mode(batches: u64) {
    let disk = SimDisk::new(3, SimProfile::default());
    let mut engine = LocalEngine::open(disk.start_process(), &Options::at("/data")).expect("opens");
    let options = |mode| LogOptions {
        segment_bytes: Some(64 << 10),
        retention_bytes: Some(64 << 10),
        mode,
        ..options()
    };
    let log = engine.log("orders", &options(Mode::Direct)).expect("opens");
    for number in 0..batches {
        let append = engine.append(log, batch(number * 10, 10, 600), Ack::LEADER_FLUSHED);
        engine.run_until(&append.expect("taken")).expect("flushed");
    }
    engine.log("orders", &options(Mode::Buffered)).expect("the mode is changed");
    let trims: Vec<_> = (0..900).map(|_| engine.trim(log, Offset(1))).collect();
    for trim in trims {
        engine.run_until(&trim).expect("trimmed");
    }
    engine.close().expect("closes");
}

/// While a log goes over to another mode its active segment is opened anew: it has none.
#[test]
fn a_trim_during_a_change_of_mode_is_answered_when_that_has_ended() {
    for batches in 1..30 {
        trims_during_a_change_of_mode(batches, true);
        trims_during_a_change_of_mode(batches, false);
        trims_at_every_turn_of_a_change_of_mode(batches);
    }
}
