//! What opening found and did.

use std::ops::Range;

use highwater_segment::recovery::{MetaCase, SegmentCase, TailCase};
use highwater_segment::{Epoch, Generation, Offset, Position};

/// What opening one log for writing found and did. The labels are those of `docs/durability.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// The log's name.
    pub name: String,
    /// Which slot of `log.meta` counted.
    pub meta_case: MetaCase,
    /// What the end of the log meant; `None` for a log that was just made.
    pub tail_case: Option<TailCase>,
    /// What the segments at or above the mark were, in their order.
    pub segment_cases: Vec<(Offset, SegmentCase)>,
    /// The flushed mark that was found.
    pub mark: Offset,
    /// Where the log ends now.
    pub log_end: Offset,
    /// The byte in the last segment at which it ends.
    pub end_position: Position,
    /// What stopped the walk there, in words.
    pub stopped_by: String,
    /// Segments that were removed because they lay above the cut.
    pub removed_segments: Vec<Offset>,
    /// Damaged ranges inside sealed segments: kept, not readable.
    pub quarantined: Vec<Range<Offset>>,
    /// The damage that makes the log read-only, if there is such.
    pub corrupt: Option<Range<Offset>>,
    /// Whether the bytes behind the mark were written anew, after a failed write or flush.
    pub rewritten: bool,
    /// Whether the file system refuses direct I/O, so that the page cache is used instead.
    pub page_cache: bool,
    /// How many bytes were read to find the end.
    pub bytes_scanned: u64,
    /// What was learned of the log's idempotent producers.
    pub producers: ProducersReport,
    /// The new leader epoch.
    pub epoch: Epoch,
    /// The new generation.
    pub generation: Generation,
}

/// What opening one log learned of its idempotent producers, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducersReport {
    /// How many are known.
    pub known: usize,
    /// The snapshot that was used, if any.
    pub snapshot: Option<Offset>,
    /// From where on batches were looked at: the snapshot's offset, or where it was known that
    /// there were no producers below.
    pub replayed_from: Offset,
    /// How many bytes below the mark were read for that; those above are
    /// [`bytes_scanned`](LogReport::bytes_scanned).
    pub bytes_replayed: u64,
    /// Snapshots that should have served but do not verify, or were cut off.
    pub unusable: Vec<Offset>,
    /// Batches in what was to be replayed do not verify: of their producers less is known.
    pub incomplete: bool,
}

/// What opening an engine found and did, log by log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// One entry for each log that was there, sorted by name.
    pub logs: Vec<LogReport>,
    /// Logs that could not be opened, with the reason; the others are not concerned.
    pub failed: Vec<(String, crate::Error)>,
}
