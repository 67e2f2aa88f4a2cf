//! Records inside a batch, in Kafka's public encoding (message format v2, KIP-98): zigzag varints
//! for lengths and deltas, so that a Kafka gateway can serve them without re-encoding.
//!
//! `length, attributes (i8, 0), timestamp delta, offset delta, key length, key, value length,
//! value, header count, { key length, key, value length, value }`. A length of -1 is null.

use crate::MAX_RECORD_BYTES;
use crate::types::Offset;

/// The shortest record: length, attributes, two deltas, two null lengths, no headers.
pub const MIN_RECORD_BYTES: usize = 7;
/// The longest varint of 64 bits.
const MAX_VARINT_BYTES: usize = 10;
/// The most headers of one record.
pub const MAX_HEADERS: usize = 1024;
/// The longest encoding of a record: its payload, its own lengths, and two for each header.
const MAX_ENCODED_BYTES: usize = MAX_RECORD_BYTES + 64 + 2 * MAX_VARINT_BYTES * MAX_HEADERS;

/// Appends the zigzag varint of `value`.
pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap_or_default() | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap_or_default());
}

/// Returns how many bytes [`put_varint`] appends for `value`, 1 to 10.
#[must_use]
pub fn varint_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).unwrap_or(MAX_VARINT_BYTES)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// A record that lies in a batch's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number in the log.
    pub offset: Offset,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; a null value is not an empty one.
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
    header_count: usize,
}

impl<'a> Record<'a> {
    /// Returns the headers, keys with values, in their order.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'a [u8], Option<&'a [u8]>)> {
        let mut cursor = Cursor { rest: self.headers };
        let mut headers = Vec::with_capacity(self.header_count.min(MAX_HEADERS));
        for _ in 0..self.header_count {
            // The iterator that made this record has walked these very bytes without an error.
            let Ok(key) = cursor.length_and_bytes("header key") else { break };
            let Ok(value) = cursor.length_and_bytes("header value") else { break };
            headers.push((key.unwrap_or_default(), value));
        }
        headers
    }
}

/// Bytes with a correct checksum that are not records: a defect of whoever wrote them, or a codec
/// that this build lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// The offset of the record concerned.
    pub offset: Offset,
    /// What does not hold.
    pub what: &'static str,
    /// Nothing says that it is damaged: it is compressed with a codec that this build lacks.
    pub needs_another_build: bool,
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "record {} cannot be read: {}", self.offset, self.what)
    }
}

impl std::error::Error for RecordError {}

/// The records of one batch, in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    cursor: Cursor<'a>,
    base_offset: Offset,
    base_timestamp_ms: i64,
    next: u32,
    count: u32,
    failed: Option<RecordError>,
}

impl<'a> Records<'a> {
    /// Returns the iterator over `bytes`, which hold `count` records from `base_offset` on.
    #[must_use]
    pub fn new(bytes: &'a [u8], count: u32, base_offset: Offset, base_timestamp_ms: i64) -> Self {
        let cursor = Cursor { rest: bytes };
        Records { cursor, base_offset, base_timestamp_ms, next: 0, count, failed: None }
    }

    /// Returns an iterator that gives `error` and ends.
    #[must_use]
    pub fn failed(error: RecordError) -> Self {
        Records { failed: Some(error), ..Records::new(&[], 0, error.offset, 0) }
    }

