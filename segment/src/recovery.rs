//! The decision tables of recovery: pure, total, every case with the crash that causes it.
//!
//! Opening a log asks three questions in this order, each answered by one table: which slot of
//! `log.meta` counts ([`decide_meta`]), what a segment file is ([`decide_segment`]), and what the
//! end of the valid chain means ([`decide_tail`]). The callers in `engine` only gather the facts
//! and carry the decisions out; they refer to the cases by label. `docs/durability.md` prints the
//! same tables.

use crate::meta::{LogMeta, LogState, SlotFault};
use crate::types::Offset;

// -------------------------------------------------------------------------------------------------
// M: log.meta

/// A case of the `log.meta` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetaCase {
    /// M1: no good slot and no segment. The log was being created when the crash came: its first
    /// segment gets its name only after both slots are flushed. Create it anew.
    M1NeverCreated,
    /// M2: no good slot, but segments. No crash does this - a slot is overwritten only when the
    /// other is flushed - so the file was damaged or removed. Refuse; never a new log.
    M2Lost,
    /// M3: both slots good, clean, and saying the same: closed, and untouched since. The mark is
    /// the end.
    M3Clean,
    /// M4: both slots good. A crash while the log was open, or between two slot writes of an open
    /// or a close (then they differ, also in the clean mark). The newer counts; recover.
    M4Open,
    /// M5: one slot good and not clean. A crash tore the other while it was written. The good one
    /// counts; recover.
    M5TornSlot,
    /// M6: one slot good and clean. A crash tore the second write of a close or the first of an
    /// open, or a finished log was damaged; the good one counts, its clean mark does not.
    /// `verify` reports the bad slot as damage.
    M6BadSlotBesideClean,
    /// M7: the slots name different logs. A file was put together from two; refuse.
    M7TwoLogs,
    /// M8: a whole slot of a version this code does not know. Refuse, change nothing.
    M8UnknownVersion,
}

impl MetaCase {
    /// All cases, in the order of their labels.
    pub const ALL: [MetaCase; 8] = [
        MetaCase::M1NeverCreated,
        MetaCase::M2Lost,
        MetaCase::M3Clean,
        MetaCase::M4Open,
        MetaCase::M5TornSlot,
        MetaCase::M6BadSlotBesideClean,
        MetaCase::M7TwoLogs,
        MetaCase::M8UnknownVersion,
    ];

    /// Returns the label used in reports, such as `M3`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            MetaCase::M1NeverCreated => "M1",
            MetaCase::M2Lost => "M2",
            MetaCase::M3Clean => "M3",
            MetaCase::M4Open => "M4",
            MetaCase::M5TornSlot => "M5",
            MetaCase::M6BadSlotBesideClean => "M6",
            MetaCase::M7TwoLogs => "M7",
            MetaCase::M8UnknownVersion => "M8",
        }
    }
}

/// One slot as read.
pub type Slot = Result<LogMeta, SlotFault>;

/// Decides which slot counts. The snapshot comes with the cases that have one.
#[must_use]
pub fn decide_meta(slots: &[Slot; 2], segments_exist: bool) -> (MetaCase, Option<LogMeta>) {
    let unknown = |slot: &Slot| matches!(slot, Err(SlotFault::Version(_)));
    if slots.iter().any(unknown) {
        return (MetaCase::M8UnknownVersion, None);
    }
    match slots {
        [Ok(a), Ok(b)] if a.log_id != b.log_id => (MetaCase::M7TwoLogs, None),
        [Ok(a), Ok(b)] => {
            let newest = if a.sequence > b.sequence { a } else { b };
            let clean = a.state == LogState::Clean && a.agrees_with(b);
            let case = if clean { MetaCase::M3Clean } else { MetaCase::M4Open };
            (case, Some(newest.clone()))
        }
        [Ok(good), Err(_)] | [Err(_), Ok(good)] => {
            let case = if good.state == LogState::Clean {
                MetaCase::M6BadSlotBesideClean
            } else {
                MetaCase::M5TornSlot
            };
            (case, Some(good.clone()))
        }
        [Err(_), Err(_)] if segments_exist => (MetaCase::M2Lost, None),
        [Err(_), Err(_)] => (MetaCase::M1NeverCreated, None),
    }
}

// -------------------------------------------------------------------------------------------------
// S: one segment file at or above the mark

/// What is known of a segment file before its batches are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    /// Its header block.
    pub header: HeaderFact,
    /// The offset in its name.
    pub base: Offset,
    /// Where the chain through its predecessors ended.
    pub chain_end: Offset,
    /// The highest offset known to be flushed, from `log.meta` and from good headers.
    pub proven: Offset,
    /// It is the segment that the mark of `log.meta` lies in.
    pub holds_mark: bool,
}

/// The header block of a segment, as far as the table asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFact {
    /// Good, and of this log and name.
    Good,
    /// Blank or damaged.
    Bad,
    /// Good, but of another log or another name.
    Foreign,
    /// Of a version this code does not know.
    UnknownVersion,
}

/// A case of the segment table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentCase {
    /// S1: good, and it starts where the chain stands (or holds the mark): scan it.
    S1Follows,
    /// S2: good, but it starts above the chain's end. Left over from above a cut - the crash came
    /// between the new generation and the removal - or its predecessor has an unflushed hole.
    /// Nothing in it is proven: remove it.
    S2AboveCut,
    /// S3: bad or foreign, and nothing in it is proven. A crash tore a roll before the header was
    /// flushed. Remove it.
    S3TornRoll,
    /// S4: good, but it starts below the chain's end: two segments claim the same offsets. No
    /// crash does this; refuse to write.
    S4Overlaps,
    /// S5: bad, foreign or missing its place, although something in it or behind it is proven to
    /// have been flushed. Corruption.
    S5LostProven,
    /// S6: of a version this code does not know. Refuse, change nothing.
    S6UnknownVersion,
}

