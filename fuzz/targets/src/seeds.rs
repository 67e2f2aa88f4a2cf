//! The seeds: a few inputs per target that reach its depths, always the same.

use highwater_index::SparseIndex;
use highwater_segment::builder::Stamp;
use highwater_segment::filler::fill;
use highwater_segment::meta::{LogState, Mark, ProducersMark};
use highwater_segment::producer_snapshot::ProducerSnapshot;
use highwater_segment::producers::{NumberedBatch, ProducerTable};
use highwater_segment::{
    Compression, Epoch, FIRST_BATCH, Generation, LogId, LogMeta, Offset, Position, ProducerEpoch,
    ProducerId, ProducerStamp, RecordBatch, Salt, SegmentHeader, Sequence,
};

use crate::input::wide;

/// One file of `fuzz/corpus/<target>/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The target.
    pub target: &'static str,
    /// The file's name.
    pub name: &'static str,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Returns all seeds.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |target, name, bytes| seeds.push(Seed { target, name, bytes });
    let header = batch(2).header(&stamp(FIRST_BATCH, Offset(5))).encode();
    add("batch_header", "seed-batch", header.to_vec());
    add("batch_header", "seed-filler", filler(Position(4096 + 104), Offset(5)));
    add("batch_header", "seed-zeros", vec![0; 88]);
    add("index", "seed-entries", index_file());
    for (name, bytes) in records() {
        add("records", name, bytes);
    }
    for (name, bytes) in scans() {
        add("segment_scan", name, bytes);
    }
    for (name, bytes) in metas() {
        add("log_meta", name, bytes);
    }
    add("producer_snapshot", "seed-three", producers());
    for (name, bytes) in damages() {
        add("damage", name, bytes);
    }
    for (name, bytes) in programs() {
        add("recovery", name, bytes);
    }
    seeds
}

/// A snapshot of three producers, one with a full window.
fn producers() -> Vec<u8> {
    let mut table = ProducerTable::at(1_700_000_000_000);
    let mut offset = Offset(0);
    for (id, sequences) in [(5, 0..7), (i64::MAX, 0..1), (0, i32::MAX - 2..i32::MAX)] {
        for base_sequence in sequences.map(Sequence) {
            let stamp =
                ProducerStamp { id: ProducerId(id), epoch: ProducerEpoch(3), base_sequence };
            let numbered = NumberedBatch { stamp, records: 1, records_crc: 7 };
            table.note(&numbered, offset, Epoch(2));
            offset = offset.plus(1);
        }
    }
    let at = Mark { offset, segment: offset, position: FIRST_BATCH };
    ProducerSnapshot { log_id: LogId(77), at, leader_epoch: Epoch(3), table }.encode()
}

fn batch(records: u64) -> RecordBatch {
    let mut builder = RecordBatch::builder();
    for index in 0..records {
        let value = index.to_le_bytes();
        builder.push(Some(1000), Some(b"key"), Some(&value), &[(b"header", Some(b"value"))]);
    }
    builder.build().expect("it fits")
}

fn stamp(position: Position, base_offset: Offset) -> Stamp {
    Stamp {
        salt: 1,
        generation: Generation(3),
        position,
        base_offset,
        leader_epoch: Epoch(2),
        flush_mark: base_offset,
        now_ms: 0,
    }
}

fn filler(position: Position, next: Offset) -> Vec<u8> {
    let mut bytes = vec![0; crate::input::narrow(position.block_end().0 - position.0)];
    fill(&mut bytes, &stamp(position, next));
    bytes
}

fn index_file() -> Vec<u8> {
    let mut index = SparseIndex::new(10);
    for entry in 0..20 {
        index.note(10 + 3 * entry, 4096 + 5000 * entry, 2, 7);
    }
    let mut bytes: Vec<u8> =
        [10_u64, 9, 10, 40, u64::MAX].iter().flat_map(|n| n.to_le_bytes()).collect();
    bytes.extend(index.encode(5, 70).unwrap_or_default());
    bytes
}

