//! What one log must be: every append, its ack, and how far promises reach.
//!
//! # What may be lost, and what not
//!
//! `entries` are the appends that have an offset or may have one, in the order of their calls. An
//! append that was refused (`NotAppended`) leaves the list for good; one whose ack was not seen,
//! or failed with `Unknown`, stays: it may survive or not, but the log is always a prefix of the
//! list that ends behind a batch (D4). How much of the list must be there:
//!
//! * `durable_floor`: the highest flushed mark ever seen (in marks, acks, flush receipts). Nothing
//!   takes it away but a truncation.
//! * `written_floor`: the highest written mark seen. A kill keeps it. A power cut takes it down to
//!   the durable floor. So does a *failed flush* of this log: the kernel drops what it could not
//!   write, direct reads show the media, and nobody has another copy. A *failed write* does not:
//!   it harms only its own sectors, and they hold the same bytes before the new ones.
//! * A successful open, reopen or truncate says `flushed = written = log_end`: all of it counts as
//!   flushed from then on.
//! * The log's start moves only to where a trim asked for, or retention may: never above what was
//!   flushed, never back (but to the cut of a truncation), and one that was shown is on stable
//!   media.
//! * A truncation that was interrupted leaves two possible logs: the old one, or exactly the cut.

use std::rc::Rc;

use highwater::{Ack, Appended, LogReport, Marks, Outcome, RecordBatch, Ticket};

use crate::coverage::Coverage;
use crate::failure::{Check, broken, ensure};
use crate::producers::{Expected, Repeat, expected};

/// An append that has an offset, or may have one.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) attempt: u64,
    pub(crate) base: u64,
    pub(crate) batch: Rc<RecordBatch>,
    pub(crate) ack: Ack,
    pub(crate) epoch: u32,
    pub(crate) generation: u32,
    /// `None` once nothing more is to be learned from it.
    ticket: Option<Ticket>,
    acked: bool,
    /// It has its offset, for certain.
    assigned: bool,
}

impl Entry {
    pub(crate) fn end(&self) -> u64 {
        self.base + u64::from(self.batch.record_count())
    }
}

/// A wish to flush: what was appended before it, and its ticket.
#[derive(Clone, Debug)]
struct Wish {
    before_attempt: u64,
    ticket: Ticket,
}

/// Whether the log was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exists {
    No,
    /// Its making was interrupted.
    Maybe,
    Yes,
}

/// The oracle's view of one log.
#[derive(Clone, Debug)]
pub(crate) struct LogModel {
    pub(crate) name: String,
    pub(crate) segment_bytes: u64,
    pub(crate) never_rewrite_flushed: bool,
    pub(crate) exists: Exists,
    pub(crate) entries: Vec<Entry>,
    wishes: Vec<Wish>,
    /// Calls that append nothing: see [`crate::producers`].
    pub(crate) repeats: Vec<Repeat>,
    pub(crate) durable_floor: u64,
    pub(crate) written_floor: u64,
    /// The highest start of the log that was shown.
    pub(crate) start_floor: u64,
    /// The highest start that was asked for; retention, if there is one, asks for any.
    pub(crate) start_asked: u64,
    pub(crate) retained: bool,
    /// Targets of truncations whose end is not known.
    maybe_cuts: Vec<u64>,
    pub(crate) epoch: u32,
    pub(crate) generation: u32,
    /// The newest marks of this generation.
    marks: Option<Marks>,
    /// A fault was placed that can make a flush of this log fail.
    pub(crate) flush_may_fail: bool,
    /// A fault was placed that can make a write of this log fail.
    pub(crate) write_may_fail: bool,
    /// It was seen to refuse writes since it was last opened: the flushed mark then.
    pub(crate) poisoned_at: Option<u64>,
    /// A truncation or a reopening is on its way: the marks shown may be of before or after.
    pub(crate) in_maintenance: bool,
}

