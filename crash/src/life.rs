//! One life of the engine: what is asked of its logs, and what they promise.

use std::collections::VecDeque;

use highwater::{Ack, Isolation, Log, Offset, Receipt};
use highwater_io::random::SeededRandom;

use crate::device::Marker;
use crate::image::wide;
use crate::records::{RECORDS_MAX, batch, read_all};
use crate::replay::Mark;
use crate::timeline::{RecordId, Timeline};
use crate::workload::Failure;

/// The most appends of a log that were not waited for.
const PENDING_MAX: usize = 12;

/// An append that was not waited for yet.
#[derive(Debug)]
struct Pending {
    receipt: Receipt,
    base: usize,
    end: usize,
    ack: Ack,
}

/// A log as the workload knows it.
#[derive(Debug)]
pub(crate) struct LogState {
    log: Option<Log>,
    pub(crate) timeline: Timeline,
    pending: VecDeque<Pending>,
    /// Everything below was acked as written: survives the death of the process.
    written: usize,
    /// When the engine's last life began to end.
    ending: Option<Mark>,
}

impl LogState {
    pub(crate) fn new(timeline: Timeline) -> Self {
        LogState { log: None, timeline, pending: VecDeque::new(), written: 0, ending: None }
    }

    fn log(&self) -> Result<&Log, Failure> {
        self.log.as_ref().ok_or_else(|| "no log is open".into())
    }

    /// Takes the log of a new life and compares it with what the life before left.
    pub(crate) fn start(&mut self, log: Log, marker: &dyn Marker) -> Result<(), Failure> {
        if let Some(error) = log.failure() {
            return Err(format!("log {} refuses appends: {error}", log.name()).into());
        }
        let opened = marker.mark();
        self.timeline.create(opened);
        let found = read_all(log.read(Offset(0), Isolation::Written)?)?;
        let expected = self.timeline.now();
        if !expected.starts_with(&found) || found.len() < self.written {
            return Err(format!(
                "log {} was left with {} of {} records acked; now it holds {}",
                log.name(),
                self.written,
                expected.len(),
                found.len()
            )
            .into());
        }
        if let Some(ending) = self.ending.take() {
            self.timeline.cut(found.len(), ending, opened);
        }
        self.written = found.len();
        self.timeline.promise(found.len(), opened);
        self.log = Some(log);
        Ok(())
    }

    /// Notes what the log says is flushed. In this order: the mark is taken afterwards.
    fn note_flushed(&mut self, marker: &dyn Marker) -> Result<(), Failure> {
        let flushed = usize::try_from(self.log()?.marks().flushed.0)?;
        self.timeline.promise(flushed, marker.mark());
        Ok(())
    }

    /// Waits for the oldest append.
    fn wait(&mut self, marker: &dyn Marker, control: bool) -> Result<(), Failure> {
        let Some(pending) = self.pending.pop_front() else { return Ok(()) };
        let appended = pending.receipt.wait()?;
        let mark = marker.mark();
        if appended.base_offset.0 != wide(pending.base) {
            return Err(format!("{} got offset {}", pending.base, appended.base_offset).into());
        }
        if pending.ack.waits_for_flush() || control {
            self.timeline.promise(pending.end, mark);
        }
        if pending.ack != Ack::NONE {
            self.written = self.written.max(pending.end);
        }
        self.timeline.promise(usize::try_from(appended.marks.flushed.0)?, mark);
        Ok(())
    }

    fn wait_all(&mut self, marker: &dyn Marker, control: bool) -> Result<(), Failure> {
        while !self.pending.is_empty() {
            self.wait(marker, control)?;
        }
        Ok(())
    }

    fn append(&mut self, ids: std::ops::Range<RecordId>, ack: Ack) -> Result<(), Failure> {
        let base = self.timeline.end();
        // First the note: what is given to the log may be found even if this fails.
        self.timeline.append(ids.clone());
        let receipt = self.log()?.append(batch(ids)?, ack)?;
        self.pending.push_back(Pending { receipt, base, end: self.timeline.end(), ack });
        Ok(())
    }

    fn flush(&mut self, marker: &dyn Marker) -> Result<(), Failure> {
        let end = self.timeline.end();
        let flushed = self.log()?.flush()?;
        flushed.wait()?;
        self.timeline.promise(end, marker.mark());
        self.written = end;
        self.wait_all(marker, false)
    }

