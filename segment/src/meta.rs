//! `log.meta`: two 4 KiB slots, each a whole snapshot (`docs/format.md`, "log.meta").
//!
//! A slot is overwritten only when the other is known to be flushed, so at any instant at least
//! one of them is whole. Which of the two counts is decided by
//! [`recovery::decide_meta`](crate::recovery::decide_meta).

use zerocopy::byteorder::little_endian::{I64, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{all_zero, crc_with_hole, to_u64};
use crate::producers::MAX_PRODUCERS;
use crate::types::{Epoch, Generation, LogId, Offset, Position};

/// The length of one slot in bytes.
pub const SLOT_BYTES: usize = 4096;
/// The number of slots; slot `i` starts at byte `i * SLOT_BYTES`.
pub const SLOT_COUNT: usize = 2;
/// The length of the file in bytes.
pub const META_BYTES: usize = SLOT_BYTES * SLOT_COUNT;
/// The file's name in the log's directory.
pub const META_FILE_NAME: &str = "log.meta";
/// The first eight bytes of a slot.
pub const MAGIC: [u8; 8] = *b"HWLOGMTA";
/// The version this code writes and reads.
pub const VERSION: u32 = 1;
/// The newest epochs kept; older ones stand in the batch headers.
pub const MAX_EPOCHS: usize = 64;
/// The newest truncations kept.
pub const MAX_TRUNCATIONS: usize = 16;
const CRC_AT: usize = 12;
/// Epochs and generations read above this are not ours: they rise by one at a time.
const NUMBER_MAX: u32 = u32::MAX >> 1;
/// The same for sequences.
const SEQUENCE_MAX: u64 = u64::MAX >> 1;
const FLAG_NEVER_REWRITE_FLUSHED: u32 = 1;

#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPair {
    number: U32,
    reserved: U32,
    offset: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    sequence: U64,
    log_id: U128,
    incarnation: U128,
    state: U32,
    generation: U32,
    epoch: U32,
    flags: U32,
    log_start: U64,
    flushed_offset: U64,
    flushed_segment: U64,
    flushed_position: U64,
    high_watermark: U64,
    durable_watermark: U64,
    segment_bytes: U64,
    epoch_count: U32,
    truncation_count: U32,
    epochs: [RawPair; MAX_EPOCHS],
    truncations: [RawPair; MAX_TRUNCATIONS],
    producers_offset: U64,
    producer_log_time_ms: I64,
    producer_count: U32,
    reserved: [u8; 2660],
}

const _: () = assert!(size_of::<Raw>() == SLOT_BYTES);
const _: () = assert!(std::mem::offset_of!(Raw, crc) == CRC_AT);
const _: () = assert!(SLOT_BYTES == crate::segment::SEGMENT_HEADER_BYTES);

/// How the log was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogState {
    /// Open for writing: whoever finds this recovers.
    Open,
    /// Closed: all is flushed up to the mark and nothing stands behind it. Counts only in both
    /// slots.
    Clean,
    /// A write or a flush failed; what is behind the mark must be rewritten before it is flushed.
    Poisoned,
}

impl LogState {
    /// Returns the word used in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogState::Open => "open",
            LogState::Clean => "clean",
            LogState::Poisoned => "poisoned",
        }
    }
}

/// Where the flushed prefix ends: an offset and the byte behind the last flushed batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Everything below is flushed.
    pub offset: Offset,
    /// The base offset of the segment this lies in.
    pub segment: Offset,
    /// Where in that segment the batch with `offset` starts, or will.
    pub position: Position,
}

impl Mark {
    /// Returns whether a batch can start at the position, with the offset the place has.
    #[must_use]
    pub(crate) fn is_a_place(&self) -> bool {
        self.segment <= self.offset
            && self.offset <= Offset::MAX
            && self.position >= crate::FIRST_BATCH
            && self.position.0 <= crate::MAX_SEGMENT_BYTES
            && self.position.0.is_multiple_of(8)
            && (self.position == crate::FIRST_BATCH) == (self.offset == self.segment)
    }
}

/// From where on the log is replayed to know its producers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducersMark {
    /// What stands below is known: from the snapshot with this offset, or because there were no
    /// producers.
    pub offset: Offset,
    /// How many producers the snapshot holds. 0: there were none, and there is no snapshot.
    pub count: u32,
    /// The log time of this snapshot of `log.meta`: the largest timestamp of a batch so far.
    pub log_time_ms: i64,
}

