//! Keeping `log.meta` while the log is open: the flushed mark lazily, the poison note at once.
//!
//! What must be in both slots before it is used - open state, generation, epoch, clean mark - is
//! written by [`crate::opening`] and [`crate::maintenance`] while the log is detached. Here one
//! slot is written at a time, each durable before the other is touched.

use std::time::Duration;

use highwater_io::{AlignedBuffer, FileId, IoError, Monotonic, Operation, Output};
use highwater_segment::meta::{
    LogMeta, LogState, Mark, ProducersMark, SLOT_BYTES, SLOT_COUNT, slot_of,
};
use highwater_segment::{Generation, Offset};

use super::{Flight, LogCore, Turn};
use crate::convert::to_u64;

/// The mark is written when so many bytes are flushed beyond it.
const CHECKPOINT_BYTES: u64 = 16 << 20;
/// The mark is written when nothing was flushed for so long.
const CHECKPOINT_IDLE: Duration = Duration::from_millis(100);

/// The state of `log.meta` of an open log.
#[derive(Debug)]
pub(super) struct Keeper {
    file: Option<FileId>,
    needs_file: bool,
    /// The newest snapshot that is on stable media.
    durable: LogMeta,
    /// The snapshot whose write is in flight.
    in_flight: Option<LogMeta>,
    durable_bytes: u64,
    in_flight_bytes: u64,
    last_flush: Monotonic,
    /// How many slots still have to say that the log is poisoned.
    poison_notes: usize,
    /// Where the log shall start.
    log_start_wanted: Offset,
    /// What each slot on stable media says: where the log starts, and in which segment the mark
    /// lies. It counts once both do.
    slots: [(Offset, Offset); SLOT_COUNT],
}

impl Keeper {
    pub(super) fn new(meta: LogMeta) -> Self {
        Keeper {
            log_start_wanted: meta.log_start,
            // Opening has written both.
            slots: [(meta.log_start, meta.flushed.segment); SLOT_COUNT],
            file: None,
            needs_file: true,
            durable: meta,
            in_flight: None,
            durable_bytes: 0,
            in_flight_bytes: 0,
            last_flush: Monotonic(0),
            poison_notes: 0,
        }
    }

    pub(super) fn needs_file(&self) -> bool {
        self.needs_file
    }

    pub(super) fn set_file(&mut self, file: FileId) {
        self.file = Some(file);
        self.needs_file = false;
    }

    pub(super) fn give_up_file(&mut self) {
        self.needs_file = false;
    }

    pub(super) fn take_file(&mut self) -> Option<FileId> {
        self.file.take()
    }

    pub(super) fn snapshot(&self) -> LogMeta {
        self.durable.clone()
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.durable.segment_bytes
    }

    pub(super) fn never_rewrite_flushed(&self) -> bool {
        self.durable.never_rewrite_flushed
    }

    pub(super) fn generation(&self) -> Generation {
        self.durable.generation
    }

    /// Asks for the log's start to be raised in both slots. The caller has seen that everything
    /// below is flushed.
    pub(super) fn want_log_start(&mut self, to: Offset) {
        self.log_start_wanted = self.log_start_wanted.max(to);
    }

    /// Returns the log's start that both slots hold on stable media.
    pub(super) fn durable_log_start(&self) -> Offset {
        self.slots.iter().map(|(log_start, _)| *log_start).min().unwrap_or_default()
    }

    /// Returns the segment that holds the mark of the slot that is further behind: recovery may
    /// begin there, so it stays, even if the log starts behind it.
    pub(super) fn oldest_mark_segment(&self) -> Offset {
        self.slots.iter().map(|(_, segment)| *segment).min().unwrap_or_default()
    }

    /// Returns up to where `log.meta` says that no batch is numbered.
    pub(super) fn no_producers_below(&self) -> Offset {
        let ProducersMark { offset, count, .. } = self.durable.producers;
        if count == 0 { offset } else { Offset(0) }
    }

