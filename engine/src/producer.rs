//! Numbering the batches of an idempotent producer.

use highwater_segment::producers::ProducerState;
use highwater_segment::{ProducerEpoch, ProducerId, ProducerStamp, RecordBatch, Sequence};

use crate::error::{Error, ErrorKind, Result};

/// Numbers the batches of one idempotent producer of one log, so that each is appended once however
/// often it is sent.
///
/// The rule is short: number a batch once, keep it until it is acked, and when its outcome is
/// unknown - a timeout, a poisoned log, a crash - send *the same numbered batch* again, before any
/// later one. What the log has is acked where it is; what it lacks is appended. At most
/// [`WINDOW_BATCHES`](highwater_segment::producers::WINDOW_BATCHES) batches that are not acked may
/// be on their way, or a repeated one can be older than the log remembers.
///
/// A producer's id is the caller's to give: any number from 0 that no other producer of this log
/// uses. Two that share one take over from each other by [`next_epoch`](Self::next_epoch): the
/// older one is [`Fenced`](ErrorKind::Fenced) then.
///
/// ```
/// use highwater::{Ack, Engine, LogOptions, Options, ProducerId, RecordBatch};
///
/// # let directory = std::env::temp_dir().join(format!("highwater-once-{}", std::process::id()));
/// let engine = Engine::open(Options::at(&directory))?;
/// let log = engine.log("orders", LogOptions::default())?;
/// let mut producer = log.producer(ProducerId(7))?;
/// let batch = producer.number(RecordBatch::builder().value(b"once").build()?);
/// let first = log.append(batch.clone(), Ack::LEADER)?.wait()?;
/// let again = log.append(batch, Ack::LEADER_FLUSHED)?.wait()?;
/// assert_eq!(again.base_offset, first.base_offset);
/// assert!(again.marks.flushed >= first.end_offset());
/// assert_eq!(log.marks().log_end, first.end_offset());
/// # engine.close()?;
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    id: ProducerId,
    epoch: ProducerEpoch,
    next: Sequence,
}

impl Producer {
    /// Returns a producer that begins an epoch: its first record has the number 0. To go on where
    /// a log is use [`Log::producer`](crate::Log::producer).
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: a negative id or epoch.
    pub fn new(id: ProducerId, epoch: ProducerEpoch) -> Result<Producer> {
        if id.0 < 0 || epoch.0 < 0 {
            return Err(refused(id).detail(format!("id {id}, epoch {epoch}: none may be negative")));
        }
        Ok(Producer { id, epoch, next: Sequence(0) })
    }

    /// Returns the producer that goes on where `known` ends.
    pub(crate) fn resume(id: ProducerId, known: Option<&ProducerState>) -> Result<Producer> {
        let producer = Producer::new(id, known.map_or(ProducerEpoch(0), |known| known.epoch))?;
        Ok(Producer { next: known.map_or(Sequence(0), ProducerState::next_sequence), ..producer })
    }

    /// Returns its id.
    #[must_use]
    pub fn id(&self) -> ProducerId {
        self.id
    }

    /// Returns its epoch.
    #[must_use]
    pub fn epoch(&self) -> ProducerEpoch {
        self.epoch
    }

    /// Returns the number the next record gets: as many records were numbered in this epoch,
    /// modulo 2^31.
    #[must_use]
    pub fn next_sequence(&self) -> Sequence {
        self.next
    }

    /// Gives a batch the next numbers, and counts on. Send it until it is acked: the next batch
    /// is refused as long as the log lacks this one.
    ///
    /// # Panics
    /// Never: the numbers were checked when the producer was made.
    #[must_use = "the numbers are used up"]
    pub fn number(&mut self, batch: RecordBatch) -> RecordBatch {
        let records = batch.record_count();
        let stamp = ProducerStamp { id: self.id, epoch: self.epoch, base_sequence: self.next };
        self.next = self.next.plus(records);
        match batch.with_producer(stamp) {
            Ok(batch) => batch,
            Err(error) => panic!("its numbers are valid: {error}"),
        }
    }

    /// Begins the next epoch: the numbers start at 0, and whoever still appends with an older epoch
    /// is fenced as soon as the first batch of this one is appended. What was not acked in the old
    /// epoch can no longer be sent again.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: all epochs of this id are used up.
    pub fn next_epoch(&mut self) -> Result<()> {
        let Some(epoch) = self.epoch.0.checked_add(1) else {
            return Err(refused(self.id)
                .detail("it has had all its epochs")
                .remedy("go on with another id"));
        };
        *self = Producer { epoch: ProducerEpoch(epoch), next: Sequence(0), ..*self };
        Ok(())
    }
}

fn refused(id: ProducerId) -> Error {
    Error::new(ErrorKind::Config, "use producer", &id.to_string())
}
