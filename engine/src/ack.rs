//! What an append waits for.

use highwater_segment::Offset;

use crate::error::{Error, ErrorKind, Result};

/// How many replicas must have written the append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// None: acked once it has an offset.
    None,
    /// The leader: survives the death of its process.
    Leader,
    /// Every in-sync replica.
    Isr,
}

/// How many replicas must have flushed the append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// None.
    None,
    /// The leader: survives a power cut, if it leads again.
    Leader,
    /// At least so many in-sync replicas, the leader among them.
    Count(u16),
    /// Every in-sync replica.
    Isr,
}

/// An ack policy: one choice for written, one for flushed. Policies mix freely in one log. On a
/// single node `ISR` is the same as `LEADER`, `ISR_FLUSHED` as `LEADER_FLUSHED`.
///
/// An append that waits for a flush makes its log due at once, whatever the log's
/// [`FlushPolicy`](crate::FlushPolicy): that one is for what nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Who must have written it.
    pub written: Written,
    /// Who must have flushed it.
    pub flushed: Flushed,
}

impl Ack {
    /// Acked once it has an offset; may be lost by anything (Kafka's acks=0).
    pub const NONE: Ack = Ack { written: Written::None, flushed: Flushed::None };
    /// Acked when the leader has written it (Kafka's acks=1).
    pub const LEADER: Ack = Ack { written: Written::Leader, flushed: Flushed::None };
    /// Acked when the leader has flushed it.
    pub const LEADER_FLUSHED: Ack = Ack { written: Written::Leader, flushed: Flushed::Leader };
    /// Acked when every in-sync replica has written it (Kafka's acks=all). Not durable.
    pub const ISR: Ack = Ack { written: Written::Isr, flushed: Flushed::None };
    /// Acked when every in-sync replica has flushed it.
    pub const ISR_FLUSHED: Ack = Ack { written: Written::Isr, flushed: Flushed::Isr };

    /// Returns `ISR` with a flush on at least `count` in-sync replicas, the leader among them.
    #[must_use]
    pub const fn isr_flushed_on(count: u16) -> Ack {
        Ack { written: Written::Isr, flushed: Flushed::Count(count) }
    }

    /// Returns whether an append with this policy waits for a flush, and so makes its log due.
    #[must_use]
    pub fn waits_for_flush(self) -> bool {
        match self.flushed {
            Flushed::None | Flushed::Count(0) => false,
            Flushed::Leader | Flushed::Count(_) | Flushed::Isr => true,
        }
    }

    /// Returns whether an append that ends at `end` is acked.
    #[must_use]
    pub fn is_met(self, end: Offset, progress: &Progress) -> bool {
        let written = match self.written {
            Written::None => !self.waits_for_flush() || end <= progress.leader_written,
            Written::Leader => end <= progress.leader_written,
            Written::Isr => end <= progress.leader_written && end <= progress.high_watermark,
        };
        let flushed = match self.flushed {
            Flushed::None | Flushed::Count(0) => true,
            Flushed::Leader => end <= progress.leader_flushed,
            // Of a single replica the leader is the one that counts.
            Flushed::Count(_) => end <= progress.leader_flushed,
            Flushed::Isr => end <= progress.durable_watermark,
        };
        written && flushed
    }

    /// Checks that `replicas` in-sync replicas can meet this.
    pub(crate) fn check(self, replicas: u16, log: &str) -> Result<()> {
        match self.flushed {
            Flushed::Count(count) if count > replicas => {
                Err(Error::new(ErrorKind::NotEnoughReplicas, "append to log", log)
                    .detail(format!("a flush on {count} replicas is asked for, {replicas} in sync"))
                    .remedy("ask for fewer, or wait until more replicas are in sync"))
            }
            _ => Ok(()),
        }
    }
}

/// What the ack condition looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The leader's written mark.
    pub leader_written: Offset,
    /// The leader's flushed mark.
    pub leader_flushed: Offset,
    /// The lowest written mark of the in-sync replicas.
    pub high_watermark: Offset,
    /// The lowest flushed mark of the in-sync replicas.
    pub durable_watermark: Offset,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_waits_for_exactly_its_marks() {
        // (policy, needs written, needs flushed) for one replica that is its own ISR.
        let table = [
            (Ack::NONE, false, false),
            (Ack::LEADER, true, false),
            (Ack::ISR, true, false),
            (Ack::LEADER_FLUSHED, true, true),
            (Ack::ISR_FLUSHED, true, true),
            (Ack::isr_flushed_on(1), true, true),
            (Ack::isr_flushed_on(0), true, false),
            (Ack { written: Written::None, flushed: Flushed::Leader }, true, true),
        ];
        for (ack, needs_written, needs_flushed) in table {
            for (written, flushed) in [(9, 9), (10, 9), (10, 10)] {
                let progress = Progress {
                    leader_written: Offset(written),
                    leader_flushed: Offset(flushed),
                    high_watermark: Offset(written),
                    durable_watermark: Offset(flushed),
                };
                let expected =
                    (!needs_written || written >= 10) && (!needs_flushed || flushed >= 10);
                assert_eq!(
                    ack.is_met(Offset(10), &progress),
                    expected,
                    "{ack:?} {written} {flushed}"
                );
            }
        }
    }

    #[test]
    fn a_count_above_the_replicas_in_sync_is_refused() {
        assert!(Ack::isr_flushed_on(1).check(1, "l").is_ok());
        let error = Ack::isr_flushed_on(2).check(1, "l").expect_err("one replica");
        assert_eq!(error.kind(), &ErrorKind::NotEnoughReplicas);
    }
}
