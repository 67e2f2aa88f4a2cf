//! Appends from tasks: room is awaited, the ack is awaited, no thread is blocked.
//!
//! Highwater's futures know no runtime; they only need somebody to poll them. This is Tokio.
//!
//! `cargo run -p highwater --example tokio_appends`
#![forbid(unsafe_code)]

use std::error::Error;

use highwater::{Ack, Engine, Isolation, Log, LogOptions, Offset, Options, RecordBatch};

const TASKS: u64 = 8;
const RECORDS: u64 = 50;

/// Appends records one after the other, each durable before the next.
async fn produce(log: Log, task: u64) -> Result<(), Box<dyn Error + Send + Sync>> {
    for index in 0..RECORDS {
        let value = format!("record {index} of task {task}");
        let batch = RecordBatch::builder().value(value.as_bytes()).build()?;
        // Waits while the queue is full; first come, first served. Dropping the permit gives the
        // room back. `try_append` is the way for who would rather not wait.
        let permit = log.reserve(usize::try_from(batch.disk_bytes())?).await?;
        let receipt = permit.append(batch, Ack::LEADER_FLUSHED)?;
        let appended = receipt.await?;
        // The ack is honest: what it says held when it was given.
        assert!(appended.marks.flushed >= appended.end_offset());
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let directory = std::env::temp_dir().join(format!("highwater-tokio-{}", std::process::id()));
    // Opening and closing block; a program that serves meanwhile uses `spawn_blocking` for both.
    let engine = Engine::open(Options::at(&directory))?;
    let log = engine.log("events", LogOptions::default())?;
    let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(produce(log.clone(), task))).collect();
    for task in tasks {
        task.await??;
    }
    // Reading blocks, too, so it gets a thread where that does no harm.
    let reader = log.clone();
    let records = tokio::task::spawn_blocking(move || -> Result<u64, highwater::Error> {
        let mut records = 0;
        for batch in reader.read(Offset(0), Isolation::Durable)? {
            records += u64::from(batch?.header().record_count);
        }
        Ok(records)
    });
    let records = records.await??;
    let flushes = log.metrics()?.flushes;
    println!("{records} records of {TASKS} tasks, {flushes} flushes");
    assert_eq!(records, TASKS * RECORDS);
    engine.close()?;
    Ok(std::fs::remove_dir_all(&directory)?)
}

#[test]
fn it_runs() {
    main().expect("every record is durable");
}
