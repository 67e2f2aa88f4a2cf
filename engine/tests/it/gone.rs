//! Directories that go away under a running engine.

use highwater::{Ack, Engine, ErrorKind, LogOptions};

use crate::basics::{batch, on_each_backend};

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
