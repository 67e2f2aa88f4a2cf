//! Spare segments: files of the pool that wait for their next use (`docs/format.md`, "Spare").
//!
//! A spare holds whatever its earlier uses left; only its first block says what it is. A spare is
//! used again by the log that left it and by no other, so that an old batch in it, whose salt
//! nobody remembers, can at worst repeat what was true of the same log.

use zerocopy::byteorder::little_endian::{U32, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{all_zero, crc_with_hole};
use crate::segment::SEGMENT_HEADER_BYTES;
use crate::types::LogId;

/// The first eight bytes of a spare.
pub const MAGIC: [u8; 8] = *b"HWSPARE\0";
/// The version this code writes and reads.
pub const VERSION: u32 = 1;
const CRC_AT: usize = 12;
const NAME_DIGITS: usize = 32;
const NUMBER_DIGITS: usize = 16;

/// All that says something stands in the first 512 bytes, as in a segment's header: the one turns
/// into the other by one sector, which a power cut leaves old or new (P1).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    log_id: U128,
    reserved: [u8; 4064],
}

const _: () = assert!(size_of::<Raw>() == SEGMENT_HEADER_BYTES);
const _: () = assert!(std::mem::offset_of!(Raw, crc) == CRC_AT);

/// Returns the header block of a spare of the log `log_id`.
#[must_use]
pub fn encode_spare(log_id: LogId) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut raw = Raw {
        magic: MAGIC,
        version: VERSION.into(),
        crc: U32::ZERO,
        log_id: log_id.0.into(),
        reserved: [0; 4064],
    };
    raw.crc = crc_with_hole(raw.as_bytes(), CRC_AT).into();
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes.copy_from_slice(raw.as_bytes());
    bytes
}

/// Returns the log whose spare `bytes` begin, if they begin one.
#[must_use]
pub fn decode_spare(bytes: &[u8]) -> Option<LogId> {
    let (raw, _) = Raw::ref_from_prefix(bytes).ok()?;
    let holds = raw.magic == MAGIC
        && raw.version.get() == VERSION
        && raw.crc.get() == crc_with_hole(raw.as_bytes(), CRC_AT)
        && all_zero(&raw.reserved);
    holds.then(|| LogId(raw.log_id.get()))
}

/// Returns the name in the pool of the spare `number` of a log: 32 hexadecimal digits of the log's
/// id, a dash, 16 of the number, `.spare`.
#[must_use]
pub fn spare_file_name(log_id: LogId, number: u64) -> String {
    format!("{:032x}-{number:016x}.spare", log_id.0)
}

/// Returns whose spare a file of the pool is by its name, if it is one.
#[must_use]
pub fn parse_spare_file_name(name: &str) -> Option<LogId> {
    let (log, number) = name.strip_suffix(".spare")?.split_once('-')?;
    let hexadecimal = |digits: &str, count: usize| {
        digits.len() == count
            && digits.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    };
    if !hexadecimal(log, NAME_DIGITS) || !hexadecimal(number, NUMBER_DIGITS) {
        return None;
    }
    u64::from_str_radix(number, 16).ok()?;
    u128::from_str_radix(log, 16).ok().map(LogId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentHeader;
    use crate::types::{Offset, Salt};

    #[test]
    fn a_spare_is_known_by_its_block_and_any_changed_byte_is_noticed() {
        let id = LogId(u128::MAX / 7);
        let bytes = encode_spare(id);
        assert_eq!(decode_spare(&bytes), Some(id));
        for index in (0..bytes.len()).step_by(if cfg!(miri) { 509 } else { 1 }) {
            let mut damaged = bytes;
            damaged[index] ^= 1;
            assert_eq!(decode_spare(&damaged), None, "byte {index}");
        }
        assert_eq!(decode_spare(&bytes[..4095]), None);
        assert!(SegmentHeader::decode(&bytes).is_err(), "a spare is no segment");
    }

    #[test]
    fn a_spare_and_a_segment_differ_in_their_first_sector_only() {
        let header =
            SegmentHeader { log_id: LogId(3), base_offset: Offset(9), salt: Salt(77) }.encode();
        assert_eq!(encode_spare(LogId(3))[512..], header[512..]);
        assert_eq!(decode_spare(&header), None, "a segment is no spare");
    }

    #[test]
    fn names_say_whose_a_spare_is() {
        for id in [LogId(0), LogId(u128::MAX), LogId(0xabc)] {
            assert_eq!(parse_spare_file_name(&spare_file_name(id, u64::MAX)), Some(id));
        }
        for name in ["", "x.spare", "00.spare", "0-0.spare", "00000000000000000042.log"] {
            assert_eq!(parse_spare_file_name(name), None, "{name}");
        }
    }
}