impl LogModel {
    pub(crate) fn new(name: &str, segment_bytes: u64, never_rewrite_flushed: bool) -> Self {
        LogModel {
            name: name.to_owned(),
            segment_bytes,
            never_rewrite_flushed,
            exists: Exists::No,
            entries: Vec::new(),
            wishes: Vec::new(),
            repeats: Vec::new(),
            durable_floor: 0,
            written_floor: 0,
            start_floor: 0,
            start_asked: 0,
            retained: false,
            maybe_cuts: Vec::new(),
            epoch: 0,
            generation: 0,
            marks: None,
            flush_may_fail: false,
            write_may_fail: false,
            poisoned_at: None,
            in_maintenance: false,
        }
    }

    /// Returns where the log ends if everything that has or may have an offset is there.
    pub(crate) fn end(&self) -> u64 {
        self.entries.last().map_or(0, Entry::end)
    }

    /// Returns the entry that holds `offset`.
    pub(crate) fn index_of(&self, offset: u64) -> usize {
        self.entries.partition_point(|entry| entry.end() <= offset)
    }

    /// Returns the lowest offset an interrupted truncation may have cut at.
    pub(crate) fn lowest_cut(&self) -> u64 {
        self.maybe_cuts.iter().copied().min().unwrap_or(u64::MAX)
    }

    /// Returns where a truncation to `to` ends the log: the batch that holds `to` goes too.
    pub(crate) fn cut_for(&self, to: u64) -> u64 {
        self.entries.get(self.index_of(to)).map_or(self.end(), |entry| entry.base.min(to))
    }

    pub(crate) fn appended(
        &mut self,
        attempt: u64,
        batch: Rc<RecordBatch>,
        ack: Ack,
        ticket: Ticket,
    ) {
        if expected(&self.entries, &batch) == Expected::Append {
            self.insert(self.entries.len(), (attempt, batch, ack, ticket));
        } else {
            self.repeated(attempt, batch, ack, ticket);
        }
    }

    /// Notes an append at its place in the order of the calls.
    pub(crate) fn insert(
        &mut self,
        at: usize,
        (attempt, batch, ack, ticket): (u64, Rc<RecordBatch>, Ack, Ticket),
    ) {
        let base = at.checked_sub(1).map_or(0, |before| self.entries[before].end());
        self.entries.insert(
            at,
            Entry {
                attempt,
                base,
                batch,
                ack,
                epoch: self.epoch,
                generation: self.generation,
                ticket: Some(ticket),
                acked: false,
                assigned: false,
            },
        );
    }

    pub(crate) fn flush_asked(&mut self, before_attempt: u64, ticket: Ticket) {
        self.wishes.push(Wish { before_attempt, ticket });
    }

    /// Looks at every ticket that has not told everything; returns how many acks came.
    pub(crate) fn settle(&mut self, coverage: &mut Coverage) -> Check<u64> {
        let mut acks = 0;
        let first = self.entries.iter().position(|entry| entry.ticket.is_some());
        let mut index = first.unwrap_or(self.entries.len());
        let mut base = index.checked_sub(1).map_or(0, |before| self.entries[before].end());
        while index < self.entries.len() {
            let entry = &mut self.entries[index];
            entry.base = base;
            let ack = entry.ticket.as_ref().and_then(Ticket::acked);
            match ack {
                Some(Err(error)) if error.outcome() == Outcome::NotAppended => {
                    let (attempt, assigned) = (entry.attempt, entry.assigned);
                    ensure(!assigned, "B9", || {
                        format!("attempt {attempt} has an offset, but was refused: {error}")
                    })?;
                    coverage.hit(match error.kind().name() {
                        "Full" => "append refused: Full",
                        "Poisoned" => "append refused: Poisoned",
                        "OutOfOrderSequence" | "Fenced" => "append refused: numbers",
                        _ => "append refused: other",
                    });
                    let batch = Rc::clone(&self.entries[index].batch);
                    Self::check_refusal(&self.entries[..index], &batch, &error, coverage)?;
                    self.entries.remove(index);
                    self.promote_repeats();
                    continue;
                }
                Some(Err(_)) => {
                    entry.assigned = true;
                    entry.ticket = None;
                }
                Some(Ok(appended)) => {
                    acks += u64::from(!entry.acked);
                    self.check_ack(index, &appended)?;
                    self.after_ack(index);
                }
                None => {}
            }
            base = self.entries[index].end();
            index += 1;
        }
        coverage.add("ack", acks);
        self.settle_repeats(coverage)?;
        self.settle_wishes()?;
        Ok(acks)
    }

