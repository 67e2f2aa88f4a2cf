//! Compression of a batch's records: on the producer's thread when it is built, on the reader's
//! when its records are asked for. Whoever walks a log - scan, recovery, the shard - never looks
//! inside.
//!
//! What stands behind a compressed batch's header is what Kafka puts there: one LZ4 frame of
//! independent blocks, or one Zstandard frame, of the encoded records.

use std::io::Read;

use crate::MAX_BATCH_BYTES;
use crate::batch::ATTRIBUTE_CODEC_MASK;
use crate::builder::BuildError;
#[cfg(any(feature = "lz4", feature = "zstd"))]
use crate::bytes::to_u64;

/// The most bytes of records that a compressed batch may hold, uncompressed. Decompression stops
/// there, whatever a frame claims or yields.
pub const MAX_UNCOMPRESSED_BYTES: usize = MAX_BATCH_BYTES;
/// The levels of Zstandard.
pub const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = 1..=22;
/// The level of Zstandard when nothing is said, as zstd's own.
pub const ZSTD_LEVEL_DEFAULT: i32 = 3;
/// The largest window of a Zstandard frame, as a power of two: no frame of a batch needs more than
/// the most that a batch can hold, and none gets more memory.
#[cfg(feature = "zstd")]
const ZSTD_WINDOW_LOG_MAX: u32 = MAX_UNCOMPRESSED_BYTES.ilog2();
/// Where the output of a decompression begins; it doubles as long as there is more.
const FIRST_OUTPUT_BYTES: usize = 64 << 10;

/// How a producer has its batches compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// As an LZ4 frame: fast. Needs the feature `lz4`.
    Lz4,
    /// As a Zstandard frame: small. Needs the feature `zstd`.
    Zstd {
        /// One of [`ZSTD_LEVELS`]; 3 is zstd's own default.
        level: i32,
    },
}

impl Compression {
    /// Zstandard at its default level.
    pub const ZSTD: Compression = Compression::Zstd { level: ZSTD_LEVEL_DEFAULT };

    /// Returns the codec that batches get.
    #[must_use]
    pub fn codec(self) -> Codec {
        match self {
            Compression::None => Codec::None,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd { .. } => Codec::Zstd,
        }
    }

    /// Checks that this build can do it and that its level is one.
    pub(crate) fn check(self) -> Result<(), BuildError> {
        match self {
            Compression::Zstd { level } if !ZSTD_LEVELS.contains(&level) => {
                Err(BuildError::CompressionLevel { level })
            }
            other if !other.codec().is_built_in() => {
                Err(BuildError::CodecNotBuiltIn { codec: other.codec() })
            }
            _ => Ok(()),
        }
    }
}

/// How the records of a batch are stored, by the low three bits of its attributes (Kafka's).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// As they are.
    #[default]
    None,
    /// An LZ4 frame.
    Lz4,
    /// A Zstandard frame.
    Zstd,
    /// One that this build does not know; never written here.
    Unknown(u16),
}

impl Codec {
    /// Returns the codec of a batch with these attributes.
    #[must_use]
    pub fn of_attributes(attributes: u16) -> Codec {
        match attributes & ATTRIBUTE_CODEC_MASK {
            0 => Codec::None,
            3 => Codec::Lz4,
            4 => Codec::Zstd,
            other => Codec::Unknown(other),
        }
    }

    /// Returns the attribute bits, 0 to 7.
    #[must_use]
    pub fn attribute_bits(self) -> u16 {
        match self {
            Codec::None => 0,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
            Codec::Unknown(bits) => bits & ATTRIBUTE_CODEC_MASK,
        }
    }

    /// Returns its name in reports: `none`, `lz4`, `zstd` or `unknown`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
            Codec::Unknown(_) => "unknown",
        }
    }

    /// Returns whether this build can compress and decompress with it.
    #[must_use]
    pub fn is_built_in(self) -> bool {
        match self {
            Codec::None => true,
            Codec::Lz4 => cfg!(feature = "lz4"),
            Codec::Zstd => cfg!(feature = "zstd"),
            Codec::Unknown(_) => false,
        }
    }
}

