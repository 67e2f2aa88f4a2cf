//! What a log knows of its idempotent producers, and the table that judges their next batch.
//!
//! A producer gives each batch its id, its epoch and the sequence number of the first record. The
//! log keeps the [`WINDOW_BATCHES`] newest batches of each producer and tells from them what a
//! batch is: the next, one it has, or neither. The state is what a replay of the log's batches
//! gives, so it is never written along: snapshots ([`crate::producer_snapshot`]) only shorten the
//! replay.
//!
//! Time is *log time*: the largest timestamp of the batches so far. It is the same in a replay.

use std::collections::BTreeMap;
use std::fmt;

use crate::batch::BatchHeader;
use crate::types::{Epoch, Offset};

/// How many of its newest batches a log knows of each producer: more need not be in flight.
pub const WINDOW_BATCHES: usize = 5;
/// The most producers a log knows; the one that appended longest ago is forgotten for a new one.
pub const MAX_PRODUCERS: usize = 10_000;

/// Names a producer; given by the caller, 0 or more. Who shares an id shares its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub i64);

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tells the lives of a producer apart, 0 or more: a newer one starts at sequence 0 and locks out
/// the older ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerEpoch(pub i16);

impl fmt::Display for ProducerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a producer's record, 0 or more; 0 follows [`i32::MAX`], as in Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub i32);

/// How many sequence numbers there are.
const SEQUENCES: i64 = 1 << 31;

impl Sequence {
    /// Returns the number `records` further.
    #[must_use]
    pub fn plus(self, records: u32) -> Sequence {
        let sum = (i64::from(self.0) + i64::from(records)).rem_euclid(SEQUENCES);
        Sequence(i32::try_from(sum).unwrap_or_default())
    }

    /// Returns how far `other` lies behind this, the shorter way round: negative if it is ahead.
    fn ahead_of(self, other: Sequence) -> i64 {
        let distance = (i64::from(self.0) - i64::from(other.0)).rem_euclid(SEQUENCES);
        if distance > SEQUENCES / 2 { distance - SEQUENCES } else { distance }
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The numbers of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// Whose it is.
    pub id: ProducerId,
    /// In which of its lives.
    pub epoch: ProducerEpoch,
    /// The number of its first record.
    pub base_sequence: Sequence,
}

impl ProducerStamp {
    /// Returns whether all three numbers are 0 or more.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.id.0 >= 0 && self.epoch.0 >= 0 && self.base_sequence.0 >= 0
    }
}

/// A numbered batch, as the table looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberedBatch {
    /// Its numbers.
    pub stamp: ProducerStamp,
    /// How many records it has.
    pub records: u32,
    /// The checksum of its records: the same numbers with other records are no duplicate.
    pub records_crc: u32,
}

impl NumberedBatch {
    /// Returns the numbers of a stored batch, if it has some.
    #[must_use]
    pub fn of(header: &BatchHeader) -> Option<NumberedBatch> {
        let (records, records_crc) = (header.record_count, header.records_crc);
        header.producer().map(|stamp| NumberedBatch { stamp, records, records_crc })
    }
}

/// One of the newest batches of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenBatch {
    /// Where it is.
    pub base_offset: Offset,
    /// The number of its first record.
    pub base_sequence: Sequence,
    /// How many records it has.
    pub records: u32,
    /// The checksum of its records.
    pub records_crc: u32,
    /// The epoch of the leader that appended it.
    pub leader_epoch: Epoch,
}

/// What a log knows of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Its newest epoch.
    pub epoch: ProducerEpoch,
    /// The log time of its newest batch, in milliseconds since 1970.
    pub last_seen_ms: i64,
    /// Its newest batches of that epoch, oldest first, 1 to [`WINDOW_BATCHES`]; each begins with
    /// the number behind its predecessor's last.
    pub batches: Vec<SeenBatch>,
}

impl ProducerState {
    /// Returns the newest batch.
    fn newest(&self) -> &SeenBatch {
        let Some(newest) = self.batches.last() else { panic!("a known producer has a batch") };
        newest
    }

    /// Returns the number its next record has.
    ///
    /// # Panics
    /// Never: a known producer has a batch.
    #[must_use]
    pub fn next_sequence(&self) -> Sequence {
        let newest = self.newest();
        newest.base_sequence.plus(newest.records)
    }

