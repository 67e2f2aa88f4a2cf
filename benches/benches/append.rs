//! From the call of an append to its ack, one after the other, 1 KiB each: on the caller's thread
//! and through the queue, at every ack level.
//!
//! `cargo bench -p highwater-benches --bench append`; about half a minute. The log is in the
//! build's directory for temporary files, or in `HIGHWATER_BENCH_DIR`.

use std::path::PathBuf;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use highwater::{Ack, Engine, LocalEngine, LogOptions, Options, RecordBatch};
use highwater_benches::{Batches, FreshDirectory, Payload};
use highwater_io::system::SystemPlatform;

const LEVELS: [(&str, Ack); 5] = [
    ("none", Ack::NONE),
    ("leader", Ack::LEADER),
    ("leader flushed", Ack::LEADER_FLUSHED),
    ("isr", Ack::ISR),
    ("isr flushed", Ack::ISR_FLUSHED),
];

fn directory(name: &str) -> FreshDirectory {
    let parent = std::env::var_os("HIGHWATER_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    FreshDirectory::new(&parent, name).expect("a directory can be made")
}

fn build(batches: &mut Batches<'_>) -> RecordBatch {
    RecordBatch::builder().value(batches.next_batch()[0]).build().expect("within bounds")
}

fn local(criterion: &mut Criterion) {
    let payload = Payload::new(1);
    let mut group = criterion.benchmark_group("append local");
    for (level, ack) in LEVELS {
        let directory = directory("append-local");
        let platform = SystemPlatform::default();
        let options = Options::at(directory.path());
        let mut engine = LocalEngine::open(platform, &options).expect("open");
        let log = engine.log("bench", &LogOptions::default()).expect("log");
        let mut batches = payload.batches(1024, 1);
        group.bench_function(level, |bencher| {
            bencher.iter(|| {
                let ticket = engine.append(log, build(&mut batches), ack).expect("appended");
                engine.run_until(&ticket).expect("acked")
            });
        });
        engine.close().expect("closed");
        directory.remove().expect("removed");
    }
    group.finish();
}

fn queued(criterion: &mut Criterion) {
    let payload = Payload::new(1);
    let mut group = criterion.benchmark_group("append queued");
    for (level, ack) in LEVELS {
        let directory = directory("append-queued");
        let engine = Engine::open(Options::at(directory.path())).expect("open");
        let log = engine.log("bench", LogOptions::default()).expect("log");
        let mut batches = payload.batches(1024, 1);
        group.bench_function(level, |bencher| {
            bencher.iter(|| log.append(build(&mut batches), ack).expect("appended").wait());
        });
        engine.close().expect("closed");
        directory.remove().expect("removed");
    }
    group.finish();
}

criterion_group! {
    name = append;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = local, queued
}
criterion_main!(append);
