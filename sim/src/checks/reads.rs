//! D7, B7, A1, A2: whatever is read is what was appended at that offset, in that epoch; reading up
//! to a mark gives everything below it.
//!
//! Verified: keys, values, timestamps and offsets of every record, epoch and generation of every
//! batch, where the reading ends, and which record a time finds (D8).

use highwater::{Isolation, LocalEngine, LocalLog, Marks, Offset, ReadBatch, Reader};
use highwater_io::Io;
use highwater_io::sim::SimPlatform;

use crate::failure::{Check, broken, ensure};
use crate::oracle::{Entry, LogModel};

/// What a read that broke off says.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Everything asked for was read.
    Whole,
    /// The reader returned this error.
    Error(highwater::Error),
}

/// Reads up to `batches` batches from `from` and compares each.
pub(crate) fn read(
    engine: &LocalEngine<SimPlatform>,
    log: LocalLog,
    model: &LogModel,
    (from, isolation, batches): (u64, Isolation, usize),
) -> Check<Ended> {
    let limit = limit_of(&engine.marks(log), isolation);
    let mut reader = match engine.read(log, Offset(from), isolation) {
        Ok(reader) => reader,
        Err(error) => return Ok(Ended::Error(error)),
    };
    go_on(&mut reader, model, (from, limit.0, batches)).map(|(_, ended)| ended)
}

/// Looks for the first record of a time or later and compares what is found.
pub(crate) fn look_up(
    engine: &LocalEngine<SimPlatform>,
    log: LocalLog,
    model: &LogModel,
    (time, isolation): (i64, Isolation),
) -> Check<Ended> {
    let marks = engine.marks(log);
    let limit = limit_of(&marks, isolation);
    let found = engine.read(log, marks.log_start, isolation);
    let found = match found.and_then(|mut reader| reader.seek_time(time)) {
        Ok(found) => found,
        Err(error) => return Ok(Ended::Error(error)),
    };
    let below = model.entries.iter().take_while(|entry| entry.end() <= limit.0);
    let right = below.filter(|entry| entry.end() > marks.log_start.0).find_map(|entry| {
        let records = entry.batch.records(Offset(entry.base)).flatten();
        let mut readable = records.filter(|record| record.offset >= marks.log_start);
        readable.find(|record| record.timestamp_ms >= time).map(|record| record.offset)
    });
    ensure(found == right, "D8", || {
        format!("time {time} finds {found:?} up to {limit}, the first record of it is {right:?}")
    })?;
    Ok(Ended::Whole)
}

fn limit_of(marks: &Marks, isolation: Isolation) -> Offset {
    match isolation {
        Isolation::Written => marks.written,
        Isolation::Committed => marks.high_watermark,
        Isolation::Durable => marks.durable_watermark,
    }
}

/// Reads up to `batches` batches more from a reader that stands at `next`, below `limit`; returns
/// where it stands then.
pub(crate) fn go_on<I: Io>(
    reader: &mut Reader<I>,
    model: &LogModel,
    (mut next, limit, batches): (u64, u64, usize),
) -> Check<(u64, Ended)> {
    let from = next;
    for _ in 0..batches {
        match reader.next() {
            None => {
                ensure(next >= limit, "D7", || {
                    format!("a read from {from} ended at {next}, below {limit}")
                })?;
                break;
            }
            Some(Err(error)) => return Ok((next, Ended::Error(error))),
            Some(Ok(batch)) => {
                let entry = model.entries.get(model.index_of(next));
                let Some(entry) = entry.filter(|entry| entry.base <= next) else {
                    return broken("D7", format!("offset {next} was read, but never appended"));
                };
                same(entry, &batch, next)?;
                ensure(entry.end() <= limit, "B6", || {
                    format!("offset {} was read above {limit}", entry.end() - 1)
                })?;
                next = entry.end();
            }
        }
    }
    Ok((next, Ended::Whole))
}

/// Checks that `batch`, read from offset `from` on, is what was appended.
pub(crate) fn same(entry: &Entry, batch: &ReadBatch, from: u64) -> Check {
    let header = batch.header();
    ensure(header.base_offset.0 == entry.base, "A1", || {
        format!("the batch at {} was appended at {}", header.base_offset, entry.base)
    })?;
    ensure(
        header.leader_epoch.0 == entry.epoch && header.generation.0 == entry.generation,
        "A2",
        || {
            format!(
                "the batch at {} has epoch {} and generation {}, not {} and {}",
                entry.base, header.leader_epoch, header.generation, entry.epoch, entry.generation
            )
        },
    )?;
    ensure(header.producer() == entry.batch.producer(), "D7", || {
        format!(
            "the batch at {} is numbered {:?}, not {:?}",
            entry.base,
            header.producer(),
            entry.batch.producer()
        )
    })?;
    let mut expected = entry.batch.records(Offset(entry.base));
    for record in batch.records() {
        let Ok(record) = record else { return broken("D7", "a record cannot be decoded") };
        let wanted = expected.by_ref().flatten().find(|wanted| wanted.offset.0 >= from);
        let Some(wanted) = wanted else {
            return broken("D7", format!("offset {} is too much", record.offset));
        };
        let same = record.offset == wanted.offset
            && record.timestamp_ms == wanted.timestamp_ms
            && record.key == wanted.key
            && record.value == wanted.value;
        ensure(same, "D7", || {
            format!("offset {} is not what attempt {} appended", wanted.offset, entry.attempt)
        })?;
    }
    ensure(expected.next().is_none(), "D7", || format!("the batch at {} is short", entry.base))
}
