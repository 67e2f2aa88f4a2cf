//! Readers beside a writer whose segments are rolled, trimmed by retention and used again: what
//! they read is right, or they are told that they are too slow; nothing is ever called damaged.

use std::ops::AddAssign;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use highwater::inspect::{OutsideReader, summaries, verify};
use highwater::{
    Ack, Error, ErrorKind, FlushPolicy, Isolation, Log, LogOptions, Preparation, ReadBatch, Reader,
};

use super::ground::{PATIENCE, open};
use super::{Found, Site};
use crate::records::{batch, id_at};
use crate::scratch::Scratch;
use crate::workload::Failure;

const LOG: &str = "log";
const SEGMENT_BYTES: u64 = 64 << 10;
/// Four segments stay; whoever is slower is told.
const RETENTION_BYTES: u64 = 4 * SEGMENT_BYTES;
/// Records in a batch.
const RECORDS: u64 = 4;
/// How often each reader comes.
const ROUNDS: usize = 40;
/// How many batches one round reads at most.
const BATCHES: usize = 400;

/// What readers met.
#[derive(Clone, Copy, Debug, Default)]
struct Met {
    records: u64,
    trimmed: u64,
}

impl AddAssign for Met {
    fn add_assign(&mut self, other: Met) {
        self.records += other.records;
        self.trimmed += other.trimmed;
    }
}

pub(super) fn beside(site: &Site) -> Result<Found, Failure> {
    let scratch = Scratch::new("faults")?;
    let data = scratch.path().join("data");
    let engine = open(site.backend, &data)?;
    let log = engine.log(
        LOG,
        LogOptions {
            segment_bytes: Some(SEGMENT_BYTES),
            retention_bytes: Some(RETENTION_BYTES),
            prepare: Preparation::Ahead,
            flush: FlushPolicy { bytes: Some(SEGMENT_BYTES), ..FlushPolicy::NONE },
            ..LogOptions::default()
        },
    )?;
    append(&log, 0)?;
    let (over, appended) = (AtomicBool::new(false), AtomicU64::new(RECORDS));
    let found = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&log, &over, &appended));
        let follower = scope.spawn(|| follow(&log, &over));
        let readers = [
            ("inside, slow", scope.spawn(|| rounds(|| inside(&log, true)))),
            ("inside, at once", scope.spawn(|| rounds(|| inside(&log, false)))),
            ("outside", scope.spawn(|| rounds(|| outside(&data)))),
            ("outside, verify and logs", scope.spawn(|| rounds(|| look(&data)))),
            ("another process", scope.spawn(|| rounds(|| commands(site, &data)))),
        ];
        let mut found = Found::new();
        let mut failure = None;
        for (who, reader) in readers {
            match reader.join().unwrap_or_else(|_| Err("it panicked".into())) {
                Ok(met) => found.push(format!(
                    "{who}: {} records right, {} times Trimmed, never damaged",
                    met.records, met.trimmed
                )),
                Err(error) => failure = Some(format!("{who}: {error}")),
            }
        }
        over.store(true, Ordering::Relaxed);
        let followed = follower.join().unwrap_or_else(|_| Err("the follower panicked".into()))?;
        writer.join().unwrap_or_else(|_| Err("the writer panicked".into()))?;
        let appended = appended.load(Ordering::Relaxed);
        found.push(format!("a follower: {} of {appended} records", followed.records));
        match failure {
            Some(failure) => Err(Failure::from(failure)),
            None => Ok(found),
        }
    })?;
    engine.close()?;
    look(&data)?;
    Ok(found)
}

/// Runs a reader so often.
fn rounds(mut round: impl FnMut() -> Result<Met, Failure>) -> Result<Met, Failure> {
    let mut met = Met::default();
    for _ in 0..ROUNDS {
        met += round()?;
    }
    Ok(met)
}

fn append(log: &Log, from: u64) -> Result<(), Failure> {
    log.append(batch(from..from + RECORDS)?, Ack::LEADER)?.wait_timeout(PATIENCE)?;
    Ok(())
}

/// Appends records that are named by their offsets, until all readers are done.
fn write(log: &Log, over: &AtomicBool, appended: &AtomicU64) -> Result<(), Failure> {
    let mut next = RECORDS;
    let mut waiting = std::collections::VecDeque::new();
    while !over.load(Ordering::Relaxed) {
        waiting.push_back(log.append(batch(next..next + RECORDS)?, Ack::LEADER)?);
        next += RECORDS;
        if waiting.len() > 32
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.wait_timeout(PATIENCE)?;
            appended.store(next - RECORDS * 32, Ordering::Relaxed);
        }
    }
    waiting.into_iter().try_for_each(|receipt| receipt.wait_timeout(PATIENCE).map(drop))?;
    appended.store(next, Ordering::Relaxed);
    Ok(())
}

