//! D1: at the instant of an ack its condition holds, by the marks that stand in it.
//!
//! Verified: the marks of the ack against its policy. Not verified here: that those marks are true
//! (power cuts on copies of the disk do that, see `storage::probe`).

use highwater::{Appended, Flushed, Written};

use crate::failure::{Check, ensure};
use crate::oracle::Entry;

pub(crate) fn honest(entry: &Entry, appended: &Appended) -> Check {
    let (end, marks) = (entry.end(), &appended.marks);
    let written = match entry.ack.written {
        Written::None => true,
        Written::Leader => end <= marks.written.0,
        Written::Isr => end <= marks.written.0 && end <= marks.high_watermark.0,
    };
    let flushed = match entry.ack.flushed {
        Flushed::None | Flushed::Count(0) => true,
        Flushed::Leader | Flushed::Count(_) => end <= marks.flushed.0,
        Flushed::Isr => end <= marks.flushed.0 && end <= marks.durable_watermark.0,
    };
    ensure(written && flushed && end <= marks.log_end.0, "D1", || {
        format!(
            "attempt {} with {:?} ends at {end} and was acked at {marks:?}",
            entry.attempt, entry.ack
        )
    })
}
