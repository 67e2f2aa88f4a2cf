//! Kills, late writes and locks.

use std::time::Duration;

use highwater_io::sim::{Planted, SimDisk, SimProfile, Survival};
use highwater_io::{Access, Blocking, Io, IoErrorKind, Operation, Platform, Wait};

use crate::harness::{
    bytes, count, disk, drain, durable, filled, kind_of, open, path, read, start, submit,
    try_write, write, write_of,
};

#[test]
fn what_completed_before_a_kill_is_seen_after_it_but_not_yet_durable() {
    let disk = disk(1);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 1, 1);
    write(&mut io, file, 0, 1, 2);
    disk.kill();
    let mut next = start(&disk);
    let file = open(&mut next, "/a", Access::ReadWrite);
    assert_eq!(read(&mut next, file, 0, 1), bytes(1, 2));
    let copy = disk.clone_state();
    copy.power_cut(Survival::Nothing);
    assert_eq!(copy.read_file(path("/a")), Some(bytes(1, 1)));
    next.flush(file).expect("it is flushed");
    disk.power_cut(Survival::Nothing);
    assert_eq!(disk.read_file(path("/a")), Some(bytes(1, 2)), "a flush of the next life covers it");
}

#[test]
fn dead_process_gets_its_buffers_back_and_changes_nothing() {
    let disk = disk(2);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 1, 1);
    disk.kill();
    let (buffer, result) = io.write(file, 0, filled(1, 9), 4096, false);
    assert_eq!((buffer[0], kind_of(result)), (9, IoErrorKind::Dead));
    assert_eq!(kind_of(io.open(path("/b"), Access::CreateNew, true)), IoErrorKind::Dead);
    assert_eq!(kind_of(io.remove(path("/a"))), IoErrorKind::Dead);
    disk.advance(Duration::from_secs(1));
    assert_eq!(disk.read_file(path("/a")), Some(bytes(1, 1)));
    drop(io);
    assert_eq!(disk.files(), [path("/a")]);
}

#[test]
fn killed_platform_makes_no_io() {
    let disk = disk(3);
    let platform = disk.start_process();
    let other = disk.start_process();
    platform.kill();
    assert_eq!(kind_of(platform.clone().shard_io()), IoErrorKind::Dead);
    assert!(!platform.is_alive() && other.is_alive() && other.control_io().is_ok());
}

#[test]
fn writes_in_flight_at_a_kill_land_later_or_never_but_whole() {
    let (mut at_once, mut later, mut never) = (0, 0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(seed, SimProfile { split_writes: 0, ..SimProfile::default() });
        let mut io = start(&disk);
        let file = durable(&mut io, "/a", 1, 1);
        submit(&mut io, 1, write_of(file, 0, 1, 2));
        disk.kill();
        assert_eq!(disk.read_file(path("/a")), Some(bytes(1, 1)), "it had not landed yet");
        disk.advance(Duration::from_millis(1));
        let soon = disk.read_file(path("/a")) == Some(bytes(1, 2));
        disk.advance(Duration::from_millis(100));
        let landed = disk.read_file(path("/a")) == Some(bytes(1, 2));
        at_once += u64::from(soon);
        later += u64::from(landed && !soon);
        never += u64::from(!landed);
        assert_eq!(disk.late().len(), 0);
    }
    assert!(at_once > 20 && later > 20 && never > 3, "{at_once} {later} {never}");
}

fn locked(disk: &SimDisk) -> Blocking<highwater_io::sim::SimIo> {
    let mut io = start(disk);
    for _ in 0..1000 {
        match io.lock(path("/")) {
            Ok(()) => return io,
            Err(error) => assert!(matches!(error.kind, IoErrorKind::Locked { .. }), "{error}"),
        }
    }
    panic!("the lock never came");
}

/// Returns whether a write of a killed process changed a file under a successor's lock.
fn landed_under_the_next_lock(seed: u64, planted: Planted) -> bool {
    let disk = disk(seed);
    disk.set_planted(planted);
    let mut io = locked(&disk);
    let file = durable(&mut io, "/a", 1, 1);
    submit(&mut io, 1, write_of(file, 0, 1, 2));
    disk.kill();
    let mut next = locked(&disk);
    let file = open(&mut next, "/a", Access::ReadWrite);
    let before = read(&mut next, file, 0, 1);
    disk.advance(Duration::from_secs(1));
    read(&mut next, file, 0, 1) != before
}

#[test]
fn late_write_of_a_killed_process_lands_in_the_next_life_only_when_the_lock_is_planted() {
    assert_eq!(count(200, |seed| landed_under_the_next_lock(seed, Planted::Nothing)), 0);
    let wrong = count(200, |seed| landed_under_the_next_lock(seed, Planted::LockDroppedAtKill));
    assert!(wrong > 50, "{wrong} of 200");
}

