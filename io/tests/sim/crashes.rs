//! Stopping at every I/O boundary.

use highwater_io::sim::{SimDisk, Survival};
use highwater_io::{Access, Blocking, IoError, Platform};

use crate::harness::{bytes, disk, filled, kind_of, path, start};

/// Replaces a file the safe way: write a copy, flush it, rename it, sync the directory.
fn replace(disk: &SimDisk, byte: u8) -> Result<(), IoError> {
    let mut io = Blocking::new(disk.start_process().control_io()?);
    let (file, _) = io.open(path("/new"), Access::CreateNew, true)?;
    io.write(file, 0, filled(2, byte), 8192, false).1?;
    io.flush(file)?;
    io.close(file)?;
    io.rename(path("/new").into(), path("/current").into())?;
    io.sync_directory(path("/"))
}

#[test]
fn stop_at_every_boundary_leaves_the_old_or_the_new_file() {
    let whole = disk(1);
    replace(&whole, 1).expect("nothing goes wrong");
    let first = whole.boundaries();
    replace(&whole, 2).expect("nothing goes wrong");
    let last = whole.boundaries();
    let (mut old, mut new) = (0, 0);
    for stop in first + 1..=last {
        let disk = disk(1);
        replace(&disk, 1).expect("nothing goes wrong yet");
        disk.stop_at_boundary(stop);
        let result = replace(&disk, 2);
        assert_eq!(disk.boundaries(), stop, "exactly there");
        assert!(!disk.has_process());
        for survival in [Survival::Nothing, Survival::Everything, Survival::Random(stop)] {
            let copy = disk.clone_state();
            copy.power_cut(survival);
            let current = copy.read_file(path("/current")).expect("one of both is there");
            assert!(current == bytes(2, 1) || current == bytes(2, 2));
            assert!(result.is_err() || current == bytes(2, 2), "after the end only the new one");
            old += u64::from(current == bytes(2, 1));
            new += u64::from(current == bytes(2, 2));
        }
    }
    assert!(old > 10 && new > 3, "{old} {new}");
}

#[test]
fn stopping_at_a_boundary_does_not_change_what_went_before() {
    let whole = disk(5);
    whole.record_trace(true);
    replace(&whole, 1).expect("nothing goes wrong");
    let lines = whole.trace_lines();
    for stop in 1..=whole.boundaries() {
        let disk = disk(5);
        disk.record_trace(true);
        disk.stop_at_boundary(stop);
        drop(replace(&disk, 1));
        let until = disk.trace_lines();
        let killed = until.iter().position(|line| line.contains("killed")).expect("it was killed");
        assert_eq!(until[..killed], lines[..killed]);
    }
}

#[test]
fn next_process_is_not_stopped_again() {
    let disk = disk(6);
    disk.stop_at_boundary(4);
    assert!(replace(&disk, 1).is_err());
    let mut io = start(&disk);
    let mut open = io.open(path("/other"), Access::CreateNew, true);
    open = open.and_then(|_| io.open(path("/other"), Access::Read, true));
    open.expect("it is alive");
    assert_eq!(
        kind_of(io.open(path("/other"), Access::CreateNew, true)),
        highwater_io::IoErrorKind::AlreadyExists
    );
}
