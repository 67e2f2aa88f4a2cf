//! Going through every outcome of a power cut.

use std::collections::BTreeSet;
use std::time::Duration;

use highwater_io::Operation;
use highwater_io::sim::{PieceKind, PieceSurvival, SimDisk, SimProfile};

use crate::harness::{block, bytes, disk, drain, durable, path, start, submit, write, write_of};

/// Returns a disk with an unsynced write, one in flight beyond the end, and an unsynced rename.
fn unsettled() -> SimDisk {
    let disk = disk(1);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 1, 1);
    durable(&mut io, "/b", 1, 9);
    write(&mut io, file, 0, 1, 2);
    io.rename(path("/b").into(), path("/c").into()).expect("it is renamed");
    submit(&mut io, 1, write_of(file, 1, 1, 3));
    submit(&mut io, 2, Operation::Flush { file });
    let copy = disk.clone_state();
    copy.kill();
    copy
}

#[test]
fn unsynced_pieces_are_named_with_their_place() {
    let disk = unsettled();
    let pieces = disk.unsynced();
    let kinds: Vec<_> = pieces.iter().map(|piece| (piece.in_flight, piece.kind.clone())).collect();
    let a = || path("/a").to_owned();
    let length = block(1);
    let expected = [
        (false, PieceKind::Write { path: a(), position: 0, length }),
        (true, PieceKind::Size { path: a(), length: block(2), grows: true }),
        (true, PieceKind::Write { path: a(), position: block(1), length }),
    ];
    for piece in expected {
        assert!(kinds.contains(&piece), "{piece:?} in {kinds:?}");
    }
    let (directory, set) = (path("/").to_owned(), vec!["c".to_owned()]);
    let rename = PieceKind::Entry { directory, set, cleared: vec!["b".to_owned()] };
    assert!(kinds.contains(&(false, rename)), "{kinds:?}");
    assert_eq!(kinds.len(), 4);
    let ids: BTreeSet<_> = pieces.iter().map(|piece| piece.id).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(disk.clone_state().unsynced(), pieces);
}

#[test]
fn every_subset_of_pieces_is_another_outcome() {
    let disk = unsettled();
    let pieces = disk.unsynced();
    let mut outcomes = BTreeSet::new();
    for subset in 0..1_u32 << pieces.len() {
        let copy = disk.clone_state();
        copy.power_cut_with(&mut |piece| {
            let index = pieces.iter().position(|other| other == piece).expect("one of them");
            if subset >> index & 1 == 1 { PieceSurvival::Kept } else { PieceSurvival::Lost }
        });
        outcomes.insert((copy.files(), copy.read_file(path("/a"))));
        assert!(copy.unsynced().is_empty());
    }
    // The second write without its size cannot be told from its absence.
    assert_eq!(outcomes.len(), 2 * 2 * 3);
}

#[test]
fn part_of_a_write_survives_as_it_is_told() {
    let sectors = |survival: PieceSurvival| {
        let disk = disk(2);
        let mut io = start(&disk);
        let file = durable(&mut io, "/a", 1, 1);
        write(&mut io, file, 0, 1, 2);
        disk.power_cut_with(&mut |_| survival.clone());
        let after = disk.read_file(path("/a")).expect("its name is synced");
        after.chunks(512).map(|sector| sector.iter().filter(|byte| **byte == 2).count()).collect()
    };
    let cases: [(PieceSurvival, Vec<usize>); 6] = [
        (PieceSurvival::Lost, vec![0; 8]),
        (PieceSurvival::Kept, vec![512; 8]),
        (PieceSurvival::Prefix { sectors: 3 }, vec![512, 512, 512, 0, 0, 0, 0, 0]),
        (PieceSurvival::Hole { sector: 1 }, vec![512, 0, 512, 512, 512, 512, 512, 512]),
        (PieceSurvival::Only(vec![false, true, true]), vec![0, 512, 512, 0, 0, 0, 0, 0]),
        (PieceSurvival::Torn { sector: 1, bytes: 7 }, vec![512, 7, 0, 0, 0, 0, 0, 0]),
    ];
    for (survival, expected) in cases {
        let found: Vec<usize> = sectors(survival.clone());
        assert_eq!(found, expected, "{survival:?}");
    }
}

#[test]
fn write_without_its_size_is_gone_and_size_without_its_write_is_zeros() {
    let disk = unsettled();
    let run = |keep_size: bool, keep_write: bool| {
        let copy = disk.clone_state();
        copy.power_cut_with(&mut |piece| match &piece.kind {
            PieceKind::Size { .. } if keep_size => PieceSurvival::Kept,
            PieceKind::Write { position, .. } if *position > 0 && keep_write => PieceSurvival::Kept,
            _ => PieceSurvival::Lost,
        });
        copy.read_file(path("/a")).expect("its name is synced")
    };
    assert_eq!(run(false, true), bytes(1, 1));
    assert_eq!(run(true, false), [bytes(1, 1), bytes(1, 0)].concat());
    assert_eq!(run(true, true), [bytes(1, 1), bytes(1, 3)].concat());
}

#[test]
fn decision_may_look_at_the_disk() {
    let disk = unsettled();
    let looker = disk.clone_state();
    disk.power_cut_with(&mut |piece| {
        assert!(disk.unsynced().contains(piece) && looker.unsynced().contains(piece));
        PieceSurvival::Lost
    });
    assert_eq!(disk.read_file(path("/a")), Some(bytes(1, 1)));
}

#[test]
fn flush_in_flight_takes_nothing_off_the_list() {
    let disk = disk(3);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 1, 1);
    write(&mut io, file, 0, 1, 2);
    submit(&mut io, 1, Operation::Flush { file });
    assert_eq!(disk.unsynced().len(), 1);
}

#[test]
fn nothing_lands_between_the_kill_and_a_look_at_the_disk() {
    let profile = SimProfile { late_landing_max: Duration::ZERO, ..SimProfile::default() };
    let disk = SimDisk::new(4, profile);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 1, 1);
    submit(&mut io, 1, write_of(file, 0, 1, 2));
    disk.kill();
    assert!(drain(io.io())[0].result.is_err());
    disk.advance(Duration::ZERO);
    assert_eq!((disk.late().len(), disk.unsynced().len()), (1, 1));
}
