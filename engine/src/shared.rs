//! What a shard publishes of a log for handles and readers on other threads: a snapshot, never the
//! log's own state.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_segment::meta::{EpochStart, Mark};
use highwater_segment::scan::GenerationRule;
use highwater_segment::{BatchHeader, Generation, Offset, Position, Salt};

use crate::error::Error;
use crate::indexes::{Indexes, SegmentIndex};
use crate::leases::Leases;
use crate::marks::Marks;
use crate::options::Mode;
use crate::tail::Tail;
use crate::watch::Lookout;

/// The newest cuts a log remembers for its readers; older readers start anew.
const CUTS_MAX: usize = 64;

/// What an engine holds for its readers, bounded for all of its logs together.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReaderBudgets {
    pub(crate) indexes: Arc<Indexes>,
    pub(crate) leases: Arc<Leases>,
}

/// A segment as readers need it.
#[derive(Clone, Debug)]
pub(crate) struct SegmentInfo {
    pub(crate) base: Offset,
    /// Known for the segments this process has opened; the others are checked at first use.
    pub(crate) salt: Option<Salt>,
    /// Hints where to start walking.
    pub(crate) index: Arc<SegmentIndex>,
}

impl SegmentInfo {
    pub(crate) fn new(base: Offset, salt: Option<Salt>) -> Self {
        SegmentInfo { base, salt, index: SegmentIndex::new(base) }
    }
}

/// The published state of a log.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) marks: Marks,
    pub(crate) generation: Generation,
    /// From here on only batches of exactly `generation` exist.
    pub(crate) generation_mark: Mark,
    /// When the newest epochs began.
    pub(crate) epochs: Arc<[EpochStart]>,
    pub(crate) segments: Vec<SegmentInfo>,
    /// Where each newer generation began: what a reader of an older one holds from there on is
    /// gone. Oldest first.
    pub(crate) cuts: VecDeque<(Generation, Offset)>,
    /// Damaged ranges inside sealed segments: reading them is an error, appending goes on.
    pub(crate) quarantined: Vec<Range<Offset>>,
    /// Why the log refuses appends, if it does.
    pub(crate) failure: Option<Error>,
}

impl Published {
    /// Notes that `generation` began at `mark`: nothing above is served any more.
    pub(crate) fn cut_at(&mut self, generation: Generation, mark: Mark) {
        assert!(generation > self.generation, "generations rise");
        let end = mark.offset;
        self.generation = generation;
        self.generation_mark = mark;
        self.marks.log_start = self.marks.log_start.min(end);
        self.marks.log_end = end;
        self.marks.written = self.marks.written.min(end);
        self.marks.flushed = self.marks.flushed.min(end);
        self.marks.high_watermark = self.marks.high_watermark.min(end);
        self.marks.durable_watermark = self.marks.durable_watermark.min(end);
        self.segments.retain(|info| info.base <= mark.segment);
        self.remember_cut(generation, end);
    }

    fn remember_cut(&mut self, generation: Generation, end: Offset) {
        self.cuts.push_back((generation, end));
        if self.cuts.len() > CUTS_MAX {
            self.cuts.pop_front();
        }
    }

    /// Returns the lowest place the log was cut at since `generation`; 0 if that is forgotten.
    pub(crate) fn lowest_cut_since(&self, generation: Generation) -> Option<Offset> {
        let newer = self.cuts.iter().filter(|(cut, _)| *cut > generation).map(|(_, end)| *end);
        let forgotten = self.cuts.len() == CUTS_MAX
            && self.cuts.front().is_some_and(|(oldest, _)| *oldest > generation);
        if forgotten { Some(Offset(0)) } else { newer.min() }
    }

    /// Takes over what an opening published, keeping what this remembers of older cuts.
    pub(crate) fn replace(&mut self, opened: Published) {
        let cuts = std::mem::take(&mut self.cuts);
        *self = opened;
        self.cuts = cuts;
        self.remember_cut(self.generation, self.marks.log_end);
    }

    /// Returns which generations a walk through `segment` accepts.
    pub(crate) fn rule_for(&self, segment: Offset) -> GenerationRule {
        generation_rule(self.generation, &self.generation_mark, segment)
    }
}

/// Returns whether a batch was cut off by a later epoch: every cut begins one. Behind the end of a
/// sealed segment such batches can still stand; only the name of the next segment ends it, and
/// that file can be lost.
pub(crate) fn was_cut_off(epochs: &[EpochStart], batch: &BatchHeader) -> bool {
    let later = epochs.iter().rfind(|epoch| epoch.start <= batch.base_offset);
    later.is_some_and(|later| batch.leader_epoch < later.epoch)
}

/// Returns which generations a walk through `segment` accepts when `mark` is where `current` began.
pub(crate) fn generation_rule(current: Generation, mark: &Mark, segment: Offset) -> GenerationRule {
    let exact_from = match segment.cmp(&mark.segment) {
        std::cmp::Ordering::Less => Position(u64::MAX),
        std::cmp::Ordering::Equal => mark.position,
        std::cmp::Ordering::Greater => Position(0),
    };
    GenerationRule { current, exact_from }
}

/// A log's published state behind its lock.
#[derive(Debug)]
pub(crate) struct LogShared {
    pub(crate) name: String,
    /// What was just written, for readers.
    pub(crate) tail: Tail,
    /// What the engine holds for readers.
    pub(crate) budgets: ReaderBudgets,
    published: Mutex<Published>,
    /// Whether segments are written, and so read, through the page cache.
    page_cache: AtomicBool,
    /// Where those wait who watch the marks.
    pub(crate) lookout: Lookout,
    /// Counts what concerns readers beside the growth of the log.
    upheavals: AtomicU64,
}

impl LogShared {
    pub(crate) fn new(name: &str, published: Published, budgets: &ReaderBudgets) -> Arc<Self> {
        Arc::new(LogShared {
            name: name.to_owned(),
            tail: Tail::default(),
            budgets: budgets.clone(),
            published: Mutex::new(published),
            page_cache: AtomicBool::new(false),
            lookout: Lookout::default(),
            upheavals: AtomicU64::new(0),
        })
    }

    /// Returns the published state; hold it only for a look.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Published> {
        // Each change under this lock is a plain assignment.
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how the shard opens segments.
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.page_cache.store(mode == Mode::Buffered, Ordering::Relaxed);
    }

    /// Returns whether a reader should go past the page cache. It only saves time: through it or
    /// not, the kernel gives the bytes that were written last.
    pub(crate) fn reads_direct(&self) -> bool {
        !self.page_cache.load(Ordering::Relaxed)
    }

    /// Notes a cut, a trim, or a new segment, after it was published: what readers know of the log
    /// beside how far it reaches is old.
    pub(crate) fn note_upheaval(&self) {
        self.upheavals.fetch_add(1, Ordering::Release);
    }

    /// Returns how many there were. Who asks before a look at what is published is told again of
    /// what came in between.
    pub(crate) fn upheavals(&self) -> u64 {
        self.upheavals.load(Ordering::Acquire)
    }

    pub(crate) fn marks(&self) -> Marks {
        self.lock().marks
    }
}