    /// Returns the offset behind its newest record.
    ///
    /// # Panics
    /// Never: a known producer has a batch.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        let newest = self.newest();
        newest.base_offset.plus(newest.records)
    }
}

/// What a numbered batch is; the labels are those of `docs/durability.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerCase {
    /// The log does not know the producer, and it starts at 0: append.
    P1New,
    /// The log does not know the producer - it never did, it expired, it was forgotten for room,
    /// or its batches were cut off - and the number is not 0: refuse.
    P2Unknown,
    /// Its epoch is older than the one the log knows: fenced.
    P3Fenced,
    /// A newer epoch, and it starts at 0: append.
    P4NewEpoch,
    /// A newer epoch that does not start at 0: refuse.
    P5EpochNotAtZero,
    /// The number that comes next: append.
    P6Next,
    /// The numbers and the records of one of the newest batches: a duplicate of it.
    P7Duplicate,
    /// Numbers of the newest batches, but with other records or other borders: refuse.
    P8Differs,
    /// Numbers from before the newest batches: it was appended, nobody knows where any more.
    P9BehindWindow,
    /// A number further on than the next: something between is missing. Refuse.
    P10Gap,
}

impl ProducerCase {
    /// Returns the label: `P1` to `P10`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            ProducerCase::P1New => "P1",
            ProducerCase::P2Unknown => "P2",
            ProducerCase::P3Fenced => "P3",
            ProducerCase::P4NewEpoch => "P4",
            ProducerCase::P5EpochNotAtZero => "P5",
            ProducerCase::P6Next => "P6",
            ProducerCase::P7Duplicate => "P7",
            ProducerCase::P8Differs => "P8",
            ProducerCase::P9BehindWindow => "P9",
            ProducerCase::P10Gap => "P10",
        }
    }
}

/// What is to be done with a numbered batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next: append it.
    Append,
    /// It is in the log already: this is the original.
    Duplicate(SeenBatch),
    /// It is neither; nothing is appended.
    Refuse,
}

/// Decides what a batch is, given what the log knows of its producer (table P).
#[must_use]
pub fn decide_batch(
    known: Option<&ProducerState>,
    batch: &NumberedBatch,
) -> (ProducerCase, Verdict) {
    let ProducerStamp { epoch, base_sequence, .. } = batch.stamp;
    let at_zero = base_sequence == Sequence(0);
    let Some(known) = known else {
        return match at_zero {
            true => (ProducerCase::P1New, Verdict::Append),
            false => (ProducerCase::P2Unknown, Verdict::Refuse),
        };
    };
    if epoch < known.epoch {
        return (ProducerCase::P3Fenced, Verdict::Refuse);
    }
    if epoch > known.epoch {
        return match at_zero {
            true => (ProducerCase::P4NewEpoch, Verdict::Append),
            false => (ProducerCase::P5EpochNotAtZero, Verdict::Refuse),
        };
    }
    let next = known.next_sequence();
    if base_sequence == next {
        return (ProducerCase::P6Next, Verdict::Append);
    }
    let original = known.batches.iter().find(|seen| {
        (seen.base_sequence, seen.records, seen.records_crc)
            == (base_sequence, batch.records, batch.records_crc)
    });
    if let Some(original) = original {
        return (ProducerCase::P7Duplicate, Verdict::Duplicate(*original));
    }
    let oldest = known.batches.first().map_or(next, |oldest| oldest.base_sequence);
    let case = if base_sequence.ahead_of(next) > 0 {
        ProducerCase::P10Gap
    } else if oldest.ahead_of(base_sequence) > 0 {
        ProducerCase::P9BehindWindow
    } else {
        ProducerCase::P8Differs
    };
    (case, Verdict::Refuse)
}

/// What a log knows of all its producers, at one offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerTable {
    producers: BTreeMap<ProducerId, ProducerState>,
    /// By where their newest batches begin: who appended longest ago comes first.
    order: BTreeMap<Offset, ProducerId>,
    log_time_ms: i64,
}

impl ProducerTable {
    /// Returns the table of a log without producers whose batches so far are not newer than
    /// `log_time_ms`.
    #[must_use]
    pub fn at(log_time_ms: i64) -> Self {
        ProducerTable { log_time_ms, ..ProducerTable::default() }
    }

