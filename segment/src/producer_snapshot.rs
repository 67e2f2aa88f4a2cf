//! Snapshots of what a log knows of its producers (`docs/format.md`, "Producer snapshot").
//!
//! A snapshot says what a replay of the log up to its mark would give. It decides nothing about
//! which records exist: losing one costs a longer replay.

use zerocopy::byteorder::little_endian::{I16, I32, I64, U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::BLOCK_BYTES;
use crate::bytes::{all_zero, crc_with_hole, to_u64};
use crate::meta::Mark;
use crate::producers::{
    MAX_PRODUCERS, ProducerEpoch, ProducerId, ProducerState, ProducerTable, SeenBatch, Sequence,
    WINDOW_BATCHES,
};
use crate::types::{Epoch, LogId, Offset, Position};

/// The first eight bytes of a snapshot.
pub const MAGIC: [u8; 8] = *b"HWPRODUC";
/// The version this code writes and reads.
pub const VERSION: u32 = 1;
/// The longest snapshot in bytes, padding to the block included: what may be read at most.
pub const SNAPSHOT_BYTES_MAX: usize =
    (HEADER_BYTES + MAX_PRODUCERS * ENTRY_BYTES).next_multiple_of(4096);
const HEADER_BYTES: usize = 96;
const ENTRY_BYTES: usize = 144;
const CRC_AT: usize = 12;
const NAME_DIGITS: usize = 20;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    log_id: U128,
    offset: U64,
    segment: U64,
    position: U64,
    log_time_ms: I64,
    leader_epoch: U32,
    producer_count: U32,
    reserved: [u8; 24],
}

#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawBatch {
    base_offset: U64,
    base_sequence: I32,
    records: U32,
    records_crc: U32,
    leader_epoch: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    id: I64,
    last_seen_ms: I64,
    epoch: I16,
    batch_count: U16,
    reserved: U32,
    batches: [RawBatch; WINDOW_BATCHES],
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);
const _: () = assert!(size_of::<RawEntry>() == ENTRY_BYTES);
const _: () = assert!(std::mem::offset_of!(RawHeader, crc) == CRC_AT);

/// What a log knew of its producers at a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerSnapshot {
    /// Whose.
    pub log_id: LogId,
    /// What stands below is in it; replay begins here.
    pub at: Mark,
    /// The leader epoch it was made in: a later one that began below proves that what it says was
    /// cut off.
    pub leader_epoch: Epoch,
    /// What was known.
    pub table: ProducerTable,
}

/// Why bytes are not a snapshot. Ordered as checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotFault {
    /// Too short, or something else stands there.
    Magic,
    /// A version this code does not know.
    Version(u32),
    /// More producers than there may be, or than the file has room for.
    Count(u32),
    /// The checksum is wrong.
    Checksum {
        /// What stands there.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// The checksum holds but a field has a value that is never written; names it.
    Field(&'static str),
}

impl std::fmt::Display for SnapshotFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SnapshotFault::Magic => f.write_str("no snapshot begins here"),
            SnapshotFault::Version(version) => {
                write!(f, "version {version} is not known to this build")
            }
            SnapshotFault::Count(count) => write!(f, "it has no room for {count} producers"),
            SnapshotFault::Checksum { stored, computed } => {
                write!(f, "checksum {computed:08x}, expected {stored:08x}")
            }
            SnapshotFault::Field(field) => write!(f, "impossible field {field}"),
        }
    }
}

