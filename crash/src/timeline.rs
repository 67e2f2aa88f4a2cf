//! What one log was told to hold, when, and what a power cut may have left of it.
//!
//! A log's life is a sequence of *versions*: each truncation and each start of the engine begins a
//! new one at some offset; what the version before held from there on is gone. A cut may fall
//! while a version begins, so between two marks either of the two may be found.

use std::collections::BTreeSet;

use crate::replay::Mark;

/// The name of a record, never used twice: a removed record that comes back is known by it.
pub(crate) type RecordId = u64;

/// One stretch of a log's life.
#[derive(Clone, Debug)]
struct Version {
    /// The offset from which on it differs from the version before.
    start: usize,
    /// The records appended in it.
    records: Vec<RecordId>,
    /// A cut at this mark or later may find it.
    begun: Mark,
    /// A cut at this mark or later finds it or a later one.
    done: Mark,
}

/// Everything below an offset was said to be safe.
#[derive(Clone, Copy, Debug)]
struct Promise {
    below: usize,
    version: usize,
    mark: Mark,
}

/// What a log was told and what it promised.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    versions: Vec<Version>,
    promises: Vec<Promise>,
    /// The first offsets of the batches that are there now.
    bases: BTreeSet<usize>,
    /// When the log's name was promised to stay.
    created: Option<Mark>,
}

/// What became of the promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All kept: how many there were, and the offset they go to.
    All { owed: usize, floor: usize },
    /// Some not.
    Lost { owed: usize, lost: usize, what: String },
    /// Records are there that were not appended, or not there, or not in that order.
    Wrong(String),
}

impl Timeline {
    /// Returns the life of a log that holds `records`, of which those below `floor` are promised.
    pub(crate) fn new(records: Vec<RecordId>, floor: usize) -> Self {
        let bases = BTreeSet::new();
        let version = Version { start: 0, records, begun: Mark(0), done: Mark(0) };
        let promise = Promise { below: floor, version: 0, mark: Mark(0) };
        Timeline { versions: vec![version], promises: vec![promise], bases, created: None }
    }

    /// Notes that the log's name is safe.
    pub(crate) fn create(&mut self, mark: Mark) {
        self.created.get_or_insert(mark);
    }

    /// Notes a batch that is given to the log.
    pub(crate) fn append(&mut self, records: impl IntoIterator<Item = RecordId>) {
        self.bases.insert(self.end());
        if let Some(last) = self.versions.last_mut() {
            last.records.extend(records);
        }
    }

    /// Returns the offset behind the last record given to the log.
    pub(crate) fn end(&self) -> usize {
        self.versions.last().map_or(0, |last| last.start + last.records.len())
    }

    /// Returns where a truncation to `to` cuts: a batch goes whole. Batches from before the last
    /// power cut are not known; `None` there.
    pub(crate) fn cut_at(&self, to: usize) -> Option<usize> {
        if to == self.end() {
            return Some(to);
        }
        self.bases.range(..=to).next_back().copied()
    }

    /// Begins a version at `start`: asked for after the mark `begun`, certain since `done`.
    pub(crate) fn cut(&mut self, start: usize, begun: Mark, done: Mark) {
        let _gone = self.bases.split_off(&start);
        self.versions.push(Version { start, records: Vec::new(), begun, done });
    }

    /// Notes that everything below `below` is safe.
    pub(crate) fn promise(&mut self, below: usize, mark: Mark) {
        let version = self.versions.len() - 1;
        let known = self.promises.iter().rev().take_while(|promise| promise.version == version);
        if below > known.map(|promise| promise.below).max().unwrap_or(0) {
            self.promises.push(Promise { below, version, mark });
        }
    }

    /// Returns the records of version `version` and all before it that it left there.
    fn records(&self, version: usize) -> Vec<RecordId> {
        let mut records = Vec::new();
        for version in &self.versions[..=version] {
            records.truncate(version.start);
            records.extend_from_slice(&version.records);
        }
        records
    }

    /// Returns all records given to the log and not removed.
    pub(crate) fn now(&self) -> Vec<RecordId> {
        self.records(self.versions.len() - 1)
    }

    /// Returns how far `promise` goes for one who finds `version`.
    fn reach(&self, promise: Promise, version: usize) -> usize {
        let later = &self.versions[promise.version + 1..=version];
        later.iter().map(|version| version.start).fold(promise.below, usize::min)
    }

