//! Faults of the device and damage by hand.

use highwater_io::sim::{Fault, FaultRates, FaultRule, SimDisk, SimProfile, Survival};
use highwater_io::{Access, BLOCK_BYTES, IoErrorKind};

use crate::harness::{
    block, bytes, count, disk, durable, kind_of, open, path, read, start, sync, try_read,
    try_write, write,
};

fn once(disk: &SimDisk, verb: &'static str, fault: Fault) {
    disk.inject(FaultRule::new(verb, "/a", fault));
}

#[test]
fn failed_flush_is_reported_once_and_shown_by_the_cache_only() {
    for seed in 0..50 {
        let disk = disk(seed);
        let mut io = start(&disk);
        let file = durable(&mut io, "/a", 8, 1);
        write(&mut io, file, 0, 8, 2);
        once(&disk, "flush", Fault::FlushError);
        assert_eq!(kind_of(io.flush(file)), IoErrorKind::Device);
        let (cached, _) = io.open(path("/a"), Access::Read, false).expect("it opens");
        assert_eq!(read(&mut io, cached, 0, 8), bytes(8, 2), "the cache pretends");
        assert!(read(&mut io, file, 0, 8).contains(&1), "the media does not");
        io.drop_cache(cached).expect("a wish is granted");
        assert!(read(&mut io, cached, 0, 8).contains(&1));
    }
}

#[test]
fn second_flush_after_a_failed_one_pins_nothing_lost() {
    let kept_some = count(50, |seed| {
        let disk = disk(seed);
        let mut io = start(&disk);
        let file = durable(&mut io, "/a", 8, 1);
        write(&mut io, file, 0, 8, 2);
        once(&disk, "flush", Fault::FlushError);
        assert_eq!(kind_of(io.flush(file)), IoErrorKind::Device);
        io.flush(file).expect("the second flush pretends all is well");
        disk.power_cut(Survival::Everything);
        let after = disk.read_file(path("/a")).expect("its name is synced");
        assert!(after.contains(&1), "something was lost");
        after.contains(&2)
    });
    assert!(kept_some > 10, "{kept_some} of 50");
}

#[test]
fn rewriting_after_a_failed_flush_is_an_ordinary_write() {
    let disk = disk(3);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 4, 1);
    write(&mut io, file, 0, 4, 2);
    once(&disk, "flush", Fault::FlushError);
    assert_eq!(kind_of(io.flush(file)), IoErrorKind::Device);
    write(&mut io, file, 0, 4, 3);
    io.flush(file).expect("it is flushed");
    disk.power_cut(Survival::Nothing);
    assert_eq!(disk.read_file(path("/a")), Some(bytes(4, 3)));
}

#[test]
fn failed_directory_sync_loses_names_for_good() {
    let disk = disk(4);
    let mut io = start(&disk);
    durable(&mut io, "/b", 1, 1);
    open(&mut io, "/a", Access::CreateNew);
    disk.inject(FaultRule::new("sync directory", "/", Fault::FlushError));
    assert_eq!(kind_of(io.sync_directory(path("/"))), IoErrorKind::Device);
    sync(&mut io, "/");
    assert_eq!(disk.files().len(), 2);
    disk.power_cut(Survival::Everything);
    assert_eq!(disk.files(), [path("/b")]);
}

#[test]
fn latent_sector_error_stays_until_the_block_is_rewritten() {
    let disk = disk(5);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 4, 1);
    once(&disk, "read", Fault::ReadError);
    assert_eq!(kind_of(try_read(&mut io, file, 0, 4)), IoErrorKind::Device);
    assert_eq!(kind_of(try_read(&mut io, file, 0, 4)), IoErrorKind::Device);
    disk.power_cut(Survival::Nothing);
    let mut io = start(&disk);
    let file = open(&mut io, "/a", Access::ReadWrite);
    assert_eq!(kind_of(try_read(&mut io, file, 0, 4)), IoErrorKind::Device);
    write(&mut io, file, 0, 4, 2);
    assert_eq!(read(&mut io, file, 0, 4), bytes(4, 2));
    disk.break_blocks(path("/a"), block(1), 1);
    assert_eq!(read(&mut io, file, 0, 1), bytes(1, 2));
    assert_eq!(kind_of(try_read(&mut io, file, 1, 1)), IoErrorKind::Device);
}

#[test]
fn flipped_bit_stays_flipped_also_on_the_media() {
    let disk = disk(6);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 4, 1);
    once(&disk, "read", Fault::BitFlip);
    let first = read(&mut io, file, 0, 4);
    let flipped: u32 = first.iter().map(|byte| (byte ^ 1).count_ones()).sum();
    assert_eq!(flipped, 1);
    assert_eq!(read(&mut io, file, 0, 4), first);
    disk.power_cut(Survival::Nothing);
    assert_eq!(disk.read_file(path("/a")), Some(first));
}