impl ProducerSnapshot {
    /// Returns the file's bytes, a multiple of the block.
    ///
    /// # Panics
    /// If a number does not fit its field: a table is bounded.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = self.table.len();
        let length = HEADER_BYTES + count * ENTRY_BYTES;
        let mut bytes = Vec::with_capacity(length.next_multiple_of(4096));
        let header = RawHeader {
            magic: MAGIC,
            version: VERSION.into(),
            crc: U32::ZERO,
            log_id: self.log_id.0.into(),
            offset: self.at.offset.0.into(),
            segment: self.at.segment.0.into(),
            position: self.at.position.0.into(),
            log_time_ms: self.table.log_time_ms().into(),
            leader_epoch: self.leader_epoch.0.into(),
            producer_count: u32::try_from(count).unwrap_or(u32::MAX).into(),
            reserved: [0; 24],
        };
        bytes.extend_from_slice(header.as_bytes());
        for (id, state) in self.table.iter() {
            bytes.extend_from_slice(encode_entry(id, state).as_bytes());
        }
        assert_eq!(bytes.len(), length, "every producer is in the order");
        let crc = crc_with_hole(&bytes, CRC_AT);
        if let Some(place) = bytes.get_mut(CRC_AT..CRC_AT + 4) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        bytes.resize(length.next_multiple_of(4096), 0);
        bytes
    }

    /// Returns the snapshot in the bytes of a file.
    ///
    /// # Errors
    /// [`SnapshotFault`]: the first check that failed.
    pub fn decode(bytes: &[u8]) -> Result<ProducerSnapshot, SnapshotFault> {
        let Ok((raw, entries)) = RawHeader::ref_from_prefix(bytes) else {
            return Err(SnapshotFault::Magic);
        };
        if raw.magic != MAGIC {
            return Err(SnapshotFault::Magic);
        }
        if raw.version.get() != VERSION {
            return Err(SnapshotFault::Version(raw.version.get()));
        }
        let count = usize::try_from(raw.producer_count.get()).unwrap_or(usize::MAX);
        let too_many = SnapshotFault::Count(raw.producer_count.get());
        if count > MAX_PRODUCERS {
            return Err(too_many);
        }
        let Some((entries, padding)) = entries.split_at_checked(count * ENTRY_BYTES) else {
            return Err(too_many);
        };
        let stored = raw.crc.get();
        let summed = bytes.get(..HEADER_BYTES + entries.len()).unwrap_or_default();
        let computed = crc_with_hole(summed, CRC_AT);
        if stored != computed {
            return Err(SnapshotFault::Checksum { stored, computed });
        }
        let at = Mark {
            offset: Offset(raw.offset.get()),
            segment: Offset(raw.segment.get()),
            position: Position(raw.position.get()),
        };
        let whole = to_u64(bytes.len()).is_multiple_of(BLOCK_BYTES);
        if !all_zero(padding) || !all_zero(&raw.reserved) || !whole {
            return Err(SnapshotFault::Field("reserved"));
        }
        if !at.is_a_place() {
            return Err(SnapshotFault::Field("position"));
        }
        let mut table = ProducerTable::at(raw.log_time_ms.get());
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let Ok(entry) = RawEntry::ref_from_bytes(entry) else {
                return Err(SnapshotFault::Field("entry"));
            };
            let (id, state) = decode_entry(entry, at.offset)?;
            let fits = state.last_seen_ms <= table.log_time_ms() && table.restore(id, state);
            if !fits {
                return Err(SnapshotFault::Field("entries"));
            }
        }
        let leader_epoch = Epoch(raw.leader_epoch.get());
        Ok(ProducerSnapshot { log_id: LogId(raw.log_id.get()), at, leader_epoch, table })
    }
}

fn encode_entry(id: ProducerId, state: &ProducerState) -> RawEntry {
    assert!(state.batches.len() <= WINDOW_BATCHES, "a window is bounded");
    let mut batches = [RawBatch::default(); WINDOW_BATCHES];
    for (raw, seen) in batches.iter_mut().zip(&state.batches) {
        raw.base_offset = seen.base_offset.0.into();
        raw.base_sequence = seen.base_sequence.0.into();
        raw.records = seen.records.into();
        raw.records_crc = seen.records_crc.into();
        raw.leader_epoch = seen.leader_epoch.0.into();
    }
    RawEntry {
        id: id.0.into(),
        last_seen_ms: state.last_seen_ms.into(),
        epoch: state.epoch.0.into(),
        batch_count: u16::try_from(state.batches.len()).unwrap_or(u16::MAX).into(),
        reserved: U32::ZERO,
        batches,
    }
}

