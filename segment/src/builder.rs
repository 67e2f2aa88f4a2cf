//! How a producer makes a batch: encodes records, sums them, and leaves the header to the shard.

use crate::batch::{ATTRIBUTE_LOG_APPEND_TIME, BatchHeader, HEADER_BYTES, NO_PRODUCER};
use crate::bytes::to_u64;
use crate::compression::{Codec, Compression, ZSTD_LEVELS, compress};
use crate::producers::{NumberedBatch, ProducerEpoch, ProducerId, ProducerStamp, Sequence};
use crate::record::{MAX_HEADERS, Records, put_varint, varint_bytes};
use crate::stored::StoredRecords;
use crate::types::{Epoch, Generation, Offset, Position};
use crate::{MAX_BATCH_BYTES, MAX_RECORD_BYTES};

/// One header of a record: its key and its value, null or not.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// A batch that has no place in a log yet: encoded and summed records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBatch {
    records: StoredRecords,
    record_count: u32,
    records_crc: u32,
    /// `None`: the log gives the time of the append.
    base_timestamp_ms: Option<i64>,
    max_delta_ms: i64,
    /// `None`: nobody can tell it from another with the same records.
    producer: Option<ProducerStamp>,
}

/// Where a batch is put: what the shard alone knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The low half of the segment's salt.
    pub salt: u32,
    /// The log's generation.
    pub generation: Generation,
    /// Where in the file it starts.
    pub position: Position,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The leader's epoch.
    pub leader_epoch: Epoch,
    /// What is known to be flushed.
    pub flush_mark: Offset,
    /// The time for batches that bring none, in milliseconds since 1970.
    pub now_ms: i64,
}

impl RecordBatch {
    /// Returns a builder without records.
    #[must_use]
    pub fn builder() -> BatchBuilder {
        BatchBuilder::default()
    }

    /// Returns the number of records, at least 1.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Returns the bytes the batch takes on disk, header and padding included.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        to_u64(HEADER_BYTES + self.records_bytes().len()).next_multiple_of(8)
    }

    /// Returns the producer's numbers, if the batch has some.
    #[must_use]
    pub fn producer(&self) -> Option<ProducerStamp> {
        self.producer
    }

    /// Returns the batch as the log looks at it to tell it from a duplicate, if it has numbers.
    #[must_use]
    pub fn numbered(&self) -> Option<NumberedBatch> {
        let (records, records_crc) = (self.record_count, self.records_crc);
        self.producer.map(|stamp| NumberedBatch { stamp, records, records_crc })
    }

    /// Returns this batch with the numbers of an idempotent producer, instead of those it has.
    ///
    /// # Errors
    /// [`BuildError::Producer`]: a number is negative.
    pub fn with_producer(self, stamp: ProducerStamp) -> Result<RecordBatch, BuildError> {
        if !stamp.is_valid() {
            return Err(BuildError::Producer(stamp));
        }
        Ok(RecordBatch { producer: Some(stamp), ..self })
    }

    /// Returns the encoded records as they are stored: compressed, if that was asked for and was
    /// worth it.
    #[must_use]
    pub fn records_bytes(&self) -> &[u8] {
        self.records.bytes()
    }

    /// Returns how they are compressed.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.records.codec()
    }

    /// Returns the records as they would be read at `base_offset`. Compressed ones are
    /// decompressed, once.
    #[must_use]
    pub fn records(&self, base_offset: Offset) -> Records<'_> {
        let base = self.base_timestamp_ms.unwrap_or_default();
        self.records.records(self.record_count, base_offset, base)
    }

    /// Returns the header of this batch at the place `stamp` gives it.
    ///
    /// # Panics
    /// If the flush mark is above the base offset (D2: what is not written is not flushed).
    #[must_use]
    pub fn header(&self, stamp: &Stamp) -> BatchHeader {
        assert!(stamp.flush_mark <= stamp.base_offset, "D2: the flush mark is ahead of the log");
        let base_timestamp_ms = self.base_timestamp_ms.unwrap_or(stamp.now_ms);
        let time = if self.base_timestamp_ms.is_some() { 0 } else { ATTRIBUTE_LOG_APPEND_TIME };
        let numbers = match self.producer {
            Some(stamp) => (stamp.id.0, stamp.epoch.0, stamp.base_sequence.0),
            None => (NO_PRODUCER, -1, -1),
        };
        BatchHeader {
            salt: stamp.salt,
            generation: stamp.generation,
            position: stamp.position,
            total_bytes: u32::try_from(HEADER_BYTES + self.records_bytes().len())
                .unwrap_or(u32::MAX),
            record_count: self.record_count,
            base_offset: stamp.base_offset,
            leader_epoch: stamp.leader_epoch,
            records_crc: self.records_crc,
            flush_mark: stamp.flush_mark,
            base_timestamp_ms,
            max_timestamp_ms: base_timestamp_ms.saturating_add(self.max_delta_ms),
            producer_id: numbers.0,
            producer_epoch: numbers.1,
            base_sequence: numbers.2,
            attributes: time | self.codec().attribute_bits(),
        }
    }
}

