//! Room in the queue: who waits for it, and who gets it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake};

use highwater::{
    Ack, BackendChoice, Engine, ErrorKind, LogOptions, Options, Permit, RecordBatch, Reserve,
    Result,
};

use crate::basics::{Scratch, batch};

/// Counts how often a task is woken, and wakes the thread that runs it.
struct Task(AtomicU32, std::thread::Thread);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.unpark();
    }
}

fn task() -> Arc<Task> {
    Arc::new(Task(AtomicU32::new(0), std::thread::current()))
}

fn run<T>(mut future: Pin<&mut impl Future<Output = T>>) -> T {
    let waker = task().into();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn poll(future: Pin<&mut Reserve>, task: &Arc<Task>) -> Option<Result<Permit>> {
    let waker = Arc::clone(task).into();
    match future.poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(permit) => Some(permit),
        Poll::Pending => None,
    }
}

fn open(scratch: &Scratch) -> Engine {
    let options = scratch.options(BackendChoice::Auto);
    Engine::open(Options { queue_batches: 2, ..options }).expect("opens")
}

#[test]
fn a_permit_is_room_for_one_batch_and_unused_room_comes_back() {
    let scratch = Scratch::new("permits");
    let engine = open(&scratch);
    let log = engine.log("l", LogOptions::default()).expect("opens");
    let bytes = |batch: &RecordBatch| usize::try_from(batch.disk_bytes()).expect("small");
    let one = batch(0, 1, 100);
    let first = run(pin!(log.reserve(bytes(&one)))).expect("room");
    let second = run(pin!(log.reserve(1000))).expect("room");
    // Both places are taken: everyone else stands in line, in order.
    let (_, error) = log.try_append(one.clone(), Ack::LEADER).expect_err("no place");
    assert_eq!(error.kind(), &ErrorKind::WouldBlock);
    let (mut third, mut fourth) = (Box::pin(log.reserve(10)), Box::pin(log.reserve(20)));
    let (third_task, fourth_task) = (task(), task());
    assert!(poll(third.as_mut(), &third_task).is_none());
    assert!(poll(fourth.as_mut(), &fourth_task).is_none());
    drop(second);
    assert_eq!(third_task.0.load(Ordering::SeqCst), 1, "there is room for the first in line");
    assert_eq!(fourth_task.0.load(Ordering::SeqCst), 0, "and for nobody else");
    assert!(poll(fourth.as_mut(), &fourth_task).is_none());
    // Whoever leaves makes room, whether it knew of its own or not.
    drop(third);
    assert_eq!(fourth_task.0.load(Ordering::SeqCst), 1);
    let fourth = poll(fourth.as_mut(), &fourth_task).expect("admitted").expect("room");
    let error = fourth.append(batch(0, 1, 100), Ack::LEADER).expect_err("too large for it");
    assert_eq!(error.kind(), &ErrorKind::TooLarge);
    first.append(one, Ack::LEADER).expect("appends").wait().expect("acked");
    for next in 1..200 {
        let one = batch(next, 1, 100);
        let permit = run(pin!(log.reserve(bytes(&one) + 8))).expect("room");
        drop(permit.append(one, Ack::LEADER).expect("appends"));
    }
    log.flush().expect("flushes").wait().expect("flushed");
    assert_eq!(log.metrics().expect("counted").batches, 200);
    let held = run(pin!(log.reserve(1))).expect("room");
    engine.close().expect("closes");
    let error = run(pin!(log.reserve(1))).expect_err("closed");
    assert_eq!(error.kind(), &ErrorKind::Closed);
    drop(held);
}

#[test]
fn blocked_threads_and_tasks_share_one_line_and_all_get_through() {
    let scratch = Scratch::new("line");
    let engine = open(&scratch);
    let log = engine.log("l", LogOptions::default()).expect("opens");
    std::thread::scope(|scope| {
        for producer in 0..6 {
            let log = log.clone();
            scope.spawn(move || {
                for _ in 0..300 {
                    let one = batch(0, 1, 64);
                    let receipt = if producer % 2 == 0 {
                        log.append(one, Ack::LEADER).expect("appends")
                    } else {
                        let bytes = usize::try_from(one.disk_bytes()).expect("small");
                        let permit = run(pin!(log.reserve(bytes))).expect("room");
                        permit.append(one, Ack::LEADER).expect("appends")
                    };
                    if producer < 2 {
                        receipt.wait().expect("acked");
                    } else if producer == 3 {
                        run(pin!(receipt)).expect("acked");
                    }
                }
            });
        }
    });
    log.flush().expect("flushes").wait().expect("flushed");
    assert_eq!(log.marks().flushed.0, 1800);
    engine.close().expect("closes");
}

/// A task that, when it is woken, gives up what another waits for.
struct GivesUp(Mutex<Option<Pin<Box<Reserve>>>>);

impl Wake for GivesUp {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().expect("unpoisoned").take());
    }
}

/// Two are admitted at once, and told one after the other: the first, told of it, drops the second
/// before that is told.
#[test]
fn a_reservation_dropped_between_its_admission_and_the_news_of_it_gives_its_room_back() {
    const BYTES: usize = 1 << 20;
    let scratch = Scratch::new("untold");
    let options = scratch.options(BackendChoice::Auto);
    let options = Options { queue_batches: 8, queue_bytes: BYTES, ..options };
    let engine = Engine::open(options).expect("opens");
    let log = engine.log("l", LogOptions::default()).expect("opens");
    for _ in 0..10 {
        // More than a log's share: only an empty queue has room for it.
        let all = run(pin!(log.reserve(BYTES))).expect("room");
        let (mut told, mut untold) = (Box::pin(log.reserve(10)), Box::pin(log.reserve(10)));
        let gives_up = Arc::new(GivesUp(Mutex::new(None)));
        let waker = Arc::clone(&gives_up).into();
        assert!(told.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(poll(untold.as_mut(), &task()).is_none());
        *gives_up.0.lock().expect("unpoisoned") = Some(untold);
        drop(all);
        assert!(gives_up.0.lock().expect("unpoisoned").is_none(), "it was told");
        let permit = poll(told.as_mut(), &task()).expect("admitted").expect("room");
        drop(permit);
        let mut all = Box::pin(log.reserve(BYTES));
        assert!(poll(all.as_mut(), &task()).is_some_and(|room| room.is_ok()), "all is free again");
    }
    engine.close().expect("closes");
}
