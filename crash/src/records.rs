//! Records that tell which they are, and batches of them.

use highwater::{ReadBatch, Record, RecordBatch};
use highwater_io::random::SeededRandom;

use crate::timeline::RecordId;
use crate::workload::Failure;

/// The most records of a batch: so many of the longest fit the smallest segment.
pub(crate) const RECORDS_MAX: u64 = 8;
/// Most records are short; one in sixteen has up to so many bytes.
const LONG_BYTES: usize = 7_000;
const SHORT_BYTES: usize = 600;

/// Returns the value of a record: its name, and bytes that follow from it.
pub(crate) fn value(id: RecordId) -> Vec<u8> {
    let mut random = SeededRandom::new(id).split("value");
    let limit = if random.chance(1, 16) { LONG_BYTES } else { SHORT_BYTES };
    let length = random.index(limit);
    let words = std::iter::repeat_with(|| random.next_u64().to_le_bytes()).flatten();
    id.to_le_bytes().into_iter().chain(words.take(length)).collect()
}

/// Returns which record has this value.
fn id_of(value: &[u8]) -> Option<RecordId> {
    let id = RecordId::from_le_bytes(*value.first_chunk()?);
    (self::value(id) == value).then_some(id)
}

/// Returns which of our records this is.
pub(crate) fn id_at(record: &Record<'_>) -> Option<RecordId> {
    record.value.and_then(id_of)
}

/// Makes a batch of records.
pub(crate) fn batch(ids: impl IntoIterator<Item = RecordId>) -> Result<RecordBatch, Failure> {
    let builder = ids.into_iter().fold(RecordBatch::builder(), |builder, id| {
        let value = value(id);
        if id % 3 == 0 { builder.record(b"key", &value) } else { builder.value(&value) }
    });
    Ok(builder.build()?)
}

/// Reads a whole log: which records it holds, each at the offset it says.
pub(crate) fn read_all(
    batches: impl IntoIterator<Item = highwater::Result<ReadBatch>>,
) -> Result<Vec<RecordId>, Failure> {
    let mut found = Vec::new();
    for batch in batches {
        let batch = batch?;
        for record in batch.records() {
            let record = record.map_err(|error| error.to_string())?;
            let offset = usize::try_from(record.offset.0)?;
            if offset != found.len() {
                return Err(format!("offset {offset} follows {} records", found.len()).into());
            }
            found.push(
                id_at(&record)
                    .ok_or_else(|| format!("offset {offset} holds bytes of no record"))?,
            );
        }
    }
    Ok(found)
}
