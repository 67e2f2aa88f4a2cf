//! The last handle of an engine, dropped where nobody thinks of it: inside a waker.

use std::future::Future;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake};

use highwater::{Ack, Engine, LogOptions, Options};

use crate::basics::{batch, on_each_backend};

/// A task that owns its engine, as an executor's tasks do; it ends when it is woken.
struct Task {
    engine: Mutex<Option<Engine>>,
    /// No other handle is left.
    is_last: Mutex<Receiver<()>>,
    ended: Sender<()>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.is_last.lock().expect("unpoisoned").recv().expect("the test goes on");
        drop(self.engine.lock().expect("unpoisoned").take());
        self.ended.send(()).expect("the test goes on");
    }
}

/// The shard wakes the task on its own thread. That thread cannot wait for its own end.
#[test]
fn the_last_handle_may_be_dropped_by_a_waker_that_a_shard_calls() {
    on_each_backend("last-handle", |scratch, backend| {
        let options = Options { shards: Some(2), ..scratch.options(backend) };
        let engine = Engine::open(options.clone()).expect("opens");
        let log = engine.log("log", LogOptions::default()).expect("made");
        let (tell, is_last) = channel();
        let (ended, has_ended) = channel();
        let is_last = Mutex::new(is_last);
        let task = Task { engine: Mutex::new(Some(engine)), is_last, ended };
        let waker = Arc::new(task).into();
        let mut next = 0;
        // Until one is not flushed when it is looked at first.
        let receipt = loop {
            let receipt = log.append(batch(next, 1, 100), Ack::LEADER_FLUSHED).expect("taken");
            let mut receipt = Box::pin(receipt);
            next += 1;
            if receipt.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                break receipt;
            }
        };
        drop((log, waker));
        tell.send(()).expect("it is woken");
        has_ended.recv().expect("the task ends");
        assert!(receipt.poll().is_some_and(|acked| acked.is_ok()));
        // The shard's thread ends behind that, and with it its share of the lock.
        let engine = (0..1000).find_map(|_| Engine::open(options.clone()).ok());
        let engine = engine.expect("it has ended");
        assert_eq!(engine.recovery().logs[0].log_end.0, next);
        engine.close().expect("closes");
    });
}
