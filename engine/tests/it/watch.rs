//! Watching marks.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use highwater::{Ack, BackendChoice, Engine, ErrorKind, LogOptions, Marks, Offset, Result};

use crate::basics::{Scratch, batch};

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn next(watcher: &mut highwater::Watcher) -> Result<Marks> {
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut moved = pin!(watcher.moved());
    loop {
        match moved.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(told) => return told,
            Poll::Pending => std::thread::park(),
        }
    }
}

use std::future::Future;

#[test]
fn a_watcher_sees_every_mark_in_the_end_and_the_end_of_the_engine() {
    let scratch = Scratch::new("watch");
    let engine = Engine::open(scratch.options(BackendChoice::Auto)).expect("opens");
    let log = engine.log("l", LogOptions::default()).expect("opens");
    let mut still = log.watch();
    let error = still.changed(Some(Duration::from_millis(1))).expect_err("nothing moves");
    assert_eq!(error.kind(), &ErrorKind::Timeout);
    std::thread::scope(|scope| {
        for kind in 0..4 {
            let mut watcher = log.watch();
            scope.spawn(move || {
                loop {
                    let before = watcher.seen();
                    let marks =
                        if kind % 2 == 0 { watcher.changed(None) } else { next(&mut watcher) };
                    let marks = marks.expect("the engine is open");
                    assert!(marks != before && marks.flushed >= before.flushed);
                    if marks.flushed == Offset(400) {
                        return;
                    }
                }
            });
        }
        for first in 0..400 {
            let ack = if first % 7 == 0 { Ack::LEADER_FLUSHED } else { Ack::LEADER };
            log.append(batch(first, 1, 50), ack).expect("appends").wait().expect("acked");
        }
        log.flush().expect("flushes").wait().expect("flushed");
    });
    assert_eq!(still.changed(None).expect("moved").flushed, Offset(400));
    log.truncate(Offset(10)).expect("truncates");
    assert_eq!(still.changed(None).expect("moved").log_end, Offset(10));
    std::thread::scope(|scope| {
        let mut blocked = log.watch();
        let last = scope.spawn(move || blocked.changed(None));
        engine.close().expect("closes");
        let error = last.join().expect("no panic").expect_err("closed");
        assert_eq!(error.kind(), &ErrorKind::Closed);
    });
}