/// When an epoch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// The first offset that can belong to it.
    pub start: Offset,
}

/// A suffix that was removed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// The generation that began with it.
    pub generation: Generation,
    /// Everything from here on was removed.
    pub to: Offset,
}

/// One snapshot of what a log must not forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogMeta {
    /// Counts the slot writes; the higher of two good slots is the newer.
    pub sequence: u64,
    /// The log's name for life.
    pub log_id: LogId,
    /// The start of the node that wrote this.
    pub incarnation: u128,
    /// How the log was left.
    pub state: LogState,
    /// From the mark on only batches of exactly this generation exist.
    pub generation: Generation,
    /// The highest epoch that was accepted.
    pub epoch: Epoch,
    /// The first offset that can be read.
    pub log_start: Offset,
    /// The flushed prefix, as of this snapshot.
    pub flushed: Mark,
    /// The high watermark, as of this snapshot; proves no flush.
    pub high_watermark: Offset,
    /// The durable watermark, as of this snapshot.
    pub durable_watermark: Offset,
    /// The size of a segment in bytes.
    pub segment_bytes: u64,
    /// Pad every group, for devices that tear a sector.
    pub never_rewrite_flushed: bool,
    /// The newest epochs, oldest first, at most [`MAX_EPOCHS`].
    pub epochs: Vec<EpochStart>,
    /// The newest truncations, oldest first, at most [`MAX_TRUNCATIONS`].
    pub truncations: Vec<Truncation>,
    /// From where on the log is replayed to know its producers, as of this snapshot.
    pub producers: ProducersMark,
}

/// Why 4 KiB are not a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotFault {
    /// All zeros, or the file ends before: never written.
    Blank,
    /// Something else stands there.
    Magic,
    /// The checksum of the slot is wrong.
    Checksum {
        /// What stands there.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A whole slot of a version this code does not know.
    Version(u32),
    /// The checksum holds but a field has a value that is never written; names it.
    Field(&'static str),
}

impl std::fmt::Display for SlotFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SlotFault::Blank => f.write_str("never written, or cut off"),
            SlotFault::Magic => f.write_str("something else stands there"),
            SlotFault::Version(version) => {
                write!(f, "version {version} is not known to this build")
            }
            SlotFault::Checksum { stored, computed } => {
                write!(f, "checksum {computed:08x}, expected {stored:08x}")
            }
            SlotFault::Field(field) => write!(f, "impossible field {field}"),
        }
    }
}

impl LogMeta {
    /// Adds the start of an epoch, forgetting the oldest beyond [`MAX_EPOCHS`]. An epoch that began
    /// at the same offset without a record replaces its predecessor.
    ///
    /// # Panics
    /// A2: if `epoch` does not rise or `start` goes back.
    pub fn push_epoch(&mut self, epoch: Epoch, start: Offset) {
        if let Some(last) = self.epochs.last() {
            assert!(epoch > last.epoch && start >= last.start, "A2: epochs rise along the log");
            if last.start == start {
                self.epochs.pop();
            }
        }
        self.epochs.push(EpochStart { epoch, start });
        if self.epochs.len() > MAX_EPOCHS {
            self.epochs.remove(0);
        }
        self.epoch = epoch;
    }

    /// Notes a truncation to `to`, forgetting the oldest beyond [`MAX_TRUNCATIONS`], and forgets
    /// the epochs that began above.
    pub fn push_truncation(&mut self, generation: Generation, to: Offset) {
        self.epochs.retain(|epoch| epoch.start <= to);
        self.truncations.push(Truncation { generation, to });
        if self.truncations.len() > MAX_TRUNCATIONS {
            self.truncations.remove(0);
        }
    }