fn decode_entry(raw: &RawEntry, end: Offset) -> Result<(ProducerId, ProducerState), SnapshotFault> {
    let count = usize::from(raw.batch_count.get());
    let split = raw.batches.split_at_checked(count).filter(|_| count > 0);
    let Some((used, unused)) = split else { return Err(SnapshotFault::Field("batch_count")) };
    if !all_zero(unused.as_bytes()) || raw.reserved.get() != 0 {
        return Err(SnapshotFault::Field("reserved"));
    }
    if raw.id.get() < 0 || raw.epoch.get() < 0 {
        return Err(SnapshotFault::Field("producer_id"));
    }
    let seen = |raw: &RawBatch| SeenBatch {
        base_offset: Offset(raw.base_offset.get()),
        base_sequence: Sequence(raw.base_sequence.get()),
        records: raw.records.get(),
        records_crc: raw.records_crc.get(),
        leader_epoch: Epoch(raw.leader_epoch.get()),
    };
    let batches: Vec<_> = used.iter().map(seen).collect();
    let room = |batch: &SeenBatch| {
        batch.base_sequence.0 >= 0
            && batch.records > 0
            && batch.base_offset <= Offset::MAX
            && batch.base_offset.plus(batch.records) <= end
    };
    let follow = |pair: &[SeenBatch]| match pair {
        [one, next] => {
            one.base_offset.plus(one.records) <= next.base_offset
                && one.base_sequence.plus(one.records) == next.base_sequence
        }
        _ => true,
    };
    if !batches.iter().all(room) || !batches.windows(2).all(follow) {
        return Err(SnapshotFault::Field("batches"));
    }
    let epoch = ProducerEpoch(raw.epoch.get());
    let state = ProducerState { epoch, last_seen_ms: raw.last_seen_ms.get(), batches };
    Ok((ProducerId(raw.id.get()), state))
}

/// Returns the file name of the snapshot at `offset`: 20 digits and `.producers`.
#[must_use]
pub fn snapshot_file_name(offset: Offset) -> String {
    format!("{:020}.producers", offset.0)
}

