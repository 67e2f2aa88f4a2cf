//! What the benchmarks share: payload, processor time, percentiles, and directories of their own.
//!
//! The criterion benches are in `benches/`; the comparison with other engines is the `compare`
//! binary behind the feature of that name. A leaf: nothing depends on it.
#![forbid(unsafe_code)]

pub mod directory;
pub mod numbers;
pub mod payload;
pub mod process;

pub use directory::FreshDirectory;
pub use numbers::{Percentiles, Spread};
pub use payload::{Batches, Payload};
