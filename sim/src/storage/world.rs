//! One seed's world: the disk, the oracle, the trace, and the run from the first life to the last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use highwater::Options;
use highwater_io::random::SeededRandom;
use highwater_io::sim::SimDisk;

use highwater_segment::meta::META_FILE_NAME;

use super::Config;
use super::numbered::Senders;
use super::plan::Plan;
use crate::coverage::Coverage;
use crate::failure::Check;
use crate::oracle::LogModel;
use crate::trace::Trace;

/// The engine's directory on the simulated disk.
pub(crate) const ROOT: &str = "/data";

/// Everything of one seed.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) disk: SimDisk,
    pub(crate) random: SeededRandom,
    /// Of the producers: seeds without some go as they would if there were none.
    pub(crate) numbers: SeededRandom,
    /// The producers of each log.
    pub(crate) senders: Vec<Senders>,
    pub(crate) logs: Vec<LogModel>,
    pub(crate) trace: Trace,
    pub(crate) coverage: Coverage,
    pub(crate) operation: u64,
    pub(crate) attempts: u64,
    pub(crate) options: Options,
    /// Every log was closed cleanly and nothing has touched the disk since.
    pub(crate) closed_cleanly: bool,
    /// Faults placed so far; compared with what has not struck.
    pub(crate) disk_is_full: bool,
    /// Files in the pool at the last look of this life.
    pub(crate) spares: usize,
    /// An earlier copy of each log's `log.meta`, for the damage of restoring it.
    pub(crate) old_metas: BTreeMap<String, Vec<u8>>,
}

impl World {
    pub(crate) fn new(seed: u64, config: &Config) -> World {
        let root = SeededRandom::new(seed);
        let mut plan = Plan::new(&mut root.split("plan"), config);
        plan.producers = root.split("numbered").chance(1, 3);
        let disk = SimDisk::new(seed, plan.profile.clone());
        disk.record_trace(config.keep_trace);
        disk.set_planted(config.planted);
        let mut trace = Trace::new(config.keep_trace);
        trace.line(format!("seed {seed}: {plan:?}"));
        let name = |index: usize| format!("log-{index}");
        let model =
            |index| LogModel::new(&name(index), plan.segment_bytes, plan.never_rewrite_flushed);
        World {
            logs: (0..plan.logs).map(model).collect(),
            disk,
            random: root.split("operations"),
            numbers: root.split("producers"),
            senders: (0..plan.logs).map(|_| Senders::default()).collect(),
            trace,
            coverage: Coverage::default(),
            operation: 0,
            attempts: 0,
            options: Options::at(ROOT),
            closed_cleanly: false,
            disk_is_full: false,
            spares: 0,
            old_metas: BTreeMap::new(),
            plan,
        }
    }

    pub(crate) fn root() -> &'static Path {
        Path::new(ROOT)
    }

    pub(crate) fn log_path(name: &str) -> PathBuf {
        Self::root().join(name)
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let micros = self.disk.now().0 / 1000;
        self.trace.line(format!("{micros:>10} us  {:>4}  {}", self.operation, what()));
    }

    /// Runs the seed.
    pub(crate) fn run(&mut self) -> Check {
        for life in 0..self.plan.lives {
            let mut current = self.open_life()?;
            let silent = life > 0 && self.random.chance(1, 6);
            let left = self.plan.operations.saturating_sub(self.operation);
            let share = left.div_ceil(self.plan.lives - life);
            let count = if silent { 2 } else { share + self.random.below(share / 2 + 1) };
            self.coverage.add("life without an append", u64::from(silent));
            self.place_crash();
            for _ in 0..count {
                self.operation += 1;
                self.step(&mut current, silent)?;
                self.look(&current)?;
                if !current.platform.is_alive() {
                    break;
                }
            }
            self.end_life(current)?;
            if self.plan.damage && life + 1 < self.plan.lives {
                self.damage()?;
                self.keep_metas();
            }
        }
        self.last_life()
    }

    fn keep_metas(&mut self) {
        for model in &self.logs {
            let path = Self::log_path(&model.name).join(META_FILE_NAME);
            if let Some(bytes) = self.disk.media_file(&path)
                && self.random.chance(1, 2)
            {
                self.old_metas.insert(model.name.clone(), bytes);
            }
        }
    }

    pub(crate) fn finish(mut self) -> (Vec<String>, u64, Coverage) {
        for (what, times) in self.disk.counts() {
            self.coverage.add(what, times);
        }
        let digest = self.disk.trace_digest() ^ self.trace.digest().rotate_left(32);
        let disk = self.disk.trace_lines();
        let mut lines = self.trace.into_lines();
        lines.extend(disk.into_iter().map(|line| format!("  disk {line}")));
        (lines, digest, self.coverage)
    }
}