    fn check_ack(&mut self, index: usize, appended: &Appended) -> Check {
        let entry = &mut self.entries[index];
        let (attempt, base, end) = (entry.attempt, entry.base, entry.end());
        ensure(appended.base_offset.0 == base && appended.end_offset().0 == end, "A9", || {
            format!(
                "attempt {attempt} was acked at {}, the order of calls gives {base}",
                appended.base_offset
            )
        })?;
        ensure(appended.epoch.0 == entry.epoch, "A2", || {
            format!("attempt {attempt} was acked in epoch {}, not {}", appended.epoch, entry.epoch)
        })?;
        if !entry.acked {
            crate::checks::acks::honest((attempt, entry.ack), end, appended)?;
        }
        entry.acked = true;
        // Offsets are assigned in the order of the calls.
        for earlier in self.entries[..=index].iter_mut().rev() {
            if earlier.assigned {
                break;
            }
            earlier.assigned = true;
        }
        self.written_floor = self.written_floor.max(appended.marks.written.0);
        self.durable_floor = self.durable_floor.max(appended.marks.flushed.0);
        Ok(())
    }

    fn after_ack(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        let flushed = entry.ticket.as_ref().and_then(Ticket::flushed);
        if let Some(flushed) = flushed {
            if flushed.is_ok() {
                self.durable_floor = self.durable_floor.max(entry.end());
            }
            entry.ticket = None;
        }
    }

    fn settle_wishes(&mut self) -> Check {
        let mut open = Vec::new();
        for wish in std::mem::take(&mut self.wishes) {
            match wish.ticket.acked() {
                None => open.push(wish),
                Some(Err(_)) => {}
                Some(Ok(flushed)) => {
                    let before = |entry: &&Entry| entry.attempt < wish.before_attempt;
                    let end = self.entries.iter().rev().find(before).map_or(0, Entry::end);
                    ensure(
                        flushed.base_offset.0 == end && flushed.marks.flushed.0 >= end,
                        "D1",
                        || {
                            format!(
                                "a flush of everything below {end} ended at {} with {:?}",
                                flushed.base_offset, flushed.marks
                            )
                        },
                    )?;
                    self.durable_floor = self.durable_floor.max(flushed.marks.flushed.0);
                }
            }
        }
        self.wishes = open;
        Ok(())
    }

    /// Forgets the tickets of acked entries now and then, as callers do who need no more.
    pub(crate) fn drop_acked_tickets(&mut self) {
        for entry in self.entries.iter_mut().rev().take(32).filter(|entry| entry.acked) {
            entry.ticket = None;
        }
    }

    /// Notes marks that the engine shows.
    pub(crate) fn observe(&mut self, marks: Marks) -> Check {
        crate::checks::marks::check(self.marks.as_ref(), &marks)?;
        let (end, name) = (self.end(), &self.name);
        ensure(marks.log_end.0 <= end, "D7", || {
            format!("log {name} says it ends at {}, only {end} was appended", marks.log_end)
        })?;
        if let Some(flushed) = self.poisoned_at {
            ensure(marks.flushed.0 <= flushed, "D3", || {
                format!("flushed moved from {flushed} to {} on a poisoned log", marks.flushed)
            })?;
        }
        self.starts_at(marks.log_start.0)?;
        self.marks = Some(marks);
        self.written_floor = self.written_floor.max(marks.written.0);
        self.durable_floor = self.durable_floor.max(marks.flushed.0);
        Ok(())
    }