    fn decode(&mut self) -> Result<Record<'a>, &'static str> {
        let length = self.cursor.varint()?;
        let length = usize::try_from(length).map_err(|_| "its length is negative")?;
        if length > MAX_ENCODED_BYTES {
            return Err("its length is above the maximum");
        }
        let mut body = Cursor { rest: self.cursor.take(length).ok_or("it is cut short")? };
        if body.take(1) != Some(&[0]) {
            return Err("its attributes are not zero");
        }
        let timestamp_delta = body.varint()?;
        if body.varint()? != i64::from(self.next) {
            return Err("its offset delta is not its place in the batch");
        }
        let key = body.length_and_bytes("its key is cut short")?;
        let value = body.length_and_bytes("its value is cut short")?;
        let header_count = usize::try_from(body.varint()?).map_err(|_| "a negative count")?;
        if header_count > MAX_HEADERS {
            return Err("it has too many headers");
        }
        let headers = body.rest;
        for _ in 0..header_count {
            body.length_and_bytes("a header key is cut short")?.ok_or("a header key is null")?;
            body.length_and_bytes("a header value is cut short")?;
        }
        if !body.rest.is_empty() {
            return Err("bytes are left over");
        }
        Ok(Record {
            offset: self.base_offset.plus(self.next),
            timestamp_ms: self.base_timestamp_ms.saturating_add(timestamp_delta),
            key,
            value,
            headers,
            header_count,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        if self.next >= self.count {
            let left_over = self.next == self.count && !self.cursor.rest.is_empty();
            self.cursor.rest = &[];
            let offset = self.base_offset.plus(self.count);
            let error =
                RecordError { offset, what: "bytes are left over", needs_another_build: false };
            return left_over.then_some(Err(error));
        }
        let offset = self.base_offset.plus(self.next);
        let record = self.decode();
        let record =
            record.map_err(|what| RecordError { offset, what, needs_another_build: false });
        if record.is_ok() {
            self.next += 1;
        } else {
            (self.next, self.cursor.rest) = (self.count, &[]);
        }
        Some(record)
    }
}

/// A length-checked walk over bytes: never reads past them, never trusts a length.
#[derive(Clone, Copy, Debug)]
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Result<i64, &'static str> {
        let mut value: u64 = 0;
        for (index, byte) in self.rest.iter().take(MAX_VARINT_BYTES).enumerate() {
            let shift = 7 * u32::try_from(index).unwrap_or(u32::MAX);
            if shift == 63 && *byte > 1 {
                return Err("a number is too long");
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
            }
        }
        Err("a number is cut short or too long")
    }

    fn length_and_bytes(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, &'static str> {
        match self.varint()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| "a length is negative")?;
                self.take(length).map(Some).ok_or(what)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_survive_and_have_the_length_foretold() {
        let mut values = vec![0, 1, -1, 63, 64, -64, -65, i64::MAX, i64::MIN];
        values.extend((0..63).flat_map(|bit| [1 << bit, -(1 << bit), (1 << bit) - 1]));
        for value in values {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(bytes.len(), varint_bytes(value), "{value}");
            assert_eq!(Cursor { rest: &bytes }.varint(), Ok(value));
            assert!(Cursor { rest: &bytes[..bytes.len() - 1] }.varint().is_err());
        }
    }

    #[test]
    fn a_walk_ends_behind_its_first_error_whatever_the_count() {
        for count in [1, 2, u32::MAX] {
            let mut records = Records::new(&[0xff; 20], count, Offset(0), 0);
            assert!(matches!(records.next(), Some(Err(_))));
            assert_eq!(records.next(), None);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "megabytes: minutes")]
    fn the_largest_record_with_the_most_headers_is_read_back() {
        let value = vec![7; MAX_RECORD_BYTES - MAX_HEADERS];
        let headers = vec![(&b"k"[..], None); MAX_HEADERS];
        let mut builder = crate::RecordBatch::builder();
        builder.push(None, None, Some(&value), &headers);
        let batch = builder.build().expect("it is at the maximum");
        let read: Vec<_> = batch.records(Offset(0)).collect();
        assert!(matches!(&read[..], [Ok(record)] if record.headers().len() == MAX_HEADERS));
    }

    #[test]
    fn overlong_varints_are_refused() {
        assert!(Cursor { rest: &[0xff; 11] }.varint().is_err());
        assert!(Cursor { rest: &[0x80; 10] }.varint().is_err());
    }
}
