//! The scan: whatever the bytes are, the chain serves only what its checksums and its place hold
//! for, and evidence does not depend on how the file was cut into windows.

use highwater_segment::batch::MAGIC;
use highwater_segment::builder::Stamp;
use highwater_segment::filler::fill;
use highwater_segment::scan::{Chain, GenerationRule, Step, Stop, evidence};
use highwater_segment::segment::{
    SEGMENT_HEADER_BYTES, SegmentHeader, parse_segment_file_name, segment_file_name,
};
use highwater_segment::{
    BLOCK_BYTES, BatchHeader, Epoch, FIRST_BATCH, Generation, HEADER_BYTES, MAX_BATCH_BYTES,
    Offset, Position, RecordBatch, Salt,
};

use crate::input::{Input, narrow, wide};
use crate::seal::{assert_batch_holds, seal_all_batches, seal_batch, seal_block};

/// The most bytes a structured input builds.
const IMAGE_BYTES_MAX: usize = 64 << 10;
/// The most pieces a structured input is made of.
const PIECES_MAX: usize = 64;

/// What a chain starts with.
#[derive(Clone, Copy, Debug)]
struct Start {
    salt: Salt,
    position: Position,
    offset: Offset,
    epoch: Epoch,
    rule: GenerationRule,
}

impl Start {
    fn take(input: &mut Input<'_>) -> Self {
        let salt = Salt(u64::from(input.byte()));
        // Anywhere a batch can start in the first blocks.
        let position = FIRST_BATCH.plus(u64::from(input.byte()) * 8);
        let offset = Offset(u64::from(input.short()));
        let epoch = Epoch(u32::from(input.byte()));
        let current = Generation(u32::from(input.byte()));
        let exact_from = Position(u64::from(input.short()) * 8);
        Start { salt, position, offset, epoch, rule: GenerationRule { current, exact_from } }
    }

    fn chain(&self) -> Chain {
        Chain::new(self.salt, self.position, self.offset, self.epoch, self.rule)
    }
}

/// Bit 0 of the first byte: the rest is a program that builds an image, not an image. Bits 1 and
/// 2: make the header and the record checksums of an image fit.
pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let flags = input.byte();
    let start = Start::take(&mut input);
    let image = if flags & 1 != 0 {
        build(&start, input)
    } else {
        let mut image = input.rest().to_vec();
        if flags & 2 != 0 {
            seal_all_batches(&mut image, flags & 4 != 0);
        }
        header_block(&image);
        image
    };
    let steps = walk(&start, &image, image.len());
    assert_eq!(steps, walk(&start, &image, 1), "windows do not change what is served");
    check_evidence(&start, &image);
}

/// The header block of a segment: decode and encode agree.
fn header_block(image: &[u8]) {
    let mut sealed = image.to_vec();
    if let Some(block) = sealed.get_mut(..SEGMENT_HEADER_BYTES) {
        block[..8].copy_from_slice(&highwater_segment::segment::MAGIC);
        block[8..12].copy_from_slice(&highwater_segment::segment::VERSION.to_le_bytes());
        seal_block(block);
    }
    for bytes in [image, &sealed] {
        let Ok(header) = SegmentHeader::decode(bytes) else { continue };
        let same = header.encode() == bytes[..SEGMENT_HEADER_BYTES];
        assert!(same, "decode and encode agree: {header:?}");
        let name = segment_file_name(header.base_offset);
        assert_eq!(parse_segment_file_name(&name), Some(header.base_offset));
    }
}

/// Follows a program: batches and fillers where the last one ended, raw bytes, and headers with
/// one changed field whose checksums fit.
fn build(start: &Start, mut input: Input<'_>) -> Vec<u8> {
    let mut image = Vec::new();
    let mut next = start.offset;
    for _ in 0..PIECES_MAX {
        if input.is_empty() || image.len() >= IMAGE_BYTES_MAX {
            break;
        }
        let kind = input.byte();
        let stamp = Stamp {
            salt: start.salt.low(),
            generation: Generation(start.rule.current.0.saturating_sub(u32::from(kind >> 7))),
            position: start.position.plus(wide(image.len())),
            base_offset: next,
            leader_epoch: Epoch(start.epoch.0 + u32::from(kind >> 6 & 1)),
            flush_mark: Offset(next.0.saturating_sub(u64::from(kind >> 5 & 1))),
            now_ms: 7,
        };
        let from = image.len();
        match kind % 4 {
            0 | 1 => {
                let batch = batch(&mut input);
                image.extend_from_slice(&batch.header(&stamp).encode());
                image.extend_from_slice(batch.records_bytes());
                next = next.plus(batch.record_count());
                if kind.is_multiple_of(4) {
                    damage(&mut image[from..], &mut input);
                }
            }
            2 if !stamp.position.is_block_border() => {
                let gap = narrow(stamp.position.block_end().0 - stamp.position.0);
                image.resize(from + gap, 0);
                fill(&mut image[from..], &stamp);
                if kind & 16 != 0 {
                    damage(&mut image[from..], &mut input);
                }
            }
            _ => {
                let length = usize::from(input.byte());
                image.extend_from_slice(input.bytes(length));
            }
        }
        image.resize(image.len().next_multiple_of(8), 0);
    }
    let zeros = usize::from(input.short());
    image.resize(image.len() + zeros, 0);
    image
}

