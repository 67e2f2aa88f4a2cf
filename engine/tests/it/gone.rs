//! Directories that go away under a running engine.

use highwater::{Ack, Engine, ErrorKind, Isolation, LogOptions};

use crate::basics::{batch, on_each_backend, read_all};

#[test]
fn a_log_that_could_not_be_opened_again_says_why_when_the_engine_closes() {
    on_each_backend("gone-reopen", |scratch, backend| {
        let engine = Engine::open(scratch.options(backend)).expect("opens");
        let log = engine.log("log", LogOptions::default()).expect("made");
        log.append(batch(0, 3, 10), Ack::LEADER_FLUSHED).expect("taken").wait().expect("flushed");
        std::fs::remove_dir_all(&scratch.0).expect("removed");
        let reopened = log.reopen().expect_err("there is nothing to open");
        let append = log.append(batch(3, 1, 10), Ack::LEADER).expect_err("it is closed");
        let closed = engine.close().expect_err("a log failed");
        for error in [&reopened, &append, &closed] {
            assert_eq!(error.kind(), &ErrorKind::Io, "{error}");
            assert!(error.to_string().contains("No such file"), "{error}");
        }
    });
}

/// What such a log had not flushed may be in a cache only. It says so in its `log.meta`, as best it
/// can; where that is lost too, the engine it was opened by knows.
#[test]
fn a_log_that_was_closed_with_a_failure_is_written_anew_by_its_next_opening() {
    on_each_backend("gone-close", |scratch, backend| {
        let engine = Engine::open(scratch.options(backend)).expect("opens");
        let options = LogOptions { segment_bytes: Some(64 << 10), ..LogOptions::default() };
        let log = engine.log("log", options).expect("made");
        let append = |next| {
            let receipt = log.append(batch(next, 1, 30_000), Ack::LEADER);
            receipt.and_then(|receipt| receipt.wait())
        };
        append(0).expect("written");
        let [directory, away] = ["log", "away"].map(|name| scratch.0.join(name));
        let meta = std::fs::read(directory.join("log.meta")).expect("readable");
        std::fs::rename(&directory, &away).expect("renamed");
        append(1).expect("written");
        let failed = append(2).expect_err("there is no directory for the next segment");
        assert_eq!(failed.kind(), &ErrorKind::Poisoned, "{failed}");
        let closed = engine.close_log("log").expect_err("it is poisoned");
        assert_eq!(closed.kind(), &ErrorKind::Poisoned, "{closed}");
        let again = engine.close_log("log").expect_err("it is closed");
        assert_eq!(again.kind(), &ErrorKind::Config, "{again}");
        std::fs::rename(&away, &directory).expect("renamed");
        std::fs::write(directory.join("log.meta"), meta).expect("written");

        let log = engine.log("log", LogOptions::default()).expect("opens");
        assert!(log.recovery().rewritten, "{:?}", log.recovery());
        assert_eq!(read_all(&log, 0, Isolation::Durable), 2);
        // Once is enough.
        engine.close_log("log").expect("closes");
        let log = engine.log("log", LogOptions::default()).expect("opens");
        assert!(!log.recovery().rewritten, "{:?}", log.recovery());
        engine.close().expect("closes");
    });
}
