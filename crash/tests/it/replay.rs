//! Images of power cuts, made from written-down logs.

use highwater_crash::image::{Image, PAGE_BYTES, SECTOR_BYTES};
use highwater_crash::replay::{Event, Mark, Recording, Replay, Unflushed};
use highwater_io::random::SeededRandom;

const DISK_BYTES: usize = 4 * PAGE_BYTES;

fn write(position: usize, byte: u8, length: usize) -> Event {
    Event::Write { position, bytes: vec![byte; length].into() }
}

fn recording(events: Vec<Event>) -> Recording {
    Recording { start: Image::zeroed(DISK_BYTES), events }
}

fn byte(image: &Image, position: usize) -> u8 {
    let mut bytes = [0];
    image.read(position, &mut bytes);
    bytes[0]
}

/// Returns a log of random writes, zeroes and flushes, many of them overlapping.
fn random_recording(seed: u64, events: usize) -> Recording {
    let mut random = SeededRandom::new(seed);
    let mut start = Image::zeroed(DISK_BYTES);
    start.write(1000, &[0xee; 3 * PAGE_BYTES]);
    let mut draw = || {
        let sector = random.index(DISK_BYTES / SECTOR_BYTES - 300);
        let length = SECTOR_BYTES * (1 + random.index(300));
        let byte = u8::try_from(random.below(255)).unwrap();
        match random.below(8) {
            0 => Event::Flush,
            1 => Event::Zero { position: sector * SECTOR_BYTES, length },
            _ => write(sector * SECTOR_BYTES, byte, length),
        }
    };
    let events = (0..events).map(|_| draw()).collect();
    Recording { start, events }
}

#[test]
fn an_image_reads_what_was_written_across_pages() {
    let mut image = Image::zeroed(DISK_BYTES);
    let bytes: Vec<u8> = (0..=255).cycle().take(2 * PAGE_BYTES).collect();
    image.write(PAGE_BYTES / 2, &bytes);
    let copy = image.clone();
    image.zero(PAGE_BYTES, 2 * PAGE_BYTES);
    let mut read = vec![1; 2 * PAGE_BYTES];
    copy.read(PAGE_BYTES / 2, &mut read);
    assert_eq!(read, bytes, "a copy keeps its bytes");
    image.read(PAGE_BYTES / 2, &mut read);
    assert_eq!(read[..PAGE_BYTES / 2], bytes[..PAGE_BYTES / 2]);
    assert!(read[PAGE_BYTES / 2..].iter().all(|byte| *byte == 0));
}

#[test]
fn zeros_take_no_memory() {
    let mut image = Image::zeroed(DISK_BYTES);
    image.write(100, &[0; 2 * PAGE_BYTES]);
    assert_eq!(image.resident(), 0);
    image.write(100, &[1; 100]);
    assert_eq!(image.resident(), PAGE_BYTES);
    image.write(100, &[0; 100]);
    assert_eq!(image, Image::zeroed(DISK_BYTES), "a page of zeros equals none");
}

#[test]
fn a_flush_makes_permanent_what_was_logged_before_it() {
    let log = vec![write(0, 1, 512), Event::Flush, write(512, 2, 512), Event::Flush];
    let mut replay = Replay::new(recording(log));
    for (at, permanent) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 3)] {
        assert_eq!(replay.permanent(Mark(at)), Mark(permanent), "cut at {at}");
    }
    let before = replay.cut(Mark(1), Unflushed::Dropped);
    assert_eq!(byte(&before, 0), 0);
    let after = replay.cut(Mark(3), Unflushed::Dropped);
    assert_eq!((byte(&after, 0), byte(&after, 512)), (1, 0));
    let end = replay.cut(Mark(4), Unflushed::Dropped);
    assert_eq!((byte(&end, 0), byte(&end, 512)), (1, 2));
}

#[test]
fn writes_after_the_cut_never_appear() {
    let log = vec![write(0, 1, 512), write(512, 2, 512)];
    let mut replay = Replay::new(recording(log));
    let image = replay.cut(Mark(1), Unflushed::Kept);
    assert_eq!((byte(&image, 0), byte(&image, 512)), (1, 0));
}