fn records() -> Vec<(&'static str, Vec<u8>)> {
    let batch = batch(3);
    let mut encoded = vec![0];
    encoded.extend(batch.record_count().to_le_bytes());
    encoded.extend(7_u64.to_le_bytes());
    encoded.extend(1000_i64.to_le_bytes());
    encoded.extend(batch.records_bytes());
    // A time, a key, a null value, one header; a plain value; a long value.
    let mut made = vec![1, 9, 0, 0, 0];
    made.extend([0b0010_0001, 1, 2, 3, 4, 5, 6, 7, 8, 3, b'k', b'e', b'y', 255, 1, b'h', 255]);
    made.extend([0, 255, 2, b'o', b'k']);
    made.extend([0, 255, 254, 0x10, 0x27, 0xaa]);
    let mut seeds = vec![("seed-encoded", encoded), ("seed-made", made.clone())];
    // The same records, compressed: built, and as frames that anything can be done to.
    let squeezed = [&[0, 255, 254, 0xff, 0x3f, 0xaa][..]; 3].concat();
    for (name, kind) in [("seed-made-lz4", 0x83), ("seed-made-zstd", 0x81)] {
        seeds.push((name, [&[kind], &made[1..], &squeezed].concat()));
    }
    // One block of LZ4: four literals, a match of 40 behind them, and the end.
    let block: &[u8] = b"\x0e\0\0\0\x4fabcd\x04\0\x15\x50wxyz!\0\0\0\0";
    for (name, kind) in
        [("seed-lz4-independent", 0x96), ("seed-lz4-linked", 0xa6), ("seed-lz4-large-blocks", 0xb6)]
    {
        seeds.push((name, [&[kind, 1, 0][..], block].concat()));
    }
    for (name, compression, kind) in
        [("seed-frame-lz4", Compression::Lz4, 0x86), ("seed-frame-zstd", Compression::ZSTD, 0x88)]
    {
        let builder = RecordBatch::builder().compression(compression);
        let batch = builder.value(&[7; 900]).value(b"ok").build().expect("it fits");
        seeds.push((name, [&[kind, 2, 0][..], batch.records_bytes()].concat()));
    }
    // Zstandard: a window of 1 KiB and an empty last block; a size that nothing may have.
    seeds.push(("seed-zstd-empty", vec![0xd8, 0, 0, 0, 0, 1, 0, 0]));
    seeds.push(("seed-zstd-claim", [&[0xd8, 1, 0, 0xe0][..], &[0xff; 8]].concat()));
    seeds.push(("seed-codec-unknown", vec![0x8e, 1, 0, 1, 2, 3]));
    seeds
}

/// What a scan starts with: flags, salt, position, offset, epoch, generation, exact from.
fn scan_start(flags: u8) -> Vec<u8> {
    vec![flags, 1, 0, 5, 0, 2, 3, 0, 0]
}

fn scans() -> Vec<(&'static str, Vec<u8>)> {
    let mut image = Vec::new();
    let mut next = Offset(5);
    for count in [1, 3] {
        let batch = batch(count);
        let position = FIRST_BATCH.plus(wide(image.len()));
        image.extend_from_slice(&batch.header(&stamp(position, next)).encode());
        image.extend_from_slice(batch.records_bytes());
        image.resize(image.len().next_multiple_of(8), 0);
        next = next.plus(batch.record_count());
    }
    let position = FIRST_BATCH.plus(wide(image.len()));
    image.extend(filler(position, next));
    let whole = [scan_start(0), image.clone()].concat();
    // The same with a hole, sealed again; the evidence behind it stands.
    let mut holed = [scan_start(2), image].concat();
    holed[20..30].fill(0xee);
    let mut block = scan_start(0);
    let header = SegmentHeader { log_id: LogId(77), base_offset: Offset(5), salt: Salt(1) };
    block.extend_from_slice(&header.encode());
    // Batches, a damaged one, a filler, raw bytes.
    let mut program = scan_start(1);
    program.extend([1, 2, 4, b'a', b'b', b'c', b'd', 0, 3, b'x', b'y', b'z']);
    program.extend([1, 0, 200]);
    program.extend([7; 200]);
    program.extend([2, 0, 0, 3, b'v', b'a', b'l', 40, 4, 9, 9, 9, 9, 3, 5, 1, 2, 3, 4, 5, 64, 0]);
    vec![
        ("seed-segment", whole),
        ("seed-damaged", holed),
        ("seed-header-block", block),
        ("seed-program", program),
    ]
}

fn meta() -> LogMeta {
    LogMeta {
        sequence: 8,
        log_id: LogId(77),
        incarnation: 5,
        state: LogState::Clean,
        generation: Generation(2),
        epoch: Epoch(3),
        log_start: Offset(0),
        flushed: Mark { offset: Offset(10), segment: Offset(0), position: Position(8192) },
        high_watermark: Offset(10),
        durable_watermark: Offset(10),
        segment_bytes: 1 << 20,
        never_rewrite_flushed: false,
        epochs: Vec::new(),
        truncations: Vec::new(),
        producers: ProducersMark::default(),
    }
}

fn metas() -> Vec<(&'static str, Vec<u8>)> {
    let mut old = meta();
    old.push_epoch(Epoch(4), Offset(0));
    old.push_epoch(Epoch(5), Offset(6));
    old.push_truncation(Generation(2), Offset(8));
    let clean = [old.encode(), LogMeta { sequence: 9, ..old.clone() }.encode()].concat();
    let newer = LogMeta { sequence: 9, state: LogState::Open, ..old.clone() };
    let open = [old.encode(), newer.encode()].concat();
    let mut torn = clean.clone();
    torn[4096 + 512..].fill(0);
    // Only the front of a slot: the rest is filled in and sealed.
    let front = old.encode()[..160].to_vec();
    vec![("seed-clean", clean), ("seed-open", open), ("seed-torn", torn), ("seed-front", front)]
}