/// Why a batch cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// It has no record.
    Empty,
    /// A record's key, value and headers are longer than [`MAX_RECORD_BYTES`] together.
    RecordTooLarge {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The batch is longer than [`MAX_BATCH_BYTES`].
    BatchTooLarge {
        /// Its length in bytes, as far as it came.
        bytes: usize,
    },
    /// A record has more than [`MAX_HEADERS`] headers.
    TooManyHeaders {
        /// How many.
        count: usize,
    },
    /// This build lacks the feature of the codec's name.
    CodecNotBuiltIn {
        /// Which.
        codec: Codec,
    },
    /// The level is none of [`ZSTD_LEVELS`].
    CompressionLevel {
        /// Which.
        level: i32,
    },
    /// A number of the producer is negative.
    Producer(ProducerStamp),
}

impl std::fmt::Display for BuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BuildError::Empty => f.write_str("a batch needs at least one record"),
            BuildError::RecordTooLarge { bytes } => write!(
                f,
                "a record of {bytes} bytes is above the maximum of {MAX_RECORD_BYTES}; split it"
            ),
            BuildError::BatchTooLarge { bytes } => write!(
                f,
                "a batch of {bytes} bytes is above the maximum of {MAX_BATCH_BYTES}; use several"
            ),
            BuildError::TooManyHeaders { count } => {
                write!(f, "a record has {count} headers, more than the maximum of {MAX_HEADERS}")
            }
            BuildError::CodecNotBuiltIn { codec } => {
                let name = codec.name();
                write!(f, "this build cannot compress with {name}; build with feature `{name}`")
            }
            BuildError::CompressionLevel { level } => {
                let (first, last) = (ZSTD_LEVELS.start(), ZSTD_LEVELS.end());
                write!(f, "zstd has no level {level}; give one of {first} to {last}")
            }
            BuildError::Producer(ProducerStamp { id, epoch, base_sequence }) => write!(
                f,
                "producer {id}, epoch {epoch}, sequence {base_sequence}: none may be negative"
            ),
        }
    }
}

impl std::error::Error for BuildError {}

/// Collects records; see [`RecordBatch::builder`].
///
/// ```
/// use highwater_segment::{Offset, RecordBatch};
/// let batch = RecordBatch::builder().record(b"key", b"value").value(b"no key").build()?;
/// let records = batch.records(Offset(5));
/// let values: Vec<_> = records.map(|r| r.map(|r| (r.offset.0, r.value))).collect();
/// assert_eq!(values, [Ok((5, Some(&b"value"[..]))), Ok((6, Some(&b"no key"[..])))]);
/// # Ok::<(), highwater_segment::BuildError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct BatchBuilder {
    records: Vec<u8>,
    record_count: u32,
    base_timestamp_ms: Option<i64>,
    max_delta_ms: i64,
    compression: Compression,
    producer: Option<ProducerStamp>,
    error: Option<BuildError>,
}

