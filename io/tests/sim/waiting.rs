//! Time, waiting and the contract of an Io.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use highwater_io::sim::{Fault, FaultRule, SimDisk, SimProfile};
use highwater_io::{Access, Backend, Io, Operation, Platform, Token, Wait};

use crate::harness::{
    bytes, disk, drain, durable, filled, open, path, read, start, submit, write_of,
};

/// Something that breaks the contract on a disk.
type Case = fn(&SimDisk);

fn message(case: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(case)).expect_err("this must panic");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn nothing_is_reported_by_submit_and_everything_once() {
    let disk = disk(1);
    let mut io = start(&disk);
    let file = open(&mut io, "/a", Access::CreateNew);
    for token in 0..20 {
        submit(&mut io, token, write_of(file, 0, 1, 1));
    }
    assert_eq!((io.io().in_flight(), io.io().backend()), (20, Backend::Sim));
    let mut tokens: Vec<u64> = drain(io.io()).iter().map(|done| done.token.0).collect();
    assert_ne!(tokens, (0..20).collect::<Vec<_>>(), "in any order");
    tokens.sort_unstable();
    assert_eq!(tokens, (0..20).collect::<Vec<_>>());
}

#[test]
fn polling_moves_time_as_far_as_it_waits() {
    let disk = disk(2);
    let mut io = start(&disk);
    let start = io.io().now();
    io.io().poll(Wait::AtMost(Duration::from_millis(5)), &mut Vec::new());
    assert_eq!(io.io().now().since(start), Duration::from_millis(5));
    let wall = io.io().wall_clock_ms();
    disk.jump_wall_clock(-3_600_000);
    assert_eq!(io.io().wall_clock_ms(), wall - 3_600_000);
    let file = open(&mut io, "/a", Access::CreateNew);
    submit(&mut io, 7, Operation::Length { file });
    let mut done = Vec::new();
    let mut polls = 0;
    while done.is_empty() {
        io.io().poll(Wait::No, &mut done);
        polls += 1;
    }
    assert!(polls > 1, "polls without waiting get there too");
}

#[test]
fn waker_ends_the_next_wait_only() {
    let disk = disk(3);
    let mut io = start(&disk);
    let waker = io.io().waker();
    waker.wake();
    io.io().poll(Wait::No, &mut Vec::new());
    io.io().poll(Wait::Forever, &mut Vec::new());
    let text = message(|| io.io().poll(Wait::Forever, &mut Vec::new()));
    assert!(text.contains("seed 3") && text.contains("waits for nothing"), "{text}");
}

#[test]
fn hung_disk_reports_nothing_until_it_thaws() {
    let disk = disk(4);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 1, 1);
    disk.inject(FaultRule::new("write", "/a", Fault::Hang));
    submit(&mut io, 1, write_of(file, 0, 1, 2));
    let mut done = Vec::new();
    for _ in 0..10 {
        io.io().poll(Wait::AtMost(Duration::from_secs(1)), &mut done);
    }
    assert!(done.is_empty() && disk.read_file(path("/a")) == Some(bytes(1, 1)));
    let text = message(|| io.io().poll(Wait::Forever, &mut Vec::new()));
    assert!(text.contains("seed 4") && text.contains("hangs"), "{text}");
    disk.thaw();
    drain(io.io());
    assert_eq!(read(&mut io, file, 0, 1), bytes(1, 2));
}

#[test]
fn slow_operation_takes_a_hundred_times_as_long() {
    let disk = disk(5);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 1, 1);
    disk.inject(FaultRule::new("flush", "/a", Fault::Slow));
    let before = disk.now();
    io.flush(file).expect("it is flushed");
    assert!(disk.now().since(before) >= Duration::from_millis(5));
}

#[test]
fn broken_contracts_panic_with_the_seed() {
    let profile = SimProfile { queue_depth: 2, ..SimProfile::default() };
    let cases: [(&str, Case); 5] = [
        ("capacity", |disk| {
            let mut io = start(disk);
            for token in 0..3 {
                submit(&mut io, token, Operation::List { path: path("/").into() });
            }
        }),
        ("not open", |disk| {
            let mut io = start(disk);
            let file = open(&mut io, "/a", Access::CreateNew);
            io.close(file).expect("it closes");
            submit(&mut io, 1, Operation::Flush { file });
        }),
        ("in flight", |disk| {
            let mut io = start(disk);
            let file = open(&mut io, "/a", Access::CreateNew);
            submit(&mut io, 1, Operation::Flush { file });
            submit(&mut io, 2, Operation::Close { file });
        }),
        ("multiple", |disk| {
            let mut io = start(disk);
            let file = open(&mut io, "/a", Access::CreateNew);
            let buffer = filled(1, 0);
            let read = Operation::Read { file, position: 512, buffer, length: 4096 };
            submit(&mut io, 1, read);
        }),
        ("fit", |disk| {
            let mut io = start(disk);
            let file = open(&mut io, "/a", Access::CreateNew);
            let buffer = filled(1, 0);
            submit(&mut io, 1, Operation::Read { file, position: 0, buffer, length: 8192 });
        }),
    ];
    for (expected, case) in cases {
        let disk = SimDisk::new(77, profile.clone());
        let text = message(|| case(&disk));
        assert!(text.contains("seed 77") && text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn time_is_one_for_all_ios_of_a_disk() {
    let disk = disk(6);
    let platform = disk.start_process();
    let mut a = platform.shard_io().expect("it is alive");
    let mut b = platform.control_io().expect("it is alive");
    b.submit(Token(1), Operation::List { path: path("/").into() });
    a.poll(Wait::AtMost(Duration::from_millis(10)), &mut Vec::new());
    assert_eq!(a.now(), b.now());
    let mut done = Vec::new();
    b.poll(Wait::No, &mut done);
    assert_eq!(done.len(), 1, "it ended meanwhile");
    assert_ne!(a.random_u64(), b.random_u64());
}
