//! Durable writes that run on the thread that asked for them.

use highwater_io::sim::{SimDisk, SimIo, Survival};
use highwater_io::{Access, Blocking, FileId, Io, IoErrorKind, Operation, Output, Token, Wait};

use crate::harness::{bytes, disk, durable, path, start, write_of};

fn lone(file: FileId, at: usize, byte: u8) -> Operation {
    match write_of(file, at, 1, byte) {
        Operation::Write { file, position, buffer, length, .. } => {
            Operation::Write { file, position, buffer, length, dsync: true }
        }
        other => other,
    }
}

fn ready(seed: u64) -> (SimDisk, Blocking<SimIo>, FileId) {
    let disk = disk(seed);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 4, 1);
    (disk, io, file)
}

fn media(disk: &SimDisk) -> Vec<u8> {
    disk.media_file(path("/a")).expect("it is there")
}

#[test]
fn a_durable_write_is_alone_until_something_is_beside_it_or_a_poll_has_begun_it() {
    let (disk, mut io, file) = ready(1);
    let io = io.io();
    assert!(!io.is_alone(), "nothing was submitted");

    io.submit(Token(1), lone(file, 0, 2));
    assert_eq!((io.is_alone(), io.in_flight(), disk.next_event()), (true, 1, None));
    // A wake-up is for polls.
    io.waker().wake();
    let mut ended = Vec::new();
    io.run_alone(&mut ended);
    assert_eq!((io.is_alone(), io.in_flight(), ended.len()), (false, 0, 1));
    assert_eq!((ended[0].token, &ended[0].result), (Token(1), &Ok(Output::Bytes(4096))));
    assert!(ended[0].buffer.is_some());
    assert_eq!(media(&disk)[..4096], bytes(1, 2), "durable at once");
    io.poll(Wait::Forever, &mut ended);
    assert_eq!(ended.len(), 1, "woken");

    io.submit(Token(2), lone(file, 1, 3));
    while ended.len() < 2 {
        io.poll(Wait::No, &mut ended);
        assert!(!io.is_alone(), "a poll has begun it");
    }

    io.submit(Token(3), lone(file, 2, 4));
    io.submit(Token(4), lone(file, 3, 5));
    assert!(!io.is_alone(), "two are not alone");
    while ended.len() < 4 {
        io.poll(Wait::Forever, &mut ended);
    }
    io.submit(Token(5), write_of(file, 0, 1, 6));
    assert!(!io.is_alone(), "nor is one that takes no part in durability");
    drop(std::mem::take(&mut ended));
    assert_eq!(media(&disk)[4096..], [bytes(1, 3), bytes(1, 4), bytes(1, 5)].concat());
}

#[test]
fn a_lone_write_that_was_never_begun_ends_before_its_io_does() {
    let (disk, mut io, file) = ready(2);
    io.io().submit(Token(1), lone(file, 0, 9));
    drop(io);
    assert_eq!(media(&disk)[..4096], bytes(1, 9));
}

#[test]
fn a_kill_before_it_is_begun_leaves_nothing_of_it() {
    let (disk, mut io, file) = ready(3);
    io.io().submit(Token(1), lone(file, 0, 9));
    disk.kill();
    assert_eq!((disk.unsynced().len(), disk.late().len()), (0, 0));
    assert!(!io.io().is_alone());
    let mut ended = Vec::new();
    io.io().poll(Wait::Forever, &mut ended);
    let error = ended.pop().expect("one").result.expect_err("the process is dead");
    assert_eq!(error.kind, IoErrorKind::Dead);
    disk.power_cut(Survival::Everything);
    assert_eq!(media(&disk), bytes(4, 1));
}

#[test]
fn a_kill_at_every_boundary_of_it_leaves_the_old_the_new_or_one_in_flight() {
    let (whole, mut io, file) = ready(4);
    let began = whole.boundaries();
    io.io().submit(Token(1), lone(file, 0, 9));
    io.io().run_alone(&mut Vec::new());
    let ended = whole.boundaries();
    assert!(ended - began >= 4, "submitted, begun, effective, ended: {began}..{ended}");
    drop(io);
    let (mut never, mut flying) = (0, 0);
    for stop in began + 1..=ended {
        let (disk, mut io, file) = ready(4);
        disk.stop_at_boundary(stop);
        io.io().submit(Token(1), lone(file, 0, 9));
        let mut done = Vec::new();
        if io.io().is_alone() {
            io.io().run_alone(&mut done);
            assert_eq!((done.len(), io.io().in_flight()), (1, 0));
        }
        never += u64::from(done.is_empty());
        flying += u64::from(!disk.late().is_empty());
        for (survival, kept) in [(Survival::Nothing, false), (Survival::Everything, true)] {
            let copy = disk.clone_state();
            copy.power_cut(survival);
            let now = media(&copy)[..4096].to_vec();
            let new = now == bytes(1, 9);
            assert!(new || now == bytes(1, 1), "old or new");
            assert!(!new || kept || stop == ended, "pinned by its end only");
            assert!(new || !kept || done.is_empty(), "begun, and everything survives");
        }
    }
    assert_eq!(never, 1, "the first boundary is its submission");
    assert!(flying > 0);
}

#[test]
fn a_read_only_file_refuses_a_lone_write_when_it_is_run() {
    let (_, mut io, _) = ready(5);
    let (file, _) = io.open(path("/a"), Access::Read, true).expect("it opens");
    io.io().submit(Token(1), lone(file, 0, 9));
    let mut ended = Vec::new();
    io.io().run_alone(&mut ended);
    assert!(ended.pop().expect("one").result.is_err());
}
