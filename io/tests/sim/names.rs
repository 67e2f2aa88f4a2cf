//! Names through power cuts.

use highwater_io::random::SeededRandom;
use highwater_io::sim::Survival;
use highwater_io::{Access, Io, OpenMode, Operation, Wait};

use crate::harness::{bytes, disk, drain, durable, open, path, read, start, submit, sync, write};

#[test]
fn rename_within_a_directory_leaves_one_of_both_names_whole() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..100 {
        let disk = disk(seed);
        let mut io = start(&disk);
        durable(&mut io, "/current", 1, 1);
        durable(&mut io, "/next", 1, 2);
        io.rename(path("/next").into(), path("/current").into()).expect("it is renamed");
        disk.power_cut(Survival::Random(seed));
        let current = disk.read_file(path("/current")).expect("the target never vanishes");
        let next = disk.read_file(path("/next"));
        if current == bytes(1, 1) {
            old += 1;
            assert_eq!(next, Some(bytes(1, 2)));
        } else {
            new += 1;
            assert_eq!((current, next), (bytes(1, 2), None));
        }
    }
    assert!(old > 10 && new > 10, "{old} {new}");
}

#[test]
fn rename_between_directories_survives_in_either_none_or_both_as_one_file() {
    let mut seen = [0; 4];
    for seed in 0..200 {
        let disk = disk(seed);
        let mut io = start(&disk);
        for directory in ["/a", "/b"] {
            io.create_directory(path(directory)).expect("it is made");
        }
        durable(&mut io, "/a/file", 1, 1);
        sync(&mut io, "/a");
        io.rename(path("/a/file").into(), path("/b/file").into()).expect("it is renamed");
        disk.power_cut(Survival::Random(seed));
        let (a, b) = (disk.read_file(path("/a/file")), disk.read_file(path("/b/file")));
        seen[usize::from(a.is_some()) * 2 + usize::from(b.is_some())] += 1;
        if a.is_some() && b.is_some() {
            let mut io = start(&disk);
            let file = open(&mut io, "/a/file", Access::ReadWrite);
            write(&mut io, file, 0, 1, 9);
            let other = open(&mut io, "/b/file", Access::Read);
            assert_eq!(read(&mut io, other, 0, 1), bytes(1, 9), "one file with two names");
        }
    }
    assert!(seen.iter().all(|times| *times > 5), "{seen:?}");
}

#[test]
fn each_directory_pins_its_own_half_of_a_rename() {
    let disk = disk(2);
    let mut io = start(&disk);
    for directory in ["/a", "/b"] {
        io.create_directory(path(directory)).expect("it is made");
    }
    durable(&mut io, "/a/file", 1, 1);
    sync(&mut io, "/a");
    io.rename(path("/a/file").into(), path("/b/file").into()).expect("it is renamed");
    sync(&mut io, "/a");
    let copy = disk.clone_state();
    copy.power_cut(Survival::Nothing);
    assert!(copy.files().is_empty(), "only the old name's end was synced");
    sync(&mut io, "/b");
    disk.power_cut(Survival::Nothing);
    assert_eq!(disk.files(), [path("/b/file")]);
}

#[test]
fn removed_file_can_come_back_until_its_directory_is_synced() {
    let disk = disk(3);
    let mut io = start(&disk);
    durable(&mut io, "/a", 1, 1);
    io.remove(path("/a")).expect("it is removed");
    assert!(disk.files().is_empty());
    let copy = disk.clone_state();
    copy.power_cut(Survival::Nothing);
    assert_eq!(copy.read_file(path("/a")), Some(bytes(1, 1)));
    sync(&mut io, "/");
    disk.power_cut(Survival::Nothing);
    assert!(disk.files().is_empty());
}

#[test]
fn later_change_of_a_name_wins() {
    for seed in 0..50 {
        let disk = disk(seed);
        let mut io = start(&disk);
        for byte in 1..4 {
            durable(&mut io, "/new", 1, byte);
            io.rename(path("/new").into(), path("/a").into()).expect("it is renamed");
        }
        sync(&mut io, "/");
        disk.power_cut(Survival::Random(seed));
        assert_eq!(disk.read_file(path("/a")), Some(bytes(1, 3)));
        assert_eq!(disk.files().len(), 1);
    }
}

#[test]
fn removed_and_closed_files_give_their_space_back() {
    let disk = disk(4);
    let mut io = start(&disk);
    let before = disk.used_bytes();
    let file = durable(&mut io, "/a", 8, 1);
    io.remove(path("/a")).expect("it is removed");
    assert!(disk.used_bytes() > before, "it is still open");
    io.close(file).expect("it closes");
    assert_eq!(disk.used_bytes(), before);
}

#[test]
fn synced_directories_survive_as_they_were_seen() {
    for seed in 0..200 {
        let mut random = SeededRandom::new(seed).split("names");
        let disk = disk(seed);
        let mut io = start(&disk);
        io.create_directory(path("/sub")).expect("it is made");
        sync(&mut io, "/");
        let names = ["/a", "/b", "/sub/a", "/sub/b"];
        for token in 0..60 {
            let mut name = || path(names[random.index(4)]).to_owned();
            let (path_of, to) = (name(), name());
            let mode = OpenMode { access: Access::CreateNew, direct: true };
            let operation = match random.below(5) {
                0 | 1 => Operation::Open { path: path_of, mode },
                2 => Operation::Rename { from: path_of, to },
                3 => Operation::Remove { path: path_of },
                _ => Operation::SyncDirectory { path: ["/", "/sub"][random.index(2)].into() },
            };
            submit(&mut io, token, operation);
            while io.io().in_flight() > 4 {
                io.io().poll(Wait::Forever, &mut Vec::new());
            }
        }
        drain(io.io());
        sync(&mut io, "/");
        sync(&mut io, "/sub");
        let seen = disk.files();
        disk.power_cut(Survival::Random(seed));
        assert_eq!(disk.files(), seen, "seed {seed}");
    }
}