/// Why the records of a batch cannot be had, although the checksum of the stored bytes holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecompressFault {
    /// The codec is unknown to this build.
    UnknownCodec,
    /// The codec is known, but this build lacks the feature of its name.
    NotBuiltIn(Codec),
    /// They are, or claim to be, longer than [`MAX_UNCOMPRESSED_BYTES`].
    TooLarge,
    /// The bytes are not one whole frame of the codec.
    NotAFrame,
}

impl DecompressFault {
    /// Returns what does not hold, in words.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            DecompressFault::UnknownCodec => {
                "its batch is compressed with a codec that this build does not know; use a newer \
                 build"
            }
            DecompressFault::NotBuiltIn(Codec::Lz4) => {
                "its batch is compressed with lz4; build with the feature `lz4`"
            }
            DecompressFault::NotBuiltIn(_) => {
                "its batch is compressed with zstd; build with the feature `zstd`"
            }
            DecompressFault::TooLarge => "its batch decompresses to more than the maximum",
            DecompressFault::NotAFrame => "its batch is not one whole frame of its codec",
        }
    }

    /// Returns whether another build may read it: nothing says that it is damaged.
    #[must_use]
    pub fn needs_another_build(self) -> bool {
        matches!(self, DecompressFault::UnknownCodec | DecompressFault::NotBuiltIn(_))
    }
}

/// Returns the compressed form of `records`, or `None` if it is not worth it: a batch is stored as
/// it is unless at least an eighth is saved, because whoever reads it pays each time.
pub(crate) fn compress(
    records: &[u8],
    compression: Compression,
) -> Result<Option<Vec<u8>>, BuildError> {
    compression.check()?;
    let compressed = match compression {
        Compression::None => return Ok(None),
        Compression::Lz4 => compress_lz4(records),
        Compression::Zstd { level } => compress_zstd(records, level),
    };
    let worth_it = |bytes: &Vec<u8>| bytes.len() <= records.len() - records.len() / 8;
    Ok(compressed.filter(worth_it))
}

/// Returns the records that `stored` holds, at most [`MAX_UNCOMPRESSED_BYTES`]. Memory grows with
/// what is really there, never with what a frame claims.
///
/// # Errors
/// [`DecompressFault`]: the codec, the size or the frame.
pub fn decompress(stored: &[u8], codec: Codec) -> Result<Vec<u8>, DecompressFault> {
    match codec {
        Codec::None => Ok(stored.to_vec()),
        Codec::Lz4 => decompress_lz4(stored),
        Codec::Zstd => decompress_zstd(stored),
        Codec::Unknown(_) => Err(DecompressFault::UnknownCodec),
    }
}

/// Reads `source` to its end, into memory that grows in bounded steps.
#[cfg_attr(not(any(feature = "lz4", feature = "zstd")), allow(dead_code, reason = "no codec"))]
fn read_bounded(source: &mut impl Read) -> Result<Vec<u8>, DecompressFault> {
    let (mut output, mut filled) = (Vec::new(), 0);
    loop {
        let mut one_more = [0];
        let at_limit = filled == MAX_UNCOMPRESSED_BYTES;
        if filled == output.len() && !at_limit {
            let length = (filled * 2).clamp(FIRST_OUTPUT_BYTES, MAX_UNCOMPRESSED_BYTES);
            output.reserve_exact(length - filled);
            output.resize(length, 0);
        }
        let room = output.get_mut(filled..).filter(|room| !room.is_empty());
        match source.read(room.unwrap_or(&mut one_more)) {
            Ok(0) => break,
            Ok(_) if at_limit => return Err(DecompressFault::TooLarge),
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err(DecompressFault::NotAFrame),
        }
    }
    output.truncate(filled);
    Ok(output)
}

// -------------------------------------------------------------------------------------------------
// LZ4