fn batch(input: &mut Input<'_>) -> RecordBatch {
    let mut builder = RecordBatch::builder();
    for _ in 0..=input.byte() % 4 {
        let length = usize::from(input.byte());
        builder.push(None, None, Some(input.bytes(length)), &[]);
    }
    builder.build().expect("some short records are a batch")
}

/// Changes some bytes of a batch and makes its checksums fit again.
fn damage(batch: &mut [u8], input: &mut Input<'_>) {
    let at = usize::from(input.byte()).min(batch.len() - 1);
    let count = usize::from(input.byte() % 9).min(batch.len() - at);
    let new = input.bytes(count);
    batch[at..at + new.len()].copy_from_slice(new);
    seal_batch(batch, true);
}

/// Where the steps of a walk led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    position: Position,
    next: Offset,
    served: bool,
}

/// Walks the image, at first through windows of `window` bytes that grow to what is asked for, and
/// checks all that is served by hand.
fn walk(start: &Start, image: &[u8], window: usize) -> (Vec<Place>, Option<Stop>) {
    let mut chain = start.chain();
    let mut places = Vec::new();
    let mut held = window;
    loop {
        let before = chain;
        let at = narrow(before.position().0 - start.position.0).min(image.len());
        let front = &image[at..];
        let shown = &front[..held.min(front.len())];
        match chain.step(shown) {
            Ok(Step::NeedBytes(count)) => {
                assert_eq!(chain, before, "asking moves nothing");
                assert!(count > shown.len(), "what is there is not asked for");
                assert!(count <= MAX_BATCH_BYTES + 8, "what is asked for is bounded");
                if shown.len() == front.len() {
                    return (places, None);
                }
                held = count;
            }
            Ok(step) => {
                let served = check_step(start, &before, &chain, front, &step);
                let (position, next) = (chain.position(), chain.next_offset());
                places.push(Place { position, next, served });
                held = window;
            }
            Err(stop) => {
                assert_eq!(chain, before, "a stop moves nothing");
                assert!(!stop.describe().is_empty());
                return (places, Some(stop));
            }
        }
    }
}

/// Checks one step by hand; returns whether it served records.
fn check_step(
    start: &Start,
    before: &Chain,
    behind: &Chain,
    front: &[u8],
    step: &Step<'_>,
) -> bool {
    assert!(behind.position() > before.position(), "positions rise");
    let passed = &front[..narrow(behind.position().0 - before.position().0)];
    let header = match step {
        Step::Gap { bytes } => {
            assert!(*bytes == passed.len() && *bytes < HEADER_BYTES);
            assert!(passed.iter().all(|byte| *byte == 0) && behind.position().is_block_border());
            assert_eq!(before.next_offset(), behind.next_offset());
            return false;
        }
        Step::Batch { header, .. } | Step::Filler { header } => header,
        Step::NeedBytes(_) => panic!("the caller deals with it"),
    };
    assert_batch_holds(passed);
    assert_eq!(header.salt, start.salt.low(), "of this file");
    assert_eq!(header.position, before.position(), "of this place");
    assert_eq!(header.base_offset, before.next_offset(), "A1: offsets are dense");
    assert_eq!(behind.next_offset(), header.base_offset.plus(header.record_count));
    assert!(header.leader_epoch >= before.epoch(), "A2: epochs do not fall");
    assert!(header.generation <= start.rule.current, "nothing newer than log.meta");
    let exact = header.position >= start.rule.exact_from;
    assert!(!exact || header.generation == start.rule.current, "nothing stale");
    assert!(behind.proven() >= before.proven().max(header.flush_mark));
    match step {
        Step::Batch { records, .. } => {
            assert!(*records == &passed[HEADER_BYTES..HEADER_BYTES + records.len()]);
            let base_time = header.base_timestamp_ms;
            crate::records::walk(records, header.record_count, header.base_offset, base_time);
            true
        }
        _ => {
            assert!(behind.position().is_block_border(), "a filler ends its block");
            assert!(wide(passed.len()) < BLOCK_BYTES && header.record_count == 0);
            false
        }
    }
}

fn check_evidence(start: &Start, image: &[u8]) {
    for salt in [None, Some(start.salt)] {
        let found = evidence(image, start.position, salt, start.rule.current);
        if let Some((position, offset)) = found.resumes {
            let at = narrow(position.0 - start.position.0);
            let header = BatchHeader::decode(&image[at..]).expect("a good header resumes");
            assert!(image[at..].starts_with(&MAGIC) && header.position == position);
            assert!(header.base_offset == offset && header.record_count > 0);
        }
        assert!(found.newer_generation.is_none_or(|newer| newer > start.rule.current));
        // Two windows that overlap by a header see what one sees, wherever the border is.
        for part in 1..4 {
            let cut = image.len() * part / 4 / 8 * 8;
            let first = &image[..image.len().min(cut + HEADER_BYTES)];
            let first = evidence(first, start.position, salt, start.rule.current);
            let behind = start.position.plus(wide(cut));
            let rest = evidence(&image[cut..], behind, salt, start.rule.current);
            let both = first.and_then(rest);
            assert_eq!(both, found, "windows do not change what is proven");
        }
    }
}
