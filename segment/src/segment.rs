//! The header block of a segment file (`docs/format.md`, "Segment header").

use zerocopy::byteorder::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::crc_with_hole;
use crate::types::{LogId, Offset, Salt};

/// The length of the header block in bytes.
pub const SEGMENT_HEADER_BYTES: usize = 4096;
/// The first eight bytes of a segment.
pub const MAGIC: [u8; 8] = *b"HWSEGMNT";
/// The version this code writes and reads.
pub const VERSION: u32 = 1;
const CRC_AT: usize = 12;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    log_id: U128,
    base_offset: U64,
    salt: U64,
    reserved: [u8; 4048],
}

const _: () = assert!(size_of::<Raw>() == SEGMENT_HEADER_BYTES);
const _: () = assert!(std::mem::offset_of!(Raw, crc) == CRC_AT);

/// What a segment file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log it belongs to.
    pub log_id: LogId,
    /// The offset of its first record; also its name.
    pub base_offset: Offset,
    /// What tells its batches from those of other files and of earlier uses.
    pub salt: Salt,
}

/// Why a block is not the header of a segment. Ordered as checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentFault {
    /// All zeros, or the file ends before: never written.
    Blank,
    /// Something else stands there.
    Magic,
    /// The checksum holds, but of a version this code does not know.
    Version(u32),
    /// The checksum of the block is wrong.
    Checksum {
        /// What stands there.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// The checksum holds but the reserved bytes are not zero.
    Reserved,
    /// The checksum holds but the base offset is beyond [`Offset::MAX`].
    BaseOffset,
}

impl std::fmt::Display for SegmentFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SegmentFault::Blank => f.write_str("never written, or cut off"),
            SegmentFault::Magic => f.write_str("something else stands there"),
            SegmentFault::Version(version) => {
                write!(f, "version {version} is not known to this build")
            }
            SegmentFault::Checksum { stored, computed } => {
                write!(f, "checksum {computed:08x}, expected {stored:08x}")
            }
            SegmentFault::BaseOffset => f.write_str("a base offset beyond the largest"),
            SegmentFault::Reserved => f.write_str("bytes that must be zero are not"),
        }
    }
}

impl SegmentHeader {
    /// Returns the header block.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut raw = Raw {
            magic: MAGIC,
            version: VERSION.into(),
            crc: U32::ZERO,
            log_id: self.log_id.0.into(),
            base_offset: self.base_offset.0.into(),
            salt: self.salt.0.into(),
            reserved: [0; 4048],
        };
        raw.crc = crc_with_hole(raw.as_bytes(), CRC_AT).into();
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Returns the header that `bytes` start with.
    ///
    /// # Errors
    /// [`SegmentFault`]: the first check that failed.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, SegmentFault> {
        let Ok((raw, _)) = Raw::ref_from_prefix(bytes) else { return Err(SegmentFault::Blank) };
        if crate::bytes::all_zero(raw.as_bytes()) {
            return Err(SegmentFault::Blank);
        }
        if raw.magic != MAGIC {
            return Err(SegmentFault::Magic);
        }
        let stored = raw.crc.get();
        let computed = crc_with_hole(raw.as_bytes(), CRC_AT);
        if stored != computed {
            return Err(SegmentFault::Checksum { stored, computed });
        }
        // Only now: a power cut can tear an older use's header together with this one's, and what
        // then stands at the version's place is nobody's.
        if raw.version.get() != VERSION {
            return Err(SegmentFault::Version(raw.version.get()));
        }
        if !crate::bytes::all_zero(&raw.reserved) {
            return Err(SegmentFault::Reserved);
        }
        if raw.base_offset.get() > Offset::MAX.0 {
            return Err(SegmentFault::BaseOffset);
        }
        Ok(SegmentHeader {
            log_id: LogId(raw.log_id.get()),
            base_offset: Offset(raw.base_offset.get()),
            salt: Salt(raw.salt.get()),
        })
    }
}

/// Returns the file name of the segment that starts at `base`: 20 digits and `.log`.
#[must_use]
pub fn segment_file_name(base: Offset) -> String {
    format!("{:020}.log", base.0)
}

/// Returns the base offset in a segment's file name, if `name` is one.
#[must_use]
pub fn parse_segment_file_name(name: &str) -> Option<Offset> {
    let digits = name.strip_suffix(".log")?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let base = if all_digits { digits.parse().ok().map(Offset) } else { None };
    base.filter(|base| *base <= Offset::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_survives_and_any_changed_byte_is_noticed() {
        let header =
            SegmentHeader { log_id: LogId(u128::MAX / 3), base_offset: Offset(9), salt: Salt(77) };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for index in (0..bytes.len()).step_by(if cfg!(miri) { 509 } else { 1 }) {
            let mut damaged = bytes;
            damaged[index] ^= 0x10;
            assert!(SegmentHeader::decode(&damaged).is_err(), "byte {index}");
        }
        assert_eq!(SegmentHeader::decode(&[0; 4096]), Err(SegmentFault::Blank));
        assert_eq!(SegmentHeader::decode(&bytes[..4095]), Err(SegmentFault::Blank));
    }

    #[test]
    fn a_base_offset_that_no_file_name_has_is_refused() {
        let header = |base_offset| SegmentHeader { log_id: LogId(1), base_offset, salt: Salt(1) };
        let decoded = |base| SegmentHeader::decode(&header(Offset(base)).encode());
        assert_eq!(decoded(Offset::MAX.0), Ok(header(Offset::MAX)));
        assert_eq!(decoded(Offset::MAX.0 + 1), Err(SegmentFault::BaseOffset));
        assert_eq!(decoded(u64::MAX), Err(SegmentFault::BaseOffset));
    }

    #[test]
    fn a_version_is_believed_only_under_a_checksum_that_holds() {
        let header = SegmentHeader { log_id: LogId(3), base_offset: Offset(9), salt: Salt(77) };
        let mut bytes = header.encode();
        bytes[8] = 9;
        let fault = SegmentHeader::decode(&bytes);
        assert!(matches!(fault, Err(SegmentFault::Checksum { .. })), "torn: {fault:?}");
        let sum = crc_with_hole(&bytes, CRC_AT);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(SegmentFault::Version(9)));
    }

    #[test]
    fn file_names_are_twenty_digits() {
        assert_eq!(segment_file_name(Offset(42)), "00000000000000000042.log");
        for base in [0, 42, Offset::MAX.0] {
            let name = segment_file_name(Offset(base));
            assert_eq!(parse_segment_file_name(&name), Some(Offset(base)));
        }
        for name in ["42.log", "0000000000000000004x.log", "00000000000000000042.index", ".log"] {
            assert_eq!(parse_segment_file_name(name), None, "{name}");
        }
        assert_eq!(parse_segment_file_name("99999999999999999999.log"), None);
        assert_eq!(parse_segment_file_name("18446744073709551615.log"), None);
    }
}