    fn truncate(&mut self, to: usize, marker: &dyn Marker, control: bool) -> Result<(), Failure> {
        let Some(expected) = self.timeline.cut_at(to) else { return Ok(()) };
        self.wait_all(marker, control)?;
        let begun = marker.mark();
        let marks = self.log()?.truncate(Offset(wide(to)))?;
        let done = marker.mark();
        if marks.log_end.0 != wide(expected) {
            return Err(format!("truncated to {expected}, but {marks:?}").into());
        }
        self.timeline.cut(expected, begun, done);
        self.timeline.promise(usize::try_from(marks.flushed.0)?, done);
        self.written = expected;
        Ok(())
    }

    fn reopen(&mut self, marker: &dyn Marker, control: bool) -> Result<(), Failure> {
        self.wait_all(marker, control)?;
        let begun = marker.mark();
        let marks = self.log()?.reopen()?;
        let done = marker.mark();
        let end = self.timeline.end();
        if marks.log_end.0 != wide(end) {
            return Err(format!("reopened at {end}, but {marks:?}").into());
        }
        self.timeline.cut(end, begun, done);
        self.timeline.promise(usize::try_from(marks.flushed.0)?, done);
        Ok(())
    }
}

/// The steps of one life.
pub(crate) struct Life<'life> {
    pub(crate) logs: &'life mut [LogState],
    pub(crate) marker: &'life dyn Marker,
    pub(crate) random: SeededRandom,
    /// Believes what was only written to be safe, and flushes nothing.
    pub(crate) control: bool,
    /// Every now and then all logs wait for a flush at once.
    pub(crate) together: bool,
    pub(crate) next_id: &'life mut RecordId,
}

impl Life<'_> {
    /// Asks something of one of the logs.
    pub(crate) fn step(&mut self) -> Result<(), Failure> {
        let (marker, control) = (self.marker, self.control);
        if self.together && self.random.chance(1, 2) {
            self.flush_all_at_once()?;
        }
        // A log that was opened again goes on in a segment that is not prepared.
        let opens = !self.together || self.random.chance(1, 8);
        let choice = self.random.below(if opens { 100 } else { 90 });
        let index = self.random.index(self.logs.len());
        let end = self.logs[index].timeline.end();
        let back = self.random.index(end.min(60) + 1);
        let ack = self.ack();
        let count = 1 + self.random.below(RECORDS_MAX);
        let log = &mut self.logs[index];
        match choice {
            0..70 => {
                let ids = *self.next_id..*self.next_id + count;
                *self.next_id = ids.end;
                log.append(ids, ack)?;
                if log.pending.len() > PENDING_MAX || self.random.chance(1, 4) {
                    log.wait(marker, control)?;
                }
            }
            70..80 => log.wait_all(marker, control)?,
            80..90 if !control => log.flush(marker)?,
            90..93 => log.truncate(end - back, marker, control)?,
            93..95 if !control => log.reopen(marker, control)?,
            _ => {}
        }
        self.logs.iter_mut().try_for_each(|log| log.note_flushed(marker))
    }

    fn flush_all_at_once(&mut self) -> Result<(), Failure> {
        for _ in 0..3 {
            for log in self.logs.iter_mut() {
                let ids = *self.next_id..*self.next_id + 1;
                *self.next_id = ids.end;
                log.append(ids, Ack::LEADER_FLUSHED)?;
            }
        }
        self.logs.iter_mut().try_for_each(|log| log.wait_all(self.marker, self.control))
    }

    fn ack(&mut self) -> Ack {
        match self.random.below(10) {
            _ if self.control => Ack::LEADER,
            0..4 => Ack::LEADER_FLUSHED,
            4..8 => Ack::LEADER,
            8 => Ack::ISR_FLUSHED,
            _ => Ack::NONE,
        }
    }

    /// Lets go of the logs before the engine ends, with appends under way.
    pub(crate) fn end(&mut self) {
        for log in self.logs.iter_mut() {
            log.pending.clear();
            log.log = None;
            log.ending = Some(self.marker.mark());
        }
    }

    /// Notes that everything is safe: the engine was closed in good order.
    pub(crate) fn closed(&mut self) {
        for log in self.logs.iter_mut() {
            log.written = log.timeline.end();
            log.timeline.promise(log.written, self.marker.mark());
        }
    }
}
