//! A caller-driven engine on the simulated disk, with faults placed by hand.

use highwater::{
    Ack, ErrorKind, Isolation, LocalEngine, LocalLog, LogOptions, Offset, Options, RecordBatch,
};
use highwater_io::IoErrorKind;
use highwater_io::sim::{Fault, FaultRule, SimDisk, SimPlatform, SimProfile, Survival};

const LOG: &str = "orders";

fn batch(number: u64) -> RecordBatch {
    let built = RecordBatch::builder().value(&number.to_le_bytes()).build();
    built.expect("it fits")
}

fn open(disk: &SimDisk) -> (LocalEngine<SimPlatform>, LocalLog) {
    let mut engine = LocalEngine::open(disk.start_process(), &Options::at("/data")).expect("opens");
    assert_eq!(engine.recovery().failed, []);
    let log = engine.log(LOG, &LogOptions::default()).expect("opens");
    (engine, log)
}

fn append(engine: &mut LocalEngine<SimPlatform>, log: LocalLog, number: u64) {
    let ticket = engine.append(log, batch(number), Ack::LEADER_FLUSHED).expect("is queued");
    assert_eq!(engine.run_until(&ticket).expect("acked").base_offset, Offset(number));
}

/// The numbers in the log, which are the offsets.
fn read(engine: &LocalEngine<SimPlatform>, log: LocalLog) -> u64 {
    let mut next = 0;
    for batch in engine.read(log, Offset(0), Isolation::Written).expect("readable") {
        for record in batch.expect("undamaged").records() {
            let record = record.expect("well formed");
            let expected = u64::to_le_bytes(next);
            assert_eq!((record.offset.0, record.value), (next, Some(&expected[..])));
            next += 1;
        }
    }
    next
}

/// What is asked of the log when everything about it fails.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Reopen,
    Truncate,
}

/// A maintenance that fails, with the opening behind it, leaves the log closed; when the device is
/// well again a reopening brings it back with everything that was flushed.
fn comes_back(asked: Asked, poisoned: bool, verb: &'static str, fault: &Fault) {
    let case = format!("{asked:?}, poisoned {poisoned}, {verb} {fault:?}");
    let disk = SimDisk::new(1, SimProfile::default());
    let (mut engine, log) = open(&disk);
    (0..3).for_each(|number| append(&mut engine, log, number));
    if poisoned {
        disk.inject(FaultRule::new("write", LOG, Fault::WriteError));
        let ticket = engine.append(log, batch(3), Ack::LEADER_FLUSHED).expect("is queued");
        engine.run_until(&ticket).expect_err("the write fails");
    }
    (0..8).for_each(|_| disk.inject(FaultRule::new(verb, LOG, fault.clone())));
    for _ in 0..2 {
        let failed = match asked {
            Asked::Reopen => engine.reopen(log),
            Asked::Truncate => engine.truncate(log, Offset(1)),
        };
        failed.expect_err(&case);
        assert!(engine.failure(log).is_some(), "{case}");
        let refused = engine.append(log, batch(9), Ack::LEADER).map(|t| engine.run_until(&t));
        assert!(matches!(refused, Ok(Err(_))), "{case}: {refused:?}");
    }
    assert!(disk.rules_left() > 0, "{case}: every fault was met on the way");
    while disk.rules_left() > 0 {
        engine.reopen(log).expect_err(&case);
    }
    let end = engine.reopen(log).unwrap_or_else(|error| panic!("{case}: {error}")).log_end.0;
    // A truncation that failed may have cut or not; what a failed append left was never acked.
    let truncated = matches!(asked, Asked::Truncate) && !poisoned && end == 1;
    assert!(end == 3 || truncated || poisoned && end == 4, "{case}: {end}");
    assert_eq!(read(&engine, log), end, "{case}");
    append(&mut engine, log, end);
    // What was read from a cache while it was opened would be gone now.
    disk.power_cut(Survival::Nothing);
    let (engine, log) = open(&disk);
    assert_eq!(read(&engine, log), end + 1, "{case}");
    engine.close().unwrap_or_else(|error| panic!("{case}: {error}"));
}

#[test]
fn a_log_comes_back_after_a_reopening_that_failed() {
    let refused = Fault::Refuse(IoErrorKind::Device);
    for asked in [Asked::Reopen, Asked::Truncate] {
        for poisoned in [false, true] {
            comes_back(asked, poisoned, "open", &refused);
            comes_back(asked, poisoned, "read", &refused);
            comes_back(asked, poisoned, "flush", &Fault::FlushError);
            comes_back(asked, poisoned, "sync directory", &Fault::FlushError);
        }
    }
}

