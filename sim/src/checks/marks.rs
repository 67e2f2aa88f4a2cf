//! The chain of marks, and that none goes back within a generation.
//!
//! Verified: `log_start <= flushed <= written <= log_end`, the watermarks of a single replica, and
//! monotony between two looks. Not verified: what happened between the looks.

use highwater::Marks;

use crate::failure::{Check, ensure};

pub(crate) fn check(before: Option<&Marks>, now: &Marks) -> Check {
    let chain = now.log_start <= now.flushed
        && now.flushed <= now.written
        && now.written <= now.log_end
        && now.high_watermark == now.written
        && now.durable_watermark == now.flushed;
    ensure(chain, "marks chain", || format!("{now:?}"))?;
    let Some(before) = before else { return Ok(()) };
    let monotone = before.log_start <= now.log_start
        && before.flushed <= now.flushed
        && before.written <= now.written
        && before.log_end <= now.log_end;
    ensure(monotone, "marks monotone", || format!("{before:?} became {now:?}"))
}