/// Inputs of `damage`: the image, the course of the next life, and what is damaged. Files are in
/// the order of their names: segments and indexes by base offset, `log.meta` last.
fn damages() -> Vec<(&'static str, Vec<u8>)> {
    let word = |number: u32| number.to_le_bytes();
    let overwrite = |file: u8, at: u32, bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).expect("short");
        [&[0, file][..], &word(at), &[length], bytes].concat()
    };
    let flip = |file: u8, at: u32, flips: u8| [&[1, file][..], &word(at), &[flips]].concat();
    let input =
        |image: u8, course: u8, acts: &[Vec<u8>]| [&[image, course][..], &acts.concat()].concat();
    vec![
        ("seed-untouched-closed", input(1, 1, &[])),
        ("seed-untouched-killed", input(2, 0, &[])),
        ("seed-untouched-power-cut", input(3, 1, &[])),
        ("seed-untouched-padded", input(4, 0, &[])),
        ("seed-untouched-padded-killed", input(5, 1, &[])),
        ("seed-untouched-poisoned", input(6, 0, &[])),
        ("seed-flip-in-segment", input(0, 0, &[flip(0, 4200, 4)])),
        ("seed-flip-in-tail", input(7, 1, &[flip(0, 9000, 0x80)])),
        ("seed-zeroed-sector", input(1, 0, &[vec![2, 0, 12, 0]])),
        ("seed-slot-overwritten", input(1, 1, &[overwrite(255, 4096, b"not a slot")])),
        ("seed-both-slots", input(2, 0, &[overwrite(1, 8, b"x"), flip(1, 4100, 1)])),
        ("seed-moved-sectors", input(3, 0, &[vec![3, 0, 7, 9, 0, 17, 0, 1]])),
        ("seed-cut-file", input(2, 1, &[[&[4, 0][..], &word(9000)].concat()])),
        ("seed-removed", input(1, 0, &[vec![5, 1]])),
        ("seed-planted", input(2, 0, &[vec![6, 0, 1, 15]])),
        ("seed-unreadable", input(1, 1, &[[&[7, 0][..], &word(8192), &[0]].concat()])),
        ("seed-forged-batch", input(2, 0, &[vec![8, 0, 3, 48, 0, 8, 9, 0, 0, 0, 0, 0, 0, 0]])),
        ("seed-forged-slot", input(0, 1, &[vec![8, 1, 0, 56, 0, 4, 9, 0, 0, 0]])),
    ]
}

/// Inputs of `recovery`: bytes without a meaning of their own, from which every kind of life comes.
fn programs() -> Vec<(&'static str, Vec<u8>)> {
    let names = ["seed-1", "seed-2", "seed-3", "seed-4", "seed-5", "seed-6", "seed-7", "seed-8"];
    let named = (1_u64..).zip(names);
    named.map(|(seed, name)| (name, noise(seed, 24 << (seed % 4)))).collect()
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state = (state ^ state >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(seed);
        bytes.push(state.to_le_bytes()[7]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use highwater_segment::{BatchHeader, Codec};

    use super::*;

    #[test]
    fn seeds_are_small_have_one_name_each_and_a_target() {
        let seeds = seeds();
        let mut names: Vec<_> = seeds.iter().map(|seed| (seed.target, seed.name)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), seeds.len(), "no two seeds share a file");
        assert!(seeds.iter().map(|seed| seed.bytes.len()).sum::<usize>() < 300 << 10);
        for target in crate::TARGETS {
            assert!(seeds.iter().any(|seed| seed.target == target.name), "{}", target.name);
        }
        assert!(seeds.iter().all(|s| crate::TARGETS.iter().any(|t| t.name == s.target)));
    }

    /// Each start of a frame is one: with an end it is an empty frame, or holds what a block says.
    #[test]
    fn frames_of_the_seeds_decompress() {
        let plain = |codec, bytes: &[u8]| highwater_segment::compression::decompress(bytes, codec);
        for start in &crate::records::FRAME_STARTS[1..4] {
            assert_eq!(plain(Codec::Lz4, &[start, &[0; 4][..]].concat()), Ok(Vec::new()));
        }
        let empty = [crate::records::FRAME_STARTS[4], &[0; 4], b"\x05\x5d\xcc\x02"].concat();
        assert_eq!(plain(Codec::Lz4, &empty), Ok(Vec::new()));
        for name in ["seed-lz4-independent", "seed-lz4-linked", "seed-lz4-large-blocks"] {
            let seeds = seeds();
            let seed = &seeds.iter().find(|seed| seed.name == name).expect("it is there").bytes;
            let start = crate::records::FRAME_STARTS[usize::from(seed[0] >> 4 & 7)];
            let found = plain(Codec::Lz4, &[start, &seed[3..]].concat());
            let expected = ["abcd".repeat(11).as_str(), "wxyz!"].concat();
            assert_eq!(found.map(|bytes| bytes.len()), Ok(expected.len()), "{name}");
        }
    }

    #[test]
    fn the_batch_header_seed_decodes() {
        let seeds = seeds();
        let seed = seeds.iter().find(|seed| seed.name == "seed-batch").expect("it is there");
        assert!(BatchHeader::decode(&seed.bytes).is_ok());
    }
}
