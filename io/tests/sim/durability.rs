//! What a flush, a dsync write and a directory sync pin, and what they do not.

use highwater_io::sim::Survival;
use highwater_io::{Access, BLOCK_BYTES, Operation};

use crate::harness::{
    block, bytes, count, disk, drain, durable, filled, open, path, read, start, submit, sync,
    write, write_of,
};

#[test]
fn flushed_bytes_and_synced_names_survive_every_power_cut() {
    for seed in 0..50 {
        let disk = disk(seed);
        let mut io = start(&disk);
        durable(&mut io, "/a", 3, 7);
        for cut in [Survival::Nothing, Survival::Everything, Survival::Random(seed)] {
            let copy = disk.clone_state();
            copy.power_cut(cut);
            assert_eq!(copy.read_file(path("/a")), Some(bytes(3, 7)), "{cut:?}");
        }
    }
}

#[test]
fn unsynced_bytes_are_seen_before_a_power_cut_and_gone_after_it() {
    let disk = disk(1);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 2, 1);
    write(&mut io, file, 0, 1, 2);
    assert_eq!(read(&mut io, file, 0, 1), bytes(1, 2));
    disk.power_cut(Survival::Nothing);
    assert_eq!(disk.read_file(path("/a")), Some(bytes(2, 1)));
}

#[test]
fn flush_does_not_pin_a_write_reported_after_its_submission() {
    let lost = count(100, |seed| {
        let disk = disk(seed);
        let mut io = start(&disk);
        let file = durable(&mut io, "/a", 2, 1);
        write(&mut io, file, 0, 1, 2);
        submit(&mut io, 1, write_of(file, 1, 1, 3));
        submit(&mut io, 2, Operation::Flush { file });
        drain(io.io());
        disk.power_cut(Survival::Nothing);
        let after = disk.read_file(path("/a")).expect("its name is synced");
        assert_eq!(after[..BLOCK_BYTES], bytes(1, 2)[..], "reported before: pinned");
        after[BLOCK_BYTES..] == bytes(1, 1)[..]
    });
    assert_eq!(lost, 100, "in flight with the flush: never pinned by it");
}

#[test]
fn second_flush_pins_what_the_first_did_not_cover() {
    let disk = disk(3);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 2, 1);
    submit(&mut io, 1, write_of(file, 1, 1, 3));
    submit(&mut io, 2, Operation::Flush { file });
    drain(io.io());
    io.flush(file).expect("it is flushed");
    disk.power_cut(Survival::Nothing);
    assert_eq!(disk.read_file(path("/a")), Some([bytes(1, 1), bytes(1, 3)].concat()));
}

#[test]
fn flush_pins_only_its_own_file() {
    let disk = disk(4);
    let mut io = start(&disk);
    let (a, b) = (durable(&mut io, "/a", 1, 1), durable(&mut io, "/b", 1, 1));
    write(&mut io, a, 0, 1, 2);
    write(&mut io, b, 0, 1, 2);
    io.flush(a).expect("it is flushed");
    disk.power_cut(Survival::Nothing);
    assert_eq!(disk.read_file(path("/a")), Some(bytes(1, 2)));
    assert_eq!(disk.read_file(path("/b")), Some(bytes(1, 1)));
}

#[test]
fn dsync_write_pins_itself_with_its_size_and_nothing_else() {
    let disk = disk(5);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 2, 1);
    write(&mut io, file, 0, 1, 2);
    let (_, result) = io.write(file, block(4), filled(1, 3), BLOCK_BYTES, true);
    result.expect("it is written");
    disk.power_cut(Survival::Nothing);
    let expected = [bytes(2, 1), bytes(2, 0), bytes(1, 3)].concat();
    assert_eq!(disk.read_file(path("/a")), Some(expected));
}

#[test]
fn flush_of_an_overwritten_block_pins_the_newest_of_it() {
    for seed in 0..50 {
        let disk = disk(seed);
        let mut io = start(&disk);
        let file = durable(&mut io, "/a", 3, 1);
        for byte in 2..6 {
            write(&mut io, file, 0, 2, byte);
            write(&mut io, file, 1, 2, byte + 10);
        }
        io.flush(file).expect("it is flushed");
        disk.power_cut(Survival::Random(seed));
        assert_eq!(disk.read_file(path("/a")), Some([bytes(1, 5), bytes(2, 15)].concat()));
    }
}

#[test]
fn flush_of_a_file_does_not_pin_its_name() {
    let disk = disk(6);
    let mut io = start(&disk);
    let file = open(&mut io, "/a", Access::CreateNew);
    write(&mut io, file, 0, 1, 1);
    io.flush(file).expect("it is flushed");
    disk.power_cut(Survival::Nothing);
    assert!(disk.files().is_empty());
}

