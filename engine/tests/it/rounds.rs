//! Flush rounds on the simulated disk: who joins one, and what who is too late for one does.

use std::path::Path;
use std::time::Duration;

use highwater::{
    Ack, FlushPolicy, LocalEngine, LocalLog, LogOptions, Offset, Options, Preparation,
};
use highwater_io::sim::{Latency, SimDisk, SimIo, SimPlatform, SimProfile, Survival};
use highwater_io::{IoError, Platform};

use crate::basics::batch;

/// A simulated process that takes its disk for one that writes in place. (A flush there makes its
/// own file durable and no other: who is wrongly in a round loses what it acked to a power cut.)
#[derive(Clone, Debug)]
struct InPlace(SimPlatform);

impl Platform for InPlace {
    type ShardIo = SimIo;
    type ControlIo = SimIo;
    type ReaderIo = SimIo;

    fn shard_io(&self) -> Result<SimIo, IoError> {
        self.0.shard_io()
    }

    fn control_io(&self) -> Result<SimIo, IoError> {
        self.0.control_io()
    }

    fn device_written_in_place(&self, _: &Path) -> Result<u64, IoError> {
        Ok(1)
    }

    fn reader_io(&self) -> Result<SimIo, IoError> {
        self.0.reader_io()
    }
}

fn open(disk: &SimDisk) -> LocalEngine<InPlace> {
    let options = Options { shared_flush: true, ..Options::at("/data") };
    LocalEngine::open(InPlace(disk.start_process()), &options).expect("opens")
}

/// A disk on which a flush takes much longer than anything else.
fn slow_to_flush() -> SimDisk {
    let flush = Latency { min: Duration::from_millis(20), max: Duration::from_millis(20) };
    SimDisk::new(1, SimProfile { flush, ..SimProfile::default() })
}

/// Each of its records is due a moment after it was written.
fn due_soon(prepare: Preparation) -> LogOptions {
    let interval = Some(Duration::from_millis(1));
    let flush = FlushPolicy { interval, ..FlushPolicy::NONE };
    LogOptions { segment_bytes: Some(64 << 10), flush, prepare, ..LogOptions::default() }
}

/// The most turns that are no spinning: a shard that spins takes one each microsecond.
const TURNS_MAX: u64 = 100;

#[test]
fn a_log_too_late_for_a_flush_round_waits_for_its_end_without_turning() {
    let disk = slow_to_flush();
    let mut engine = open(&disk);
    let first = engine.log("first", &due_soon(Preparation::AtOpen)).expect("opens");
    let late = engine.log("late", &due_soon(Preparation::AtOpen)).expect("opens");
    let in_round = engine.append(first, batch(0, 1, 100), Ack::LEADER_FLUSHED).expect("taken");
    while engine.marks(first).written == Offset(0) {
        engine.poll(Duration::from_millis(1));
    }
    // The round is in flight from here on, for longer than the interval of the other log.
    let written = engine.append(late, batch(0, 1, 100), Ack::LEADER).expect("taken");
    engine.run_until(&written).expect("written");
    assert!(in_round.acked().is_none(), "the round takes longer than a write");
    let before = engine.metrics().turns;
    engine.run_until(&in_round).expect("flushed");
    let turns = engine.metrics().turns - before;
    assert!(turns < TURNS_MAX, "{turns} turns until the round ended");
    let before = engine.metrics().turns;
    while engine.marks(late).flushed == Offset(0) {
        engine.poll(Duration::from_millis(50));
    }
    let turns = engine.metrics().turns - before;
    assert!(turns < TURNS_MAX, "{turns} turns until the late one was flushed");
    engine.close().expect("closes");
}

/// What lies in a segment without a durable name is not flushed before it has one, however long
/// it is due.
#[test]
fn a_log_whose_segment_has_no_durable_name_yet_waits_for_it_without_turning() {
    let disk = slow_to_flush();
    let mut engine = open(&disk);
    let log = engine.log("log", &due_soon(Preparation::Ahead)).expect("opens");
    let before = engine.metrics().turns;
    let (mut next, begun) = (0, disk.now());
    // Over some rolls, into segments that were prepared.
    while next < 40 {
        let ticket = engine.append(log, batch(next, 1, 6000), Ack::LEADER).expect("taken");
        engine.run_until(&ticket).expect("written");
        next += 1;
        // It fills its spares when it has nothing else to do.
        (0..20).for_each(|_| engine.poll(Duration::from_millis(1)));
    }
    let passed = disk.now().since(begun);
    assert!(passed > Duration::from_millis(200), "there were rolls: {passed:?}");
    let turns = engine.metrics().turns - before;
    assert!(turns < 4000, "{turns} turns in {passed:?}");
    engine.close().expect("closes");
}

/// Appends to all logs at once: the flushes of two of them meet behind that of the first.
fn append_to_all(engine: &mut LocalEngine<InPlace>, logs: [LocalLog; 3], rounds: u64) {
    for _ in 0..rounds {
        let tickets = logs.map(|log| {
            let next = engine.marks(log).log_end.0;
            engine.append(log, batch(next, 1, 6000), Ack::LEADER_FLUSHED).expect("taken")
        });
        for ticket in &tickets {
            engine.run_until(ticket).expect("flushed");
        }
        // What is behind the acks - spares, trims - goes on.
        (0..20).for_each(|_| engine.poll(Duration::from_millis(1)));
    }
}

/// Every log of this engine grows its segments, and uses them again. Their last blocks may never
/// have been written before: making them durable takes more than a flush of the device.
#[test]
fn a_segment_that_grew_is_flushed_by_itself_also_when_it_is_used_again() {
    let disk = SimDisk::new(1, SimProfile::default());
    let mut engine = open(&disk);
    let options = |prepare| LogOptions {
        segment_bytes: Some(64 << 10),
        retention_bytes: Some(64 << 10),
        prepare,
        ..LogOptions::default()
    };
    let names = ["first", "second", "third"];
    let logs = names.map(|name| engine.log(name, &options(Preparation::Never)).expect("opens"));
    append_to_all(&mut engine, logs, 100);
    let spares = || {
        let files = disk.files();
        files.iter().filter(|path| path.extension().is_some_and(|end| end == "spare")).count()
    };
    assert!(spares() > 0, "segments were used again");
    assert_eq!(engine.metrics().shared_flushes, 0);
    let ends = logs.map(|log| engine.marks(log).log_end);
    disk.power_cut(Survival::Nothing);
    drop(engine);
    let mut engine = open(&disk);
    let logs = names.map(|name| engine.log(name, &options(Preparation::Ahead)).expect("opens"));
    assert_eq!(logs.map(|log| engine.marks(log).flushed), ends, "D4");
    // The spares that were found do not count as prepared; those that are made from now on do.
    append_to_all(&mut engine, logs, 12);
    assert_eq!(engine.metrics().shared_flushes, 0, "in segments that were found");
    // Their flushes would have met in a round, had they been prepared.
    let prepared = ["fourth", "fifth", "sixth"];
    let logs = prepared.map(|name| engine.log(name, &options(Preparation::AtOpen)).expect("opens"));
    append_to_all(&mut engine, logs, 5);
    assert!(engine.metrics().shared_flushes > 0, "in segments that were prepared");
}
