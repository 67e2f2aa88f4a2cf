//! What the order of the calls says of a numbered batch, for the oracle.
//!
//! Nothing here looks at what the engine knows: the appends that are, or may be, in the log say
//! which number comes next and what is a duplicate. A call is judged when it is made, and again
//! when an append before it turns out to have been refused.
//!
//! Verified: that no numbered batch is twice in the log and none is taken for another (by what is
//! read, see `checks::reads`), that a duplicate's ack has the place and the epoch of its original
//! and keeps its own policy, and that exactly the batches that do not fit are refused, with their
//! kind. Not verified: expiry (simulated lives are short), and more producers than a log keeps.

use std::collections::BTreeSet;
use std::rc::Rc;

use highwater::{
    Ack, Appended, Error, LocalEngine, LocalLog, Outcome, ProducerEpoch, ProducerId, ProducerStamp,
    RecordBatch, Sequence, Ticket,
};

use highwater_io::sim::SimPlatform;

use crate::checks::acks;
use crate::coverage::Coverage;
use crate::failure::{Check, ensure};
use crate::oracle::{Entry, LogModel};

/// The newest batches of a producer that the log knows.
const WINDOW: usize = 5;

/// What is to become of a numbered batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Append,
    /// It is the entry at this place again.
    Duplicate(usize),
    /// Refused with the kind of this name.
    Refused(&'static str),
}

/// A call that does not append.
#[derive(Clone, Debug)]
pub(crate) struct Repeat {
    attempt: u64,
    batch: Rc<RecordBatch>,
    ack: Ack,
    ticket: Ticket,
}

/// Returns what comes of `batch` behind the entries `before`.
pub(crate) fn expected(before: &[Entry], batch: &RecordBatch) -> Expected {
    let Some(stamp) = batch.producer() else { return Expected::Append };
    let of_this = |entry: &Entry| entry.batch.producer().filter(|other| other.id == stamp.id);
    let newest = before.iter().rev().find_map(of_this);
    let begins = stamp.base_sequence.0 == 0;
    match newest {
        None if begins => return Expected::Append,
        None => return Expected::Refused("OutOfOrderSequence"),
        Some(newest) if stamp.epoch < newest.epoch => return Expected::Refused("Fenced"),
        Some(newest) if stamp.epoch > newest.epoch && begins => return Expected::Append,
        Some(newest) if stamp.epoch > newest.epoch => {
            return Expected::Refused("OutOfOrderSequence");
        }
        Some(_) => {}
    }
    let same_epoch = |entry: &Entry| of_this(entry).is_some_and(|o| o.epoch == stamp.epoch);
    let places = (0..before.len()).rev().filter(|place| same_epoch(&before[*place]));
    for (age, place) in places.take(WINDOW).enumerate() {
        let original = &before[place].batch;
        if age == 0 && next_of(original) == Some(stamp.base_sequence) {
            return Expected::Append;
        }
        if original.producer() == Some(stamp)
            && original.record_count() == batch.record_count()
            && original.records_bytes() == batch.records_bytes()
        {
            return Expected::Duplicate(place);
        }
    }
    Expected::Refused("OutOfOrderSequence")
}

fn next_of(batch: &RecordBatch) -> Option<Sequence> {
    let first = u32::try_from(batch.producer()?.base_sequence.0).ok()?;
    let next = first.wrapping_add(batch.record_count()) & 0x7fff_ffff;
    i32::try_from(next).ok().map(Sequence)
}

/// Checks that the engine knows of every producer what the log's batches say. Nothing is on its
/// way.
pub(crate) fn known(engine: &LocalEngine<SimPlatform>, log: LocalLog, model: &LogModel) -> Check {
    let stamps = model.entries.iter().filter_map(|entry| entry.batch.producer());
    let ids: BTreeSet<_> = stamps.map(|stamp| stamp.id).collect();
    for id in ids {
        let known = engine.producer(log, id).map(|known| (known.epoch(), known.next_sequence()));
        let next = model.next_stamp(id);
        ensure(known == Ok((next.epoch, next.base_sequence)), "idempotence", || {
            format!("{}: producer {id} goes on with {next:?}, but {known:?} is known", model.name)
        })?;
    }
    Ok(())
}

