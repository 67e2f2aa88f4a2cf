//! One engine for each thread, no queue and no other thread between: each thread owns a partition,
//! drives its own [`LocalEngine`] and is its only user.
//!
//! `cargo run -p highwater --example thread_per_core`
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use highwater::{
    Ack, BackendChoice, Isolation, LocalEngine, LogOptions, Options, RecordBatch, SystemPlatform,
    Ticket,
};

const THREADS: u64 = 2;
const BATCHES: u64 = 200;
/// The most appends that a thread has in the air. They share flushes; one at a time would not.
const IN_FLIGHT: usize = 16;

/// Appends what belongs to this partition and returns how many records are durable in it.
fn partition(directory: &Path, number: u64) -> Result<u64, highwater::Error> {
    // Made on this thread, used on this thread. A directory has one engine, so each its own.
    let options = Options::at(directory.join(format!("partition-{number}")));
    let mut engine = LocalEngine::open(SystemPlatform::new(BackendChoice::Auto), &options)?;
    let log = engine.log("events", &LogOptions::default())?;
    let mut waiting: VecDeque<Ticket> = VecDeque::new();
    for index in 0..BATCHES {
        let value = format!("event {index} of partition {number}");
        let batch = RecordBatch::builder().value(value.as_bytes()).build();
        let batch = batch.expect("a line fits a batch");
        waiting.push_back(engine.append(log, batch, Ack::LEADER_FLUSHED)?);
        // Nothing happens but inside calls: this one submits, and takes what has completed. A
        // program with sockets of its own would look at them in between.
        engine.poll(Duration::ZERO);
        while let Some(answer) = waiting.front().and_then(Ticket::acked) {
            answer?;
            waiting.pop_front();
        }
        if waiting.len() >= IN_FLIGHT
            && let Some(oldest) = waiting.pop_front()
        {
            engine.run_until(&oldest)?;
        }
    }
    for ticket in waiting {
        engine.run_until(&ticket)?;
    }
    let mut records = 0;
    for batch in engine.read(log, highwater::Offset(0), Isolation::Durable)? {
        records += u64::from(batch?.header().record_count);
    }
    let flushes = engine.metrics().logs.get("events").map_or(0, |log| log.flushes);
    println!("partition {number}: {records} records, {flushes} flushes");
    engine.close()?;
    Ok(records)
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("highwater-cores-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let of_each = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let directory = directory.as_path();
                scope.spawn(move || partition(directory, number))
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().expect("it lives");
        threads.into_iter().map(join).collect::<Result<Vec<u64>, _>>()
    })?;
    assert_eq!(of_each, vec![BATCHES; usize::try_from(THREADS)?]);
    Ok(std::fs::remove_dir_all(&directory)?)
}

#[test]
fn it_runs() {
    main().expect("every record is durable");
}