#[test]
fn unflushed_writes_are_kept_torn_or_dropped_in_their_shares() {
    let count = 2000;
    let sectors = 8;
    let length = sectors * SECTOR_BYTES;
    let log = (0..count).map(|index| write(index * length, 7, length)).collect();
    let start = Image::zeroed(count * length);
    let mut replay = Replay::new(Recording { start, events: log });
    let image = replay.cut(Mark(count), Unflushed::Seeded(1));
    let (mut kept, mut torn, mut dropped) = (0, 0, 0);
    for index in 0..count {
        let new = |sector: &usize| {
            let mut bytes = [0; SECTOR_BYTES];
            image.read(index * length + sector * SECTOR_BYTES, &mut bytes);
            assert!(bytes == [7; SECTOR_BYTES] || bytes == [0; SECTOR_BYTES], "a torn sector");
            bytes[0] == 7
        };
        match (0..sectors).filter(new).count() {
            0 => dropped += 1,
            8 => kept += 1,
            _ => torn += 1,
        }
    }
    assert!((900..1100).contains(&kept), "kept {kept}");
    assert!((400..600).contains(&torn), "torn {torn}");
    assert!((400..600).contains(&dropped), "dropped {dropped}");
}

#[test]
fn a_range_that_must_not_tear_is_old_or_new() {
    let mut replay = Replay::new(recording(vec![write(0, 9, 4096)])).untorn(Some(1024..2048));
    let mut parted = 0;
    for seed in 0..400 {
        let image = replay.cut(Mark(1), Unflushed::Seeded(seed));
        assert_eq!(byte(&image, 1024), byte(&image, 1536), "seed {seed}");
        parted += u32::from(byte(&image, 0) != byte(&image, 512));
    }
    assert!(parted > 0, "sectors outside the range do tear");
}

#[test]
fn going_through_a_log_in_any_order_gives_the_same_images() {
    for seed in 0..20 {
        let log = random_recording(seed, 200);
        let mut random = SeededRandom::new(seed);
        let mut replay = Replay::new(log.clone());
        for _ in 0..30 {
            let at = Mark(random.index(201));
            let unflushed = match random.below(3) {
                0 => Unflushed::Kept,
                1 => Unflushed::Dropped,
                _ => Unflushed::Seeded(random.next_u64()),
            };
            let fresh = Replay::new(log.clone()).cut(at, unflushed);
            assert_eq!(replay.cut(at, unflushed), fresh, "seed {seed}, cut at {}", at.0);
        }
    }
}

#[test]
fn a_cut_agrees_with_a_model_sector_by_sector() {
    for seed in 0..20 {
        let log = random_recording(seed, 120);
        let at = 1 + usize::try_from(seed).unwrap() * 6;
        let mut replay = Replay::new(log.clone());
        let permanent = replay.permanent(Mark(at)).0;
        let image = replay.cut(Mark(at), Unflushed::Seeded(seed));
        // Every sector holds what the last permanent event or a later one put there.
        for position in (0..DISK_BYTES).step_by(SECTOR_BYTES) {
            let mut allowed = vec![byte(&log.start, position)];
            for (index, event) in log.events[..at].iter().enumerate() {
                let put = match event {
                    Event::Write { position: from, bytes } => {
                        (*from..from + bytes.len()).contains(&position).then(|| bytes[0])
                    }
                    Event::Zero { position: from, length } => {
                        (*from..from + length).contains(&position).then_some(0)
                    }
                    Event::Flush => None,
                };
                if let Some(put) = put {
                    if index < permanent {
                        allowed.clear();
                    }
                    allowed.push(put);
                }
            }
            let found = byte(&image, position);
            assert!(allowed.contains(&found), "seed {seed}, position {position}");
        }
    }
}

#[test]
fn a_saved_image_has_the_same_bytes() {
    let path = std::env::temp_dir().join(format!("highwater-save-{}", std::process::id()));
    let mut image = Image::zeroed(2 * PAGE_BYTES + 512);
    image.write(PAGE_BYTES, &[5; PAGE_BYTES + 512]);
    image.save(&path).unwrap();
    let saved = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut bytes = vec![0; image.size()];
    image.read(0, &mut bytes);
    assert!(saved == bytes, "the file differs from the image");
}