#[test]
fn misdirected_write_lands_elsewhere_in_its_file() {
    let elsewhere = count(50, |seed| {
        let disk = disk(seed);
        let mut io = start(&disk);
        let file = durable(&mut io, "/a", 8, 1);
        once(&disk, "write", Fault::MisdirectedWrite);
        write(&mut io, file, 2, 1, 2);
        io.flush(file).expect("it is flushed");
        disk.power_cut(Survival::Nothing);
        let after = disk.read_file(path("/a")).expect("its name is synced");
        assert_eq!(after.len(), 8 * BLOCK_BYTES);
        assert_eq!(after[2 * BLOCK_BYTES..3 * BLOCK_BYTES], bytes(1, 1)[..], "the target is old");
        after.contains(&2)
    });
    assert!(elsewhere > 30, "{elsewhere} of 50");
}

#[test]
fn lost_write_is_seen_until_the_process_ends_and_never_flushed() {
    let disk = disk(7);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 2, 1);
    once(&disk, "write", Fault::LostWrite);
    write(&mut io, file, 0, 1, 2);
    io.flush(file).expect("it is flushed");
    assert_eq!(read(&mut io, file, 0, 1), bytes(1, 2));
    assert_eq!(disk.media_file(path("/a")), Some(bytes(2, 1)));
    disk.kill();
    assert_eq!(disk.read_file(path("/a")), Some(bytes(2, 1)));
}

#[test]
fn stale_block_shows_its_older_bytes_after_a_restart() {
    for cut in [false, true] {
        let disk = disk(8);
        let mut io = start(&disk);
        let file = durable(&mut io, "/a", 2, 1);
        once(&disk, "write", Fault::StaleBlock);
        write(&mut io, file, 0, 1, 2);
        io.flush(file).expect("it is flushed");
        assert_eq!(read(&mut io, file, 0, 1), bytes(1, 2));
        if cut {
            disk.power_cut(Survival::Everything);
        } else {
            disk.kill();
        }
        assert_eq!(disk.read_file(path("/a")), Some(bytes(2, 1)));
        assert_eq!(disk.media_file(path("/a")), Some(bytes(2, 1)));
    }
}

#[test]
fn failed_write_changes_any_subset_of_its_sectors() {
    let (mut none, mut some) = (0, 0);
    for seed in 0..100 {
        let disk = disk(seed);
        let mut io = start(&disk);
        let file = durable(&mut io, "/a", 2, 1);
        once(&disk, "write", Fault::WriteError);
        assert_eq!(kind_of(try_write(&mut io, file, 0, 2, 2)), IoErrorKind::Device);
        let after = read(&mut io, file, 0, 2);
        assert!(after.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        none += u64::from(!after.contains(&2));
        some += u64::from(after.contains(&1) && after.contains(&2));
    }
    assert!(none > 5 && some > 30, "{none} {some}");
}

#[test]
fn full_disk_refuses_what_needs_space_and_only_that() {
    let disk = disk(9);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 4, 1);
    disk.set_capacity(Some(disk.used_bytes() + block(2)));
    assert_eq!(kind_of(io.allocate(file, 0, block(7))), IoErrorKind::NoSpace);
    assert_eq!(io.length(file), Ok(block(4)), "nothing changed");
    io.allocate(file, 0, block(6)).expect("so much is there");
    write(&mut io, file, 0, 6, 2);
    let refused = io.open(path("/b"), Access::CreateNew, true);
    assert_eq!(kind_of(refused), IoErrorKind::NoSpace);
    assert_eq!(kind_of(io.create_directory(path("/d"))), IoErrorKind::NoSpace);
    assert_eq!(kind_of(try_write(&mut io, file, 6, 1, 2)), IoErrorKind::NoSpace);
    io.flush(file).expect("what is there can be flushed");
    io.set_length(file, block(1)).expect("cutting needs no space");
    open(&mut io, "/b", Access::CreateNew);
    disk.set_capacity(None);
    write(&mut io, file, 1, 20, 3);
}

#[test]
fn refused_operation_changes_nothing() {
    let disk = disk(10);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 1, 1);
    once(&disk, "write", Fault::Refuse(IoErrorKind::Resources));
    assert_eq!(kind_of(try_write(&mut io, file, 0, 1, 2)), IoErrorKind::Resources);
    assert_eq!(read(&mut io, file, 0, 1), bytes(1, 1));
}

