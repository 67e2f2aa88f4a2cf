//! Many logs on several shards.

use std::collections::BTreeSet;
use std::path::PathBuf;

use highwater::{
    Ack, BackendChoice, Engine, ErrorKind, Isolation, LocalEngine, Log, LogOptions, MAX_LOGS,
    Offset, Options, ShardId,
};
use highwater_io::sim::{SimDisk, SimProfile};
use highwater_io::{Blocking, Platform};

use crate::basics::{Scratch, batch, on_each_backend, read_all};

fn options(shard: u16) -> LogOptions {
    LogOptions { shard: Some(ShardId(shard)), ..LogOptions::default() }
}

#[test]
fn hundreds_of_logs_are_written_beside_each_other_and_come_back() {
    on_each_backend("hundreds", |scratch, backend| {
        let open = || {
            let options = Options { shards: Some(3), ..scratch.options(backend) };
            Engine::open(options).expect("opens")
        };
        let name = |number: u64| format!("log-{number}");
        const LOGS: u64 = 150;
        for life in 0..3 {
            let engine = open();
            let logs: Vec<_> = (0..LOGS)
                .map(|number| engine.log(&name(number), LogOptions::default()).expect("opens"))
                .collect();
            let shards: BTreeSet<_> = logs.iter().map(Log::shard).collect();
            assert_eq!(shards.len(), 3, "names spread over the shards");
            let append = |log: &Log| {
                log.append(batch(life * 5, 5, 50), Ack::LEADER_FLUSHED).expect("appends")
            };
            let receipts: Vec<_> = logs.iter().map(append).collect();
            for receipt in receipts {
                let appended = receipt.wait().expect("acked");
                assert_eq!(appended.base_offset, Offset(life * 5));
                assert!(appended.marks.flushed >= appended.end_offset());
            }
            for log in &logs {
                assert_eq!(read_all(log, 0, Isolation::Durable), (life + 1) * 5);
            }
            let metrics = engine.metrics().expect("runs");
            assert_eq!(metrics.logs.len(), 150);
            assert_eq!(metrics.total().records, LOGS * 5);
            drop(logs);
            match life {
                0 => engine.close().expect("closes"),
                // As after a crash of the process: all are recovered.
                _ => drop(engine),
            }
        }
        assert_eq!(open().recovery().logs.len(), 150);
    });
}

#[test]
fn a_log_has_its_shard_by_its_name_or_by_choice() {
    on_each_backend("placed", |scratch, backend| {
        let open = || {
            let options = Options { shards: Some(4), ..scratch.options(backend) };
            Engine::open(options).expect("opens")
        };
        let engine = open();
        let by_name = engine.log("by-name", LogOptions::default()).expect("opens").shard();
        let other = ShardId((by_name.0 + 1) % 4);
        let chosen = engine.log("chosen", options(other.0)).expect("opens");
        assert_eq!(chosen.shard(), other);
        let refused = engine.log("beyond", options(4)).expect_err("there are four");
        assert_eq!(refused.kind(), &ErrorKind::Config);
        let refused = engine.log("chosen", options((other.0 + 1) % 4)).expect_err("it is in use");
        assert_eq!(refused.kind(), &ErrorKind::Config);
        let receipt = chosen.append(batch(0, 3, 10), Ack::LEADER_FLUSHED).expect("appends");
        receipt.wait().expect("acked");
        engine.close().expect("closes");

        let engine = open();
        assert_eq!(engine.log("by-name", LogOptions::default()).expect("opens").shard(), by_name);
        // Opening has given it a shard by its name; the first who asks for it may choose.
        for shard in [2, 2] {
            let log = engine.log("chosen", options(shard)).expect("opens");
            assert_eq!((log.shard(), read_all(&log, 0, Isolation::Durable)), (ShardId(2), 3));
        }
        engine.close().expect("closes");
    });
}

