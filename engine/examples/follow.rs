//! Following the tail: a consumer that keeps its place, beside a producer in the same process.
//!
//! The consumer reads what is durable and writes down how far it has come. Started again, it goes
//! on from there: nothing is missed, and nothing that it finished comes twice.
//!
//! `cargo run -p highwater --example follow`
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use highwater::{
    Ack, Engine, ErrorKind, FlushPolicy, Isolation, Log, LogOptions, Offset, Options, RecordBatch,
};

const RECORDS: u64 = 300;

fn produce(log: &Log) -> Result<(), highwater::Error> {
    for number in 0..RECORDS {
        let batch = RecordBatch::builder().value(format!("event {number}").as_bytes()).build();
        // Nobody waits for the flush of one: the log's policy brings it soon.
        log.append(batch.expect("a line fits"), Ack::LEADER)?.wait()?;
    }
    Ok(())
}

/// Consumes up to `until` and returns how many records it saw.
fn consume(log: &Log, place: &Path, until: Offset) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let from = match fs::read_to_string(place) {
        Ok(text) => Offset(text.parse()?),
        Err(_) => Offset(0),
    };
    let mut follower = log.follow(from, Isolation::Durable)?;
    let mut seen = 0;
    while follower.next_offset() < until {
        let batch = match follower.wait(Some(Duration::from_secs(60))) {
            Ok(batch) => batch,
            Err(error) => match *error.kind() {
                // Retention was faster. Whether that is a loss is for the consumer to say.
                ErrorKind::Trimmed { log_start } => {
                    follower.seek(log_start)?;
                    continue;
                }
                _ => return Err(error.into()),
            },
        };
        for record in batch.records() {
            let record = record?;
            assert_eq!(record.value, Some(format!("event {}", record.offset).as_bytes()));
            seen += 1;
        }
        // Behind the work, so that a crash in between repeats a batch rather than skips one.
        let done = place.with_extension("new");
        fs::write(&done, follower.next_offset().to_string())?;
        fs::rename(&done, place)?;
    }
    Ok(seen)
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let directory = std::env::temp_dir().join(format!("highwater-follow-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let engine = Engine::open(Options::at(directory.join("log")))?;
    let flush = FlushPolicy { interval: Some(Duration::from_millis(20)), ..FlushPolicy::NONE };
    let log = engine.log("events", LogOptions { flush, ..LogOptions::default() })?;
    let place = directory.join("place");
    let (first, second) = std::thread::scope(|scope| {
        let producer = scope.spawn(|| produce(&log));
        // The consumer stops half way and is started again.
        let first = consume(&log, &place, Offset(RECORDS / 2))?;
        let second = consume(&log, &place, Offset(RECORDS))?;
        producer.join().expect("it lives")?;
        Ok::<_, Box<dyn Error + Send + Sync>>((first, second))
    })?;
    println!("{first} records, and {second} after it was started again");
    assert_eq!(first + second, RECORDS);
    engine.close()?;
    Ok(fs::remove_dir_all(&directory)?)
}

#[test]
fn it_runs() {
    main().expect("nothing is missed, nothing comes twice");
}