#[test]
fn rule_strikes_the_operation_it_names_and_no_other() {
    let disk = disk(11);
    let mut io = start(&disk);
    let (a, b) = (durable(&mut io, "/a", 1, 1), durable(&mut io, "/b", 1, 1));
    disk.inject(FaultRule::new("write", "/a", Fault::Refuse(IoErrorKind::NoSpace)).nth(1));
    write(&mut io, b, 0, 1, 2);
    write(&mut io, b, 0, 1, 2);
    write(&mut io, a, 0, 1, 2);
    assert_eq!(disk.rules_left(), 1);
    assert_eq!(kind_of(try_write(&mut io, a, 0, 1, 3)), IoErrorKind::NoSpace);
    write(&mut io, a, 0, 1, 4);
    assert_eq!((disk.rules_left(), disk.counts().get("refusal")), (0, Some(&1)));
}

#[test]
fn damage_by_hand_reaches_view_and_media() {
    let disk = disk(12);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 3, 1);
    write(&mut io, file, 1, 1, 2);
    disk.overwrite_media(path("/a"), 4090, &[9; 10]);
    let mut expected = [bytes(1, 1), bytes(1, 2), bytes(1, 1)].concat();
    expected[4090..4100].fill(9);
    assert_eq!(read(&mut io, file, 0, 3), expected);
    io.flush(file).expect("it is flushed");
    disk.power_cut(Survival::Nothing);
    assert_eq!(disk.read_file(path("/a")), Some(expected));
}

#[test]
fn reformatted_disk_is_empty_and_of_use() {
    let disk = disk(13);
    let mut io = start(&disk);
    durable(&mut io, "/a", 1, 1);
    disk.reformat();
    assert!(disk.files().is_empty() && !disk.has_process());
    drop(io);
    let mut io = start(&disk);
    durable(&mut io, "/a", 1, 2);
}

#[test]
fn torn_sector_is_torn_in_that_sector_only() {
    let torn = count(300, |seed| {
        let profile = SimProfile { tear_sectors: true, ..SimProfile::default() };
        let disk = SimDisk::new(seed, profile);
        let mut io = start(&disk);
        let file = durable(&mut io, "/a", 2, 1);
        write(&mut io, file, 0, 1, 2);
        disk.power_cut(Survival::Random(seed));
        let after = disk.read_file(path("/a")).expect("its name is synced");
        assert_eq!(after[BLOCK_BYTES..], bytes(1, 1)[..]);
        let mixed = |sector: &&[u8]| sector.iter().any(|byte| *byte != sector[0]);
        let torn = after.chunks(512).filter(mixed).count();
        assert!(torn <= 1);
        torn == 1
    });
    assert!(torn > 30, "{torn} of 300");
}

#[test]
fn rates_make_every_fault_happen() {
    let faults = FaultRates {
        read_error: 50_000,
        bit_flip: 50_000,
        misdirected_write: 20_000,
        lost_write: 20_000,
        stale_block: 20_000,
        write_error: 20_000,
        flush_error: 50_000,
        no_space: 20_000,
        slow_spell: 10_000,
    };
    let disk = SimDisk::new(14, SimProfile { faults, ..SimProfile::default() });
    disk.set_fault_rates(FaultRates::default());
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 8, 1);
    disk.set_fault_rates(faults);
    for round in 0..400 {
        let at = round % 8;
        drop(try_write(&mut io, file, at, 1, 2));
        drop(try_read(&mut io, file, at, 1));
        drop(io.flush(file));
    }
    let counts = disk.counts();
    for name in [
        "read error",
        "bit flip",
        "bit flipped",
        "misdirected write",
        "lost write",
        "stale block",
        "write error",
        "flush error",
        "refusal",
        "slow spell",
    ] {
        assert!(counts.get(name).is_some_and(|times| *times > 0), "{name}: {counts:?}");
    }
}

#[test]
fn cut_takes_away_what_only_the_cache_held() {
    let disk = disk(15);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 4, 1);
    once(&disk, "write", Fault::LostWrite);
    write(&mut io, file, 2, 1, 2);
    io.set_length(file, block(1)).expect("it is cut");
    io.set_length(file, block(4)).expect("it grows");
    assert_eq!(read(&mut io, file, 1, 3), bytes(3, 0));
}

#[test]
fn rewritten_block_is_not_stale() {
    let disk = disk(16);
    let mut io = start(&disk);
    let file = durable(&mut io, "/a", 1, 1);
    once(&disk, "write", Fault::StaleBlock);
    write(&mut io, file, 0, 1, 2);
    write(&mut io, file, 0, 1, 3);
    io.flush(file).expect("it is flushed");
    disk.power_cut(Survival::Nothing);
    assert_eq!(disk.read_file(path("/a")), Some(bytes(1, 3)));
}