    /// Returns the slot's bytes.
    ///
    /// # Panics
    /// If a list is longer than its maximum, or the marks are out of order.
    #[must_use]
    pub fn encode(&self) -> [u8; SLOT_BYTES] {
        assert_eq!(self.order_fault(), None, "only ordered marks are written");
        let mut raw = Raw {
            magic: MAGIC,
            version: VERSION.into(),
            crc: U32::ZERO,
            sequence: self.sequence.into(),
            log_id: self.log_id.0.into(),
            incarnation: self.incarnation.into(),
            state: match self.state {
                LogState::Open => 1.into(),
                LogState::Clean => 2.into(),
                LogState::Poisoned => 3.into(),
            },
            generation: self.generation.0.into(),
            epoch: self.epoch.0.into(),
            flags: u32::from(self.never_rewrite_flushed).into(),
            log_start: self.log_start.0.into(),
            flushed_offset: self.flushed.offset.0.into(),
            flushed_segment: self.flushed.segment.0.into(),
            flushed_position: self.flushed.position.0.into(),
            high_watermark: self.high_watermark.0.into(),
            durable_watermark: self.durable_watermark.0.into(),
            segment_bytes: self.segment_bytes.into(),
            epoch_count: u32::try_from(self.epochs.len()).unwrap_or(u32::MAX).into(),
            truncation_count: u32::try_from(self.truncations.len()).unwrap_or(u32::MAX).into(),
            epochs: [RawPair::default(); MAX_EPOCHS],
            truncations: [RawPair::default(); MAX_TRUNCATIONS],
            producers_offset: self.producers.offset.0.into(),
            producer_log_time_ms: self.producers.log_time_ms.into(),
            producer_count: self.producers.count.into(),
            reserved: [0; 2660],
        };
        assert!(self.epochs.len() <= MAX_EPOCHS && self.truncations.len() <= MAX_TRUNCATIONS);
        for (pair, entry) in raw.epochs.iter_mut().zip(&self.epochs) {
            pair.number = entry.epoch.0.into();
            pair.offset = entry.start.0.into();
        }
        for (pair, entry) in raw.truncations.iter_mut().zip(&self.truncations) {
            pair.number = entry.generation.0.into();
            pair.offset = entry.to.0.into();
        }
        raw.crc = crc_with_hole(raw.as_bytes(), CRC_AT).into();
        let mut bytes = [0; SLOT_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Returns the snapshot in the slot that `bytes` start with.
    ///
    /// # Errors
    /// [`SlotFault`]: the first check that failed.
    pub fn decode(bytes: &[u8]) -> Result<LogMeta, SlotFault> {
        let Ok((raw, _)) = Raw::ref_from_prefix(bytes) else { return Err(SlotFault::Blank) };
        if all_zero(raw.as_bytes()) {
            return Err(SlotFault::Blank);
        }
        if raw.magic != MAGIC {
            return Err(SlotFault::Magic);
        }
        let stored = raw.crc.get();
        let computed = crc_with_hole(raw.as_bytes(), CRC_AT);
        if stored != computed {
            return Err(SlotFault::Checksum { stored, computed });
        }
        if raw.version.get() != VERSION {
            return Err(SlotFault::Version(raw.version.get()));
        }
        let meta = LogMeta {
            sequence: raw.sequence.get(),
            log_id: LogId(raw.log_id.get()),
            incarnation: raw.incarnation.get(),
            state: match raw.state.get() {
                1 => LogState::Open,
                2 => LogState::Clean,
                3 => LogState::Poisoned,
                _ => return Err(SlotFault::Field("state")),
            },
            generation: Generation(raw.generation.get()),
            epoch: Epoch(raw.epoch.get()),
            log_start: Offset(raw.log_start.get()),
            flushed: Mark {
                offset: Offset(raw.flushed_offset.get()),
                segment: Offset(raw.flushed_segment.get()),
                position: Position(raw.flushed_position.get()),
            },
            high_watermark: Offset(raw.high_watermark.get()),
            durable_watermark: Offset(raw.durable_watermark.get()),
            segment_bytes: raw.segment_bytes.get(),
            never_rewrite_flushed: match raw.flags.get() {
                0 => false,
                FLAG_NEVER_REWRITE_FLUSHED => true,
                _ => return Err(SlotFault::Field("flags")),
            },
            epochs: pairs(&raw.epochs, raw.epoch_count.get(), "epoch_count")?
                .map(|(number, start)| EpochStart { epoch: Epoch(number), start })
                .collect(),
            truncations: pairs(&raw.truncations, raw.truncation_count.get(), "truncation_count")?
                .map(|(number, to)| Truncation { generation: Generation(number), to })
                .collect(),
            producers: ProducersMark {
                offset: Offset(raw.producers_offset.get()),
                count: raw.producer_count.get(),
                log_time_ms: raw.producer_log_time_ms.get(),
            },
        };
        if !all_zero(&raw.reserved) {
            return Err(SlotFault::Field("reserved"));
        }
        let fault = meta.bound_fault().or_else(|| meta.order_fault());
        fault.map_or(Ok(meta), |field| Err(SlotFault::Field(field)))
    }

    /// Returns the name of a counter that is too near its end for the life that would begin with
    /// it, if there is one. Only asked of what is read: a life may count on beyond.
    fn bound_fault(&self) -> Option<&'static str> {
        if self.sequence > SEQUENCE_MAX {
            Some("sequence")
        } else if self.generation.0 > NUMBER_MAX || self.epoch.0 > NUMBER_MAX {
            Some("generation or epoch")
        } else {
            None
        }
    }

    /// Returns the name of a field that breaks the order the marks keep, if one does.
    fn order_fault(&self) -> Option<&'static str> {
        let mark = &self.flushed;
        let sizes = crate::MIN_SEGMENT_BYTES..=crate::MAX_SEGMENT_BYTES;
        let whole_blocks = self.segment_bytes.is_multiple_of(crate::BLOCK_BYTES);
        if !sizes.contains(&self.segment_bytes) || !whole_blocks {
            Some("segment_bytes")
        } else if self.log_start > mark.offset
            || mark.segment > mark.offset
            || mark.offset > Offset::MAX
        {
            Some("flushed_offset")
        } else if mark.position < crate::FIRST_BATCH
            || mark.position.0 > self.segment_bytes
            || !mark.position.0.is_multiple_of(8)
            || (mark.position == crate::FIRST_BATCH) != (mark.offset == mark.segment)
        {
            Some("flushed_position")
        } else if self
            .epochs
            .windows(2)
            .any(|w| w[0].epoch >= w[1].epoch || w[0].start > w[1].start)
            || self.epochs.last().is_some_and(|last| last.epoch > self.epoch)
        {
            Some("epochs")
        } else if self.producers.offset > mark.offset
            || usize::try_from(self.producers.count).is_ok_and(|count| count > MAX_PRODUCERS)
        {
            Some("producers_offset")
        } else {
            None
        }
    }