#[test]
fn a_log_is_closed_and_opened_again_while_the_others_go_on() {
    on_each_backend("closed-one", |scratch, backend| {
        let options = Options { shards: Some(2), ..scratch.options(backend) };
        let engine = Engine::open(options).expect("opens");
        let neighbour = engine.log("neighbour", LogOptions::default()).expect("opens");
        for life in 0..5 {
            let log = engine.log("comes-and-goes", LogOptions::default()).expect("opens");
            let unwaited = log.append(batch(life * 2, 2, 10), Ack::LEADER).expect("appends");
            engine.close_log("comes-and-goes").expect("closes");
            unwaited.wait().expect("what was queued before went out");
            let refused = log.append(batch(0, 1, 10), Ack::LEADER).expect_err("it is closed");
            assert_eq!(refused.kind(), &ErrorKind::Closed);
            assert!(!engine.log_names().contains(&"comes-and-goes".to_owned()));
            assert_eq!(
                engine.close_log("comes-and-goes").expect_err("it is closed").kind(),
                &ErrorKind::Config
            );

            let again = engine.log("comes-and-goes", LogOptions::default()).expect("opens");
            assert_eq!(again.marks().flushed, Offset((life + 1) * 2), "D9: it was left clean");
            // The old handle reaches neither the new log nor what is under it.
            assert!(log.append(batch(0, 1, 10), Ack::LEADER).is_err());
            assert!(log.flush().is_err() || log.flush().is_ok_and(|wish| wish.wait().is_err()));
            assert!(log.truncate(Offset(0)).is_err() && log.reopen().is_err());
            assert_eq!(read_all(&again, 0, Isolation::Durable), (life + 1) * 2);
            let receipt = neighbour.append(batch(life, 1, 10), Ack::LEADER_FLUSHED);
            receipt.expect("appends").wait().expect("acked");
        }
        engine.close().expect("closes");
    });
}

#[test]
fn shards_are_counted_within_their_bounds() {
    let scratch = Scratch::new("shard-bounds");
    for shards in [0, 257] {
        let options = Options { shards: Some(shards), ..scratch.options(BackendChoice::Auto) };
        assert_eq!(Engine::open(options).expect_err("refused").kind(), &ErrorKind::Config);
    }
}

#[test]
fn logs_share_flushes_where_the_file_system_writes_in_place() {
    on_each_backend("shared-flush", |scratch, backend| {
        let open = || {
            let options = scratch.options(backend);
            Engine::open(Options { shards: Some(2), shared_flush: true, ..options })
        };
        let engine = match open() {
            Ok(engine) => engine,
            Err(error) => {
                // Where it cannot be, it is refused and nothing is left behind.
                assert_eq!(error.kind(), &ErrorKind::Config, "{error}");
                return;
            }
        };
        let options = LogOptions {
            segment_bytes: Some(64 << 10),
            retention_bytes: Some(128 << 10),
            prepare: highwater::Preparation::AtOpen,
            ..LogOptions::default()
        };
        let logs: Vec<_> = (0..20)
            .map(|number| engine.log(&format!("log-{number}"), options.clone()).expect("opens"))
            .collect();
        // Over several rolls: into spares, and into segments that retention gave back.
        for round in 0..60 {
            let append = |log: &Log| {
                log.append(batch(round, 1, 5000), Ack::LEADER_FLUSHED).expect("appends")
            };
            let receipts: Vec<_> = logs.iter().map(append).collect();
            for receipt in receipts {
                let appended = receipt.wait().expect("acked");
                assert!(appended.marks.flushed >= appended.end_offset(), "D1");
            }
        }
        drop((logs, engine));
        let engine = open().expect("opens");
        for number in 0..20 {
            let log = engine.log(&format!("log-{number}"), LogOptions::default()).expect("opens");
            let marks = log.marks();
            assert_eq!(marks.flushed, Offset(60), "D4");
            assert_eq!(read_all(&log, marks.log_start.0, Isolation::Durable), 60);
        }
        engine.close().expect("closes");
    });
}

/// A directory can come to hold more, from several others. It is looked at by its names, before
/// any log is opened.
#[test]
fn a_directory_gets_no_more_logs_than_an_engine_holds_and_is_refused_with_more() {
    let disk = SimDisk::new(1, SimProfile::default());
    let open = || LocalEngine::open(disk.start_process(), &Options::at("/data"));
    open().expect("opens").close().expect("closes");
    let mut io = Blocking::new(disk.start_process().control_io().expect("there"));
    let directory = |number: usize| PathBuf::from(format!("/data/log-{number}"));
    for number in 0..MAX_LOGS {
        io.create_directory(&directory(number)).expect("made");
    }
    let mut engine = open().expect("as many as it holds");
    // They count also while they are not open, and those whose making was cut short.
    let error = engine.log("one-more", &LogOptions::default()).expect_err("one too many");
    assert_eq!(error.kind(), &ErrorKind::Config, "{error}");
    engine.log("log-7", &LogOptions::default()).expect("one of them");
    engine.close().expect("closes");
    open().expect("as many as before").close().expect("closes");
    io.create_directory(&directory(MAX_LOGS)).expect("made");
    let error = open().expect_err("one too many");
    assert_eq!(error.kind(), &ErrorKind::Config, "{error}");
    assert!(error.to_string().contains(&format!("holds {} logs", MAX_LOGS + 1)), "{error}");
}
