//! Readers that follow a log: inside its process and beside it.

use std::time::Duration;

use highwater::inspect::OutsideReader;
use highwater::{
    Ack, BackendChoice, Engine, ErrorKind, FlushPolicy, Isolation, Log, LogOptions, Offset,
    ReadBatch,
};

use crate::basics::{Scratch, batch};

/// Far beyond what any step takes on a slow machine; a test that waits so long has failed.
const LONG: Duration = Duration::from_secs(60);

fn open(scratch: &Scratch) -> (Engine, Log) {
    let engine = Engine::open(scratch.options(BackendChoice::Auto)).expect("opens");
    let options = LogOptions { segment_bytes: Some(64 << 10), ..Default::default() };
    let log = engine.log("log", options).expect("opens");
    (engine, log)
}

fn append(log: &Log, next: &mut u64, count: u64) {
    log.append(batch(*next, count, 700), Ack::LEADER).expect("appends").wait().expect("acked");
    *next += count;
}

/// Checks that a batch holds the numbers that are its offsets, and returns its end.
fn check(batch: &ReadBatch) -> u64 {
    let mut next = batch.base_offset().0;
    for record in batch.records() {
        let record = record.expect("well formed");
        let number = record.value.and_then(|v| v.first_chunk()).map(|b| u64::from_le_bytes(*b));
        assert_eq!((record.offset.0, number), (next, Some(next)));
        next += 1;
    }
    next
}

#[test]
fn a_reader_beside_the_writer_goes_on_over_rolls_and_restarts_of_the_writer() {
    let scratch = Scratch::new("follow-outside");
    let mut next = 0;
    let (engine, log) = open(&scratch);
    append(&log, &mut next, 3);
    drop((engine, log));
    let outside = |isolation| {
        let reader = OutsideReader::open(&scratch.0, "log", Offset(0), isolation);
        reader.expect("opens").follow(isolation)
    };
    let mut followers = [Isolation::Written, Isolation::Committed, Isolation::Durable].map(outside);
    let mut read = [0; 3];
    for life in 0..4 {
        let (engine, log) = open(&scratch);
        for round in 0..60 {
            append(&log, &mut next, 1 + round % 4);
            if round % 20 == 7 {
                log.flush().expect("asked").wait().expect("flushed");
            }
            for (follower, read) in followers[..2].iter_mut().zip(&mut read) {
                while *read < next {
                    let batch = follower.next_within(LONG).expect("undamaged").expect("in time");
                    assert_eq!(batch.base_offset().0, *read, "no gap, nothing twice");
                    *read = check(&batch);
                }
                assert!(follower.next().is_none(), "nothing that is not there");
            }
        }
        // The mark reaches the media without anybody's asking.
        while read[2] < next {
            let batch = followers[2].next_within(LONG).expect("undamaged").expect("in time");
            assert_eq!(batch.base_offset().0, read[2]);
            read[2] = check(&batch);
        }
        if life % 2 == 0 {
            engine.close().expect("closes");
        }
    }
    assert!(std::fs::read_dir(scratch.0.join("log")).expect("listed").count() > 6, "it rolled");
}

#[test]
fn a_follower_beside_the_writer_is_told_what_was_trimmed_or_cut_under_it() {
    let scratch = Scratch::new("follow-outside-cut");
    let (_engine, log) = open(&scratch);
    let mut next = 0;
    for _ in 0..150 {
        append(&log, &mut next, 2);
    }
    let open = |from: u64| {
        let reader = OutsideReader::open(&scratch.0, "log", Offset(from), Isolation::Written);
        reader.expect("opens").follow(Isolation::Written)
    };
    let (mut slow, mut fast) = (open(0), open(0));
    assert!(slow.next().is_some());
    while fast.next().is_some() {}
    log.flush().expect("asked").wait().expect("flushed");
    log.trim(Offset(200)).expect("trims");
    log.truncate(Offset(250)).expect("truncates");
    next = 250;
    append(&log, &mut next, 2);
    for (reader, what) in [(&mut slow, "slow"), (&mut fast, "fast")] {
        let error = loop {
            match reader.next_within(LONG) {
                // What had been read ahead.
                Ok(Some(_)) => {}
                Ok(None) => panic!("{what}: it is told"),
                Err(error) => break error,
            }
        };
        let told = matches!(error.kind(), ErrorKind::Trimmed { log_start: Offset(200) });
        assert!(told, "{what}: {error}");
        assert!(reader.next().is_none(), "{what}: an error is the end");
    }
    let again = open(200);
    let mut read = 200;
    for batch in again {
        read = check(&batch.expect("undamaged"));
    }
    assert_eq!(read, next);
}