    /// Returns whether `other` says the same, apart from its place in the sequence.
    #[must_use]
    pub fn agrees_with(&self, other: &LogMeta) -> bool {
        *self == LogMeta { sequence: self.sequence, ..other.clone() }
    }
}

fn pairs<'a>(
    all: &'a [RawPair],
    count: u32,
    what: &'static str,
) -> Result<impl Iterator<Item = (u32, Offset)> + 'a, SlotFault> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let (used, unused) = all.split_at_checked(count).ok_or(SlotFault::Field(what))?;
    if !all_zero(unused.as_bytes()) || used.iter().any(|pair| pair.reserved.get() != 0) {
        return Err(SlotFault::Field(what));
    }
    Ok(used.iter().map(|pair| (pair.number.get(), Offset(pair.offset.get()))))
}

/// Returns the two slots in the bytes of a `log.meta`, which may be short or long.
pub fn decode_slots(bytes: &[u8]) -> [Result<LogMeta, SlotFault>; SLOT_COUNT] {
    let slot = |index: usize| {
        let range = index * SLOT_BYTES..(index + 1) * SLOT_BYTES;
        bytes.get(range).map_or(Err(SlotFault::Blank), LogMeta::decode)
    };
    [slot(0), slot(1)]
}

/// Returns the slot that the snapshot with `sequence` belongs in: they alternate.
#[must_use]
pub fn slot_of(sequence: u64) -> usize {
    usize::from(!sequence.is_multiple_of(to_u64(SLOT_COUNT)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> LogMeta {
        LogMeta {
            sequence: 8,
            log_id: LogId(1 << 100),
            incarnation: 5,
            state: LogState::Open,
            generation: Generation(2),
            epoch: Epoch(2),
            log_start: Offset(0),
            flushed: Mark { offset: Offset(10), segment: Offset(0), position: Position(4184) },
            high_watermark: Offset(12),
            durable_watermark: Offset(10),
            segment_bytes: 1 << 20,
            never_rewrite_flushed: false,
            epochs: vec![EpochStart { epoch: Epoch(1), start: Offset(0) }],
            truncations: Vec::new(),
            producers: ProducersMark { offset: Offset(9), count: 2, log_time_ms: -4 },
        }
    }

    #[test]
    fn slot_survives_and_any_changed_byte_is_noticed() {
        let mut meta = sample();
        meta.push_epoch(Epoch(9), Offset(4));
        meta.push_truncation(Generation(3), Offset(10));
        let bytes = meta.encode();
        assert_eq!(LogMeta::decode(&bytes), Ok(meta));
        for index in (0..bytes.len()).step_by(if cfg!(miri) { 509 } else { 1 }) {
            let mut damaged = bytes;
            damaged[index] ^= 1;
            assert!(LogMeta::decode(&damaged).is_err(), "byte {index}");
        }
    }

    #[test]
    fn entries_behind_the_count_and_reserved_bytes_are_zeros() {
        let epochs_at = std::mem::offset_of!(Raw, epochs);
        let truncations_at = std::mem::offset_of!(Raw, truncations);
        for at in [epochs_at + 4, epochs_at + 16, epochs_at + 24, truncations_at, 4095] {
            let mut bytes = sample().encode();
            bytes[at] = 1;
            let crc = crc_with_hole(&bytes, CRC_AT);
            bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
            assert!(matches!(LogMeta::decode(&bytes), Err(SlotFault::Field(_))), "byte {at}");
        }
    }

    #[test]
    fn counters_near_their_end_are_refused_when_read_and_may_be_written() {
        let read = |change: fn(&mut LogMeta)| {
            let mut meta = sample();
            change(&mut meta);
            LogMeta::decode(&meta.encode()).err()
        };
        assert_eq!(read(|m| m.sequence = SEQUENCE_MAX), None);
        assert_eq!(read(|m| m.sequence = SEQUENCE_MAX + 1), Some(SlotFault::Field("sequence")));
        let numbers = Some(SlotFault::Field("generation or epoch"));
        assert_eq!(read(|m| m.generation = Generation(NUMBER_MAX)), None);
        assert_eq!(read(|m| m.generation = Generation(NUMBER_MAX + 1)), numbers);
        assert_eq!(read(|m| m.epoch = Epoch(u32::MAX)), numbers);
    }

    #[test]
    fn a_mark_stands_behind_the_header_block_exactly_in_an_empty_segment() {
        let mut meta = sample();
        meta.flushed.position = crate::FIRST_BATCH;
        assert_eq!(meta.order_fault(), Some("flushed_position"));
        meta.flushed.segment = meta.flushed.offset;
        assert_eq!(meta.order_fault(), None);
        meta.flushed.position = Position(8192);
        assert_eq!(meta.order_fault(), Some("flushed_position"));
    }

    #[test]
    fn producers_are_known_from_no_later_than_the_mark() {
        let mut meta = sample();
        meta.producers.offset = Offset(11);
        assert_eq!(meta.order_fault(), Some("producers_offset"));
        meta.producers.offset = Offset(10);
        assert_eq!(meta.order_fault(), None);
        meta.producers.count = 10_001;
        assert_eq!(meta.order_fault(), Some("producers_offset"));
    }

    #[test]
    fn epoch_history_keeps_the_newest_and_forgets_what_was_truncated() {
        let mut meta = sample();
        for epoch in 2..200_u32 {
            meta.push_epoch(Epoch(epoch), Offset(u64::from(epoch)));
        }
        assert_eq!(meta.epochs.len(), MAX_EPOCHS);
        assert_eq!(meta.epochs[0].epoch, Epoch(200 - 64));
        meta.push_truncation(Generation(9), Offset(150));
        assert_eq!(meta.epochs.last().map(|e| e.start), Some(Offset(150)));
        meta.push_epoch(Epoch(200), Offset(150));
        assert_eq!(meta.epochs.last().map(|e| e.epoch), Some(Epoch(200)));
        assert!(meta.epochs.iter().filter(|e| e.start == Offset(150)).count() == 1);
    }

    #[test]
    fn snapshots_alternate_between_the_slots() {
        assert_eq!([slot_of(0), slot_of(1), slot_of(2)], [0, 1, 0]);
        let mut file = sample().encode().to_vec();
        assert_eq!(decode_slots(&file)[1], Err(SlotFault::Blank));
        file.extend_from_slice(&[7; SLOT_BYTES]);
        assert_eq!(decode_slots(&file), [Ok(sample()), Err(SlotFault::Magic)]);
        assert_eq!(decode_slots(&[]), [Err(SlotFault::Blank), Err(SlotFault::Blank)]);
    }

    #[test]
    fn unknown_versions_are_told_from_damage() {
        let mut bytes = sample().encode();
        bytes[8] = 2;
        assert!(matches!(LogMeta::decode(&bytes), Err(SlotFault::Checksum { .. })));
        bytes[12..16].fill(0);
        let crc = crc_with_hole(&bytes, CRC_AT);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(LogMeta::decode(&bytes), Err(SlotFault::Version(2)));
    }
}
