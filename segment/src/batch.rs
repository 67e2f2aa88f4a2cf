//! The header of a record batch: 88 bytes, little endian (`docs/format.md`, "Batch header").

use zerocopy::byteorder::little_endian::{I16, I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{crc_with_hole, to_u64};
use crate::compression::{Codec, MAX_UNCOMPRESSED_BYTES};
use crate::producers::{ProducerEpoch, ProducerId, ProducerStamp, Sequence};
use crate::types::{Epoch, Generation, Offset, Position};
use crate::{BLOCK_BYTES, MAX_BATCH_BYTES};

/// The length of a batch header in bytes.
pub const HEADER_BYTES: usize = 88;
/// The first four bytes of a batch; the last of them is the version of the batch format.
pub const MAGIC: [u8; 4] = *b"HWB1";
/// Where the header's own checksum stands.
const CRC_AT: usize = 4;
/// Attribute bit: this is a filler, without records.
pub const ATTRIBUTE_FILLER: u16 = 1 << 15;
/// Attribute bit: the timestamps were given by the log, not by the producer (as in Kafka).
pub const ATTRIBUTE_LOG_APPEND_TIME: u16 = 1 << 3;
/// Attribute bits: how the records are compressed (as in Kafka); see
/// [`Codec`]. Whether this build knows the codec is the reader's
/// question: a batch of a newer build is never taken for damage.
pub const ATTRIBUTE_CODEC_MASK: u16 = 0b111;
/// All attribute bits of version 1; the others are zero.
pub const ATTRIBUTES_KNOWN: u16 =
    ATTRIBUTE_FILLER | ATTRIBUTE_LOG_APPEND_TIME | ATTRIBUTE_CODEC_MASK;
/// The producer id of a batch without one.
pub const NO_PRODUCER: i64 = -1;

/// The bytes of a batch header as they stand on disk.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 4],
    header_crc: U32,
    salt: U32,
    generation: U32,
    position: U64,
    total_bytes: U32,
    record_count: U32,
    base_offset: U64,
    leader_epoch: U32,
    records_crc: U32,
    flush_mark: U64,
    base_timestamp_ms: I64,
    max_timestamp_ms: I64,
    producer_id: I64,
    base_sequence: I32,
    producer_epoch: I16,
    attributes: U16,
}

const _: () = assert!(size_of::<Raw>() == HEADER_BYTES);
const _: () = assert!(HEADER_BYTES.is_multiple_of(8) && HEADER_BYTES <= 104);
const _: () = assert!(MAGIC[0] != 0, "a zeroed block must not look like a batch");
const _: () = assert!(std::mem::offset_of!(Raw, header_crc) == CRC_AT);

/// A batch header. Everything is as on disk, except that the magic and the header checksum are
/// implied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The low half of the segment's salt.
    pub salt: u32,
    /// The log's generation when this was written.
    pub generation: Generation,
    /// Where in its file this batch starts.
    pub position: Position,
    /// Header and records, in bytes, without the padding to 8.
    pub total_bytes: u32,
    /// How many records; 0 in a filler only.
    pub record_count: u32,
    /// The offset of the first record (of a filler: the next record's).
    pub base_offset: Offset,
    /// The epoch of the leader that assigned the offsets.
    pub leader_epoch: Epoch,
    /// CRC32C of the bytes behind the header.
    pub records_crc: u32,
    /// Everything below was on stable media when this was written.
    pub flush_mark: Offset,
    /// Milliseconds since 1970 to which the records' timestamps are relative.
    pub base_timestamp_ms: i64,
    /// The largest timestamp of the batch.
    pub max_timestamp_ms: i64,
    /// The idempotent producer, or [`NO_PRODUCER`].
    pub producer_id: i64,
    /// The first record's sequence number, or -1.
    pub base_sequence: i32,
    /// The producer's epoch, or -1.
    pub producer_epoch: i16,
    /// See the `ATTRIBUTE_` constants.
    pub attributes: u16,
}

