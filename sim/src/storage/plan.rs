//! What one seed is like: not every seed knows every fault, so that rare combinations and plain
//! runs both happen.

use std::time::Duration;

use highwater::{Ack, FlushPolicy, LogOptions, Mode, Preparation};
use highwater_io::random::SeededRandom;
use highwater_io::sim::SimProfile;

use super::{Config, Damage};
use crate::batches::Sizes;

/// Which way the segments of a seed are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Modes {
    Always(Mode),
    /// Now this way, now that: by the flush policy that is drawn with it.
    Mixed,
}

/// The fixed choices of one seed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) segment_bytes: u64,
    pub(crate) never_rewrite_flushed: bool,
    pub(crate) logs: usize,
    pub(crate) lives: u64,
    pub(crate) operations: u64,
    pub(crate) sizes: Sizes,
    pub(crate) kills: bool,
    pub(crate) power_cuts: bool,
    pub(crate) disk_full: bool,
    pub(crate) write_errors: bool,
    pub(crate) flush_errors: bool,
    pub(crate) read_errors: bool,
    pub(crate) truncations: bool,
    pub(crate) trims: bool,
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) prepare: Preparation,
    pub(crate) modes: Modes,
    pub(crate) damage: bool,
    /// Half the batches are numbered.
    pub(crate) producers: bool,
    pub(crate) profile: SimProfile,
}

impl Plan {
    pub(crate) fn new(random: &mut SeededRandom, config: &Config) -> Plan {
        let never_rewrite_flushed = random.chance(1, 4);
        let segment_bytes = [64 << 10, 64 << 10, 96 << 10, 128 << 10, 256 << 10][random.index(5)];
        let value_max = [40, 400, 3000, 3000][random.index(4)];
        let mut profile = SimProfile {
            tear_sectors: never_rewrite_flushed,
            direct_io: random.chance(3, 4),
            trace_lines: 400,
            ..SimProfile::default()
        };
        if random.chance(1, 8) {
            profile.faults.slow_spell = 2000;
            profile.slow_factor = 20;
        }
        let damage = match config.damage {
            Damage::Never => false,
            Damage::Sometimes => random.chance(1, 8),
            Damage::Always => true,
        };
        Plan {
            segment_bytes,
            never_rewrite_flushed,
            logs: 1 + random.index(3),
            lives: 3 + random.below(4),
            operations: config.operations,
            sizes: Sizes { records_max: 20, value_max, large_max: segment_bytes / 3 },
            kills: random.chance(3, 4),
            power_cuts: random.chance(3, 4),
            disk_full: random.chance(1, 3),
            write_errors: random.chance(1, 5),
            flush_errors: random.chance(1, 5),
            read_errors: random.chance(1, 4),
            truncations: random.chance(1, 2),
            trims: random.chance(1, 2),
            retention_bytes: random.chance(1, 3).then(|| segment_bytes * random.below(3)),
            prepare: [
                Preparation::Never,
                Preparation::Ahead,
                Preparation::Ahead,
                Preparation::AtOpen,
            ][random.index(4)],
            modes: match random.split("modes").below(8) {
                0 | 1 => Modes::Always(Mode::Buffered),
                2 => Modes::Mixed,
                _ => Modes::Always(Mode::Direct),
            },
            damage,
            producers: false,
            profile,
        }
    }

    /// Returns the options a log of this seed is made with.
    pub(crate) fn options(&self, flush: FlushPolicy) -> LogOptions {
        LogOptions {
            segment_bytes: Some(self.segment_bytes),
            never_rewrite_flushed: Some(self.never_rewrite_flushed),
            flush,
            retention_bytes: self.retention_bytes,
            prepare: self.prepare,
            shard: None,
            mode: match self.modes {
                Modes::Always(mode) => mode,
                Modes::Mixed if flush.interval.is_some() => Mode::Buffered,
                Modes::Mixed => Mode::Direct,
            },
            ..LogOptions::default()
        }
    }
}

/// Returns one of the ack policies.
pub(crate) fn some_ack(random: &mut SeededRandom) -> Ack {
    let all = [
        Ack::NONE,
        Ack::LEADER,
        Ack::LEADER,
        Ack::ISR,
        Ack::LEADER_FLUSHED,
        Ack::ISR_FLUSHED,
        Ack::isr_flushed_on(1),
        Ack::isr_flushed_on(0),
    ];
    all[random.index(all.len())]
}

/// Returns one of the flush policies.
pub(crate) fn some_policy(random: &mut SeededRandom) -> FlushPolicy {
    match random.below(6) {
        0 => FlushPolicy::EVERY_GROUP,
        1 => FlushPolicy { records: Some(1 + random.below(40)), ..FlushPolicy::NONE },
        2 => FlushPolicy { bytes: Some(1 + random.below(40_000)), ..FlushPolicy::NONE },
        3 => {
            let interval = Duration::from_micros(100 + random.below(50_000));
            FlushPolicy { interval: Some(interval), ..FlushPolicy::NONE }
        }
        4 => FlushPolicy::default(),
        _ => FlushPolicy::NONE,
    }
}
