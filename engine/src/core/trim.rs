//! Raising the log's start, and what becomes of the segments below it.
//!
//! The order, each step durable before the next: the new start in both slots of `log.meta`; the
//! segment's name out of the log's directory and into the pool, both directories synced; its
//! header block overwritten as free. A crash between any two of them leaves a file that the next
//! opening recognises: below the log's start, or in the pool without the header of a spare.

use std::collections::VecDeque;
use std::path::PathBuf;

use highwater_index::index_file_name;
use highwater_io::{Access, FileId, IoError, Operation, Output};
use highwater_segment::Offset;
use highwater_segment::segment::segment_file_name;

use super::spare::{Spare, spare_block};
use super::{Flight, LogCore, SegmentFile, State, Turn};
use crate::error::{Error, ErrorKind};
use crate::receipt::{Appended, Promise, Stages};

/// The most trims of one log that wait at once.
const TRIMS_MAX: usize = 1024;
/// Segments that nobody needs any more and that may still be there before a roll lets one of them
/// go first: a writer that never pauses would else never let any go.
const BACKLOG_MAX: usize = 4;

/// A sealed segment, for retention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealed {
    pub(crate) base: Offset,
    /// Where it ends in its file; its whole size if it was sealed before this life.
    pub(crate) bytes: u64,
    /// The largest timestamp in it, if that is known.
    pub(crate) max_timestamp_ms: Option<i64>,
    /// It was prepared: see [`Spare::is_whole`].
    pub(crate) is_whole: bool,
}

/// How far the segment that is on its way into the pool is.
#[derive(Debug)]
enum Step {
    Idle,
    Renaming {
        path: PathBuf,
    },
    /// So many directories are still to be synced.
    Syncing {
        path: PathBuf,
        left: u8,
    },
    Opening {
        path: PathBuf,
    },
    Measuring {
        path: PathBuf,
        file: FileId,
    },
    Freeing {
        path: PathBuf,
        file: FileId,
    },
    /// Removed for good: there are spares enough.
    Removing,
    /// A name could not be changed: the files stay until the next opening.
    GaveUp,
}

/// What is trimmed, and by whom it was asked.
#[derive(Debug)]
pub(super) struct Trims {
    /// At most [`TRIMS_MAX`].
    waiting: VecDeque<(Offset, Promise)>,
    /// What retention asks for.
    retained_from: Offset,
    /// Sealed segments of the log, oldest first.
    sealed: VecDeque<Sealed>,
    /// Segments below the log's start whose files are still there.
    leaving: VecDeque<Sealed>,
    step: Step,
    /// Of the one that is on its way.
    is_whole: bool,
    /// A segment's name has left the log since the last roll.
    one_left: bool,
}

