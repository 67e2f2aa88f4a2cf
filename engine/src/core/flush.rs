//! When a log is due, and moving `flushed`.

use highwater_io::{FileId, IoError, Monotonic, Operation, Output};
use highwater_segment::Offset;

use super::waiters::AckContext;
use super::{Flight, LogCore, Place, State, Turn};
use crate::metrics::FlushReason;

/// A flush on its way.
#[derive(Debug)]
pub(super) struct FlushInFlight {
    /// Everything before this had been reported as written when the flush was submitted (D2b).
    covers: Place,
    base: Offset,
    /// When the kernel got it.
    pub(super) submitted_at: Option<Monotonic>,
}

impl LogCore {
    /// Submits a flush if the log is due and none is in flight. Files are flushed in the order of
    /// their offsets, so `flushed` never crosses into a file whose predecessor is unflushed.
    pub(super) fn pump_flush(&mut self, turn: &mut Turn<'_>) {
        if self.flush.is_some() || self.is_late || !self.is_dirty() {
            return;
        }
        let Some(reason) = self.due_for(turn.now) else { return };
        let Some((file, base, covers)) = self.next_to_flush() else { return };
        let in_round = self.is_for_rounds(base, turn);
        if in_round && !turn.rounds.join(self.number, file) {
            self.is_late = true;
            return;
        }
        self.counters.log.flush_reasons.count(reason);
        assert!(covers.bytes <= self.written.bytes, "D2b: a flush covers only reaped writes");
        // What is written from here on is dirty since its own completion.
        self.dirty_since = (covers.bytes < self.written.bytes).then_some(turn.now);
        self.flush = Some(FlushInFlight { covers, base, submitted_at: None });
        if in_round {
            self.in_round = true;
            self.handing_over = true;
        } else {
            self.submit(Flight::Flush, Operation::Flush { file }, turn);
        }
    }

    /// Returns whether what is written to a segment needs no more than a flush of the device: its
    /// blocks are where they were, and so is its name.
    pub(super) fn is_for_rounds(&self, base: Offset, turn: &Turn<'_>) -> bool {
        let file = self.files.iter().find(|file| file.base == base);
        let in_place = file.is_some_and(|file| file.is_prepared && file.settled && file.is_named());
        turn.rounds.is_enabled() && self.may_join_rounds && in_place
    }

    /// Says that the round this log was too late for has ended.
    pub(crate) fn may_flush_again(&mut self) {
        self.is_late = false;
    }

    /// Handles the end of the round that this log's flush was part of.
    pub(crate) fn round_completed(&mut self, result: Result<Output, IoError>, turn: &mut Turn<'_>) {
        assert!(self.in_round, "a log that is in a round stays until it ends");
        self.in_round = false;
        self.flush_completed(result, turn);
    }

    fn is_dirty(&self) -> bool {
        self.written.mark.offset > self.flushed.mark.offset
    }

    /// Returns the oldest file with unflushed written bytes and what its flush would cover.
    fn next_to_flush(&self) -> Option<(FileId, Offset, Place)> {
        for file in &self.files {
            let end = file.end.map_or(self.written, |end| {
                if end.mark.offset < self.written.mark.offset { end } else { self.written }
            });
            if end.mark.offset <= self.flushed.mark.offset || end.mark.segment != file.base {
                continue;
            }
            // D10: `flushed` stays out of a file until its name is on stable media.
            return file.is_named().then_some((file.file, file.base, end));
        }
        None
    }

    /// Returns why a flush is due now, if it is.
    fn due_for(&self, now: Monotonic) -> Option<FlushReason> {
        let sealed_is_written = self.files.front().and_then(|file| file.end).is_some_and(|end| {
            self.written.bytes >= end.bytes && self.flushed.mark.offset < end.mark.offset
        });
        let policy = &self.settings.flush;
        let records = self.written.mark.offset.0 - self.flushed.mark.offset.0;
        let bytes = self.written.bytes - self.flushed.bytes;
        let over = self.flush_deadline().is_some_and(|deadline| deadline <= now);
        let reasons = [
            (FlushReason::Waited, self.waiters.someone_waits_for_flush()),
            (FlushReason::Waited, self.trims.wants_flushed() > self.flushed.mark.offset),
            (FlushReason::Roll, sealed_is_written),
            (FlushReason::Close, matches!(self.state, State::Detaching { .. })),
            (FlushReason::EveryGroup, policy.every_group),
            (FlushReason::Records, policy.records.is_some_and(|limit| records >= limit)),
            (FlushReason::Bytes, policy.bytes.is_some_and(|limit| bytes >= limit)),
            (FlushReason::Interval, over),
            (FlushReason::Receipts, self.waiters.is_full()),
        ];
        reasons.into_iter().find_map(|(reason, due)| due.then_some(reason))
    }

    /// Returns when the oldest unflushed record becomes too old.
    pub(super) fn flush_deadline(&self) -> Option<Monotonic> {
        // What cannot be flushed now is looked at when what hinders it has ended.
        if self.flush.is_some() || self.is_late || self.next_to_flush().is_none() {
            return None;
        }
        let interval = self.settings.flush.interval?;
        self.dirty_since.map(|since| since.plus(interval))
    }

    pub(super) fn flush_completed(&mut self, result: Result<Output, IoError>, turn: &mut Turn<'_>) {
        let Some(flush) = self.flush.take() else { panic!("a flush completes once") };
        if let Err(error) = result {
            self.poison(error, turn);
        }
        if self.poisoned {
            return;
        }
        assert!(flush.covers.mark.offset > self.flushed.mark.offset, "flushes bring progress");
        assert_eq!(flush.covers.mark.segment, flush.base, "a flush covers one file");
        // The header's write was reported before any of the batches' was submitted.
        if let Some(file) = self.files.iter_mut().find(|file| file.base == flush.base) {
            file.settled = true;
        }
        self.flushed = flush.covers;
        let flush_at = flush.submitted_at.unwrap_or(turn.now);
        self.counters.log.flush_time.record_time(turn.now.since(flush_at));
        self.counters.flushed(self.flushed.mark.offset, self.flushed.bytes, turn.now);
        self.flushed_moved(turn.now, flush_at);
    }

    /// Tells everyone who waits for the flush that was submitted at `flush_at`.
    pub(super) fn flushed_moved(&mut self, now: Monotonic, flush_at: Monotonic) {
        if !self.is_dirty() {
            self.dirty_since = None;
        }
        self.publish();
        let context = AckContext { flush_at, ..self.ack_context(now) };
        self.waiters.flushed_moved(&context, &mut self.counters);
        self.keeper.flushed_moved(now);
    }

    /// Closes a sealed file whose every byte is flushed; it may have been flushed before it was
    /// sealed.
    pub(super) fn drop_flushed_files(&mut self, turn: &mut Turn<'_>) {
        let flushed = self.flushed.mark.offset;
        while self.files.len() > 1
            && self.files.front().and_then(|f| f.end).is_some_and(|e| e.mark.offset <= flushed)
        {
            if let Some(sealed) = self.files.pop_front() {
                self.submit_close(sealed.file, turn);
            }
        }
    }
}