/// The bytes of a frame, and whether more were asked for than there are.
#[cfg(feature = "lz4")]
struct Frame<'a> {
    rest: &'a [u8],
    overrun: bool,
}

#[cfg(feature = "lz4")]
impl Read for Frame<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.overrun |= self.rest.is_empty() && !buffer.is_empty();
        self.rest.read(buffer)
    }
}

/// Blocks of 64 KiB, independent of each other: Kafka's clients read no others. Without checksums
/// of its own: ours covers the frame.
#[cfg(feature = "lz4")]
fn compress_lz4(records: &[u8]) -> Option<Vec<u8>> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let info = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Independent)
        .content_size(Some(to_u64(records.len())));
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    // Writing to memory does not fail; if it did the batch would be stored as it is.
    std::io::Write::write_all(&mut encoder, records).ok()?;
    encoder.finish().ok()
}

#[cfg(not(feature = "lz4"))]
fn compress_lz4(_: &[u8]) -> Option<Vec<u8>> {
    None
}

#[cfg(feature = "lz4")]
fn decompress_lz4(stored: &[u8]) -> Result<Vec<u8>, DecompressFault> {
    let frame = Frame { rest: stored, overrun: false };
    let mut decoder = lz4_flex::frame::FrameDecoder::new(frame);
    let records = read_bounded(&mut decoder)?;
    // The decoder takes a frame that lacks its end for one that ends.
    let frame = decoder.into_inner();
    let whole = frame.rest.is_empty() && !frame.overrun;
    if whole { Ok(records) } else { Err(DecompressFault::NotAFrame) }
}

#[cfg(not(feature = "lz4"))]
fn decompress_lz4(_: &[u8]) -> Result<Vec<u8>, DecompressFault> {
    Err(DecompressFault::NotBuiltIn(Codec::Lz4))
}

// -------------------------------------------------------------------------------------------------
// Zstandard

#[cfg(feature = "zstd")]
thread_local! {
    /// A thread's compressor and its level: making one costs as much as a small batch.
    static COMPRESSOR: std::cell::RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> =
        const { std::cell::RefCell::new(None) };
}

#[cfg(feature = "zstd")]
fn compress_zstd(records: &[u8], level: i32) -> Option<Vec<u8>> {
    // It fails only for want of memory; then the batch is stored as it is.
    COMPRESSOR.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(known, _)| *known != level) {
            *kept = Some((level, zstd::bulk::Compressor::new(level).ok()?));
        }
        kept.as_mut()?.1.compress(records).ok()
    })
}

#[cfg(not(feature = "zstd"))]
fn compress_zstd(_: &[u8], _: i32) -> Option<Vec<u8>> {
    None
}

#[cfg(feature = "zstd")]
fn decompress_zstd(stored: &[u8]) -> Result<Vec<u8>, DecompressFault> {
    let claimed = zstd::zstd_safe::get_frame_content_size(stored);
    let claimed = claimed.map_err(|_| DecompressFault::NotAFrame)?;
    if claimed.is_some_and(|bytes| bytes > to_u64(MAX_UNCOMPRESSED_BYTES)) {
        return Err(DecompressFault::TooLarge);
    }
    let decoder = zstd::stream::read::Decoder::with_buffer(stored);
    let mut decoder = decoder.map_err(|_| DecompressFault::NotAFrame)?.single_frame();
    let bounded = decoder.window_log_max(ZSTD_WINDOW_LOG_MAX);
    bounded.map_err(|_| DecompressFault::NotAFrame)?;
    let records = read_bounded(&mut decoder)?;
    if decoder.finish().is_empty() { Ok(records) } else { Err(DecompressFault::NotAFrame) }
}

#[cfg(not(feature = "zstd"))]
fn decompress_zstd(_: &[u8]) -> Result<Vec<u8>, DecompressFault> {
    Err(DecompressFault::NotBuiltIn(Codec::Zstd))
}

#[cfg(test)]
#[path = "compression_tests.rs"]
mod tests;
