//! Who waits for which mark, in the order of their offsets.

use std::collections::VecDeque;

use highwater_io::Monotonic;
use highwater_segment::{Epoch, Offset};

use crate::ack::{Ack, Progress};
use crate::error::Error;
use crate::marks::Marks;
use crate::receipt::{Appended, Promise, Stages};

/// The most appends of one log that wait for a mark; beyond it no new group is formed and the log
/// is due.
pub(super) const WAITERS_MAX: usize = 1 << 16;

/// One append that has an offset.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) base: Offset,
    pub(super) records: u32,
    pub(super) end: Offset,
    pub(super) ack: Ack,
    pub(super) cell: Promise,
    pub(super) assigned_at: Monotonic,
    pub(super) written_at: Monotonic,
    pub(super) acked: bool,
}

/// The appends of a log that are not flushed yet.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    unwritten: VecDeque<Waiter>,
    unflushed: VecDeque<Waiter>,
    /// How many of `unflushed` are not acked: they wait for the flush.
    waiting_for_flush: usize,
}

/// What stands in an ack besides the waiter's own data.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckContext {
    pub(super) now: Monotonic,
    pub(super) epoch: Epoch,
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

    pub(super) fn push(&mut self, mut waiter: Waiter, context: &AckContext) {
        let last = self.unwritten.back().or(self.unflushed.back());
        assert!(last.is_none_or(|last| last.end <= waiter.end), "A9: acks keep the order");
        if waiter.ack.is_met(waiter.end, &context.progress) {
            acknowledge(&mut waiter, context);
        }
        self.unwritten.push_back(waiter);
    }

    /// Handles a move of `written`.
    pub(super) fn written_moved(&mut self, context: &AckContext) {
        while self.unwritten.front().is_some_and(|w| w.end <= context.progress.leader_written) {
            let Some(mut waiter) = self.unwritten.pop_front() else { return };
            waiter.written_at = context.now;
            if !waiter.acked && waiter.ack.is_met(waiter.end, &context.progress) {
                acknowledge(&mut waiter, context);
            }
            // An acked append whose receipt was dropped has nobody to tell of its flush.
            if waiter.acked && !waiter.cell.is_heard() {
                continue;
            }
            self.waiting_for_flush += usize::from(!waiter.acked);
            self.unflushed.push_back(waiter);
        }
    }

    /// Handles a move of `flushed`.
    pub(super) fn flushed_moved(&mut self, context: &AckContext) {
        while self.unflushed.front().is_some_and(|w| w.end <= context.progress.leader_flushed) {
            let Some(mut waiter) = self.unflushed.pop_front() else { return };
            if !waiter.acked {
                self.waiting_for_flush -= 1;
                assert!(
                    waiter.ack.is_met(waiter.end, &context.progress),
                    "D1: on a single replica a flush meets every policy"
                );
                acknowledge(&mut waiter, context);
            }
            waiter.cell.flush(Ok(appended(&waiter, context)));
        }
    }

    /// Tells everyone that it will not be known.
    pub(super) fn fail_all(&mut self, error: &Error) {
        for waiter in self.unwritten.drain(..).chain(self.unflushed.drain(..)) {
            waiter.cell.ack(Err(error.clone()));
            waiter.cell.flush(Err(error.clone()));
        }
        self.waiting_for_flush = 0;
    }
}

fn acknowledge(waiter: &mut Waiter, context: &AckContext) {
    assert!(waiter.ack.is_met(waiter.end, &context.progress), "D1: an ack is honest");
    waiter.acked = true;
    waiter.cell.ack(Ok(appended(waiter, context)));
}

fn appended(waiter: &Waiter, context: &AckContext) -> Appended {
    let is_written = waiter.end <= context.progress.leader_written;
    let is_flushed = waiter.end <= context.progress.leader_flushed;
    let written_at =
        if waiter.written_at == Monotonic(0) { context.now } else { waiter.written_at };
    Appended {
        base_offset: waiter.base,
        records: waiter.records,
        epoch: context.epoch,
        marks: context.marks,
        stages: Stages {
            queued: waiter.assigned_at.since(waiter.cell.asked_at),
            write: if is_written {
                written_at.since(waiter.assigned_at)
            } else {
                Default::default()
            },
            flush: if is_flushed { context.now.since(written_at) } else { Default::default() },
        },
    }
}