/// After a directory sync that failed - its names are seen, never reach the media, and the next
/// sync succeeds - a log that appends again loses nothing of it to a power cut.
fn survives_a_lost_name(nth: u64, before: u64) {
    let case = format!("directory sync {nth} after {before} appends fails");
    let disk = SimDisk::new(1, SimProfile::default());
    let mut engine = LocalEngine::open(disk.start_process(), &Options::at("/data")).expect("opens");
    let options = LogOptions { segment_bytes: Some(64 << 10), ..Default::default() };
    let fault = FaultRule::new("sync directory", LOG, Fault::FlushError).nth(nth);
    if before == 0 {
        disk.inject(fault.clone());
    }
    let log = (0..2).find_map(|_| engine.log(LOG, &options).ok()).expect("at the second attempt");
    let large = |number: u64| {
        let value: Vec<u8> = number.to_le_bytes().into_iter().cycle().take(40_000).collect();
        RecordBatch::builder().value(&value).build().expect("it fits")
    };
    let mut next = 0;
    while next < 5 {
        if next == before && before > 0 {
            disk.inject(fault.clone());
        }
        let ticket = engine.append(log, large(next), Ack::LEADER_FLUSHED).expect("is queued");
        match engine.run_until(&ticket) {
            Ok(_) => next += 1,
            Err(_) => {
                let marks = (0..2).find_map(|_| engine.reopen(log).ok());
                next = marks.expect("at the second attempt").log_end.0;
            }
        }
    }
    assert_eq!(disk.rules_left(), 0, "{case}: it was met");
    disk.power_cut(Survival::Nothing);
    let (engine, log) = open(&disk);
    assert_eq!(engine.marks(log).log_end, Offset(next), "{case}");
    let batches = engine.read(log, Offset(0), Isolation::Durable).expect("readable");
    assert_eq!(batches.inspect(|batch| assert!(batch.is_ok(), "{batch:?}")).count(), 5, "{case}");
}

#[test]
fn a_directory_sync_that_fails_once_loses_no_name() {
    (0..4).for_each(|nth| survives_a_lost_name(nth, 0));
    (1..5).for_each(|before| survives_a_lost_name(0, before));
}

#[test]
fn an_engine_with_a_log_that_stayed_closed_says_why_when_it_is_closed() {
    let disk = SimDisk::new(1, SimProfile::default());
    let (mut engine, log) = open(&disk);
    append(&mut engine, log, 0);
    let refused = Fault::Refuse(IoErrorKind::Device);
    (0..2).for_each(|_| disk.inject(FaultRule::new("open", LOG, refused.clone())));
    engine.reopen(log).expect_err("the files cannot be opened");
    let error = engine.close().expect_err("the log is not there to be marked clean");
    assert_eq!(*error.kind(), ErrorKind::Io, "{error}");
}

#[test]
fn a_log_tells_whether_the_page_cache_is_used() {
    for direct_io in [true, false] {
        let disk = SimDisk::new(1, SimProfile { direct_io, ..SimProfile::default() });
        for _ in 0..2 {
            let (engine, log) = open(&disk);
            assert_eq!(engine.log_report(log).page_cache, !direct_io);
        }
    }
}

/// Each group here is alone and leaves its last block open; the next one is written over it. Found
/// as a reader that kept up and yet read the disk the log was written to: zeros at the end of one
/// chunk stopped it, and from there on it looked at the file alone.
#[test]
fn a_reader_that_keeps_up_reads_no_file() {
    let disk = SimDisk::new(1, SimProfile::default());
    let (mut engine, log) = open(&disk);
    append(&mut engine, log, 0);
    let mut reader = engine.read(log, Offset(0), Isolation::Written).expect("readable");
    assert!(reader.next().is_some() && reader.next().is_none());
    // What was read with the first one may reach into the block that is written next.
    append(&mut engine, log, 1);
    assert!(reader.next().is_some() && reader.next().is_none());
    disk.inject(FaultRule::new("read", ".log", Fault::ReadError));
    for number in 2..300 {
        append(&mut engine, log, number);
        let batch = reader.next().expect("there").expect("undamaged");
        assert_eq!(batch.base_offset(), Offset(number));
        assert!(reader.next().is_none());
    }
    assert_eq!(disk.rules_left(), 1, "nothing was read from a file");
}