    /// Notes where the log starts, as the engine shows it.
    pub(crate) fn starts_at(&mut self, log_start: u64) -> Check {
        let (name, floor, asked) = (&self.name, self.start_floor, self.start_asked);
        ensure(log_start >= floor, "trim", || {
            format!("log {name} starts at {log_start}, it had started at {floor}")
        })?;
        ensure(self.retained || log_start <= asked, "trim", || {
            format!("log {name} starts at {log_start}, only {asked} was asked for")
        })?;
        self.start_floor = log_start;
        Ok(())
    }

    /// Returns what is promised, for comparing two moments.
    pub(crate) fn promises(&self) -> (u64, u64, u64, u64, u32, bool, usize) {
        let (durable, written) = (self.durable_floor, self.written_floor);
        let start = self.start_floor;
        let made = self.exists == Exists::Yes;
        (start, durable, written, self.end(), self.generation, made, self.maybe_cuts.len())
    }

    pub(crate) fn truncate_begins(&mut self, to: u64) {
        self.maybe_cuts.push(to);
    }

    pub(crate) fn power_was_cut(&mut self) {
        self.written_floor = self.durable_floor;
    }

    /// Checks where an opening, reopening or truncation left the log's end (D4), and goes on from
    /// there.
    pub(crate) fn resolve(&mut self, end: u64) -> Check {
        self.allows(end)?;
        self.entries.retain(|entry| entry.end() <= end);
        // The log starts inside a batch that was truncated whole: it is empty.
        self.start_floor = self.start_floor.min(end);
        for entry in &mut self.entries {
            entry.ticket = None;
            entry.assigned = true;
        }
        self.wishes.clear();
        self.repeats.clear();
        self.maybe_cuts.clear();
        (self.durable_floor, self.written_floor) = (end, end);
        self.marks = None;
        self.poisoned_at = None;
        self.in_maintenance = false;
        Ok(())
    }

    /// Checks that the log may end at `end` (D4).
    pub(crate) fn allows(&self, end: u64) -> Check {
        let name = &self.name;
        let is_border = end == 0 || self.entries.iter().any(|entry| entry.end() == end);
        ensure(is_border, "D4", || {
            format!("log {name} ends at {end}: not behind a batch that was appended")
        })?;
        if self.maybe_cuts.iter().any(|to| self.cut_for(*to) == end) {
            return Ok(());
        }
        let floor = if self.flush_may_fail { self.durable_floor } else { self.written_floor };
        if end >= floor {
            return Ok(());
        }
        let lost = self.entries.iter().find(|entry| entry.end() > end);
        broken(
            if end < self.durable_floor { "D2" } else { "D4" },
            format!(
                "log {name} ends at {end}; everything below {floor} must be there (flushed {}, \
                 written {}); lost from {:?}",
                self.durable_floor,
                self.written_floor,
                lost.map(|entry| (entry.attempt, entry.base, entry.ack))
            ),
        )
    }

    /// Notes what opening reports: epoch and generation rise with every life.
    pub(crate) fn opened(&mut self, report: &LogReport) -> Check {
        self.begins(report.epoch.0, report.generation.0)
    }

    /// Notes a new epoch and generation.
    pub(crate) fn begins(&mut self, epoch: u32, generation: u32) -> Check {
        let name = &self.name;
        ensure(epoch > self.epoch && generation > self.generation, "A8", || {
            format!(
                "log {name} goes on in epoch {epoch}, generation {generation}; before it was epoch \
                 {}, generation {}",
                self.epoch, self.generation
            )
        })?;
        (self.epoch, self.generation) = (epoch, generation);
        Ok(())
    }
}