/// Why 88 bytes are not a batch header. Ordered as checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// The magic is not there; nothing says that a batch was ever here.
    NoMagic,
    /// The checksum of the header is wrong.
    Checksum {
        /// What stands there.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// The checksum holds but a field has a value that is never written; names the field.
    Field(&'static str),
}

impl BatchHeader {
    /// Returns whether this pads a group and holds no records.
    #[must_use]
    pub fn is_filler(&self) -> bool {
        self.attributes & ATTRIBUTE_FILLER != 0
    }

    /// Returns how the records are compressed.
    #[must_use]
    pub fn codec(&self) -> Codec {
        Codec::of_attributes(self.attributes)
    }

    /// Returns the producer's numbers, if the batch has some.
    #[must_use]
    pub fn producer(&self) -> Option<ProducerStamp> {
        (self.producer_id != NO_PRODUCER).then_some(ProducerStamp {
            id: ProducerId(self.producer_id),
            epoch: ProducerEpoch(self.producer_epoch),
            base_sequence: Sequence(self.base_sequence),
        })
    }

    /// Returns the offset behind the last record.
    ///
    /// # Panics
    /// Never for a decoded header: the sum was checked.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.base_offset.plus(self.record_count)
    }

    /// Returns the bytes the batch takes in its file, padding to 8 included.
    #[must_use]
    pub fn padded_bytes(&self) -> u64 {
        u64::from(self.total_bytes).next_multiple_of(8)
    }

    /// Returns where the next batch may start.
    ///
    /// # Panics
    /// Never for a decoded header: positions fit a segment.
    #[must_use]
    pub fn end_position(&self) -> Position {
        self.position.plus(self.padded_bytes())
    }

    /// Returns the length of the records behind the header, in bytes.
    #[must_use]
    pub fn records_bytes(&self) -> usize {
        usize::try_from(self.total_bytes).unwrap_or(usize::MAX).saturating_sub(HEADER_BYTES)
    }

    /// Returns the header's bytes, checksum included.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        debug_assert_eq!(self.field_fault(), None, "only valid headers are written");
        let mut raw = Raw {
            magic: MAGIC,
            header_crc: U32::ZERO,
            salt: self.salt.into(),
            generation: self.generation.0.into(),
            position: self.position.0.into(),
            total_bytes: self.total_bytes.into(),
            record_count: self.record_count.into(),
            base_offset: self.base_offset.0.into(),
            leader_epoch: self.leader_epoch.0.into(),
            records_crc: self.records_crc.into(),
            flush_mark: self.flush_mark.0.into(),
            base_timestamp_ms: self.base_timestamp_ms.into(),
            max_timestamp_ms: self.max_timestamp_ms.into(),
            producer_id: self.producer_id.into(),
            base_sequence: self.base_sequence.into(),
            producer_epoch: self.producer_epoch.into(),
            attributes: self.attributes.into(),
        };
        raw.header_crc = crc_with_hole(raw.as_bytes(), CRC_AT).into();
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Returns the header that `bytes` start with, if its magic, checksum and fields hold. Whether
    /// it belongs *here* - salt, position, generation, offset - is the scan's question.
    ///
    /// # Errors
    /// [`HeaderFault`]: the first check that failed. Too few bytes are [`HeaderFault::NoMagic`].
    pub fn decode(bytes: &[u8]) -> Result<BatchHeader, HeaderFault> {
        let Ok((raw, _)) = Raw::ref_from_prefix(bytes) else { return Err(HeaderFault::NoMagic) };
        if raw.magic != MAGIC {
            return Err(HeaderFault::NoMagic);
        }
        let stored = raw.header_crc.get();
        let computed = crc_with_hole(raw.as_bytes(), CRC_AT);
        if stored != computed {
            return Err(HeaderFault::Checksum { stored, computed });
        }
        let header = BatchHeader {
            salt: raw.salt.get(),
            generation: Generation(raw.generation.get()),
            position: Position(raw.position.get()),
            total_bytes: raw.total_bytes.get(),
            record_count: raw.record_count.get(),
            base_offset: Offset(raw.base_offset.get()),
            leader_epoch: Epoch(raw.leader_epoch.get()),
            records_crc: raw.records_crc.get(),
            flush_mark: Offset(raw.flush_mark.get()),
            base_timestamp_ms: raw.base_timestamp_ms.get(),
            max_timestamp_ms: raw.max_timestamp_ms.get(),
            producer_id: raw.producer_id.get(),
            base_sequence: raw.base_sequence.get(),
            producer_epoch: raw.producer_epoch.get(),
            attributes: raw.attributes.get(),
        };
        match header.field_fault() {
            Some(field) => Err(HeaderFault::Field(field)),
            None => Ok(header),
        }
    }

    /// Returns the name of a field whose value is never written, if there is one.
    fn field_fault(&self) -> Option<&'static str> {
        let total = usize::try_from(self.total_bytes).unwrap_or(usize::MAX);
        if !(HEADER_BYTES..=MAX_BATCH_BYTES).contains(&total) {
            return Some("total_bytes");
        }
        let compressed_filler = self.is_filler() && self.codec() != Codec::None;
        if self.attributes & !ATTRIBUTES_KNOWN != 0 || compressed_filler {
            return Some("attributes");
        }
        // What is compressed can be short, but not hold more than any batch.
        let records = match self.codec() {
            Codec::None => to_u64(self.records_bytes()),
            _ => to_u64(MAX_UNCOMPRESSED_BYTES),
        };
        let count = u64::from(self.record_count);
        let count_fits = if self.is_filler() {
            count == 0 && to_u64(total) <= BLOCK_BYTES && total.is_multiple_of(8)
        } else {
            count > 0 && count * to_u64(crate::record::MIN_RECORD_BYTES) <= records
        };
        if !count_fits {
            return Some("record_count");
        }
        if self.base_offset.0 > Offset::MAX.0 - count {
            return Some("base_offset");
        }
        if self.flush_mark > self.base_offset {
            return Some("flush_mark");
        }
        let numbers = (self.producer_id, self.producer_epoch, self.base_sequence);
        let numbers_fit = match self.producer() {
            Some(stamp) => stamp.is_valid() && !self.is_filler(),
            None => numbers == (NO_PRODUCER, -1, -1),
        };
        if !numbers_fit {
            return Some("producer");
        }
        let position_fits = self.position.0 >= BLOCK_BYTES
            && self.position.0.is_multiple_of(8)
            && self.position.0 < crate::MAX_SEGMENT_BYTES;
        if position_fits { None } else { Some("position") }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> BatchHeader {
        BatchHeader {
            salt: 0xdead_beef,
            generation: Generation(3),
            position: Position(4096),
            total_bytes: 88 + 20,
            record_count: 2,
            base_offset: Offset(1000),
            leader_epoch: Epoch(7),
            records_crc: 0x1234_5678,
            flush_mark: Offset(990),
            base_timestamp_ms: 1_700_000_000_000,
            max_timestamp_ms: 1_700_000_000_005,
            producer_id: NO_PRODUCER,
            base_sequence: -1,
            producer_epoch: -1,
            attributes: 0,
        }
    }

    #[test]
    fn header_survives_encode_and_decode() {
        assert_eq!(BatchHeader::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_noticed() {
        /// Under Miri still every byte, and every bit of some.
        const BIT_STEP: usize = if cfg!(miri) { 7 } else { 1 };
        let bytes = sample().encode();
        for bit in (0..HEADER_BYTES * 8).step_by(BIT_STEP) {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(BatchHeader::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn zeros_and_short_bytes_are_not_a_header() {
        assert_eq!(BatchHeader::decode(&[0; 200]), Err(HeaderFault::NoMagic));
        let bytes = sample().encode();
        for length in 0..HEADER_BYTES {
            assert_eq!(BatchHeader::decode(&bytes[..length]), Err(HeaderFault::NoMagic));
        }
    }

    #[test]
    fn impossible_field_values_are_named() {
        let check = |change: fn(&mut BatchHeader), field| {
            let mut header = sample();
            change(&mut header);
            assert_eq!(header.field_fault(), Some(field));
        };
        check(|h| h.total_bytes = 87, "total_bytes");
        check(|h| h.total_bytes = (32 << 20) + 1, "total_bytes");
        check(|h| h.attributes = 1 << 4, "attributes");
        check(|h| h.attributes = ATTRIBUTE_FILLER | 3, "attributes");
        check(|h| (h.attributes, h.record_count) = (3, 5 << 20), "record_count");
        check(|h| h.record_count = 0, "record_count");
        check(|h| h.record_count = 3, "record_count");
        check(|h| h.base_offset = Offset(u64::MAX), "base_offset");
        check(|h| h.flush_mark = Offset(1001), "flush_mark");
        check(|h| h.producer_id = 7, "producer");
        check(|h| h.base_sequence = 0, "producer");
        check(|h| (h.producer_id, h.producer_epoch, h.base_sequence) = (-2, 0, 0), "producer");
        check(|h| h.position = Position(4095), "position");
        check(|h| h.position = Position(4100), "position");
        check(|h| h.attributes = ATTRIBUTE_FILLER, "record_count");
    }
}
