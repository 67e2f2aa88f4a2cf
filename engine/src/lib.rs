//! Highwater: an embeddable record-batch log that never confuses what is *flushed* with what is
//! *acked*.
//!
//! ```
//! use highwater::{Ack, Engine, Isolation, LogOptions, Options, RecordBatch};
//!
//! # let directory = std::env::temp_dir().join(format!("highwater-doc-{}", std::process::id()));
//! let engine = Engine::open(Options::at(&directory))?;
//! let log = engine.log("orders", LogOptions::default())?;
//! let batch = RecordBatch::builder().record(b"key", b"value").build()?;
//! let appended = log.append(batch, Ack::LEADER_FLUSHED)?.wait()?;
//! assert!(appended.marks.flushed >= appended.end_offset());
//! let batches = log.read(appended.base_offset, Isolation::Durable)?;
//! let counts = batches.map(|batch| batch.map(|batch| batch.records().count()));
//! assert_eq!(counts.sum::<Result<usize, _>>()?, 1);
//! engine.close()?;
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! * [`Engine`] and [`Log`] - a thread for each core, each the only owner of its logs, and handles
//!   for everyone; [`LocalEngine`] - one such shard without a thread.
//! * [`Ack`] - what an append waits for; [`Receipt`] - how it tells; [`Marks`] - how far a log is.
//! * [`Producer`] - numbers batches so that each is appended once, however often it is sent.
//! * [`FlushPolicy`] - when to flush what nobody waits for.
//! * [`metrics`] - counters, histograms and the exposure of every log.
//! * [`inspect`] - looking at a directory from outside.
//!
//! * [`segment`] - every byte on disk.
//!
//! What survives what is promised in `docs/durability.md`; the bytes are in `docs/format.md`.
//!
//! Features: `lz4` (on by default) and `zstd` for compressed batches; `metrics` to hand all figures
//! to the `metrics` crate.
//!
#![doc = include_str!("guide.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod ack;
mod buffers;
mod control;
mod convert;
mod core;
mod device;
mod doorbell;
mod engine;
mod error;
mod histogram;
mod indexes;
pub mod inspect;
mod leases;
mod local;
mod log;
mod mailbox;
mod maintenance;
mod marks;
pub mod metrics;
#[cfg(feature = "metrics")]
mod metrics_export;
mod names;
mod number;
mod opening;
mod options;
mod permit;
mod pool;
mod producer;
mod producers;
mod reader;
mod receipt;
mod recover;
mod report;
mod room;
mod rounds;
mod shard;
mod shards;
mod shared;
mod tail;
mod walker;
mod watch;

pub use ack::{Ack, Flushed, Progress, Written};
pub use engine::Engine;
pub use error::{Error, ErrorKind, Outcome, Result};
pub use local::{LocalEngine, LocalLog, Ticket};
pub use log::Log;
pub use marks::{Isolation, Marks};
pub use metrics::{EngineMetrics, Exposure, FlushReasons, Histogram, LogMetrics};
pub use options::{
    BackendChoice, DEFAULT_PRODUCER_EXPIRY, DEFAULT_SEGMENT_BYTES, FlushPolicy, LogOptions,
    MAX_LOGS, MAX_NAME_BYTES, MAX_SHARDS, Mode, Options, Preparation, SHARDS_DEFAULT_MAX, ShardId,
};
pub use permit::{Permit, Reserve};
pub use producer::Producer;
pub use reader::{Follower, ReadBatch, Reader};
pub use receipt::{Appended, Receipt, Stages};
pub use report::{LogReport, ProducersReport, RecoveryReport};
pub use watch::{Moved, Watcher};

pub use highwater_io::system::SystemPlatform;
pub use highwater_segment as segment;
pub use highwater_segment::{
    BatchBuilder, BuildError, Codec, Compression, Epoch, Generation, MAX_BATCH_BYTES,
    MAX_RECORD_BYTES, Offset, Position, ProducerEpoch, ProducerId, ProducerStamp, Record,
    RecordBatch, RecordError, Sequence,
};

/// The README's example is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
