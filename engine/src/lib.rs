//! Highwater: an embeddable record-batch log that never confuses what is *flushed* with what is
//! *acked*.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod ack;
mod control;
mod convert;
mod core;
mod engine;
mod error;
pub mod inspect;
mod local;
mod mailbox;
mod maintenance;
mod marks;
mod opening;
mod options;
mod reader;
mod receipt;
mod recover;
mod report;
mod shard;
mod shared;
mod walker;

pub use ack::{Ack, Flushed, Progress, Written};
pub use engine::{Engine, Log};
pub use error::{Error, ErrorKind, Outcome, Result};
pub use local::{LocalEngine, LocalLog, Ticket};
pub use marks::{Isolation, Marks};
pub use options::{
    BackendChoice, DEFAULT_SEGMENT_BYTES, FlushPolicy, LogOptions, MAX_LOGS, MAX_NAME_BYTES,
    Options,
};
pub use reader::{ReadBatch, Reader};
pub use receipt::{Appended, Receipt, Stages};
pub use report::{LogReport, RecoveryReport};

pub use highwater_segment as segment;
pub use highwater_segment::{
    BatchBuilder, BuildError, Epoch, Generation, MAX_BATCH_BYTES, MAX_RECORD_BYTES, Offset,
    Position, Record, RecordBatch, RecordError,
};
