//! Waiting, and ending a wait.

use std::sync::mpsc::channel;
use std::time::Duration;

use highwater_io::system::{BackendChoice, SystemPlatform};
use highwater_io::thread::spawn;
use highwater_io::{Access, Backend, Io, Operation, Output, Platform, Token, Wait};

use crate::harness::{check, make, open_on, take_one};

#[test]
fn waker_ends_a_wait_without_end() {
    check(|make, _| {
        let mut io = make();
        let waker = io.waker();
        // A wake-up before the wait counts for it.
        waker.clone().wake();
        io.poll(Wait::Forever, &mut Vec::new());
        for _ in 0..100 {
            // One during the wait, or before it, as it comes.
            let waker = waker.clone();
            let waking = spawn("waking", move || waker.wake()).expect("a thread starts");
            io.poll(Wait::Forever, &mut Vec::new());
            waking.join().expect("it ends");
        }
    });
}

#[test]
fn no_wake_up_is_lost_between_two_threads() {
    check(|make, _| {
        let mut io = make();
        let waker = io.waker();
        let (say, said) = channel();
        let telling = spawn("telling", move || {
            for number in 0..20_000 {
                say.send(number).expect("somebody listens");
                waker.wake();
            }
        });
        let mut next = 0;
        while next < 20_000 {
            io.poll(Wait::Forever, &mut Vec::new());
            while let Ok(number) = said.try_recv() {
                assert_eq!(number, next);
                next += 1;
            }
        }
        telling.expect("a thread starts").join().expect("it ends");
    });
}

#[test]
fn waker_survives_a_poll_that_does_not_wait() {
    check(|make, _| {
        let mut io = make();
        io.waker().wake();
        for _ in 0..3 {
            io.poll(Wait::No, &mut Vec::new());
        }
        io.poll(Wait::Forever, &mut Vec::new());
    });
}

#[test]
fn waker_used_after_the_end_does_nothing() {
    check(|make, directory| {
        let mut io = make();
        let waker = io.waker();
        io.submit(Token(1), Operation::Lock { path: directory.to_owned() });
        drop(io);
        waker.wake();
        // Nor does it keep anything of what was in flight.
        let mut io = make();
        io.submit(Token(1), Operation::Lock { path: directory.to_owned() });
        assert_eq!(take_one(&mut io).result, Ok(Output::Done));
        waker.wake();
    });
}

#[test]
fn wait_ends_when_its_time_is_over() {
    check(|make, _| {
        let mut io = make();
        let mut completions = Vec::new();
        for time in [Duration::ZERO, Duration::from_micros(1), Duration::from_millis(2)] {
            io.poll(Wait::AtMost(time), &mut completions);
        }
        io.poll(Wait::No, &mut completions);
        assert!(completions.is_empty());
    });
}

#[test]
fn long_wait_ends_with_the_first_completion() {
    check(|make, directory| {
        let mut io = make();
        let file = open_on(&mut io, &directory.join("file"), Access::CreateNew);
        let hour = Wait::AtMost(Duration::from_secs(3600));
        let mut completions = Vec::new();
        for number in 0..50 {
            let path = directory.to_owned();
            let (inside, beside) = (Operation::Flush { file }, Operation::SyncDirectory { path });
            io.submit(Token(number), if number % 2 == 0 { inside } else { beside });
            while completions.is_empty() {
                io.poll(hour, &mut completions);
            }
            let completion = completions.pop().expect("it is there");
            assert_eq!((completion.token, completion.result), (Token(number), Ok(Output::Done)));
        }
    });
}

#[test]
fn polls_that_do_not_wait_get_everything_done() {
    check(|make, directory| {
        let mut io = make();
        let file = open_on(&mut io, &directory.join("file"), Access::CreateNew);
        io.submit(Token(1), Operation::Flush { file });
        io.submit(Token(2), Operation::SetLength { file, length: 9 });
        let mut completions = Vec::new();
        while io.in_flight() > 0 {
            io.poll(Wait::No, &mut completions);
            std::thread::yield_now();
        }
        assert_eq!(completions.len(), 2);
    });
}

#[test]
fn platform_gives_the_backend_that_was_chosen() {
    let threads = SystemPlatform::new(BackendChoice::Threads);
    assert_eq!(threads.shard_io().expect("it is had").backend(), Backend::Threads);
    assert_eq!(threads.control_io().expect("it is had").backend(), Backend::Inline);
    assert_eq!(threads.fallback_reason(), None);
    let auto = SystemPlatform::new(BackendChoice::Auto);
    let backend = auto.shard_io().expect("one of them is had").backend();
    if make(Backend::Uring).is_some() {
        assert_eq!((backend, auto.fallback_reason()), (Backend::Uring, None));
        let uring = SystemPlatform::new(BackendChoice::Uring);
        assert_eq!(uring.shard_io().expect("it is had").backend(), Backend::Uring);
    } else {
        assert_eq!(backend, Backend::Threads);
        assert!(auto.fallback_reason().expect("there is one").contains("io_uring"));
    }
}
