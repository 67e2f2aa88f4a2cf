//! Batches whose every record is unlike any other's: a value that is read tells which attempt
//! wrote it.

use std::rc::Rc;

use highwater::{ProducerEpoch, ProducerId, ProducerStamp, RecordBatch, Sequence};
use highwater_io::random::SeededRandom;

use crate::convert::{narrow, wide};

/// How large batches are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) records_max: u64,
    pub(crate) value_max: u64,
    /// A single value of up to so many bytes, now and then.
    pub(crate) large_max: u64,
}

/// Returns the batch of an attempt.
pub(crate) fn make_batch(random: &mut SeededRandom, attempt: u64, sizes: Sizes) -> RecordBatch {
    let large = random.chance(1, 16);
    let records = if large { 1 } else { 1 + random.below(sizes.records_max) };
    let small = random.chance(1, 2);
    let limit = match (large, small) {
        (true, _) => sizes.large_max,
        (_, true) => sizes.value_max / 16,
        _ => sizes.value_max,
    };
    let lengths: Vec<u64> = (0..records).map(|_| random.below(limit + 1)).collect();
    batch_of(attempt, &lengths)
}

/// Returns the batch of an attempt with values of these lengths.
pub(crate) fn batch_of(attempt: u64, lengths: &[u64]) -> RecordBatch {
    let mut builder = RecordBatch::builder();
    for (index, length) in lengths.iter().enumerate() {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&attempt.to_le_bytes());
        key[8..].copy_from_slice(&wide(index).to_le_bytes());
        let value = value(attempt, wide(index), narrow(*length));
        builder.push(Some(time_of(attempt, wide(index))), Some(&key), Some(&value), &[]);
    }
    builder.build().unwrap_or_else(|error| panic!("the harness asks for possible sizes: {error}"))
}

/// Returns a record's timestamp: rising on the whole, with steps back and plateaus, and within a
/// batch by so little that its encoding keeps its length.
fn time_of(attempt: u64, index: u64) -> i64 {
    let ms = 10_000 + attempt / 2 * 40 + index * 13 % 50;
    i64::try_from(ms).unwrap_or(i64::MAX) - i64::try_from(attempt % 7 * 70).unwrap_or(0)
}

/// Returns the batch that a workload's producer numbers so: one record, the same each time.
pub(crate) fn numbered_batch(sequence: i32, length: u64) -> Rc<RecordBatch> {
    let numbers = ProducerStamp {
        id: ProducerId(7),
        epoch: ProducerEpoch(0),
        base_sequence: Sequence(sequence),
    };
    // No attempt has such a number.
    let content = (1 << 40) + u64::from(sequence.unsigned_abs());
    let batch = batch_of(content, &[length]).with_producer(numbers);
    Rc::new(batch.unwrap_or_else(|error| panic!("the numbers are valid: {error}")))
}

fn value(attempt: u64, index: u64, length: usize) -> Vec<u8> {
    let mut random = SeededRandom::new(attempt.wrapping_mul(0x1_0001).wrapping_add(index));
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next_u64().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