impl Trims {
    pub(super) fn new(sealed: Vec<Sealed>) -> Self {
        Trims {
            waiting: VecDeque::new(),
            retained_from: Offset(0),
            sealed: sealed.into(),
            leaving: VecDeque::new(),
            step: Step::Idle,
            is_whole: false,
            one_left: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn fail_all(&mut self, error: &Error) {
        for (_, cell) in self.waiting.drain(..) {
            cell.ack(Err(error.clone()));
        }
    }

    /// Returns whether a segment's name is on its way out. Two syncs of a directory are never in
    /// flight together: one that fails can have taken the names of the other along, which then
    /// succeeds and says nothing of it.
    pub(super) fn names_are_changing(&self) -> bool {
        matches!(self.step, Step::Renaming { .. } | Step::Syncing { .. })
    }

    /// Returns whether more segments are still there than should be.
    fn lags(&self) -> bool {
        let due = self.sealed.partition_point(|sealed| sealed.base < self.retained_from);
        self.leaving.len() + due > BACKLOG_MAX
    }

    /// Returns up to where a flush is waited for.
    pub(super) fn wants_flushed(&self) -> Offset {
        self.waiting.iter().map(|(to, _)| *to).max().unwrap_or(Offset(0))
    }
}

impl LogCore {
    /// Takes a wish to trim.
    pub(crate) fn enqueue_trim(&mut self, to: Offset, cell: Promise) {
        let refused = |kind, detail: String| {
            Err(Error::new(kind, "trim log", &self.shared.name).detail(detail))
        };
        if let Some(failure) = &self.failure {
            cell.ack(Err(failure.clone()));
        } else if !matches!(self.state, State::Active | State::Attaching) {
            cell.ack(refused(ErrorKind::Closed, "the log is being closed".to_owned()));
        } else if to > self.next_offset {
            let end = self.next_offset;
            cell.ack(refused(ErrorKind::Config, format!("{to} is above the log's end {end}")));
        } else if self.trims.waiting.len() >= TRIMS_MAX {
            cell.ack(refused(ErrorKind::WouldBlock, "too many trims wait".to_owned()));
        } else {
            // Pumped with the log, once that is ready.
            self.trims.waiting.push_back((to, cell));
        }
    }

    /// A segment was sealed: retention looks at the log.
    pub(super) fn note_sealed(&mut self, sealed: Sealed) {
        self.trims.sealed.push_back(sealed);
        self.trims.one_left = false;
    }

    /// Returns whether the next roll, whose turn it is otherwise, lets a segment go first: the log
    /// has too many that nobody needs, and one of them is about to go. So a log whose rolls are
    /// faster than its trims does not grow without end.
    pub(super) fn roll_lets_one_go(&self) -> bool {
        let about_to_go = match self.trims.step {
            // Without any that is leaving, both slots of `log.meta` are still to name the start.
            Step::Idle => self.trims.leaving.is_empty() || !self.leaving_is_held(),
            Step::GaveUp => false,
            _ => true,
        };
        about_to_go
            && !self.trims.one_left
            && self.trims.lags()
            && matches!(self.state, State::Active)
    }

    /// Returns whether the oldest segment that leaves is still needed for something.
    fn leaving_is_held(&self) -> bool {
        let Some(base) = self.trims.leaving.front().map(|leaving| leaving.base) else {
            return false;
        };
        let rest = self.trims.leaving.iter().skip(1).chain(&self.trims.sealed);
        let end = rest.map(|next| next.base).next().unwrap_or(self.active().base);
        // A sealed file that is still open here is not flushed, or just about to be closed; and
        // the mark of either slot can still lie in it. And what it says of the producers must
        // stand in a snapshot.
        self.files.iter().any(|file| file.base == base)
            || !self.producers_are_kept(end)
            || self.keeper.oldest_mark_segment() <= base
    }

    /// Moves the log's start as far as it is wanted, flushed and durable, and goes on with the
    /// files below.
    pub(super) fn pump_trims(&mut self, turn: &mut Turn<'_>) {
        let flushed = self.flushed.mark.offset;
        let asked = self.trims.waiting.iter().map(|(to, _)| *to);
        let asked = asked.filter(|to| *to <= flushed).max().unwrap_or(Offset(0));
        self.keeper.want_log_start(asked.max(self.trims.retained_from.min(flushed)));
        let durable = self.keeper.durable_log_start();
        if durable > self.log_start {
            assert!(durable <= flushed, "a trim stays below the flushed mark");
            self.log_start = durable;
            self.let_segments_go();
            self.publish();
        }
        self.answer_trims();
        self.pump_recycling(turn);
    }

    /// Notes up to where retention wants the oldest segments gone. The active one stays.
    pub(super) fn retain(&mut self, wall_clock_ms: i64) {
        let mut held: u64 = self.trims.sealed.iter().map(|sealed| sealed.bytes).sum();
        held += self.tail.position.0;
        let too_old = self.settings.retention.map(|age| {
            wall_clock_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
        });
        let sealed = &self.trims.sealed;
        for (index, oldest) in sealed.iter().enumerate() {
            let end = sealed.get(index + 1).map_or(self.active().base, |next| next.base);
            let rest = held.saturating_sub(oldest.bytes);
            let over = self.settings.retention_bytes.is_some_and(|keep| rest >= keep);
            // One whose age is not known goes with the next one whose age is.
            let known = sealed.iter().skip(index).find_map(|sealed| sealed.max_timestamp_ms);
            let aged = too_old.zip(known).is_some_and(|(limit, newest)| newest < limit);
            if !over && !aged {
                return;
            }
            held = rest;
            self.trims.retained_from = self.trims.retained_from.max(end);
        }
    }

    /// Segments that end at or below the log's start are no longer read: their files may go.
    fn let_segments_go(&mut self) {
        while let Some(oldest) = self.trims.sealed.front().copied() {
            let end = self.trims.sealed.get(1).map_or(self.active().base, |next| next.base);
            if end > self.log_start {
                break;
            }
            self.trims.sealed.pop_front();
            self.trims.leaving.push_back(oldest);
        }
        let log_start = self.log_start;
        let mut published = self.shared.lock();
        let gone = published.segments.partition_point(|info| info.base <= log_start);
        published.segments.drain(..gone.saturating_sub(1));
    }

    /// Returns where the first segment begins that the log needs.
    pub(super) fn first_segment(&self) -> Offset {
        self.trims.sealed.front().map_or(self.active().base, |oldest| oldest.base)
    }

    fn answer_trims(&mut self) {
        let done = self.log_start;
        let marks = self.marks();
        let epoch = self.epoch;
        self.trims.waiting.retain(|(to, cell)| {
            let is_done = *to <= done;
            if is_done {
                let stages = Stages::default();
                let base_offset = done;
                cell.ack(Ok(Appended { base_offset, records: 0, epoch, marks, stages }));
            }
            !is_done
        });
    }

    /// Returns whether a segment on its way out will be a spare.
    pub(super) fn trim_brings_a_spare(&self) -> bool {
        !self.trims.leaving.is_empty()
            || !matches!(self.trims.step, Step::Idle | Step::GaveUp | Step::Removing)
            || self.trims.retained_from > self.log_start
    }

    fn pump_recycling(&mut self, turn: &mut Turn<'_>) {
        let idle = matches!(self.trims.step, Step::Idle) && matches!(self.state, State::Active);
        let Some(base) = self.trims.leaving.front().map(|leaving| leaving.base) else { return };
        // A roll that has only to begin waits for this one, if it must.
        let names = if self.roll_wanted() && self.roll_lets_one_go() {
            !self.all_are_named()
        } else {
            self.names_are_changing()
        };
        if !idle || names || self.leaving_is_held() {
            return;
        }
        let leaving = self.trims.leaving.pop_front();
        self.trims.is_whole = leaving.is_some_and(|leaving| leaving.is_whole);
        let from = self.directory.join(segment_file_name(base));
        let index = self.directory.join(index_file_name(base.0));
        self.submit(Flight::Leftover, Operation::Remove { path: index }, turn);
        if self.spares.has_room() {
            let path = self.spares.new_path(turn);
            self.trims.step = Step::Renaming { path: path.clone() };
            self.submit(Flight::Recycle, Operation::Rename { from, to: path }, turn);
        } else {
            // Its name may come back after a power cut: it is below the log's start.
            self.trims.step = Step::Removing;
            self.submit(Flight::Recycle, Operation::Remove { path: from }, turn);
        }
    }

    pub(super) fn names_are_changing(&self) -> bool {
        self.roll_in_progress() || !self.all_are_named()
    }

    fn all_are_named(&self) -> bool {
        self.files.iter().all(SegmentFile::is_named)
    }

    /// Handles the end of one step of a segment's way into the pool.
    pub(super) fn recycle_completed(
        &mut self,
        result: Result<Output, IoError>,
        turn: &mut Turn<'_>,
    ) {
        let step = std::mem::replace(&mut self.trims.step, Step::Idle);
        match (step, result) {
            (Step::Removing, Ok(_)) => self.trims.one_left = true,
            (Step::Renaming { path }, Ok(_)) => {
                self.trims.step = Step::Syncing { path, left: 2 };
                for path in [self.directory.clone(), self.spares.pool().to_owned()] {
                    self.submit(Flight::Recycle, Operation::SyncDirectory { path }, turn);
                }
            }
            (Step::Syncing { path, left: 2 }, Ok(_)) => {
                self.trims.step = Step::Syncing { path, left: 1 };
            }
            // Only now can no power cut bring the old name back, so the header may change.
            (Step::Syncing { path, .. }, Ok(_)) => {
                self.trims.one_left = true;
                self.trims.step = Step::Opening { path: path.clone() };
                let mode = self.settings.mode.open_mode(Access::ReadWrite);
                self.submit(Flight::Recycle, Operation::Open { path, mode }, turn);
            }
            (Step::Opening { path }, Ok(Output::File { file, .. })) => {
                self.trims.step = Step::Measuring { path, file };
                self.submit(Flight::Recycle, Operation::Length { file }, turn);
            }
            (Step::Measuring { path, file }, Ok(Output::Length(length))) => {
                if length != self.keeper.segment_bytes() {
                    // It grew, and was sealed before it was full: not worth filling up.
                    self.submit_close(file, turn);
                    self.submit(Flight::Leftover, Operation::Remove { path }, turn);
                    return;
                }
                self.trims.step = Step::Freeing { path, file };
                let buffer = spare_block(self.spares.log_id());
                let length = buffer.len();
                let operation = Operation::Write { file, position: 0, buffer, length, dsync: true };
                self.submit(Flight::Recycle, operation, turn);
            }
            (Step::Freeing { path, file }, Ok(_)) => {
                let is_whole = self.trims.is_whole && !self.was_buffered;
                self.spares.add(Spare { path, file, is_whole });
            }
            (Step::Measuring { file, .. }, Err(_)) => {
                self.trims.step = Step::GaveUp;
                self.submit_close(file, turn);
            }
            (Step::Freeing { file, .. }, Err(error)) => {
                self.submit_close(file, turn);
                self.poison(error, turn);
            }
            (Step::Syncing { left, path }, Err(error)) => {
                if left == 2 {
                    self.trims.step = Step::Syncing { path, left: 1 };
                }
                self.poison(error, turn);
            }
            (Step::GaveUp, _) => panic!("a step of recycling ends once"),
            // A name that cannot be changed harms nothing but the space it takes.
            (_, _) => self.trims.step = Step::GaveUp,
        }
        if !matches!(self.state, State::Active) || self.poisoned {
            self.close_spares(turn);
        }
    }
}