#[test]
fn io_that_did_not_take_the_lock_does_not_keep_it() {
    let landed = count(200, |seed| {
        let disk = disk(seed);
        let platform = disk.start_process();
        let mut control = Blocking::new(platform.control_io().expect("it is alive"));
        control.lock(path("/")).expect("it is free");
        let mut shard = Blocking::new(platform.shard_io().expect("it is alive"));
        let file = durable(&mut shard, "/a", 1, 1);
        submit(&mut shard, 1, write_of(file, 0, 1, 2));
        disk.kill();
        let mut next = locked(&disk);
        let file = open(&mut next, "/a", Access::ReadWrite);
        let before = read(&mut next, file, 0, 1);
        disk.advance(Duration::from_secs(1));
        read(&mut next, file, 0, 1) != before
    });
    assert!(landed > 50, "{landed} of 200");
}

#[test]
fn lock_is_shared_within_a_process_and_free_when_its_last_io_is_dropped() {
    let disk = disk(4);
    let platform = disk.start_process();
    let mut control = Blocking::new(platform.control_io().expect("it is alive"));
    let mut shard = Blocking::new(platform.shard_io().expect("it is alive"));
    control.lock(path("/")).expect("it is free");
    shard.lock(path("/")).expect("it is ours");
    let mut other = start(&disk);
    drop(control);
    let before = disk.now();
    let error = other.lock(path("/")).expect_err("it is taken");
    assert!(matches!(error.kind, IoErrorKind::Locked { holder: Some(_) }), "{error}");
    assert!(disk.now() > before, "trying takes time");
    drop(shard);
    other.lock(path("/")).expect("it is free");
}

#[test]
fn dropping_an_io_waits_for_what_it_has_in_flight() {
    let disk = disk(5);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 1, 1);
    submit(&mut io, 1, write_of(file, 0, 1, 2));
    let before = disk.now();
    drop(io);
    assert!(disk.now() > before);
    assert_eq!(disk.read_file(path("/a")), Some(bytes(1, 2)));
}

#[test]
fn process_that_is_not_killed_goes_on_beside_one_that_is() {
    let disk = disk(6);
    let writer = disk.start_process();
    let mut io = Blocking::new(writer.control_io().expect("it is alive"));
    let file = durable(&mut io, "/a", 1, 1);
    let mut reader = start(&disk);
    let seen = open(&mut reader, "/a", Access::Read);
    writer.kill();
    assert_eq!(kind_of(try_write(&mut io, file, 0, 1, 2)), IoErrorKind::Dead);
    assert_eq!(read(&mut reader, seen, 0, 1), bytes(1, 1));
}

#[test]
fn clone_shares_nothing_and_has_no_processes() {
    let disk = disk(7);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 1, 1);
    io.lock(path("/")).expect("it is free");
    submit(&mut io, 1, write_of(file, 0, 1, 2));
    let copy = disk.clone();
    assert!(!copy.has_process() && disk.has_process());
    drain(io.io());
    write(&mut io, file, 0, 1, 3);
    copy.advance(Duration::from_secs(1));
    assert_ne!(copy.read_file(path("/a")), Some(bytes(1, 3)));
    locked(&copy);
    copy.power_cut(Survival::Nothing);
    assert_eq!(read(&mut io, file, 0, 1), bytes(1, 3));
}

#[test]
fn reader_beside_a_writer_can_see_half_of_a_write() {
    let torn = count(300, |seed| {
        let disk =
            SimDisk::new(seed, SimProfile { split_writes: 1_000_000, ..SimProfile::default() });
        let mut io = start(&disk);
        let file = durable(&mut io, "/a", 1, 1);
        let mut reader = start(&disk);
        let seen = open(&mut reader, "/a", Access::Read);
        submit(&mut io, 1, write_of(file, 0, 1, 2));
        let buffer = filled(1, 0);
        submit(&mut reader, 1, Operation::Read { file: seen, position: 0, buffer, length: 4096 });
        let read = drain(reader.io()).remove(0).buffer.expect("a read returns its buffer");
        drain(io.io());
        assert_eq!(disk.read_file(path("/a")), Some(bytes(1, 2)));
        read.contains(&1) && read.contains(&2)
    });
    assert!(torn > 20, "{torn} of 300");
}

#[test]
fn clock_of_a_dead_process_goes_on_and_that_of_the_disk_stands_still() {
    let disk = disk(8);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 1, 1);
    submit(&mut io, 1, write_of(file, 0, 1, 2));
    disk.kill();
    let (before, own) = (disk.now(), io.io().now());
    while io.io().now().since(own) < Duration::from_millis(250) {
        io.io().poll(Wait::AtMost(Duration::from_millis(10)), &mut Vec::new());
    }
    assert_eq!((disk.now(), disk.late().len()), (before, 1));
}

#[test]
fn handles_move_between_threads() {
    fn check<T: Send>(_: &T) {}
    let disk = disk(9);
    let platform = disk.start_process();
    check(&disk);
    check(&platform);
    check(&platform.shard_io().expect("it is alive"));
}