/// Returns the offset in a snapshot's file name, if `name` is one.
#[must_use]
pub fn parse_snapshot_file_name(name: &str) -> Option<Offset> {
    let digits = name.strip_suffix(".producers")?;
    let all_digits = digits.len() == NAME_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    let offset = if all_digits { digits.parse().ok().map(Offset) } else { None };
    offset.filter(|offset| *offset <= Offset::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FIRST_BATCH;
    use crate::producers::{NumberedBatch, ProducerStamp};

    fn numbered(id: i64, epoch: i16, base_sequence: i32) -> NumberedBatch {
        let (id, epoch) = (ProducerId(id), ProducerEpoch(epoch));
        let stamp = ProducerStamp { id, epoch, base_sequence: Sequence(base_sequence) };
        NumberedBatch { stamp, records: 2, records_crc: 0xabcd }
    }

    fn sample() -> ProducerSnapshot {
        let mut table = ProducerTable::at(1000);
        for (round, sequence) in (i32::MAX - 5..=i32::MAX).step_by(2).enumerate() {
            let offset = 10 * u64::try_from(round).expect("small");
            table.note_time(1000 + i64::try_from(offset).expect("small"));
            table.note(&numbered(3, 1, sequence), Offset(offset), Epoch(3));
            table.note(&numbered(i64::MAX, 0, sequence), Offset(offset + 2), Epoch(4));
        }
        table.note(&numbered(3, 2, 0), Offset(90), Epoch(4));
        let at = Mark { offset: Offset(92), segment: Offset(92), position: FIRST_BATCH };
        ProducerSnapshot { log_id: LogId(1 << 90), at, leader_epoch: Epoch(4), table }
    }

    #[test]
    fn a_snapshot_survives_and_any_changed_byte_is_noticed() {
        const BYTE_STEP: usize = if cfg!(miri) { 509 } else { 1 };
        let empty = ProducerSnapshot { table: ProducerTable::at(-5), ..sample() };
        for snapshot in [sample(), empty] {
            let bytes = snapshot.encode();
            assert_eq!(bytes.len(), 4096);
            assert_eq!(ProducerSnapshot::decode(&bytes), Ok(snapshot));
            for index in (0..bytes.len()).step_by(BYTE_STEP) {
                let mut damaged = bytes.clone();
                damaged[index] ^= 1;
                assert!(ProducerSnapshot::decode(&damaged).is_err(), "byte {index}");
            }
            for length in [0, 95, 96, 400, 4095] {
                let short = ProducerSnapshot::decode(&bytes[..length]);
                assert!(short.is_err(), "{length} bytes");
            }
        }
    }

    #[test]
    fn the_largest_table_fits_the_largest_snapshot() {
        /// Under Miri a table of two blocks instead of megabytes.
        const PRODUCERS: usize = if cfg!(miri) { 40 } else { MAX_PRODUCERS };
        const BYTES: usize = if cfg!(miri) { 2 * 4096 } else { SNAPSHOT_BYTES_MAX };
        let mut table = ProducerTable::at(0);
        let most = i64::try_from(PRODUCERS).expect("small");
        for id in 0..most {
            let offset = 2 * u64::try_from(id).expect("positive");
            table.note(&numbered(id, 0, 0), Offset(offset), Epoch(1));
        }
        let end = Offset(2 * u64::try_from(most).expect("positive"));
        let at = Mark { offset: end, segment: end, position: FIRST_BATCH };
        let snapshot = ProducerSnapshot { table, at, ..sample() };
        let bytes = snapshot.encode();
        assert_eq!(bytes.len(), BYTES);
        assert_eq!(ProducerSnapshot::decode(&bytes), Ok(snapshot));
    }

    /// Changes a byte and mends the checksum: what then is wrong is said by name.
    #[test]
    fn impossible_values_are_named() {
        let first = HEADER_BYTES;
        let second = HEADER_BYTES + ENTRY_BYTES;
        let rows = [
            (8, 2, SnapshotFault::Version(2)),
            (70, 1, SnapshotFault::Count(2 + (1 << 16))),
            (68, 200, SnapshotFault::Count(200)),
            (72, 1, SnapshotFault::Field("reserved")),
            (48, 4, SnapshotFault::Field("position")),
            (first + 7, 0x80, SnapshotFault::Field("producer_id")),
            (first + 17, 0x80, SnapshotFault::Field("producer_id")),
            (first + 18, 0, SnapshotFault::Field("batch_count")),
            (first + 18, 6, SnapshotFault::Field("batch_count")),
            (first + 20, 1, SnapshotFault::Field("reserved")),
            (second + 24 + 24, 1, SnapshotFault::Field("reserved")),
            (first + 24 + 4 * 24, 1, SnapshotFault::Field("reserved")),
            (first + 24 + 12, 0, SnapshotFault::Field("batches")),
            (first + 24 + 7, 0xff, SnapshotFault::Field("batches")),
            (first + 24 + 8, 9, SnapshotFault::Field("batches")),
            (second + 24, 1, SnapshotFault::Field("entries")),
            (second + 15, 0x7f, SnapshotFault::Field("entries")),
            (4095, 1, SnapshotFault::Field("reserved")),
        ];
        let good = sample().encode();
        for (at, value, fault) in rows {
            let mut bytes = good.clone();
            bytes[at] = value;
            let length = HEADER_BYTES + 2 * ENTRY_BYTES;
            let crc = crc_with_hole(&bytes[..length], CRC_AT);
            bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(ProducerSnapshot::decode(&bytes), Err(fault), "byte {at}");
        }
    }

    #[test]
    fn file_names_are_twenty_digits() {
        for offset in [0, 42, Offset::MAX.0] {
            let name = snapshot_file_name(Offset(offset));
            assert_eq!(parse_snapshot_file_name(&name), Some(Offset(offset)));
        }
        for name in ["42.producers", "00000000000000000042.log", "99999999999999999999.producers"] {
            assert_eq!(parse_snapshot_file_name(name), None, "{name}");
        }
    }
}
