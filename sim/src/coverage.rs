//! What the seeds met: a simulation that never meets a case proves nothing about it.

use std::collections::BTreeMap;

use highwater::LogReport;
use highwater_segment::recovery::{MetaCase, SegmentCase, TailCase};

/// How often each interesting thing happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<&'static str, u64>,
}

/// Seeds below which an unmet case proves nothing.
pub const SEEDS_FOR_COVERAGE: u64 = 500;

/// Events that a long run has to meet, beside the case labels.
const REQUIRED: [&str; 53] = [
    "append",
    "ack",
    "buffered",
    "duplicate acked",
    "producer fenced",
    "producers replayed",
    "producers: snapshot used",
    "sequence refused",
    "append refused: Full",
    "append refused: Poisoned",
    "clean close",
    "close with I/O error or crash",
    "crash in a lone write",
    "crash in close",
    "crash in open",
    "crash in reopen",
    "crash in truncate",
    "disk full while opening",
    "end position on a block border",
    "filler at recovery",
    "flush error",
    "followed",
    "full spell",
    "idle checkpoint",
    "kill",
    "large batch",
    "late landing",
    "life without an append",
    "log created",
    "lone write",
    "lone write never begun",
    "nothing survives",
    "everything survives",
    "something survives",
    "overtaken reader",
    "power cut",
    "power cut on a copy",
    "reopened: log",
    "roll",
    "second opening",
    "stale remainder behind the end",
    "tail read error while opening",
    "read below the start",
    "spare adopted",
    "spare made",
    "torn tail: header or records",
    "trim",
    "truncate at an edge",
    "truncate inside a batch",
    "truncate to the end",
    "truncate to zero",
    "write error",
    "written but not flushed survives a kill",
];

/// Cases only damage can cause.
const DAMAGE_CASES: [&str; 15] = [
    "M2",
    "M6",
    "M7",
    "M8",
    "S4",
    "S5",
    "S6",
    "T4",
    "T5",
    "T6",
    "T7",
    "quarantine",
    "read-only log",
    "damage",
    "damaged offsets refused",
];

impl Coverage {
    /// Counts `what` once.
    pub fn hit(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// Counts `what` so many times.
    pub fn add(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.counts.entry(what).or_default() += times;
        }
    }

    /// Returns how often `what` was counted.
    #[must_use]
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Coverage) {
        for (what, times) in &other.counts {
            self.add(what, *times);
        }
    }

    /// Counts what opening a log found.
    pub(crate) fn report(&mut self, report: &LogReport) {
        self.hit(report.meta_case.label());
        for (_, case) in &report.segment_cases {
            self.hit(case.label());
        }
        if let Some(case) = report.tail_case {
            self.hit(case.label());
        }
        let producers = &report.producers;
        self.add("producers replayed", u64::from(producers.bytes_replayed > 0));
        self.add("producers: snapshot used", u64::from(producers.snapshot.is_some()));
        self.add("producers: snapshot not usable", u64::from(!producers.unusable.is_empty()));
        self.add("quarantine", u64::from(!report.quarantined.is_empty()));
        self.add("read-only log", u64::from(report.corrupt.is_some()));
        self.add("rewritten after a failure", u64::from(report.rewritten));
        self.add("segment removed", u64::from(!report.removed_segments.is_empty()));
        let cause = match report.stopped_by.as_str() {
            text if text.starts_with("header checksum") || text.starts_with("records") => {
                "torn tail: header or records"
            }
            text if text.starts_with("stale") => "stale remainder behind the end",
            text if text.starts_with("batch of another") => "salt of another file behind the end",
            text if text.starts_with("the file ends") => "file ends inside a batch",
            _ => "nothing behind the end",
        };
        self.hit(cause);
    }

    /// Returns what a run that met everything would have counted and this one did not.
    #[must_use]
    pub fn missing(&self, damage: bool) -> Vec<&'static str> {
        let is_damage = |label: &&str| DAMAGE_CASES.contains(label);
        let labels = MetaCase::ALL.iter().map(|case| case.label());
        let labels = labels.chain(SegmentCase::ALL.iter().map(|case| case.label()));
        let labels = labels.chain(TailCase::ALL.iter().map(|case| case.label()));
        let required = labels.filter(|label| !is_damage(label)).chain(REQUIRED);
        let damaged = DAMAGE_CASES.into_iter().filter(|_| damage);
        required.chain(damaged).filter(|what| self.count(what) == 0).collect()
    }

    /// Returns the counters as lines of text.
    #[must_use]
    pub fn table(&self) -> Vec<String> {
        self.counts.iter().map(|(what, times)| format!("{times:>12}  {what}")).collect()
    }
}