    fn log_start_is_due(&self) -> bool {
        self.durable_log_start() < self.log_start_wanted
    }

    /// Returns the mark that is on stable media.
    pub(super) fn durable_mark(&self) -> Mark {
        self.durable.flushed
    }

    pub(super) fn flushed_moved(&mut self, now: Monotonic) {
        self.last_flush = now;
    }

    pub(super) fn note_poison(&mut self) {
        self.poison_notes = 2;
    }

    pub(super) fn poison_note_pending(&self) -> bool {
        self.poison_notes > 0 && self.file.is_some()
    }
}

impl LogCore {
    /// Writes a slot if one is due and none is in flight.
    pub(super) fn pump_meta(&mut self, turn: &mut Turn<'_>) {
        let Some(file) = self.keeper.file else { return };
        if self.keeper.in_flight.is_some() {
            return;
        }
        let notes_poison = self.keeper.poison_notes > 0;
        let due = self.checkpoint_is_due(turn.now) || self.keeper.log_start_is_due();
        if !notes_poison && (self.failure.is_some() || !due) {
            return;
        }
        let mut next = self.keeper.durable.clone();
        if notes_poison {
            next.state = LogState::Poisoned;
        }
        next.sequence += 1;
        next.flushed = self.flushed.mark;
        next.log_start = self.keeper.log_start_wanted;
        next.high_watermark = self.written.mark.offset;
        next.durable_watermark = self.flushed.mark.offset;
        next.producers = self.producers_mark(next.producers);
        self.keeper.in_flight_bytes = self.flushed.bytes;
        let mut buffer = AlignedBuffer::zeroed(SLOT_BYTES);
        buffer.copy_from_slice(&next.encode());
        let position = to_u64(slot_of(next.sequence) * SLOT_BYTES);
        self.keeper.in_flight = Some(next);
        let operation =
            Operation::Write { file, position, buffer, length: SLOT_BYTES, dsync: true };
        self.submit(Flight::MetaSlot, operation, turn);
    }

    fn checkpoint_is_due(&self, now: Monotonic) -> bool {
        let behind = self.flushed.bytes - self.keeper.durable_bytes;
        if self.flushed.mark == self.keeper.durable.flushed {
            return false;
        }
        behind >= CHECKPOINT_BYTES
            || self.roll_wanted()
            || self.meta_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Returns when the mark is to be written because nothing else was flushed.
    pub(super) fn meta_deadline(&self) -> Option<Monotonic> {
        let behind = self.flushed.mark != self.keeper.durable.flushed;
        let idle = behind && self.keeper.in_flight.is_none() && self.keeper.file.is_some();
        idle.then(|| self.keeper.last_flush.plus(CHECKPOINT_IDLE))
    }

    pub(super) fn meta_written(&mut self, result: Result<Output, IoError>, turn: &mut Turn<'_>) {
        let Some(written) = self.keeper.in_flight.take() else {
            panic!("a slot's write completes once")
        };
        let noted = written.state == LogState::Poisoned;
        match result {
            Ok(_) => {
                assert!(written.sequence > self.keeper.durable.sequence, "the sequence rises");
                let (log_start, segment) = (written.log_start, written.flushed.segment);
                self.keeper.slots[slot_of(written.sequence)] = (log_start, segment);
                self.keeper.durable = written;
                self.keeper.durable_bytes = self.keeper.in_flight_bytes;
                self.keeper.poison_notes -= usize::from(noted);
            }
            // The note is made as best it can be: a disk that refuses it too has said enough.
            Err(_) if noted => self.keeper.poison_notes = 0,
            Err(error) => self.poison(error, turn),
        }
    }

    /// Returns whether the mark on stable media has reached `offset`: recovery then scans no
    /// segment before the one that starts there.
    pub(super) fn mark_reached(&self, offset: Offset) -> bool {
        self.keeper.durable_mark().offset >= offset
    }
}
