//! The parts of an append and of a scan, each by itself, in memory.
//!
//! `cargo bench -p highwater-benches --bench parts`; under a minute.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use highwater_benches::{Batches, Payload};
use highwater_index::SparseIndex;
use highwater_segment::builder::Stamp;
use highwater_segment::scan::{Chain, GenerationRule, Step};
use highwater_segment::{Epoch, FIRST_BATCH, Generation, Offset, Position, RecordBatch, Salt};

/// Record bytes, records of a batch.
const SHAPES: [(usize, usize); 4] = [(100, 1), (100, 100), (1024, 16), (64 << 10, 1)];
const IMAGE_BYTES: usize = 8 << 20;
const SALT: Salt = Salt(7);

fn bytes_of(shape: (usize, usize)) -> Throughput {
    Throughput::Bytes(u64::try_from(shape.0 * shape.1).expect("small"))
}

fn name_of(shape: (usize, usize)) -> String {
    format!("{}x{}", shape.1, shape.0)
}

fn build(batches: &mut Batches<'_>) -> RecordBatch {
    let mut builder = RecordBatch::builder();
    for record in batches.next_batch() {
        builder.push(None, None, Some(record), &[]);
    }
    builder.build().expect("within bounds")
}

fn encode(criterion: &mut Criterion) {
    let payload = Payload::new(1);
    let mut group = criterion.benchmark_group("encode");
    for shape in SHAPES {
        let mut batches = payload.batches(shape.0, shape.1);
        group.throughput(bytes_of(shape));
        group.bench_function(name_of(shape), |bencher| bencher.iter(|| build(&mut batches)));
    }
    group.finish();
}

fn crc(criterion: &mut Criterion) {
    let payload = Payload::new(1);
    let mut group = criterion.benchmark_group("crc");
    for bytes in [88, 1024, 16 << 10, 256 << 10] {
        let mut batches = payload.batches(bytes, 1);
        group.throughput(bytes_of((bytes, 1)));
        group.bench_function(BenchmarkId::from_parameter(bytes), |bencher| {
            bencher.iter(|| crc32c::crc32c(batches.next_batch()[0]));
        });
    }
    group.finish();
}

/// Returns the batches of a segment as they stand behind its header block, and how many there are.
fn image(shape: (usize, usize)) -> (Vec<u8>, usize) {
    let payload = Payload::new(1);
    let mut batches = payload.batches(shape.0, shape.1);
    let (mut image, mut base_offset, mut count) = (Vec::new(), Offset(0), 0);
    while image.len() < IMAGE_BYTES {
        let batch = build(&mut batches);
        let behind = u64::try_from(image.len()).expect("small");
        let stamp = Stamp {
            salt: SALT.low(),
            generation: Generation(1),
            position: Position(FIRST_BATCH.0 + behind),
            base_offset,
            leader_epoch: Epoch(1),
            flush_mark: base_offset,
            now_ms: 1,
        };
        image.extend_from_slice(&batch.header(&stamp).encode());
        image.extend_from_slice(batch.records_bytes());
        image.resize(image.len().next_multiple_of(8), 0);
        base_offset = base_offset.plus(batch.record_count());
        count += 1;
    }
    // The zeros behind the end.
    image.resize(image.len() + (64 << 10), 0);
    (image, count)
}

/// Verifies all of an image and returns its batches.
fn scan_image(image: &[u8]) -> usize {
    let rule = GenerationRule { current: Generation(1), exact_from: FIRST_BATCH };
    let mut chain = Chain::new(SALT, FIRST_BATCH, Offset(0), Epoch(0), rule);
    let mut count = 0;
    loop {
        let at = usize::try_from(chain.position().0 - FIRST_BATCH.0).expect("small");
        match chain.step(&image[at..]) {
            Ok(Step::Batch { records, .. }) => {
                black_box(records);
                count += 1;
            }
            Ok(Step::Filler { .. } | Step::Gap { .. }) => {}
            Ok(Step::NeedBytes(_)) | Err(_) => return count,
        }
    }
}

fn scan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    for shape in SHAPES {
        let (image, count) = image(shape);
        assert_eq!(scan_image(&image), count, "the whole image is verified");
        group.throughput(Throughput::Bytes(u64::try_from(image.len()).expect("small")));
        group.bench_function(name_of(shape), |bencher| bencher.iter(|| scan_image(&image)));
    }
    group.finish();
}

fn index(criterion: &mut Criterion) {
    // A full segment of 128 MiB: an entry for each block.
    const ENTRIES: u64 = 32 << 10;
    let mut index = SparseIndex::new(1000);
    for entry in 0..ENTRIES {
        index.note(1000 + entry * 40, 4096 + entry * 4096, 1, 1);
    }
    assert_eq!(index.entries().len(), 32 << 10);
    let mut offset = 0;
    criterion.bench_function("index lookup", |bencher| {
        bencher.iter(|| {
            // A step that is prime to the number of offsets visits them all, far apart.
            offset = (offset + 524_287) % (ENTRIES * 40);
            index.lookup(1000 + offset)
        });
    });
}

criterion_group! {
    name = parts;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = encode, crc, scan, index
}
criterion_main!(parts);
