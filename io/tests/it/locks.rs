//! The lock of a directory.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use highwater_io::{
    Access, BLOCK_BYTES, Backend, Blocking, Io, IoError, IoErrorKind, Operation, Platform, Token,
    Wait,
};

use crate::harness::{
    AnyIo, BACKENDS, TestDirectory, check, check_blocking, filled, make, open_on, platform,
};

/// Says to a copy of this test binary which directory to lock, and by which backend.
const HOLD_DIRECTORY: &str = "HIGHWATER_TEST_HOLD_DIRECTORY";
const HOLD_BACKEND: &str = "HIGHWATER_TEST_HOLD_BACKEND";

fn assert_held(result: Result<(), IoError>, holder: Option<u32>) {
    let error = result.expect_err("another holds it");
    let IoErrorKind::Locked { holder: found } = &error.kind else {
        panic!("{error:?}");
    };
    if let (Some(process), Some(found)) = (holder, found) {
        assert!(found.starts_with(&format!("{process} (")) && found.ends_with(')'), "{found}");
        assert!(error.to_string().contains(found), "{error}");
    } else {
        println!("this machine does not tell who holds a lock");
    }
}

#[test]
fn held_lock_is_refused_to_others_and_free_after_the_drop() {
    check(|make, directory| {
        for _ in 0..20 {
            let mut first = Blocking::new(make());
            first.lock(directory).expect("it is free");
            let mut second = Blocking::new(make());
            assert_held(second.lock(directory), Some(std::process::id()));
            drop(first);
            second.lock(directory).expect("it is free at once");
        }
    });
}

#[test]
fn locks_of_two_directories_do_not_meet() {
    check_blocking(|mut io, directory| {
        let (a, b) = (directory.join("a"), directory.join("b"));
        for path in [&a, &b] {
            io.create_directory(path).expect("it is made");
            io.lock(path).expect("it is free");
        }
        // The same owner already holds it.
        io.lock(&a).expect("it is ours");
    });
}

#[test]
fn lock_is_shared_by_the_ios_of_one_platform_until_the_last_is_dropped() {
    for backend in [Backend::Threads, Backend::Uring] {
        let Some(stranger) = make(backend) else { continue };
        let directory = TestDirectory::new();
        let mut stranger = Blocking::new(stranger);
        let ours = platform(backend);
        let mut control = Blocking::new(ours.control_io().expect("it is had"));
        let mut shard = Blocking::new(ours.clone().shard_io().expect("it is had"));
        control.lock(&directory.path).expect("it is free");
        shard.lock(&directory.path).expect("the owner is the same");
        let mut other = Blocking::new(platform(backend).control_io().expect("it is had"));
        assert_held(other.lock(&directory.path), Some(std::process::id()));
        drop(control);
        assert_held(stranger.lock(&directory.path), Some(std::process::id()));
        drop(shard);
        stranger.lock(&directory.path).expect("it is free");
    }
}

#[test]
fn lock_of_a_killed_process_names_it_and_comes_free() {
    if let (Ok(directory), Ok(backend)) =
        (std::env::var(HOLD_DIRECTORY), std::env::var(HOLD_BACKEND))
    {
        hold(Path::new(&directory), &backend);
    }
    for backend in BACKENDS {
        let Some(io) = make(backend) else { continue };
        let directory = TestDirectory::new();
        let name = "locks::lock_of_a_killed_process_names_it_and_comes_free";
        let mut child = Command::new(std::env::current_exe().expect("this runs"))
            .args([name, "--exact", "--nocapture"])
            .env(HOLD_DIRECTORY, &directory.path)
            .env(HOLD_BACKEND, backend.name())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a copy of this test starts");
        let said = BufReader::new(child.stdout.take().expect("it is piped"));
        let held = said.lines().map_while(Result::ok).any(|line| line.contains("lock held"));
        assert!(held, "the child has the lock");
        let mut io = Blocking::new(io);
        assert_held(io.lock(&directory.path), Some(child.id()));
        child.kill().expect("it is killed");
        child.wait().expect("it is dead");
        // The kernel may still be writing for it: the lock comes free when that is over.
        let come_free = (0..1000).any(|_| match io.lock(&directory.path) {
            Ok(()) => true,
            Err(_) => {
                io.io().poll(Wait::AtMost(Duration::from_millis(10)), &mut Vec::new());
                false
            }
        });
        assert!(come_free, "the lock of a dead process comes free");
    }
}

/// Holds the lock of `directory` and writes there until killed.
fn hold(directory: &Path, backend: &str) -> ! {
    let backend = BACKENDS.into_iter().find(|known| known.name() == backend);
    let io = make(backend.expect("a known backend")).expect("it was there for the parent");
    let mut io = Blocking::new(io);
    io.lock(directory).expect("it is free");
    println!("lock held");
    write_for_ever(io, directory.join("file"))
}

fn write_for_ever(mut io: Blocking<AnyIo>, path: PathBuf) -> ! {
    let io = io.io();
    let file = open_on(io, &path, Access::CreateNew);
    let mut completions = Vec::new();
    loop {
        for number in 0..4 {
            let (position, length) = (number * 4096, BLOCK_BYTES);
            let (buffer, dsync) = (filled(1, 1), true);
            let write = Operation::Write { file, position, buffer, length, dsync };
            io.submit(Token(number), write);
        }
        while io.in_flight() > 0 {
            io.poll(Wait::Forever, &mut completions);
        }
        completions.clear();
    }
}
