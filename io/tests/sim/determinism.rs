//! The same seed and the same calls give the same run.

use highwater_io::sim::{FaultRates, SimDisk, SimProfile, Survival};
use highwater_io::{Access, Io, Operation, Token, Wait};

use crate::harness::{block, drain, open, path, start, sync, write_of};

/// Runs a busy process with faults for a while, kills it, lets another go on, and cuts the power.
pub(crate) fn busy_run(seed: u64) -> SimDisk {
    let faults = FaultRates {
        write_error: 10_000,
        flush_error: 20_000,
        lost_write: 10_000,
        slow_spell: 5_000,
        ..FaultRates::default()
    };
    let disk = SimDisk::new(seed, SimProfile { faults, ..SimProfile::default() });
    disk.record_trace(true);
    let mut io = start(&disk);
    let file = open(&mut io, "/a", Access::CreateNew);
    drop(io.sync_directory(path("/")));
    let mut token = 0;
    let mut completions = Vec::new();
    for round in 0..30 {
        for at in 0..4 {
            io.io().submit(Token(token), write_of(file, (round + at * 3) % 16, 1, 5));
            token += 1;
        }
        io.io().submit(Token(token), Operation::Flush { file });
        token += 1;
        while io.io().in_flight() > 6 {
            io.io().poll(Wait::Forever, &mut completions);
        }
    }
    disk.kill();
    let mut next = start(&disk);
    let file = open(&mut next, "/a", Access::ReadWrite);
    for at in 0..4 {
        next.io().submit(Token(at), write_of(file, 2, 1, 6));
    }
    drain(next.io());
    next.set_length(file, block(9)).expect("it is cut");
    drop(next.sync_directory(path("/")));
    disk.power_cut(Survival::Random(seed));
    disk
}

#[test]
fn same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let (a, b) = (busy_run(seed), busy_run(seed));
        assert_eq!(a.trace_lines(), b.trace_lines());
        assert_eq!(a.trace_digest(), b.trace_digest());
        assert_eq!(a.read_file(path("/a")), b.read_file(path("/a")));
        assert_eq!((a.now(), a.boundaries()), (b.now(), b.boundaries()));
    }
}

#[test]
fn other_seeds_give_other_traces() {
    let mut digests: Vec<u64> = (0..50).map(|seed| busy_run(seed).trace_digest()).collect();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 50);
}

#[test]
fn trace_keeps_its_last_lines_only() {
    let disk = SimDisk::new(1, SimProfile { trace_lines: 5, ..SimProfile::default() });
    disk.record_trace(true);
    let mut io = start(&disk);
    open(&mut io, "/a", Access::CreateNew);
    sync(&mut io, "/");
    let lines = disk.trace_lines();
    assert_eq!(lines.len(), 5);
    assert!(lines[4].contains("reported"), "{lines:?}");
}

#[test]
fn copy_goes_the_same_way_until_it_is_reseeded() {
    let run = |disk: &SimDisk| {
        let mut io = start(disk);
        let file = open(&mut io, "/b", Access::CreateNew);
        for at in 0..9 {
            io.io().submit(Token(0), write_of(file, at, 1, 5));
        }
        drain(io.io());
        disk.trace_digest()
    };
    let disk = busy_run(3);
    let other = disk.clone_state();
    other.reseed(99);
    let (a, b) = (run(&disk.clone_state()), run(&disk.clone_state()));
    assert_eq!(a, b);
    assert_ne!(a, run(&other));
}
