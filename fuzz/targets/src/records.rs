//! Records: arbitrary bytes are decompressed and walked without harm, and what a builder takes is
//! read back.

use highwater_segment::builder::Header;
use highwater_segment::record::{MAX_HEADERS, MIN_RECORD_BYTES};
use highwater_segment::{
    Codec, Compression, MAX_UNCOMPRESSED_BYTES, Offset, RecordBatch, Records, StoredRecords,
};

use crate::input::{Input, narrow, wide};

/// The most records a structured input makes.
const MADE_MAX: usize = 64;
/// Keeps a batch of the most and longest records below its maximum.
const LONG_FIELD_MASK: u16 = 0x3fff;

/// What an arbitrary frame can begin with, so that its checksum of the header holds: LZ4 with
/// independent blocks of 64 KiB, with linked ones, with blocks of 4 MiB, with a checksum of the
/// content; Zstandard's magic.
pub(crate) const FRAME_STARTS: [&[u8]; 6] = [
    b"",
    b"\x04\x22\x4d\x18\x60\x40\x82",
    b"\x04\x22\x4d\x18\x40\x40\xc0",
    b"\x04\x22\x4d\x18\x60\x70\x73",
    b"\x04\x22\x4d\x18\x64\x40\xa7",
    b"\x28\xb5\x2f\xfd",
];

/// Bit 7 of the first byte: with compression. Bit 0 not set: the rest is a count, a base offset, a
/// base time and records; set: the rest says what a builder is given.
pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.byte();
    match (kind & 0x80 != 0, kind & 1 != 0) {
        (false, false) => walk_arbitrary(input),
        (true, false) => decompress_arbitrary(input, kind),
        (false, true) => round_trip(input, Compression::None),
        (true, true) if kind & 2 != 0 => round_trip(input, Compression::Lz4),
        (true, true) => {
            let level = i32::from(kind >> 4 & 3) + 1;
            round_trip(input, Compression::Zstd { level });
        }
    }
}

/// Bits 1 to 3: the codec; bits 4 to 6: what the frame begins with.
fn decompress_arbitrary(mut input: Input<'_>, kind: u8) {
    let codec = Codec::of_attributes(u16::from(kind >> 1));
    let start = FRAME_STARTS.get(usize::from(kind >> 4 & 7)).copied().unwrap_or_default();
    let count = u32::from(input.short());
    let stored = [start, input.rest()].concat();
    decompress(stored, codec, count);
}

/// Decompresses and walks; checks that neither gives more than there may be, twice the same.
fn decompress(stored: Vec<u8>, codec: Codec, count: u32) {
    let stored = StoredRecords::new(stored, codec);
    let records: Vec<_> = stored.records(count, Offset(0), 0).collect();
    match stored.plain() {
        Ok(plain) => {
            assert!(plain.len() <= MAX_UNCOMPRESSED_BYTES, "the output is bounded");
            walk(plain, count, Offset(0), 0);
        }
        Err(fault) => {
            assert!(matches!(&records[..], [Err(_)]), "{fault:?} is one error and no record");
            assert_eq!(fault.needs_another_build(), !codec.is_built_in());
        }
    }
    assert_eq!(StoredRecords::new(stored.bytes().to_vec(), codec).plain(), stored.plain());
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

fn round_trip(mut input: Input<'_>, compression: Compression) {
    let base = Offset(u64::from(input.word()));
    let mut made = Vec::new();
    let mut builder = RecordBatch::builder().compression(compression);
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
    assert!([Codec::None, compression.codec()].contains(&batch.codec()));
    // Cut somewhere, a frame is no frame; never more than an error.
    let stored = batch.records_bytes();
    let cut = stored.len() / 2 + made.len() % 7;
    decompress(stored[..cut.min(stored.len())].to_vec(), batch.codec(), batch.record_count());
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
