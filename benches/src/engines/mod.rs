//! The engines under comparison, behind one small interface. Each file says which calls it makes
//! and what they guarantee; `docs/comparison.md` has it in one table.

mod commitlog;
mod highwater;
mod okaywal;
mod raft_engine;
mod seglog;

use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Why a run failed.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// A log of one engine, open for appends.
pub(crate) trait Target {
    /// Appends a batch. Returns when the engine takes it for written - by its own weakest rule,
    /// not necessarily flushed - or, with a window, when an earlier one is.
    ///
    /// # Errors
    /// Whatever the engine says.
    fn append(&mut self, records: &[&[u8]]) -> Result<(), Failure>;

    /// Appends a batch and returns when it is on stable media.
    ///
    /// # Errors
    /// Whatever the engine says.
    fn append_flushed(&mut self, records: &[&[u8]]) -> Result<(), Failure>;

    /// Flushes everything to stable media and closes. Returns how many records the engine says
    /// the log has.
    ///
    /// # Errors
    /// Whatever the engine says.
    fn finish(self: Box<Self>) -> Result<u64, Failure>;
}

/// An engine, and the way into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EngineName {
    /// Highwater through its queue.
    Highwater,
    /// Highwater's `LocalEngine`, on the caller's thread.
    HighwaterLocal,
    /// raft-engine.
    RaftEngine,
    /// commitlog.
    Commitlog,
    /// okaywal.
    Okaywal,
    /// seglog.
    Seglog,
}

/// How full the log is when the clock starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// A fresh directory; whatever is made ready is made ready inside the clock.
    Cold,
    /// Retention is so small that segments recycle, and did so before the clock starts.
    Steady,
}

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Goal {
    /// Many bytes; acked before they are flushed, all flushed at the end.
    Throughput,
    /// One append after the other, each flushed before the next.
    Durable,
}

/// Everything an engine is told before it is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) phase: Phase,
    pub(crate) goal: Goal,
    /// The most appends that wait for their ack, for engines that can have several.
    pub(crate) in_flight: usize,
    /// All payload of the run, for engines that want their space beforehand.
    pub(crate) total_bytes: u64,
}

impl EngineName {
    /// Returns all engines.
    pub(crate) const ALL: [EngineName; 6] = [
        EngineName::Highwater,
        EngineName::HighwaterLocal,
        EngineName::RaftEngine,
        EngineName::Commitlog,
        EngineName::Okaywal,
        EngineName::Seglog,
    ];

    /// Returns the name as it is printed and given.
    pub(crate) fn name(self) -> &'static str {
        match self {
            EngineName::Highwater => "highwater",
            EngineName::HighwaterLocal => "highwater-local",
            EngineName::RaftEngine => "raft-engine",
            EngineName::Commitlog => "commitlog",
            EngineName::Okaywal => "okaywal",
            EngineName::Seglog => "seglog",
        }
    }

    /// Returns whether it is ours.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, EngineName::Highwater | EngineName::HighwaterLocal)
    }

    /// Returns whether the engine can do this at all.
    pub(crate) fn can(self, goal: Goal, phase: Phase) -> bool {
        // Only ours removes the oldest by size, and a durable run is too short for it.
        let steady = phase == Phase::Cold || self.is_ours() && goal == Goal::Throughput;
        // An okaywal commit is always a flush.
        let unflushed = goal == Goal::Durable || self != EngineName::Okaywal;
        steady && unflushed
    }

    /// Returns how much a steady run appends before its clock starts.
    pub(crate) fn warm_up_bytes(self) -> u64 {
        highwater::WARM_UP_BYTES
    }

    /// Opens a log in an empty directory.
    ///
    /// # Errors
    /// Whatever the engine says.
    pub(crate) fn open(self, setting: &Setting<'_>) -> Result<Box<dyn Target>, Failure> {
        Ok(match self {
            EngineName::Highwater => Box::new(highwater::Queued::open(setting)?),
            EngineName::HighwaterLocal => Box::new(highwater::Local::open(setting)?),
            EngineName::RaftEngine => Box::new(raft_engine::Log::open(setting)?),
            EngineName::Commitlog => Box::new(commitlog::Log::open(setting)?),
            EngineName::Okaywal => Box::new(okaywal::Log::open(setting)?),
            EngineName::Seglog => Box::new(seglog::Log::open(setting)?),
        })
    }
}
