//! D1: at the instant of an ack its condition holds, by the marks that stand in it.
//!
//! Verified: the marks of the ack against its policy. Not verified here: that those marks are true
//! (power cuts on copies of the disk do that, see `storage::probe`).

use highwater::{Ack, Appended, Flushed, Written};

use crate::failure::{Check, ensure};

/// Checks the ack of a call, by its number and policy, whose batch ends at `end`.
pub(crate) fn honest((attempt, ack): (u64, Ack), end: u64, appended: &Appended) -> Check {
    let marks = &appended.marks;
    let written = match ack.written {
        Written::None => true,
        Written::Leader => end <= marks.written.0,
        Written::Isr => end <= marks.written.0 && end <= marks.high_watermark.0,
    };
    let flushed = match ack.flushed {
        Flushed::None | Flushed::Count(0) => true,
        Flushed::Leader | Flushed::Count(_) => end <= marks.flushed.0,
        Flushed::Isr => end <= marks.flushed.0 && end <= marks.durable_watermark.0,
    };
    ensure(written && flushed && end <= marks.log_end.0, "D1", || {
        format!("attempt {attempt} with {ack:?} ends at {end} and was acked at {marks:?}")
    })
}