    /// Compares what was found after a cut at `cut` (`None`: there is no such log) with every
    /// version the cut may have left, and returns the best answer.
    pub(crate) fn judge(&self, found: Option<&[RecordId]>, cut: Mark) -> Kept {
        let named = usize::from(self.created.is_some_and(|created| created <= cut));
        let Some(found) = found else {
            let owed = named + self.promises_until(cut, usize::MAX).count();
            let lost = named + self.promises_until(cut, 0).filter(|reach| *reach > 0).count();
            return match lost {
                0 => Kept::All { owed, floor: 0 },
                _ => Kept::Lost { owed, lost, what: "the log is gone".to_owned() },
            };
        };
        let done = self.versions.iter().rposition(|version| version.done <= cut).unwrap_or(0);
        let begun = self.versions.iter().rposition(|version| version.begun <= cut).unwrap_or(0);
        let mut best = Kept::Wrong("no version".to_owned());
        for version in done..=begun {
            match self.judge_version(found, cut, version, named) {
                kept @ Kept::All { .. } => return kept,
                other if matches!(best, Kept::Wrong(_)) => best = other,
                _ => {}
            }
        }
        best
    }

    /// Returns how far each promise made by `cut` goes for one who finds `version`.
    fn promises_until(&self, cut: Mark, version: usize) -> impl Iterator<Item = usize> {
        let made = self.promises.iter().filter(move |promise| promise.mark <= cut);
        made.filter(move |promise| promise.version <= version)
            .map(move |promise| self.reach(*promise, version.min(self.versions.len() - 1)))
    }

    fn judge_version(&self, found: &[RecordId], cut: Mark, version: usize, named: usize) -> Kept {
        let expected = self.records(version);
        let same = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        if same < found.len() {
            let (is, should) = (found[same], expected.get(same));
            return Kept::Wrong(format!(
                "offset {same} of {} holds record {is}, not {should:?}",
                found.len()
            ));
        }
        let reaches: Vec<usize> = self.promises_until(cut, version).collect();
        let owed = named + reaches.len();
        let floor = reaches.iter().copied().max().unwrap_or(0);
        let lost = reaches.iter().filter(|reach| **reach > found.len()).count();
        if lost == 0 {
            return Kept::All { owed, floor };
        }
        let what = format!(
            "it ends at offset {}, but everything below {floor} was safe (of {} appended)",
            found.len(),
            expected.len()
        );
        Kept::Lost { owed, lost, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life() -> Timeline {
        let mut timeline = Timeline::new(Vec::new(), 0);
        timeline.create(Mark(1));
        timeline.append([10, 11]);
        timeline.append([12]);
        timeline.promise(2, Mark(5));
        timeline.cut(1, Mark(6), Mark(8));
        timeline.append([13]);
        timeline.promise(2, Mark(10));
        timeline
    }

    #[test]
    fn a_cut_may_leave_what_was_not_promised() {
        let timeline = life();
        for found in [&[][..], &[10], &[10, 11], &[10, 11, 12]] {
            assert!(matches!(timeline.judge(Some(found), Mark(4)), Kept::All { .. }), "{found:?}");
        }
        assert!(matches!(timeline.judge(None, Mark(0)), Kept::All { .. }));
        assert!(matches!(timeline.judge(None, Mark(1)), Kept::Lost { .. }));
    }

    #[test]
    fn what_was_promised_must_be_there() {
        let timeline = life();
        assert!(matches!(timeline.judge(Some(&[10]), Mark(5)), Kept::Lost { lost: 1, .. }));
        assert!(matches!(timeline.judge(Some(&[10, 11]), Mark(5)), Kept::All { floor: 2, .. }));
        assert!(matches!(timeline.judge(Some(&[10]), Mark(10)), Kept::Lost { .. }));
        assert!(matches!(timeline.judge(Some(&[10, 13]), Mark(10)), Kept::All { floor: 2, .. }));
    }

    #[test]
    fn removed_records_come_back_only_while_they_are_removed() {
        let timeline = life();
        assert!(matches!(timeline.judge(Some(&[10, 11]), Mark(7)), Kept::All { .. }));
        assert!(matches!(timeline.judge(Some(&[10]), Mark(7)), Kept::All { .. }));
        assert!(matches!(timeline.judge(Some(&[10, 11]), Mark(8)), Kept::Wrong(_)));
        assert!(matches!(timeline.judge(Some(&[10, 13]), Mark(5)), Kept::Wrong(_)));
    }
}
