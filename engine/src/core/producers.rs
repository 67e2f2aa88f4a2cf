//! Idempotent producers: telling what is to be appended from what the log has, at the moment
//! offsets are assigned, so that what is in flight counts.
//!
//! A duplicate is not appended again. Its receipt carries the original's place and waits for *its
//! own* policy at the original's end: one that asks for a flush makes the log due for it.

use std::collections::VecDeque;

use highwater_segment::producers::{
    ProducerCase, ProducerState, ProducerTable, SeenBatch, Verdict,
};
use highwater_segment::{BatchHeader, ProducerId, ProducerStamp, RecordBatch};

use super::waiters::{AckContext, Waiter};
use super::{LogCore, Pending, Turn, queued_bytes};
use crate::error::{Error, ErrorKind};
use crate::producers::{KnownProducers, SnapshotFile};

/// What a log knows of its producers.
#[derive(Debug)]
pub(super) struct Producers {
    pub(super) table: ProducerTable,
    /// No producer was seen since the table was empty.
    pub(super) untouched: bool,
    /// The snapshots there are, by rising offsets.
    pub(super) files: VecDeque<SnapshotFile>,
    /// The one that is on its way.
    pub(super) writing: Option<SnapshotFile>,
    /// Reused: who waits for an original and has not joined the others yet.
    joining: Vec<Waiter>,
}

impl Producers {
    pub(super) fn new(known: KnownProducers) -> Self {
        Producers {
            untouched: known.table.is_empty(),
            table: known.table,
            files: known.files.into(),
            writing: None,
            joining: Vec::new(),
        }
    }

    /// Notes a batch that has just got its offset.
    pub(super) fn note(&mut self, batch: &RecordBatch, header: &BatchHeader) {
        self.table.note_time(header.max_timestamp_ms);
        if let Some(numbered) = batch.numbered() {
            self.table.note(&numbered, header.base_offset, header.leader_epoch);
            self.untouched = false;
        }
    }

    /// Returns the table of a log that leaves its shard.
    pub(super) fn take_table(&mut self) -> ProducerTable {
        std::mem::take(&mut self.table)
    }
}

impl LogCore {
    /// Answers the numbered batches at the head of the queue that are not to be appended. They need
    /// neither a group nor space. Returns whether there were any.
    pub(super) fn answer_known(&mut self, turn: &mut Turn<'_>) -> bool {
        let mut any = false;
        while !self.drain_is_over()
            && !self.waiters.is_full()
            && self.refuse_or_note_known(1, turn) > 0
        {
            any = true;
        }
        if any {
            let context = self.ack_context(turn.now);
            self.join_known(&context);
        }
        any
    }

    /// Takes up to `most` numbered batches from the head of the queue that are not to be appended:
    /// refuses them, or notes whom to join to the others. Returns how many.
    pub(super) fn refuse_or_note_known(&mut self, most: usize, turn: &mut Turn<'_>) -> usize {
        for taken in 0..most {
            let Some((stamp, case, verdict)) = self.judge_first() else { return taken };
            if verdict == Verdict::Append {
                return taken;
            }
            let Some(pending) = self.pending.pop_front() else { return taken };
            self.count_drained();
            match verdict {
                Verdict::Duplicate(original) => self.note_duplicate(pending, &original, turn),
                _ => self.refuse(pending, self.refusal(&stamp, case), turn),
            }
        }
        most
    }

    fn judge_first(&self) -> Option<(ProducerStamp, ProducerCase, Verdict)> {
        let numbered = self.pending.front()?.batch.as_ref()?.numbered()?;
        let expiry_ms = self.settings.producer_expiry_ms();
        let (case, verdict) = self.producers.table.judge(&numbered, expiry_ms);
        Some((numbered.stamp, case, verdict))
    }

    fn note_duplicate(&mut self, pending: Pending, original: &SeenBatch, turn: &mut Turn<'_>) {
        turn.released.add(self.number, queued_bytes(pending.batch.as_ref()));
        self.counters.log.duplicates += 1;
        self.producers.joining.push(Waiter {
            base: original.base_offset,
            records: original.records,
            end: original.base_offset.plus(original.records),
            epoch: original.leader_epoch,
            ack: pending.ack,
            cell: pending.cell,
            assigned_at: turn.now,
            submitted_at: turn.now,
            written_at: turn.now,
            acked: false,
            bytes: 0,
        });
    }

    /// Lets those who wait for an original wait among the others.
    pub(super) fn join_known(&mut self, context: &AckContext) {
        for waiter in self.producers.joining.drain(..) {
            self.waiters.join(waiter, context, &mut self.counters);
        }
    }

    fn refusal(&self, stamp: &ProducerStamp, case: ProducerCase) -> Error {
        let ProducerStamp { id, epoch, base_sequence } = *stamp;
        let known = self.producers.table.get(id, self.settings.producer_expiry_ms());
        let expected = known.map_or_else(
            || "the log does not know this producer: sequence 0 is expected".to_owned(),
            |known| {
                let (epoch, next) = (known.epoch, known.next_sequence());
                format!("the log is at epoch {epoch}, sequence {next}")
            },
        );
        let (kind, what, remedy) = match case {
            ProducerCase::P3Fenced => (
                ErrorKind::Fenced,
                "a newer epoch took over",
                "stop; or take over again with a higher epoch, from sequence 0",
            ),
            ProducerCase::P2Unknown => (
                ErrorKind::OutOfOrderSequence,
                "never seen, expired, or cut off",
                "begin a new epoch at sequence 0",
            ),
            ProducerCase::P5EpochNotAtZero => (
                ErrorKind::OutOfOrderSequence,
                "a new epoch starts at sequence 0",
                "number this epoch's batches from 0",
            ),
            ProducerCase::P8Differs => (
                ErrorKind::OutOfOrderSequence,
                "these numbers were appended with other records or borders",
                "send the very same batch again; let no two producers share an id and epoch",
            ),
            ProducerCase::P9BehindWindow => (
                ErrorKind::OutOfOrderSequence,
                "a duplicate older than the producer's newest batches: it was appended before, \
                 where is no longer known",
                "do not send it again",
            ),
            _ => (
                ErrorKind::OutOfOrderSequence,
                "what comes before is missing",
                "send the missing batches first, in their order",
            ),
        };
        let label = case.label();
        Error::new(kind, "append to log", &self.shared.name)
            .detail(format!(
                "producer {id}, epoch {epoch}, sequence {base_sequence}: {what}; {expected} (case \
                 {label})"
            ))
            .remedy(remedy)
    }

    /// Returns what the log knows of a producer, with what is in flight.
    pub(crate) fn producer(&self, id: ProducerId) -> Option<ProducerState> {
        self.producers.table.get(id, self.settings.producer_expiry_ms()).cloned()
    }
}