#[test]
fn an_unsynced_name_can_vanish_with_its_file() {
    let vanished = count(200, |seed| {
        let disk = disk(seed);
        let mut io = start(&disk);
        let file = open(&mut io, "/a", Access::CreateNew);
        write(&mut io, file, 0, 1, 1);
        io.flush(file).expect("it is flushed");
        disk.power_cut(Survival::Random(seed));
        match disk.read_file(path("/a")) {
            None => true,
            Some(found) => {
                assert_eq!(found, bytes(1, 1), "with its name come its flushed bytes");
                false
            }
        }
    });
    assert!((20..180).contains(&vanished), "{vanished} of 200");
}

#[test]
fn an_unsynced_directory_vanishes_with_all_below_it() {
    let disk = disk(7);
    let mut io = start(&disk);
    io.create_directory(path("/d")).expect("it is made");
    let file = open(&mut io, "/d/a", Access::CreateNew);
    write(&mut io, file, 0, 1, 1);
    io.flush(file).expect("it is flushed");
    sync(&mut io, "/d");
    let copy = disk.clone_state();
    copy.power_cut(Survival::Nothing);
    assert!(copy.files().is_empty());
    sync(&mut io, "/");
    disk.power_cut(Survival::Nothing);
    assert_eq!(disk.read_file(path("/d/a")), Some(bytes(1, 1)));
}

#[test]
fn an_unsynced_size_can_survive_without_its_data_and_data_never_without_a_size() {
    let (mut zeros, mut short) = (0, 0);
    for seed in 0..300 {
        let disk = disk(seed);
        let mut io = start(&disk);
        let file = durable(&mut io, "/a", 1, 1);
        write(&mut io, file, 1, 1, 2);
        disk.power_cut(Survival::Random(seed));
        let after = disk.read_file(path("/a")).expect("its name is synced");
        assert_eq!(after[..BLOCK_BYTES], bytes(1, 1)[..]);
        short += u64::from(after.len() == BLOCK_BYTES);
        zeros += u64::from(after[BLOCK_BYTES..] == bytes(1, 0)[..]);
        // What a lost size hides does not come back when the file grows again.
        let mut io = start(&disk);
        let length = u64::try_from(after.len()).expect("small");
        let file = open(&mut io, "/a", Access::ReadWrite);
        io.set_length(file, block(4)).expect("it grows");
        let grown = read(&mut io, file, 0, 4);
        assert!(grown[after.len()..].iter().all(|byte| *byte == 0), "grown from {length}");
    }
    assert!(short > 30 && zeros > 30, "{short} {zeros}");
}

#[test]
fn sectors_are_old_or_new_and_mixtures_occur() {
    let mut mixtures = 0;
    for seed in 0..300 {
        let disk = disk(seed);
        let mut io = start(&disk);
        let file = durable(&mut io, "/a", 2, 1);
        write(&mut io, file, 0, 2, 2);
        disk.power_cut(Survival::Random(seed));
        let after = disk.read_file(path("/a")).expect("its name is synced");
        let sectors: Vec<u8> = after.chunks(512).map(|sector| sector[0]).collect();
        assert!(after.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        assert!(sectors.iter().all(|byte| [1, 2].contains(byte)));
        mixtures += u64::from(sectors.contains(&1) && sectors.contains(&2));
    }
    assert!(mixtures > 50, "{mixtures} of 300");
}

#[test]
fn cut_and_growth_of_a_file_are_pinned_in_order() {
    for seed in 0..50 {
        let disk = disk(seed);
        let mut io = start(&disk);
        let file = durable(&mut io, "/a", 4, 1);
        io.set_length(file, block(1)).expect("it is cut");
        write(&mut io, file, 2, 1, 2);
        io.flush(file).expect("it is flushed");
        disk.power_cut(Survival::Random(seed));
        let expected = [bytes(1, 1), bytes(1, 0), bytes(1, 2)].concat();
        assert_eq!(disk.read_file(path("/a")), Some(expected));
    }
}

#[test]
fn allocation_reads_as_zeros_and_is_pinned_by_a_flush() {
    let disk = disk(8);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 1, 1);
    io.allocate(file, 0, block(3)).expect("there is space");
    let copy = disk.clone_state();
    copy.power_cut(Survival::Nothing);
    assert_eq!(copy.read_file(path("/a")), Some(bytes(1, 1)));
    io.flush(file).expect("it is flushed");
    disk.power_cut(Survival::Nothing);
    assert_eq!(disk.read_file(path("/a")), Some([bytes(1, 1), bytes(2, 0)].concat()));
}

#[test]
fn dsync_write_behind_a_cut_pins_the_cut() {
    let disk = disk(9);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 4, 1);
    io.set_length(file, block(1)).expect("it is cut");
    io.write(file, block(2), filled(1, 2), BLOCK_BYTES, true).1.expect("it is written");
    let expected = Some([bytes(1, 1), bytes(1, 0), bytes(1, 2)].concat());
    let copy = disk.clone_state();
    copy.power_cut(Survival::Nothing);
    assert_eq!(copy.read_file(path("/a")), expected);
    io.flush(file).expect("it is flushed");
    disk.power_cut(Survival::Nothing);
    assert_eq!(disk.read_file(path("/a")), expected, "the cut does not come after the write");
}
