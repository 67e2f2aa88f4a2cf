//! Record batches, segment files and `log.meta` of Highwater: bytes in, bytes out.
//!
//! This crate owns every byte on disk and every decision recovery takes about them. It has no
//! files, clocks or threads: callers bring bytes and carry out what the tables decide.
//! `docs/format.md` is the authority on the layouts; the constants here are asserted against it.
//!
//! * [`batch`] - the fixed header of a record batch; [`record`] - the records inside;
//!   [`builder`] - how a producer makes one; [`compression`] and [`stored`] - how they are kept;
//!   [`filler`] - what pads a group to the block.
//! * [`segment`] - the header block of a segment file; [`spare`] - of one that waits for its use.
//! * [`meta`] - the two slots of `log.meta`.
//! * [`producers`] - what a log knows of its idempotent producers; [`producer_snapshot`] - how that
//!   is kept.
//! * [`scan`] - one step along a segment, and resynchronising behind damage.
//! * [`recovery`] - the decision tables: what a crash can leave and what is done about it.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod batch;
pub mod builder;
mod bytes;
pub mod compression;
pub mod filler;
pub mod meta;
pub mod producer_snapshot;
pub mod producers;
#[cfg(test)]
mod producers_tests;
pub mod record;
pub mod recovery;
pub mod scan;
pub mod segment;
pub mod spare;
pub mod stored;
pub mod types;

pub use batch::{BatchHeader, HEADER_BYTES};
pub use builder::{BatchBuilder, BuildError, RecordBatch};
pub use compression::{Codec, Compression, DecompressFault, MAX_UNCOMPRESSED_BYTES};
pub use meta::{LogMeta, LogState};
pub use producers::{ProducerEpoch, ProducerId, ProducerStamp, Sequence};
pub use record::{Record, RecordError, Records};
pub use segment::SegmentHeader;
pub use stored::StoredRecords;
pub use types::{Epoch, Generation, LogId, Offset, Position, Salt};

/// The block of direct I/O and of padding, in bytes.
pub const BLOCK_BYTES: u64 = 4096;
/// Where the first batch of a segment starts: behind the header block.
pub const FIRST_BATCH: Position = Position(BLOCK_BYTES);
/// The largest record: key, value and headers together, in bytes.
pub const MAX_RECORD_BYTES: usize = 16 << 20;
/// The largest batch on disk, header included, in bytes. No length read from disk reserves memory
/// before it was compared with this.
pub const MAX_BATCH_BYTES: usize = 32 << 20;
/// The largest segment, in bytes: positions inside one fit 32 bits, as the index stores them.
pub const MAX_SEGMENT_BYTES: u64 = 2 << 30;
/// The smallest segment, in bytes.
pub const MIN_SEGMENT_BYTES: u64 = 64 << 10;
