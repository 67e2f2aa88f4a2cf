//! The watermarks of a log and the order they keep.

use highwater_segment::Offset;

/// The watermarks of a log at one instant. All are exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The first offset that can be read.
    pub log_start: Offset,
    /// Everything below is on this replica's stable media: survives a power cut.
    pub flushed: Offset,
    /// Everything below is written: survives the death of the process.
    pub written: Offset,
    /// The next offset to assign.
    pub log_end: Offset,
    /// Everything below is written on every in-sync replica. May be ahead of `flushed`.
    pub high_watermark: Offset,
    /// Everything below is flushed on every in-sync replica.
    pub durable_watermark: Offset,
}

impl Marks {
    /// Returns up to where a reader of this isolation may read.
    pub(crate) fn limit(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::Written => self.written,
            Isolation::Committed => self.high_watermark.min(self.written),
            Isolation::Durable => self.durable_watermark.min(self.flushed),
        }
    }

    /// Checks the chain every replica keeps: `log_start <= flushed <= written <= log_end`.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn assert_chain(&self) {
        let Marks { log_start, flushed, written, log_end, .. } = *self;
        assert!(
            log_start <= flushed && flushed <= written && written <= log_end,
            "the chain of marks: log_start {log_start} <= flushed {flushed} <= written {written} \
             <= log_end {log_end}"
        );
    }
}

/// How far a reader may read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the written mark of this replica; a failover can take it back.
    Written,
    /// Up to the high watermark: what enough replicas have written.
    #[default]
    Committed,
    /// Up to the durable watermark: what enough replicas have flushed.
    Durable,
}
