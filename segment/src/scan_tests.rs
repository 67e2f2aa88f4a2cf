//! The chain accepts what was written and nothing else.

use super::*;
use crate::batch::HEADER_BYTES;
use crate::builder::{RecordBatch, Stamp};
use crate::filler::fill;

const SALT: Salt = Salt(0x1_0000_0001);

fn stamp(position: Position, base_offset: Offset, generation: u32) -> Stamp {
    Stamp {
        salt: SALT.low(),
        generation: Generation(generation),
        position,
        base_offset,
        leader_epoch: Epoch(4),
        flush_mark: base_offset,
        now_ms: 1,
    }
}

/// Appends a batch of `records` records of `bytes` bytes to the image and returns it.
fn append(image: &mut Vec<u8>, next: &mut Offset, records: usize, bytes: usize, generation: u32) {
    let position = Position(4096 + to_u64(image.len()));
    let mut builder = RecordBatch::builder();
    for _ in 0..records {
        builder.push(None, None, Some(&vec![0xab; bytes]), &[]);
    }
    let batch = builder.build().expect("it fits");
    image.extend_from_slice(&batch.header(&stamp(position, *next, generation)).encode());
    image.extend_from_slice(batch.records_bytes());
    image.resize(image.len().next_multiple_of(8), 0);
    *next = next.plus(batch.record_count());
}

fn pad(image: &mut Vec<u8>, next: Offset, generation: u32) {
    let from = image.len();
    image.resize(from.next_multiple_of(4096), 0);
    let position = Position(4096 + to_u64(from));
    fill(&mut image[from..], &stamp(position, next, generation));
}

/// Walks to the stop; returns the offsets passed and the stop.
fn walk(image: &[u8], exact_from: Position) -> (Offset, Position, Stop) {
    let rule = GenerationRule { current: Generation(3), exact_from };
    let mut chain = Chain::new(SALT, Position(4096), Offset(10), Epoch(4), rule);
    loop {
        let at = usize::try_from(chain.position().0 - 4096).expect("small");
        match chain.step(&image[at.min(image.len())..]) {
            Ok(Step::NeedBytes(_)) => {
                return (chain.next_offset(), chain.position(), Stop::CutShort);
            }
            Ok(_) => {}
            Err(stop) => return (chain.next_offset(), chain.position(), stop),
        }
    }
}

fn image() -> Vec<u8> {
    let (mut image, mut next) = (Vec::new(), Offset(10));
    append(&mut image, &mut next, 2, 100, 3);
    append(&mut image, &mut next, 1, 3, 3);
    pad(&mut image, next, 3);
    append(&mut image, &mut next, 5, 1000, 3);
    image.resize(16 << 10, 0);
    image
}

#[test]
fn a_whole_image_is_walked_to_its_end() {
    let (next, _, stop) = walk(&image(), Position(0));
    assert_eq!((next, stop), (Offset(18), Stop::NoBatch));
}

#[test]
fn any_changed_byte_before_the_end_stops_the_walk_before_it() {
    const BYTE_STEP: usize = if cfg!(miri) { 1021 } else { 1 };
    let whole = image();
    let (end_offset, end, _) = walk(&whole, Position(0));
    let last = usize::try_from(end.0 - 4096).expect("small");
    for index in (0..last).step_by(BYTE_STEP) {
        let mut damaged = whole.clone();
        damaged[index] ^= 0x40;
        let (next, position, _) = walk(&damaged, Position(0));
        let at = Position(4096 + to_u64(index));
        assert!(next < end_offset || position < end, "byte {index} unnoticed");
        assert!(position <= at, "byte {index} was passed");
    }
}

#[test]
fn gaps_too_small_for_a_header_are_zeros_and_longer_ones_fillers() {
    for payload in (3700..4080).step_by(if cfg!(miri) { 96 } else { 8 }) {
        let (mut image, mut next) = (Vec::new(), Offset(10));
        append(&mut image, &mut next, 1, payload - HEADER_BYTES, 3);
        pad(&mut image, next, 3);
        append(&mut image, &mut next, 1, 1, 3);
        image.resize(image.len() + 4096, 0);
        let (walked, _, _) = walk(&image, Position(0));
        assert_eq!(walked, Offset(12), "payload {payload}");
    }
}

#[test]
fn stale_newer_and_foreign_batches_stop_the_chain_by_name() {
    let cases = [
        (2, Position(0), Stop::StaleGeneration(Generation(2))),
        (4, Position(0), Stop::NewerGeneration(Generation(4))),
        (4, Position(u64::MAX), Stop::NewerGeneration(Generation(4))),
    ];
    for (generation, exact_from, expected) in cases {
        let (mut image, mut next) = (Vec::new(), Offset(10));
        append(&mut image, &mut next, 1, 9, generation);
        assert_eq!(walk(&image, exact_from).2, expected);
    }
    let (mut image, mut next) = (Vec::new(), Offset(10));
    append(&mut image, &mut next, 1, 9, 2);
    append(&mut image, &mut next, 1, 9, 3);
    append(&mut image, &mut next, 1, 9, 2);
    let (walked, _, stop) = walk(&image, Position(u64::MAX));
    assert_eq!((walked, stop), (Offset(12), Stop::StaleGeneration(Generation(2))));
    let (mut image, mut next) = (Vec::new(), Offset(11));
    append(&mut image, &mut next, 1, 9, 3);
    assert_eq!(walk(&image, Position(0)).2, Stop::Offset { found: Offset(11) });
}

#[test]
fn evidence_finds_marks_behind_damage_and_ignores_stale_ones() {
    let (mut image, mut next) = (Vec::new(), Offset(10));
    append(&mut image, &mut next, 4, 100, 3);
    let behind = image.len();
    append(&mut image, &mut next, 1, 50, 3);
    append(&mut image, &mut next, 1, 50, 2);
    image[20] ^= 1;
    let found = evidence(&image, Position(4096), Some(SALT), Generation(3));
    let at = Position(4096 + to_u64(behind));
    assert_eq!(found.proven, Offset(14));
    assert_eq!(found.resumes, Some((at, Offset(14))));
    assert_eq!(found.newer_generation, None);
    let older = evidence(&image, Position(4096), Some(SALT), Generation(2));
    assert_eq!(older.newer_generation, Some(Generation(3)));
    let foreign = evidence(&image, Position(4096), Some(Salt(9)), Generation(3));
    assert_eq!(foreign, Evidence::default());
    assert_eq!(evidence(&image, Position(4104), None, Generation(3)), Evidence::default());
}