#[test]
fn damage_below_the_mark_is_told_to_a_follower_beside_the_writer() {
    use std::os::unix::fs::FileExt;
    let scratch = Scratch::new("follow-outside-damage");
    let engine = Engine::open(scratch.options(BackendChoice::Auto)).expect("opens");
    let options = LogOptions { flush: FlushPolicy::EVERY_GROUP, ..Default::default() };
    let log = engine.log("log", options).expect("opens");
    let mut next = 0;
    append(&log, &mut next, 1);
    let reader = OutsideReader::open(&scratch.0, "log", Offset(0), Isolation::Written);
    let mut reader = reader.expect("opens").follow(Isolation::Written);
    assert!(reader.next().is_some() && reader.next().is_none());
    for _ in 0..5 {
        append(&log, &mut next, 1);
    }
    log.flush().expect("asked").wait().expect("flushed");
    engine.close().expect("closes");
    let path = scratch.0.join("log/00000000000000000000.log");
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("opens");
    file.write_all_at(&[0; 4], 4096 + 3 * 900).expect("written");
    let error = loop {
        match reader.next_within(LONG) {
            Ok(batch) => assert!(batch.is_some(), "it is told"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error}");
}

#[test]
fn a_follower_reads_all_that_comes_and_is_told_of_the_end() {
    let scratch = Scratch::new("follow");
    let (engine, log) = open(&scratch);
    const END: u64 = 900;
    std::thread::scope(|scope| {
        for isolation in [Isolation::Written, Isolation::Committed, Isolation::Durable] {
            let mut follower = log.follow(Offset(0), isolation).expect("reads");
            scope.spawn(move || {
                let timeout = follower.wait(Some(Duration::ZERO)).map(|batch| check(&batch));
                let mut next = match timeout {
                    Ok(next) => next,
                    Err(error) => {
                        assert_eq!(error.kind(), &ErrorKind::Timeout);
                        0
                    }
                };
                while next < END {
                    assert_eq!(follower.next_offset(), Offset(next));
                    let batch = follower.wait(Some(LONG)).expect("it comes");
                    assert_eq!(batch.base_offset(), Offset(next), "no gap, nothing twice");
                    next = check(&batch);
                }
                assert_eq!(follower.poll(), Ok(None));
                let closed = follower.wait(Some(LONG)).expect_err("nothing more comes");
                assert_eq!(closed.kind(), &ErrorKind::Closed);
            });
        }
        let mut next = 0;
        while next < END {
            append(&log, &mut next, 3);
        }
        engine.close().expect("closes");
    });
}

#[test]
fn a_follower_that_is_too_slow_is_told_and_goes_on_where_it_is_sent() {
    let scratch = Scratch::new("follow-slow");
    let (_engine, log) = open(&scratch);
    let mut follower = log.follow(Offset(0), Isolation::Written).expect("reads");
    let mut next = 0;
    for _ in 0..200 {
        append(&log, &mut next, 2);
    }
    assert_eq!(check(&follower.poll().expect("read").expect("there")), 2);
    log.trim(Offset(300)).expect("trims");
    for _ in 0..3 {
        let error = loop {
            match follower.wait(Some(LONG)) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        let trimmed = ErrorKind::Trimmed { log_start: Offset(300) };
        assert_eq!(error.kind(), &trimmed, "told until it is moved");
    }
    follower.seek(Offset(300)).expect("moves");
    assert_eq!(check(&follower.wait(Some(LONG)).expect("there")), 302);
    // What it has read is cut off, and comes anew.
    follower.seek(Offset(398)).expect("moves");
    assert_eq!(check(&follower.wait(Some(LONG)).expect("there")), 400);
    log.truncate(Offset(390)).expect("truncates");
    next = 390;
    append(&log, &mut next, 20);
    let error = follower.wait(Some(LONG)).expect_err("what was read is gone");
    assert!(matches!(error.kind(), ErrorKind::Trimmed { .. }), "{error}");
    follower.seek(Offset(390)).expect("moves");
    assert_eq!(check(&follower.wait(Some(LONG)).expect("there")), 410);
}

#[cfg(feature = "stream")]
#[test]
fn a_stream_gives_all_that_comes_and_ends_with_the_engine() {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake};

    use futures_core::Stream;

    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let scratch = Scratch::new("follow-stream");
    let (engine, log) = open(&scratch);
    let mut follower = log.follow(Offset(0), Isolation::Committed).expect("reads");
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let waker = Arc::new(Unpark(std::thread::current())).into();
            let mut next = 0;
            loop {
                match Pin::new(&mut follower).poll_next(&mut Context::from_waker(&waker)) {
                    Poll::Pending => std::thread::park(),
                    Poll::Ready(None) => return next,
                    Poll::Ready(Some(batch)) => {
                        let batch = batch.expect("undamaged");
                        assert_eq!(batch.base_offset(), Offset(next));
                        next = check(&batch);
                    }
                }
            }
        });
        let mut next = 0;
        while next < 600 {
            append(&log, &mut next, 3);
        }
        engine.close().expect("closes");
        assert_eq!(reading.join().expect("reads"), 600);
    });
}