    /// Returns whether no producer is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Returns how many producers are known, at most [`MAX_PRODUCERS`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Returns the largest timestamp of the log so far, in milliseconds since 1970.
    #[must_use]
    pub fn log_time_ms(&self) -> i64 {
        self.log_time_ms
    }

    /// Returns what is known of a producer that has appended within the last `expiry_ms` of log
    /// time.
    #[must_use]
    pub fn get(&self, id: ProducerId, expiry_ms: i64) -> Option<&ProducerState> {
        self.producers.get(&id).filter(|known| !self.is_expired(known, expiry_ms))
    }

    /// Returns every known producer; who appended longest ago comes first.
    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &ProducerState)> {
        self.order.values().filter_map(|id| self.producers.get(id).map(|state| (*id, state)))
    }

    fn is_expired(&self, known: &ProducerState, expiry_ms: i64) -> bool {
        self.log_time_ms.saturating_sub(known.last_seen_ms) > expiry_ms
    }

    /// Decides what `batch` is (table P).
    #[must_use]
    pub fn judge(&self, batch: &NumberedBatch, expiry_ms: i64) -> (ProducerCase, Verdict) {
        decide_batch(self.get(batch.stamp.id, expiry_ms), batch)
    }

    /// Notes the time of a batch of the log, numbered or not.
    pub fn note_time(&mut self, max_timestamp_ms: i64) {
        self.log_time_ms = self.log_time_ms.max(max_timestamp_ms);
    }

    /// Notes that the leader of `leader_epoch` appended `batch` at `base_offset`. Its time was
    /// noted before.
    ///
    /// # Panics
    /// A1: if the log holds a newer batch of any producer already.
    pub fn note(&mut self, batch: &NumberedBatch, base_offset: Offset, leader_epoch: Epoch) {
        let newest = self.order.last_key_value().map(|(newest, _)| *newest);
        assert!(
            newest.is_none_or(|newest| newest < base_offset),
            "A1: batches come in their order"
        );
        let NumberedBatch { stamp, records, records_crc } = *batch;
        let ProducerStamp { id, epoch, base_sequence } = stamp;
        let seen = SeenBatch { base_offset, base_sequence, records, records_crc, leader_epoch };
        let mut batches = match self.producers.remove(&id) {
            Some(known) => {
                self.order.remove(&known.newest().base_offset);
                // A replay that passed over damage finds a number that does not follow.
                let follows = known.epoch == epoch && known.next_sequence() == base_sequence;
                if follows { known.batches } else { Vec::new() }
            }
            None => Vec::new(),
        };
        if batches.len() == WINDOW_BATCHES {
            batches.remove(0);
        }
        batches.push(seen);
        while self.producers.len() >= MAX_PRODUCERS
            && let Some((_, longest_ago)) = self.order.pop_first()
        {
            self.producers.remove(&longest_ago);
        }
        let state = ProducerState { epoch, last_seen_ms: self.log_time_ms, batches };
        self.producers.insert(id, state);
        self.order.insert(base_offset, id);
    }

    /// Notes a batch that a walk along the log passed.
    pub fn replay(&mut self, header: &BatchHeader) {
        self.note_time(header.max_timestamp_ms);
        if let Some(batch) = NumberedBatch::of(header) {
            self.note(&batch, header.base_offset, header.leader_epoch);
        }
    }

    /// Forgets the producers that have not appended within the last `expiry_ms` of log time.
    pub fn expire(&mut self, expiry_ms: i64) {
        // Log time never falls, so who appended longest ago is expired first.
        while let Some(oldest) = self.order.first_entry()
            && let Some(known) = self.producers.get(oldest.get())
            && self.log_time_ms.saturating_sub(known.last_seen_ms) > expiry_ms
        {
            self.producers.remove(oldest.get());
            oldest.remove();
        }
    }

    /// Adds a producer of a snapshot. Returns whether it fits: it is the one that appended last so
    /// far, and new.
    pub(crate) fn restore(&mut self, id: ProducerId, state: ProducerState) -> bool {
        let at = state.newest().base_offset;
        let rises = self.order.last_key_value().is_none_or(|(newest, _)| *newest < at);
        let fits = rises && self.producers.len() < MAX_PRODUCERS;
        fits && self.order.insert(at, id).is_none() && self.producers.insert(id, state).is_none()
    }
}
