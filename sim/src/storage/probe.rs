//! Crashes on copies of the disk: what would be found if the node died right now.
//!
//! Verified: that marks and acks are true (D1, D2, D4), that a second opening changes nothing (D5).
//! The copy goes its own way; the run is not disturbed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use highwater::{Isolation, LocalEngine};
use highwater_io::sim::SimDisk;

use super::life::{BOUNDARIES_MAX, Life};
use super::world::World;
use crate::checks::reads;
use crate::failure::{Check, broken, ensure};
use crate::oracle::{Exists, LogModel};

impl World {
    /// Kills the process, or cuts the power, on a copy.
    pub(crate) fn probe_crash(&mut self, life: &Life) -> Check {
        self.look(life)?;
        if self.disk.rules_left() > 0 || !life.platform.is_alive() {
            return Ok(());
        }
        let copy = self.disk.clone_state();
        let cut = self.random.chance(2, 3);
        let kept = self.logs.clone();
        if cut {
            let survival = self.some_survival();
            self.note(|| format!("power cut on a copy: {survival:?}"));
            self.coverage.hit("power cut on a copy");
            copy.power_cut(survival);
            for model in &mut self.logs {
                model.power_was_cut();
            }
        } else {
            self.note(|| "kill on a copy".to_owned());
        }
        let verified = self.verify_copy(&copy, "D4");
        self.logs = kept;
        verified.map(drop)
    }

    /// Opens a copy right after an opening: the same end, and no byte of a segment changed.
    pub(crate) fn probe_second_opening(&mut self, life: &Life) -> Check {
        let skip = self.disk.rules_left() > 0 || !life.platform.is_alive();
        if skip || !self.random.chance(1, 3) {
            return Ok(());
        }
        let copy = self.disk.clone_state();
        copy.kill();
        let before = segment_bytes(&copy);
        let ends: Vec<_> =
            life.engine.recovery().logs.iter().map(|report| report.end_position.0).collect();
        let border = ends.iter().all(|end| end.is_multiple_of(4096));
        if self.random.chance(1, 2) {
            let survival = self.some_survival();
            copy.power_cut(survival);
        }
        self.coverage.hit("second opening");
        let ends = self.verify_copy(&copy, "D5")?;
        for model in &self.logs {
            let Some(end) = ends.get(&model.name) else { continue };
            ensure(*end == model.end(), "D5", || {
                format!("{} ended at {}, after a second opening at {end}", model.name, model.end())
            })?;
        }
        let after = segment_bytes(&copy);
        for (path, bytes) in &before {
            let now = after.get(path);
            let same = now.is_some_and(|now| now == bytes || !border && is_extension(bytes, now));
            ensure(same, "D5", || format!("a second opening changed {}", path.display()))?;
        }
        Ok(())
    }

    /// Opens a copy whose processes are dead and checks every log on it against the oracle.
    pub(crate) fn verify_copy(
        &mut self,
        copy: &SimDisk,
        invariant: &'static str,
    ) -> Check<BTreeMap<String, u64>> {
        copy.kill();
        copy.stop_at_boundary(copy.boundaries() + BOUNDARIES_MAX);
        let engine = match LocalEngine::open(copy.start_process(), &self.options) {
            Ok(engine) => engine,
            Err(error) => return broken(invariant, format!("the copy does not open: {error}")),
        };
        let mut engine = engine;
        let recovery = engine.recovery().clone();
        for (name, error) in &recovery.failed {
            let made = self.logs.iter().any(|log| log.name == *name && log.exists == Exists::Yes);
            if self.disk_is_full && !made && *error.kind() == highwater::ErrorKind::Full {
                // Its making was cut short, and there is no space to finish it.
                continue;
            }
            return broken(invariant, format!("{name} does not open on a copy: {error}"));
        }
        let mut ends = BTreeMap::new();
        for model in &self.logs {
            let report = recovery.logs.iter().find(|report| report.name == model.name);
            let Some(report) = report else {
                ensure(model.exists != Exists::Yes, "D10", || {
                    format!("log {} has vanished from a copy", model.name)
                })?;
                continue;
            };
            ensure(report.corrupt.is_none() && report.quarantined.is_empty(), invariant, || {
                format!("false corruption on a copy: {report:?}")
            })?;
            self.coverage.report(report);
            let mut found: LogModel = model.clone();
            found.resolve(report.log_end.0)?;
            found.opened(report)?;
            let handle = engine.log(&model.name, &highwater::LogOptions::default());
            let handle = match handle {
                Ok(handle) => handle,
                Err(error) => return broken(invariant, format!("{}: {error}", model.name)),
            };
            let start = engine.marks(handle).log_start.0;
            found.starts_at(start)?;
            let asked = (start, Isolation::Written, usize::MAX);
            if let reads::Ended::Error(error) = reads::read(&engine, handle, &found, asked)? {
                return broken(invariant, format!("reading {} on a copy: {error}", model.name));
            }
            ends.insert(model.name.clone(), report.log_end.0);
        }
        Ok(ends)
    }
}

/// Returns the bytes of every segment file.
fn segment_bytes(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = disk.files().into_iter();
    let segments = files.filter(|path| path.extension().is_some_and(|end| end == "log"));
    segments.map(|path| (path.clone(), used_bytes(disk, &path))).collect()
}

/// Returns the blocks of a file without the zeros at its end: reserved space may go.
fn used_bytes(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let mut bytes = disk.read_file(path).unwrap_or_default();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(used.next_multiple_of(4096));
    bytes
}

/// Whether `now` differs from `before` in at most the end of one block: a log that was closed
/// cleanly is opened without a write, and the next opening, after a crash, fills the block.
fn is_extension(before: &[u8], now: &[u8]) -> bool {
    let (mut before, mut now) = (before.to_vec(), now.to_vec());
    let length = before.len().max(now.len());
    before.resize(length, 0);
    now.resize(length, 0);
    before.chunks(4096).zip(now.chunks(4096)).filter(|(a, b)| a != b).count() <= 1
}