impl BatchBuilder {
    /// Returns a builder without records that has room for so many bytes of them, at most
    /// [`MAX_BATCH_BYTES`]: up to there it need not move what it has to make room. Each record
    /// takes the bytes of its key, value and headers, and about 10 more.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        let records = Vec::with_capacity(bytes.min(MAX_BATCH_BYTES));
        BatchBuilder { records, ..BatchBuilder::default() }
    }

    /// Has the records compressed by [`build`](Self::build), on its thread. A batch that does not
    /// get smaller by an eighth is stored as it is. The limits are those of a batch that is not
    /// compressed.
    ///
    /// ```
    /// use highwater_segment::{Compression, RecordBatch};
    /// # if cfg!(not(feature = "lz4")) { return Ok(()) }
    /// let batch = RecordBatch::builder().compression(Compression::Lz4);
    /// let batch = batch.value(&[b'a'; 4096]).build()?;
    /// assert!(batch.disk_bytes() < 200);
    /// # Ok::<(), highwater_segment::BuildError>(())
    /// ```
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Adds a record with a key and a value.
    #[must_use]
    pub fn record(mut self, key: &[u8], value: &[u8]) -> Self {
        self.push(None, Some(key), Some(value), &[]);
        self
    }

    /// Adds a record without a key.
    #[must_use]
    pub fn value(mut self, value: &[u8]) -> Self {
        self.push(None, None, Some(value), &[]);
        self
    }

    /// Gives the batch the numbers of an idempotent producer: a log appends it once, however often
    /// it is sent. The sequence is the number of the first record; the next batch continues behind
    /// the last. A negative number is reported by [`build`](Self::build).
    #[must_use]
    pub fn producer(
        mut self,
        id: ProducerId,
        epoch: ProducerEpoch,
        base_sequence: Sequence,
    ) -> Self {
        self.producer = Some(ProducerStamp { id, epoch, base_sequence });
        self
    }

    /// Makes room for records of `bytes` in all, keys, values and some twenty bytes for each: who
    /// knows the size of its batches saves the copies that growing makes. More than a batch can
    /// hold is not reserved.
    pub fn reserve(&mut self, bytes: usize) {
        self.records.reserve(bytes.min(MAX_BATCH_BYTES));
    }

    /// Adds a record with everything a record can have. A timestamp (milliseconds since 1970) on
    /// the first record makes the batch carry the producer's time; without it the log gives the
    /// time of the append and timestamps of later records are ignored. A record that does not
    /// fit is reported by [`build`](Self::build).
    pub fn push(
        &mut self,
        timestamp_ms: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        let mut payload = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        for (key, value) in headers {
            payload += key.len() + value.map_or(0, <[u8]>::len);
        }
        let total = HEADER_BYTES + self.records.len() + payload + 64 + 10 * headers.len();
        let error = if payload > MAX_RECORD_BYTES {
            Some(BuildError::RecordTooLarge { bytes: payload })
        } else if headers.len() > MAX_HEADERS {
            Some(BuildError::TooManyHeaders { count: headers.len() })
        } else if total > MAX_BATCH_BYTES {
            Some(BuildError::BatchTooLarge { bytes: total })
        } else {
            None
        };
        if error.is_some() || self.error.is_some() {
            self.error = self.error.or(error);
            return;
        }
        if self.record_count == 0 {
            self.base_timestamp_ms = timestamp_ms;
        }
        let delta = match (self.base_timestamp_ms, timestamp_ms) {
            (Some(base), Some(own)) => own.saturating_sub(base),
            _ => 0,
        };
        self.max_delta_ms = self.max_delta_ms.max(delta);
        self.encode(delta, key, value, headers);
    }

    fn encode(
        &mut self,
        delta: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        let offset_delta = i64::from(self.record_count);
        let mut length = 1 + varint_bytes(delta) + varint_bytes(offset_delta);
        length += field_bytes(key) + field_bytes(value) + varint_bytes(signed(headers.len()));
        for (key, value) in headers {
            length += field_bytes(Some(key)) + field_bytes(*value);
        }
        let out = &mut self.records;
        // Room for the whole record at once.
        out.reserve(varint_bytes(signed(length)) + length);
        put_varint(out, signed(length));
        let body_start = out.len();
        out.push(0);
        put_varint(out, delta);
        put_varint(out, offset_delta);
        put_field(out, key);
        put_field(out, value);
        put_varint(out, signed(headers.len()));
        for (key, value) in headers {
            put_field(out, Some(key));
            put_field(out, *value);
        }
        assert_eq!(out.len() - body_start, length, "the length written is the length foretold");
        self.record_count += 1;
    }

    /// Returns how many records there are so far.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Returns how many bytes the batch would take on disk so far, uncompressed.
    #[must_use]
    pub fn disk_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// Returns the batch. Records are compressed and their checksum is made here, on the producer's
    /// thread.
    ///
    /// # Errors
    /// [`BuildError`]: what did not fit, that there is no record, or why they cannot be compressed.
    pub fn build(self) -> Result<RecordBatch, BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.record_count == 0 {
            return Err(BuildError::Empty);
        }
        if let Some(stamp) = self.producer.filter(|stamp| !stamp.is_valid()) {
            return Err(BuildError::Producer(stamp));
        }
        let records = match compress(&self.records, self.compression)? {
            Some(compressed) => StoredRecords::new(compressed, self.compression.codec()),
            None => StoredRecords::new(self.records, Codec::None),
        };
        Ok(RecordBatch {
            records_crc: crc32c::crc32c(records.bytes()),
            records,
            record_count: self.record_count,
            base_timestamp_ms: self.base_timestamp_ms,
            max_delta_ms: self.max_delta_ms,
            producer: self.producer,
        })
    }
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn field_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varint_bytes(signed(bytes.len())) + bytes.len())
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, signed(bytes.len()));
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_encoding_with_keys_nulls_headers_and_times() {
        /// Its length takes three bytes either way.
        const LONG_BYTES: usize = if cfg!(miri) { 9_000 } else { 70_000 };
        let mut builder = RecordBatch::builder();
        builder.push(Some(100), None, None, &[]);
        builder.push(Some(90), Some(b""), Some(b"x"), &[(b"h", None), (b"", Some(b"v"))]);
        builder.push(Some(170), Some(&[0; 300]), Some(&[9; LONG_BYTES]), &[]);
        let batch = builder.build().expect("it fits");
        let records: Vec<_> =
            batch.records(Offset(7)).collect::<Result<_, _>>().expect("well formed");
        assert_eq!(records.len(), 3);
        assert_eq!((records[0].key, records[0].value), (None, None));
        assert_eq!(records[1].headers(), [(&b"h"[..], None), (&b""[..], Some(&b"v"[..]))]);
        let times: Vec<_> = records.iter().map(|r| (r.offset.0, r.timestamp_ms)).collect();
        assert_eq!(times, [(7, 100), (8, 90), (9, 170)]);
        assert_eq!(records[2].value.map(<[u8]>::len), Some(LONG_BYTES));
    }

    #[test]
    fn a_builder_with_room_builds_the_same_batch_and_moves_nothing() {
        let values = [vec![1; 1024], vec![2; 1], Vec::new(), vec![3; 1024]];
        let fill = |mut builder: BatchBuilder| {
            for value in &values {
                builder.push(None, None, Some(value), &[]);
            }
            builder
        };
        let build = |builder: BatchBuilder| fill(builder).build().expect("it fits");
        let with_room = fill(BatchBuilder::with_capacity(4 * (1024 + 10)));
        assert_eq!(with_room.records.capacity(), 4 * (1024 + 10));
        let with_room = with_room.build().expect("it fits");
        assert_eq!(with_room, build(RecordBatch::builder()));
        assert_eq!(with_room, build(BatchBuilder::with_capacity(0)));
        let most = BatchBuilder::with_capacity(usize::MAX);
        assert_eq!(most.records.capacity(), MAX_BATCH_BYTES);
    }

    #[test]
    #[cfg_attr(miri, ignore = "sums megabytes byte by byte: minutes")]
    fn sizes_are_refused_above_the_maximum_and_taken_at_it() {
        let build = |bytes: usize| RecordBatch::builder().value(&vec![1; bytes]).build();
        assert!(build(MAX_RECORD_BYTES - 1).is_ok());
        assert!(build(MAX_RECORD_BYTES).is_ok());
        let error = BuildError::RecordTooLarge { bytes: MAX_RECORD_BYTES + 1 };
        assert_eq!(build(MAX_RECORD_BYTES + 1), Err(error));
        assert_eq!(RecordBatch::builder().build(), Err(BuildError::Empty));
        let half = vec![1; MAX_RECORD_BYTES];
        let two = RecordBatch::builder().value(&half).value(&half).build();
        assert!(matches!(two, Err(BuildError::BatchTooLarge { .. })));
    }
}
