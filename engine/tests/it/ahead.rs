//! Reading sealed segments ahead, and keeping what was read.

use std::os::unix::fs::FileExt;

use highwater::inspect::OutsideReader;
use highwater::{
    Ack, BackendChoice, Engine, ErrorKind, Isolation, Log, LogOptions, Offset, ReadBatch,
};

use crate::basics::{Scratch, batch};

type Batches = dyn Iterator<Item = highwater::Result<ReadBatch>>;

/// Some sealed segments of 16 MiB and a bit, in batches of a few bytes to some chunks.
fn filled(scratch: &Scratch) -> (Engine, Log, u64) {
    let engine = Engine::open(scratch.options(BackendChoice::Auto)).expect("opens");
    let options = LogOptions { segment_bytes: Some(16 << 20), ..Default::default() };
    let log = engine.log("log", options).expect("opens");
    let (mut next, mut bytes) = (0, 0);
    for size in [10, 700, 30_000, 262_000, 900_000, 64 << 10, 5].into_iter().cycle() {
        if bytes > 40 << 20 {
            break;
        }
        let count = 1 + next % 3;
        let receipt = log.append(batch(next, count, size), Ack::LEADER).expect("appends");
        receipt.wait().expect("acked");
        next += count;
        bytes += size;
    }
    log.flush().expect("asked").wait().expect("flushed");
    (engine, log, next)
}

fn check(batch: &ReadBatch) -> u64 {
    let mut next = batch.base_offset().0;
    for record in batch.records() {
        let value = record.expect("well formed").value.unwrap_or_default();
        let number = value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        assert_eq!(number, Some(next));
        assert!(value.iter().skip(8).all(|byte| *byte == b'x'));
        next += 1;
    }
    next
}

#[test]
fn what_is_kept_of_a_long_read_stays_what_it_was() {
    let scratch = Scratch::new("ahead");
    let (engine, log, end) = filled(&scratch);
    let outside =
        || OutsideReader::open(&scratch.0, "log", Offset(0), Isolation::Written).expect("opens");
    let inside = || log.read(Offset(0), Isolation::Written).expect("reads");
    // At once, each forgotten before the next.
    let (mut first, mut second) = (inside(), outside());
    let both: [&mut Batches; 2] = [&mut first, &mut second];
    for read in both {
        let mut next = 0;
        for batch in read {
            next = check(&batch.expect("undamaged"));
        }
        assert_eq!(next, end);
    }
    // All kept, far more than may be leased; and one of many, over the life of its reader.
    let mut all: Vec<ReadBatch> = inside().map(|batch| batch.expect("undamaged")).collect();
    all.extend(outside().map(|batch| batch.expect("undamaged")));
    let some: Vec<_> =
        inside().chain(outside()).step_by(13).map(|batch| batch.expect("undamaged")).collect();
    let mut next = 0;
    for batch in &all {
        assert_eq!(batch.base_offset(), Offset(next % end));
        next = next - next % end + check(batch);
    }
    assert_eq!(next, 2 * end);
    some.iter().for_each(|batch| assert!(check(batch) > 0));
    engine.close().expect("closes");
    all.iter().for_each(|batch| assert!(check(batch) > 0));
}

#[test]
fn damage_far_into_a_sealed_segment_stops_a_read_just_before_it() {
    let scratch = Scratch::new("ahead-damage");
    let (engine, log, _) = filled(&scratch);
    let path = scratch.0.join("log/00000000000000000000.log");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("opens");
    for position in [9_000_001_u64, 5_000_000, 300_003] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, position).expect("read");
        file.write_all_at(&[byte[0] ^ 1], position).expect("written");
        let mut reads = Vec::new();
        let inside = &mut log.read(Offset(0), Isolation::Written).expect("reads");
        let mut outside =
            OutsideReader::open(&scratch.0, "log", Offset(0), Isolation::Written).expect("opens");
        let both: [&mut Batches; 2] = [inside, &mut outside];
        for read in both {
            let mut next = 0;
            let mut told = None;
            for batch in read {
                match batch {
                    Ok(batch) => next = check(&batch),
                    Err(error) => told = Some(error),
                }
            }
            let error = told.expect("it is told");
            let ErrorKind::Corrupt { range } = error.kind() else { panic!("{error}") };
            assert_eq!(range.start, Offset(next));
            reads.push((error.position(), next));
        }
        assert_eq!(reads[0], reads[1], "both stop at the same place");
        assert!(reads[0].0.is_some_and(|found| found <= position), "{reads:?}, {position}");
    }
    engine.close().expect("closes");
}
