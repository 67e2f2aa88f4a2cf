//! Idempotent producers of a seed: what their next call is. Most go on, many repeat themselves,
//! some are wrong.

use std::collections::VecDeque;
use std::rc::Rc;

use highwater::{Ack, ProducerEpoch, ProducerId, ProducerStamp, RecordBatch, Sequence};
use highwater_io::random::SeededRandom;

use super::life::Life;
use super::world::World;
use crate::batches::make_batch;
use crate::failure::{Check, ensure};
use crate::oracle::LogModel;

/// Few, so that each does much.
const IDS: [ProducerId; 3] = [ProducerId(0), ProducerId(7), ProducerId(i64::MAX)];
/// Calls remembered, to be made again: some more than a log's window.
const SENT_MAX: usize = 24;

/// The producers of one log.
#[derive(Debug, Default)]
pub(crate) struct Senders {
    sent: VecDeque<Rc<RecordBatch>>,
}

impl Senders {
    /// Returns one of the newest calls.
    fn some_sent(&self, random: &mut SeededRandom) -> Option<Rc<RecordBatch>> {
        // Mostly of the last few.
        let back = random.index(SENT_MAX).min(random.index(SENT_MAX)).min(random.index(SENT_MAX));
        self.sent.iter().rev().nth(back).map(Rc::clone)
    }

    fn remember(&mut self, batch: &Rc<RecordBatch>) {
        if self.sent.len() == SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(Rc::clone(batch));
    }
}

/// What a call is to be.
enum Kind {
    /// What comes next; what was sent with these numbers before, if that was lost.
    Next,
    /// One of the newest calls again.
    Again,
    Numbers(ProducerStamp),
}

impl World {
    /// Returns the next numbered batch for a log.
    pub(crate) fn numbered_batch(&mut self, index: usize, attempt: u64) -> Rc<RecordBatch> {
        let id = IDS[self.numbers.index(IDS.len())];
        let next = self.logs[index].next_stamp(id);
        let kind = some_kind(&mut self.numbers, &self.logs[index], &self.senders[index], next);
        let senders = &mut self.senders[index];
        let batch = match kind {
            Kind::Next => {
                let same = |batch: &&Rc<RecordBatch>| batch.producer() == Some(next);
                senders.sent.iter().rev().find(same).map(Rc::clone)
            }
            Kind::Again => senders.some_sent(&mut self.numbers),
            Kind::Numbers(_) => None,
        };
        let stamp = if let Kind::Numbers(stamp) = kind { stamp } else { next };
        let batch = batch.unwrap_or_else(|| {
            let made = make_batch(&mut self.numbers, attempt, self.plan.sizes);
            let numbered = made.with_producer(stamp);
            Rc::new(numbered.unwrap_or_else(|error| panic!("the numbers are valid: {error}")))
        });
        senders.remember(&batch);
        batch
    }

    /// As a client would after a crash: sends what it sent last again, waiting for the flush.
    pub(crate) fn send_again(&mut self, life: &mut Life, index: usize) -> Check {
        let Some(handle) = life.handles[index] else { return Ok(()) };
        let last: Vec<_> = self.senders[index].sent.iter().rev().take(4).map(Rc::clone).collect();
        for batch in last.into_iter().rev() {
            self.attempts += 1;
            let (attempt, ack) = (self.attempts, Ack::LEADER_FLUSHED);
            self.note(|| format!("append {attempt} to log-{index} again: {:?}", batch.producer()));
            let ticket = match life.engine.append(handle, RecordBatch::clone(&batch), ack) {
                Ok(ticket) => ticket,
                Err(error) => return ensure(false, "L5", || format!("{error}")),
            };
            self.logs[index].appended(attempt, batch, ack, ticket.clone());
            drop(life.engine.run_until(&ticket));
            // Whatever it is: it is told, and not left waiting.
            ensure(ticket.acked().is_some(), "L5", || format!("attempt {attempt} hears nothing"))?;
            self.look(life)?;
        }
        Ok(())
    }
}

fn some_kind(
    random: &mut SeededRandom,
    log: &LogModel,
    senders: &Senders,
    next: ProducerStamp,
) -> Kind {
    let ProducerStamp { id, epoch, base_sequence } = next;
    let further = i32::try_from(1 + random.below(20)).unwrap_or(1);
    match random.below(32) {
        0..18 => Kind::Next,
        18..27 => Kind::Again,
        27 => {
            let base_sequence = Sequence(base_sequence.0.saturating_add(further));
            Kind::Numbers(ProducerStamp { base_sequence, ..next })
        }
        28 => {
            let base_sequence = Sequence(base_sequence.0.saturating_sub(further).max(0));
            Kind::Numbers(ProducerStamp { base_sequence, ..next })
        }
        29 => {
            let epoch = ProducerEpoch(epoch.0.saturating_sub(1).max(0));
            Kind::Numbers(ProducerStamp { epoch, ..next })
        }
        30 => {
            let base_sequence = if random.chance(1, 4) { base_sequence } else { Sequence(0) };
            let epoch = ProducerEpoch(epoch.0.saturating_add(1));
            Kind::Numbers(ProducerStamp { id, epoch, base_sequence })
        }
        // The numbers of a newest batch with other records.
        _ => {
            let sent = senders.some_sent(random).and_then(|batch| batch.producer());
            Kind::Numbers(sent.unwrap_or_else(|| log.next_stamp(id)))
        }
    }
}
