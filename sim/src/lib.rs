//! Deterministic simulation of Highwater: the real engine on the simulated disk, with an oracle
//! that knows every append, ack and mark.
//!
//! * [`storage`] - seeds: random operations, faults and crashes over several lives of one node.
//! * [`crash_states`] - every crash at every I/O boundary of small named workloads.
//! * [`program`] - a few lives as data, for fuzzers.
//! * [`corruption`] - every flipped bit of small logs, and a table of coarser damage.
//! * [`nth_failures`] - every failure of every I/O operation of the same workloads.
//!
//! The same seed gives the same trace, byte for byte. Names of invariants (`D4`, `A1`, ...) are
//! those of the project's reliability reference.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod batches;
mod checks;
mod convert;
pub mod corruption;
pub mod coverage;
pub mod crash_states;
mod failure;
pub mod nth_failures;
mod oracle;
mod producers;
pub mod program;
pub mod report;
pub mod storage;
mod trace;

pub use failure::Failure;
