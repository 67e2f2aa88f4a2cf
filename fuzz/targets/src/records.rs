//! Records: arbitrary bytes are walked without harm, and what a builder takes is read back.

use highwater_segment::builder::Header;
use highwater_segment::record::{MAX_HEADERS, MIN_RECORD_BYTES};
use highwater_segment::{Offset, RecordBatch, Records};

use crate::input::{Input, narrow, wide};

/// The most records a structured input makes.
const MADE_MAX: usize = 64;
/// Keeps a batch of the most and longest records below its maximum.
const LONG_FIELD_MASK: u16 = 0x3fff;

/// An even first byte: the rest is a count, a base offset, a base time and records. An odd one:
/// the rest says what a builder is given.
pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.byte().is_multiple_of(2) { walk_arbitrary(input) } else { round_trip(input) }
}

fn walk_arbitrary(mut input: Input<'_>) {
    let count = input.word();
    // A header whose offsets do not fit is refused before its records are looked at.
    let base = Offset(input.long().min(u64::MAX - u64::from(count)));
    let base_time = input.signed();
    let bytes = input.rest();
    walk(bytes, count, base, base_time);
    // As many as could be there by their length, as the header's decoder demands.
    let likely = u32::try_from(bytes.len() / MIN_RECORD_BYTES).unwrap_or(u32::MAX);
    walk(bytes, likely.min(count), base, base_time);
}

/// Walks the records and checks what the iterator promises, whatever the bytes are.
pub(crate) fn walk(bytes: &[u8], count: u32, base: Offset, base_time: i64) {
    let mut good: u32 = 0;
    let mut payload = 0;
    let mut records = Records::new(bytes, count, base, base_time);
    while let Some(record) = records.next() {
        let Ok(record) = record else {
            assert!(records.next().is_none(), "the walk ends behind the first error");
            break;
        };
        assert_eq!(record.offset, base.plus(good), "A1: offsets are dense");
        good += 1;
        assert!(good <= count, "never more records than the header says");
        let headers = record.headers();
        assert!(headers.len() <= MAX_HEADERS);
        let fields = headers.iter().map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len));
        payload += fields.sum::<usize>();
        payload += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        assert!(payload + narrow(u64::from(good)) * MIN_RECORD_BYTES <= bytes.len());
    }
    assert!(records.next().is_none(), "an ended walk stays ended");
}

/// What one record was made of.
#[derive(Clone, Debug)]
struct Made {
    time: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn field(input: &mut Input<'_>) -> Option<Vec<u8>> {
    match input.byte() {
        255 => None,
        // A long field without a long input, for the lengths of two and three bytes.
        254 => Some(vec![input.byte(); usize::from(input.short() & LONG_FIELD_MASK)]),
        length => Some(input.bytes(usize::from(length)).to_vec()),
    }
}

fn make(input: &mut Input<'_>) -> Made {
    let flags = input.byte();
    let time = (flags & 1 != 0).then(|| input.signed());
    let (key, value) = (field(input), field(input));
    let headers = (0..flags >> 5).map(|_| (field(input).unwrap_or_default(), field(input)));
    Made { time, key, value, headers: headers.collect() }
}

fn round_trip(mut input: Input<'_>) {
    let base = Offset(u64::from(input.word()));
    let mut made = Vec::new();
    let mut builder = RecordBatch::builder();
    while !input.is_empty() && made.len() < MADE_MAX {
        let record = make(&mut input);
        let headers: Vec<Header<'_>> =
            record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        builder.push(record.time, record.key.as_deref(), record.value.as_deref(), &headers);
        made.push(record);
    }
    let Ok(batch) = builder.build() else {
        // The limits above leave nothing but an empty batch to refuse.
        assert!(made.is_empty(), "what fits is taken");
        return;
    };
    assert_eq!(narrow(u64::from(batch.record_count())), made.len());
    assert!(wide(batch.records_bytes().len()) < batch.disk_bytes());
    let first_time = made[0].time;
    let read: Vec<_> = batch.records(base).collect::<Result<_, _>>().expect("a builder's records");
    assert_eq!(read.len(), made.len(), "every record is read back");
    for (read, made) in read.iter().zip(&made) {
        assert_eq!(read.key, made.key.as_deref());
        assert_eq!(read.value, made.value.as_deref());
        let headers: Vec<_> =
            read.headers().into_iter().map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec))).collect();
        assert_eq!(headers, made.headers);
        // A difference that does not fit 64 bits is the largest that does.
        let times = first_time.zip(made.time);
        let difference = times.map_or(0, |(first, own)| own.saturating_sub(first));
        let expected = first_time.unwrap_or_default().saturating_add(difference);
        assert_eq!(read.timestamp_ms, expected);
    }
}
