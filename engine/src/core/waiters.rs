//! Who waits for which mark, in the order of their offsets.

use std::collections::VecDeque;

use highwater_io::Monotonic;
use highwater_segment::{Epoch, Offset};

use crate::ack::{Ack, Progress};
use crate::error::Error;
use crate::marks::Marks;
use crate::metrics::Counters;
use crate::receipt::{Appended, Promise, Stages, Wakes};

/// The most appends of one log that wait for a mark; beyond it no new group is formed and the log
/// is due.
pub(super) const WAITERS_MAX: usize = 1 << 16;

/// One append that has an offset.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) base: Offset,
    pub(super) records: u32,
    pub(super) end: Offset,
    /// The epoch it was appended in.
    pub(super) epoch: Epoch,
    pub(super) ack: Ack,
    pub(super) cell: Promise,
    pub(super) assigned_at: Monotonic,
    pub(super) submitted_at: Monotonic,
    pub(super) written_at: Monotonic,
    pub(super) acked: bool,
    /// How many bytes lie before its end since the log was attached.
    pub(super) bytes: u64,
}

/// The appends of a log that are not flushed yet.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    unwritten: VecDeque<Waiter>,
    unflushed: VecDeque<Waiter>,
    /// How many of `unflushed` are not acked: they wait for the flush.
    waiting_for_flush: usize,
    /// Who is to be woken at the end of the turn.
    wakes: Wakes,
}

/// What stands in an ack besides the waiter's own data.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckContext {
    pub(super) now: Monotonic,
    /// When the flush that moved `flushed` was submitted; `now` if none did.
    pub(super) flush_at: Monotonic,
    pub(super) marks: Marks,
    pub(super) progress: Progress,
}

impl Waiters {
    pub(super) fn is_empty(&self) -> bool {
        self.unwritten.is_empty() && self.unflushed.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.unwritten.len() + self.unflushed.len() >= WAITERS_MAX
    }

    /// Returns whether a written append waits for its flush.
    pub(super) fn someone_waits_for_flush(&self) -> bool {
        self.waiting_for_flush > 0
    }

    pub(super) fn push(
        &mut self,
        mut waiter: Waiter,
        context: &AckContext,
        counters: &mut Counters,
    ) {
        let last = self.unwritten.back().or(self.unflushed.back());
        assert!(last.is_none_or(|last| last.end <= waiter.end), "A9: acks keep the order");
        if waiter.ack.is_met(waiter.end, &context.progress) {
            acknowledge(&mut waiter, context, counters);
            waiter.cell.ack_with(appended(&waiter, context), &mut self.wakes);
        }
        self.unwritten.push_back(waiter);
    }

    /// Takes one who waits for a batch that has its offset already: it waits for its own policy at
    /// the original's end, wherever that stands among the others.
    pub(super) fn join(
        &mut self,
        mut waiter: Waiter,
        context: &AckContext,
        counters: &mut Counters,
    ) {
        let progress = &context.progress;
        let same = |other: &&Waiter| other.end == waiter.end && other.records > 0;
        // Who is not among those who wait was counted as acked long ago.
        let original = self.unwritten.iter().chain(&self.unflushed).find(same);
        waiter.bytes = original.map_or(0, |original| original.bytes);
        if waiter.ack.is_met(waiter.end, progress) {
            acknowledge(&mut waiter, context, counters);
            waiter.cell.ack_with(appended(&waiter, context), &mut self.wakes);
        }
        if waiter.end > progress.leader_written {
            let at = self.unwritten.partition_point(|other| other.end <= waiter.end);
            self.unwritten.insert(at, waiter);
        } else if waiter.end <= progress.leader_flushed {
            assert!(waiter.acked, "D1: on a single replica a flush meets every policy");
            waiter.cell.flush_with(appended(&waiter, context), &mut self.wakes);
        } else if !waiter.acked || waiter.cell.is_heard() {
            self.waiting_for_flush += usize::from(!waiter.acked);
            let at = self.unflushed.partition_point(|other| other.end <= waiter.end);
            self.unflushed.insert(at, waiter);
        }
    }

