//! What kind of disk is simulated: how fast, how large, how faulty.

use std::time::Duration;

/// How long one kind of operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// At least this.
    pub min: Duration,
    /// At most this, outside slow spells.
    pub max: Duration,
}

impl Latency {
    const fn micros(min: u64, max: u64) -> Self {
        Latency { min: Duration::from_micros(min), max: Duration::from_micros(max) }
    }
}

/// How often each fault happens by itself, in a million operations of its kind. All zero by
/// default; [`SimDisk::inject`](super::SimDisk::inject) places single faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// A read meets a latent sector error; the blocks stay unreadable until rewritten.
    pub read_error: u32,
    /// A read finds one bit flipped on the media; it stays flipped until rewritten.
    pub bit_flip: u32,
    /// A write lands at another aligned position of its file.
    pub misdirected_write: u32,
    /// A write is reported but never reaches the media.
    pub lost_write: u32,
    /// A block of a write shows its older bytes after the next restart.
    pub stale_block: u32,
    /// A write fails; any subset of its sectors is changed.
    pub write_error: u32,
    /// A flush or directory sync fails once; a part of what it covered never reaches the media.
    pub flush_error: u32,
    /// An operation that needs space finds none.
    pub no_space: u32,
    /// A slow spell begins: operations take [`SimProfile::slow_factor`] times as long.
    pub slow_spell: u32,
}

/// The properties of a simulated disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimProfile {
    /// Most operations in flight on one [`SimIo`](super::SimIo).
    pub queue_depth: usize,
    /// How long reads take.
    pub read: Latency,
    /// How long writes take.
    pub write: Latency,
    /// How long flushes and directory syncs take.
    pub flush: Latency,
    /// How long everything else takes.
    pub metadata: Latency,
    /// What a poll itself costs, so that a loop over [`Wait::No`](crate::Wait::No) moves time on.
    pub poll_cost: Duration,
    /// The latest an operation in flight at a kill lands after it.
    pub late_landing_max: Duration,
    /// How many in a million writes over existing bytes become visible in two steps.
    pub split_writes: u32,
    /// Whether a sector in flight at a power cut may be torn inside: for devices without P1.
    pub tear_sectors: bool,
    /// Whether direct I/O is offered; if not, opens fall back to the page cache and say so.
    pub direct_io: bool,
    /// How many bytes fit the disk; `None` for no limit.
    pub capacity_bytes: Option<u64>,
    /// How often faults happen by themselves.
    pub faults: FaultRates,
    /// How much longer operations take during a slow spell.
    pub slow_factor: u32,
    /// How long a slow spell lasts.
    pub slow_spell_length: Duration,
    /// How many lines of the trace are kept when recording.
    pub trace_lines: usize,
}

impl Default for SimProfile {
    fn default() -> Self {
        SimProfile {
            queue_depth: 256,
            read: Latency::micros(20, 120),
            write: Latency::micros(10, 80),
            flush: Latency::micros(50, 500),
            metadata: Latency::micros(5, 100),
            poll_cost: Duration::from_micros(1),
            late_landing_max: Duration::from_millis(50),
            split_writes: 100_000,
            tear_sectors: false,
            direct_io: true,
            capacity_bytes: None,
            faults: FaultRates::default(),
            slow_factor: 100,
            slow_spell_length: Duration::from_millis(50),
            trace_lines: 2000,
        }
    }
}