impl SegmentCase {
    /// All cases, in the order of their labels.
    pub const ALL: [SegmentCase; 6] = [
        SegmentCase::S1Follows,
        SegmentCase::S2AboveCut,
        SegmentCase::S3TornRoll,
        SegmentCase::S4Overlaps,
        SegmentCase::S5LostProven,
        SegmentCase::S6UnknownVersion,
    ];

    /// Returns the label used in reports, such as `S2`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            SegmentCase::S1Follows => "S1",
            SegmentCase::S2AboveCut => "S2",
            SegmentCase::S3TornRoll => "S3",
            SegmentCase::S4Overlaps => "S4",
            SegmentCase::S5LostProven => "S5",
            SegmentCase::S6UnknownVersion => "S6",
        }
    }
}

/// Decides what a segment file at or above the mark is.
#[must_use]
pub fn decide_segment(facts: &SegmentFacts) -> SegmentCase {
    let proven_inside = facts.proven > facts.base;
    match facts.header {
        HeaderFact::UnknownVersion => SegmentCase::S6UnknownVersion,
        HeaderFact::Good if facts.holds_mark || facts.base == facts.chain_end => {
            SegmentCase::S1Follows
        }
        HeaderFact::Good if facts.base < facts.chain_end => SegmentCase::S4Overlaps,
        _ if proven_inside => SegmentCase::S5LostProven,
        HeaderFact::Good => SegmentCase::S2AboveCut,
        HeaderFact::Bad | HeaderFact::Foreign => SegmentCase::S3TornRoll,
    }
}

// -------------------------------------------------------------------------------------------------
// T: the end of the chain

/// What is known where the valid chain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailFacts {
    /// The flushed offset in `log.meta`.
    pub mark: Offset,
    /// The snapshot counts as clean (M3).
    pub clean: bool,
    /// Where the chain ended: the first offset that cannot be served.
    pub stop: Offset,
    /// The highest flush mark in any good header of the generation, before or behind the stop.
    pub proven: Offset,
    /// A good header of a generation above `log.meta`'s was found.
    pub newer_generation: bool,
    /// The stop lies in a segment that has a successor.
    pub successor: bool,
    /// What stopped the chain is nothing, or a remainder from before a cut.
    pub plain: bool,
}

/// A case of the tail table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TailCase {
    /// T1: the log ends here: it was closed here, or nothing follows but what an earlier use of the
    /// file left. A clean close, or a crash with nothing in flight.
    T1PlainEnd,
    /// T2: what follows is damaged or incomplete and nothing proves that it was flushed: a torn
    /// tail of writes that were in flight or unflushed. Cut.
    T2TornTail,
    /// T3: as T2, but in the older of two segments: an unflushed hole there, while the newer
    /// segment's writes reached the media. Cut both; the report says so.
    T3HoleInOlder,
    /// T4: the chain ends below the mark of `log.meta`. A crash cannot undo what was flushed:
    /// corruption, or a file cut or missing.
    T4BelowMark,
    /// T5: a good header behind the stop was written when everything below its mark was flushed,
    /// and that is above the stop: corruption, not a torn tail.
    T5ProvenLost,
    /// T6: a good header of a newer generation: `log.meta` is older than the log. A restored or
    /// rolled-back file; corruption, never a cut.
    T6OldMeta,
    /// T7: the slots say clean, but valid batches follow the mark. The clean mark is not the
    /// truth; keep every valid batch and recover as if open.
    T7MoreThanClean,
}

impl TailCase {
    /// All cases, in the order of their labels.
    pub const ALL: [TailCase; 7] = [
        TailCase::T1PlainEnd,
        TailCase::T2TornTail,
        TailCase::T3HoleInOlder,
        TailCase::T4BelowMark,
        TailCase::T5ProvenLost,
        TailCase::T6OldMeta,
        TailCase::T7MoreThanClean,
    ];

    /// Returns the label used in reports, such as `T2`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            TailCase::T1PlainEnd => "T1",
            TailCase::T2TornTail => "T2",
            TailCase::T3HoleInOlder => "T3",
            TailCase::T4BelowMark => "T4",
            TailCase::T5ProvenLost => "T5",
            TailCase::T6OldMeta => "T6",
            TailCase::T7MoreThanClean => "T7",
        }
    }

    /// Returns whether this is damage to what was flushed: never cut, never appended to.
    #[must_use]
    pub fn is_corruption(self) -> bool {
        matches!(self, TailCase::T4BelowMark | TailCase::T5ProvenLost | TailCase::T6OldMeta)
    }
}

/// Decides what the end of the chain means.
#[must_use]
pub fn decide_tail(facts: &TailFacts) -> TailCase {
    if facts.newer_generation {
        TailCase::T6OldMeta
    } else if facts.stop < facts.mark {
        TailCase::T4BelowMark
    } else if facts.stop < facts.proven {
        TailCase::T5ProvenLost
    } else if facts.clean && facts.stop > facts.mark {
        TailCase::T7MoreThanClean
    } else if facts.successor {
        TailCase::T3HoleInOlder
    } else if facts.plain || facts.clean {
        TailCase::T1PlainEnd
    } else {
        TailCase::T2TornTail
    }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
