//! Logs whose making a kill cut short.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use highwater::inspect::{OutsideReader, summaries, verify};
use highwater::{Ack, BackendChoice, Engine, ErrorKind, Isolation, LogOptions, Offset};

use crate::basics::{Scratch, batch, read_all};

/// Makes a log, ends it cleanly or as a crash does, and takes the header of its first segment.
fn without_header(scratch: &Scratch, records: u64, close: bool) {
    let engine = Engine::open(scratch.options(BackendChoice::Threads)).expect("opens");
    let log = engine.log("log", LogOptions::default()).expect("made");
    if records > 0 {
        let receipt = log.append(batch(0, records, 100), Ack::LEADER_FLUSHED).expect("taken");
        receipt.wait().expect("flushed");
        let mark = log.append(batch(records, 1, 100), Ack::LEADER_FLUSHED).expect("taken");
        mark.wait().expect("flushed");
    }
    drop(log);
    if close {
        engine.close().expect("closes");
    } else {
        drop(engine);
    }
    let path = scratch.0.join("log/00000000000000000000.log");
    let file = OpenOptions::new().write(true).open(path).expect("a segment");
    file.write_all_at(&[0; 4096], 0).expect("written");
    file.sync_all().expect("synced");
}

/// Found by `kill -9` of the real binary, once in about 500 kills: `log.meta` names the first
/// segment before it is made, and who looked from outside took a segment without a header for a
/// damaged one.
#[test]
fn a_first_segment_without_its_header_is_damage_only_if_something_in_it_is_proven() {
    for (records, close, damaged) in [(0, false, false), (0, true, true), (5, false, true)] {
        let case = format!("{records} records, closed: {close}");
        let scratch = Scratch::new(&format!("unfinished-{records}-{close}"));
        without_header(&scratch, records, close);
        let verdicts = verify(&scratch.0, None).expect("looks");
        assert_eq!(!verdicts[0].damages.is_empty(), damaged, "{case}: {verdicts:?}");
        assert_eq!(verdicts[0].torn_tail.is_some(), !damaged, "{case}: {verdicts:?}");
        let reader = OutsideReader::open(&scratch.0, "log", Offset(0), Isolation::Written);
        let read: Result<Vec<_>, _> = reader.expect("opens").collect();
        match read {
            Err(error) => {
                assert!(damaged && matches!(error.kind(), ErrorKind::Corrupt { .. }), "{case}");
            }
            Ok(batches) => assert!(!damaged && batches.is_empty(), "{case}: {batches:?}"),
        }
        let durable = OutsideReader::open(&scratch.0, "log", Offset(0), Isolation::Durable);
        let durable = durable.and_then(|mut reader| reader.next().transpose());
        assert_eq!(durable.is_err(), damaged, "{case}: {durable:?}");
        let summaries = summaries(&scratch.0).expect("looks");
        assert_eq!(summaries[0].error.is_some(), damaged, "{case}: {:?}", summaries[0]);
    }
}

#[test]
fn a_first_segment_without_its_header_is_made_anew() {
    let scratch = Scratch::new("unfinished-again");
    without_header(&scratch, 0, false);
    let engine = Engine::open(scratch.options(BackendChoice::Threads)).expect("opens");
    let log = engine.log("log", LogOptions::default()).expect("there");
    log.append(batch(0, 3, 10), Ack::LEADER_FLUSHED).expect("taken").wait().expect("flushed");
    assert_eq!(read_all(&log, 0, Isolation::Durable), 3);
    engine.close().expect("closes");
}
