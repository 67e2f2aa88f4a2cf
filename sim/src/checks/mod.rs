//! The invariants, one file for each kind of look at the engine.

pub(crate) mod acks;
pub(crate) mod marks;
pub(crate) mod media;
pub(crate) mod reads;