/// Checks what a batch holds, from `next` on; returns the offset behind it.
fn check(batch: &ReadBatch, next: u64, met: &mut Met) -> Result<u64, Failure> {
    let mut next = next;
    for record in batch.records() {
        let record = record.map_err(|error| error.to_string())?;
        if record.offset.0 != next || id_at(&record) != Some(next) {
            let (offset, id) = (record.offset, id_at(&record));
            return Err(format!("offset {offset} holds record {id:?}, where {next} is due").into());
        }
        next += 1;
        met.records += 1;
    }
    Ok(next)
}

/// Whether a reader was told that it is too slow: all it may be told.
fn is_trimmed(error: Error, met: &mut Met) -> Result<(), Failure> {
    if !matches!(error.kind(), ErrorKind::Trimmed { .. }) {
        return Err(error.into());
    }
    met.trimmed += 1;
    Ok(())
}

/// Reads batches from `from` on, some, and compares.
fn some(
    reader: impl Iterator<Item = highwater::Result<ReadBatch>>,
    from: u64,
    is_slow: bool,
) -> Result<Met, Failure> {
    let mut met = Met::default();
    let mut next = from;
    for batch in reader.take(BATCHES) {
        match batch {
            Ok(batch) => next = check(&batch, next, &mut met)?,
            Err(error) => {
                is_trimmed(error, &mut met)?;
                break;
            }
        }
        if is_slow {
            std::thread::park_timeout(Duration::from_micros(100));
        }
    }
    Ok(met)
}

fn inside(log: &Log, is_slow: bool) -> Result<Met, Failure> {
    let start = log.marks().log_start;
    match log.read(start, Isolation::Committed) {
        Ok(reader) => some(reader, start.0, is_slow),
        Err(error) => {
            let mut met = Met::default();
            is_trimmed(error, &mut met).map(|()| met)
        }
    }
}

fn outside(data: &Path) -> Result<Met, Failure> {
    let mut met = Met::default();
    for isolation in [Isolation::Written, Isolation::Durable] {
        let start = summaries(data)?.first().ok_or("no log")?.log_start;
        match OutsideReader::open(data, LOG, start, isolation) {
            Ok(reader) => met += some(reader, start.0, false)?,
            Err(error) => is_trimmed(error, &mut met)?,
        }
    }
    Ok(met)
}

fn look(data: &Path) -> Result<Met, Failure> {
    let mut met = Met::default();
    for verdict in verify(data, None)? {
        if let Some(damage) = verdict.damages.first() {
            return Err(format!("verify: {damage:?}").into());
        }
        met.records += verdict.records;
    }
    for summary in summaries(data)? {
        if let Some(error) = summary.error {
            return Err(format!("logs: {error}").into());
        }
    }
    Ok(met)
}

/// Reads by the binary: well, or told to be too slow.
fn commands(site: &Site, data: &Path) -> Result<Met, Failure> {
    let mut met = Met::default();
    let mut read = site.binary.on_log("read", data, LOG);
    let (verify, logs) = (site.binary.verb("verify", data), site.binary.verb("logs", data));
    read.args(["--format", "jsonl"]);
    for mut command in [read, verify, logs] {
        let output = command.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => {}
            Some(1) if said.contains("log's start") => met.trimmed += 1,
            _ => return Err(format!("{command:?}: {}: {said}", output.status).into()),
        }
        let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
        met.records += u64::try_from(lines)?;
    }
    Ok(met)
}

/// Follows the end of the log; starts anew where it was too slow.
fn follow(log: &Log, over: &AtomicBool) -> Result<Met, Failure> {
    let mut met = Met::default();
    let (mut next, mut reader) = at_start(log, &mut met)?;
    loop {
        match reader.next() {
            Some(Ok(batch)) => next = check(&batch, next, &mut met)?,
            Some(Err(error)) => {
                is_trimmed(error, &mut met)?;
                (next, reader) = at_start(log, &mut met)?;
            }
            None if over.load(Ordering::Relaxed) => return Ok(met),
            None => std::thread::yield_now(),
        }
    }
}

/// Reads from the log's start, which may move on before it is said.
fn at_start(log: &Log, met: &mut Met) -> Result<(u64, Reader), Failure> {
    loop {
        let start = log.marks().log_start;
        match log.read(start, Isolation::Committed) {
            Ok(reader) => return Ok((start.0, reader)),
            Err(error) => is_trimmed(error, met)?,
        }
    }
}