    /// Handles a move of `written` up to `end` by a write that was submitted then.
    pub(super) fn written_moved(
        &mut self,
        end: Offset,
        submitted_at: Monotonic,
        context: &AckContext,
        counters: &mut Counters,
    ) {
        assert!(end <= context.progress.leader_written, "who is told of a write finds it");
        while self.unwritten.front().is_some_and(|waiter| waiter.end <= end) {
            let Some(mut waiter) = self.unwritten.pop_front() else { return };
            // A wish to flush waits for writes that began before it came.
            waiter.submitted_at = submitted_at.max(waiter.assigned_at);
            waiter.written_at = context.now;
            if !waiter.acked && waiter.ack.is_met(waiter.end, &context.progress) {
                acknowledge(&mut waiter, context, counters);
                waiter.cell.ack_with(appended(&waiter, context), &mut self.wakes);
            }
            // An acked append whose receipt was dropped has nobody to tell of its flush.
            if waiter.acked && !waiter.cell.is_heard() {
                continue;
            }
            self.waiting_for_flush += usize::from(!waiter.acked);
            self.unflushed.push_back(waiter);
        }
    }

    /// Handles a move of `flushed` by a flush that was submitted at `context.flush_at`.
    pub(super) fn flushed_moved(&mut self, context: &AckContext, counters: &mut Counters) {
        while self.unflushed.front().is_some_and(|w| w.end <= context.progress.leader_flushed) {
            let Some(mut waiter) = self.unflushed.pop_front() else { return };
            if !waiter.acked {
                self.waiting_for_flush -= 1;
                assert!(
                    waiter.ack.is_met(waiter.end, &context.progress),
                    "D1: on a single replica a flush meets every policy"
                );
                acknowledge(&mut waiter, context, counters);
            }
            waiter.cell.flush_with(appended(&waiter, context), &mut self.wakes);
        }
    }

    /// Wakes who was answered since the last time.
    pub(super) fn wake_all(&mut self) {
        self.wakes.wake_all();
    }

    /// Tells everyone that it will not be known.
    pub(super) fn fail_all(&mut self, error: &Error) {
        for waiter in self.unwritten.drain(..).chain(self.unflushed.drain(..)) {
            waiter.cell.fail(error);
        }
        self.waiting_for_flush = 0;
    }
}

/// Notes that the ack is given with what follows.
fn acknowledge(waiter: &mut Waiter, context: &AckContext, counters: &mut Counters) {
    assert!(waiter.ack.is_met(waiter.end, &context.progress), "D1: an ack is honest");
    waiter.acked = true;
    if waiter.records > 0 {
        counters.acked(waiter.end, waiter.bytes, context.now);
        counters.log.ack_time.record_time(context.now.since(waiter.cell.asked_at()));
    }
}

fn appended(waiter: &Waiter, context: &AckContext) -> Appended {
    Appended {
        base_offset: waiter.base,
        records: waiter.records,
        epoch: waiter.epoch,
        marks: context.marks,
        stages: stages(waiter, context),
    }
}

fn stages(waiter: &Waiter, context: &AckContext) -> Stages {
    let mut stages =
        Stages { queued: waiter.assigned_at.since(waiter.cell.asked_at()), ..Default::default() };
    if waiter.end <= context.progress.leader_written {
        stages.submitted = waiter.submitted_at.since(waiter.assigned_at);
        stages.written = waiter.written_at.since(waiter.submitted_at);
    }
    if waiter.end <= context.progress.leader_flushed {
        // The flush a late wish waits for may be on its way already.
        let flush_at = context.flush_at.max(waiter.written_at);
        stages.flush_waited = flush_at.since(waiter.written_at);
        stages.flushed = context.now.since(flush_at);
    }
    stages
}