impl LogModel {
    /// Returns the numbers with which a producer's next batch is appended.
    pub(crate) fn next_stamp(&self, id: ProducerId) -> ProducerStamp {
        let of_this = |entry: &&Entry| entry.batch.producer().is_some_and(|other| other.id == id);
        let newest = self.entries.iter().rev().find(of_this);
        let epoch = newest.and_then(|entry| entry.batch.producer()).map(|stamp| stamp.epoch);
        let next = newest.and_then(|entry| next_of(&entry.batch));
        let epoch = epoch.unwrap_or(ProducerEpoch(0));
        ProducerStamp { id, epoch, base_sequence: next.unwrap_or(Sequence(0)) }
    }

    /// Notes a call of which the order of the calls says that it appends nothing.
    pub(crate) fn repeated(
        &mut self,
        attempt: u64,
        batch: Rc<RecordBatch>,
        ack: Ack,
        ticket: Ticket,
    ) {
        self.repeats.push(Repeat { attempt, batch, ack, ticket });
    }

    /// Checks that an append with a number may be refused as it was: `before` it is in the log.
    pub(crate) fn check_refusal(
        before: &[Entry],
        batch: &RecordBatch,
        error: &Error,
        coverage: &mut Coverage,
    ) -> Check {
        let kind = error.kind().name();
        if !["OutOfOrderSequence", "Fenced"].contains(&kind) {
            return Ok(());
        }
        coverage.hit(if kind == "Fenced" { "producer fenced" } else { "sequence refused" });
        let expected = expected(before, batch);
        ensure(expected == Expected::Refused(kind), "idempotence", || {
            format!(
                "{:?} is {expected:?} by the order of the calls, but: {error}",
                batch.producer()
            )
        })
    }

    /// After an append was refused: what repeated it appends instead.
    pub(crate) fn promote_repeats(&mut self) {
        for repeat in std::mem::take(&mut self.repeats) {
            let at = self.place_of(repeat.attempt);
            if expected(&self.entries[..at], &repeat.batch) == Expected::Append {
                let Repeat { attempt, batch, ack, ticket } = repeat;
                self.insert(at, (attempt, batch, ack, ticket));
            } else {
                self.repeats.push(repeat);
            }
        }
    }

    fn place_of(&self, attempt: u64) -> usize {
        self.entries.partition_point(|entry| entry.attempt < attempt)
    }

    /// Looks at the tickets of calls that append nothing.
    pub(crate) fn settle_repeats(&mut self, coverage: &mut Coverage) -> Check {
        for repeat in std::mem::take(&mut self.repeats) {
            let before = self.place_of(repeat.attempt);
            match repeat.ticket.acked() {
                None => self.repeats.push(repeat),
                Some(Err(error)) if error.outcome() == Outcome::NotAppended => {
                    let before = &self.entries[..before];
                    Self::check_refusal(before, &repeat.batch, &error, coverage)?;
                }
                Some(Err(_)) => {}
                Some(Ok(appended)) => {
                    let expected = expected(&self.entries[..before], &repeat.batch);
                    let Expected::Duplicate(place) = expected else {
                        return ensure(false, "idempotence", || {
                            let stamp = repeat.batch.producer();
                            format!("{stamp:?} was acked at {appended:?}, but is {expected:?}")
                        });
                    };
                    self.check_duplicate(&repeat, place, &appended)?;
                    coverage.hit("duplicate acked");
                }
            }
        }
        Ok(())
    }

    fn check_duplicate(&mut self, repeat: &Repeat, place: usize, appended: &Appended) -> Check {
        let original = &self.entries[place];
        let found = (appended.base_offset.0, appended.end_offset().0, appended.epoch.0);
        let wanted = (original.base, original.end(), original.epoch);
        ensure(found == wanted, "idempotence", || {
            format!(
                "attempt {} repeats {} at {wanted:?}, but was acked at {found:?}",
                repeat.attempt, original.attempt
            )
        })?;
        acks::honest((repeat.attempt, repeat.ack), original.end(), appended)?;
        self.written_floor = self.written_floor.max(appended.marks.written.0);
        self.durable_floor = self.durable_floor.max(appended.marks.flushed.0);
        Ok(())
    }
}
