//! Damage to the media below what was flushed, on a copy of the disk between two lives.
//!
//! Verified (D6, D7): after the damage every offset below the highest mark that is itself on the
//! media is either read as it was appended, or reported: the opening refuses the log, or says
//! where it is corrupt, or the read returns an error. Nothing wrong is ever read. What is refused
//! is not changed by a byte. Logs that were not damaged are not concerned. A log that still takes
//! appends keeps them. Not verified: how exactly the damaged range is bounded.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use highwater::{Ack, ErrorKind, Isolation, LocalEngine, LocalLog, LogOptions, LogReport, Offset};
use highwater_io::sim::{SimDisk, SimPlatform, Survival};
use highwater_segment::meta::{LogMeta, LogState};
use highwater_segment::scan::evidence;
use highwater_segment::{FIRST_BATCH, Position};

use super::harm::{Harm, Harmed};
use super::life::BOUNDARIES_MAX;
use super::world::World;
use crate::batches::batch_of;
use crate::checks::{media, reads};
use crate::convert::narrow;
use crate::failure::{Check, broken, ensure};
use crate::oracle::{Exists, LogModel};

/// What the damage may and may not have changed.
struct Limits {
    /// The log that was damaged.
    index: usize,
    /// Everything below must be read right or reported.
    proven: u64,
}

impl World {
    /// Damages a copy of the disk a few times and looks at what opening makes of it.
    pub(crate) fn damage(&mut self) -> Check {
        for _ in 0..3 {
            self.damage_once()?;
        }
        Ok(())
    }

    fn damage_once(&mut self) -> Check {
        let index = self.random.index(self.logs.len());
        if self.disk.rules_left() > 0 || self.logs[index].exists != Exists::Yes || self.disk_is_full
        {
            return Ok(());
        }
        let copy = self.disk.clone_state();
        copy.kill();
        copy.advance(std::time::Duration::from_secs(1));
        copy.power_cut(Survival::Everything);
        let name = self.logs[index].name.clone();
        let slots = media::slots(&copy, Self::root(), &name);
        let Some(meta) = slots.iter().max_by_key(|slot| slot.sequence).cloned() else {
            return Ok(());
        };
        let harmed = Harmed { disk: &copy, directory: Self::log_path(&name), meta: &meta, slots };
        let other = self.logs.iter().find(|log| log.name != name && log.exists == Exists::Yes);
        let other = other.map(|log| Self::log_path(&log.name));
        let old = self.old_metas.get(&name).cloned();
        let Some(harm) = harmed.apply(&mut self.random, other, old) else { return Ok(()) };
        self.note(|| format!("damage on a copy: {name} {harm:?}, mark {:?}", meta.flushed));
        self.coverage.hit("damage");
        let proven = proven_after(&copy, &name, &meta, &harm);
        let limits = Limits { index, proven };
        let before = files_of(&copy, &name);
        copy.stop_at_boundary(copy.boundaries() + BOUNDARIES_MAX);
        let engine = match LocalEngine::open(copy.start_process(), &self.options) {
            Ok(engine) => engine,
            Err(error) => return broken("D6", format!("the engine does not open: {error}")),
        };
        self.after_damage(engine, &copy, &limits, &before, &harm)
    }

    fn after_damage(
        &mut self,
        mut engine: LocalEngine<SimPlatform>,
        copy: &SimDisk,
        limits: &Limits,
        before: &BTreeMap<PathBuf, Vec<u8>>,
        harm: &Harm,
    ) -> Check {
        let recovery = engine.recovery().clone();
        for index in 0..self.logs.len() {
            let model = self.logs[index].clone();
            let damaged = index == limits.index;
            if let Some((name, error)) =
                recovery.failed.iter().find(|(name, _)| *name == model.name)
            {
                self.note(|| format!("{name} is refused: {error}"));
                let kind = matches!(error.kind(), ErrorKind::Corrupt { .. } | ErrorKind::Config);
                let excused = damaged && (kind || matches!(harm, Harm::Unreadable));
                ensure(excused, "D6", || format!("{name} does not open: {error}"))?;
                count_refusal(&mut self.coverage, error);
                let same = files_of(copy, name) == *before;
                ensure(same, "D6", || format!("{name} was refused, and yet changed"))?;
                continue;
            }
            let report = recovery.logs.iter().find(|report| report.name == model.name);
            let Some(report) = report else {
                let gone = damaged && model.end() == 0 || model.exists != Exists::Yes;
                ensure(gone, "D6", || format!("{} has vanished", model.name))?;
                continue;
            };
            self.coverage.report(report);
            self.note(|| format!("after the damage: {report:?}"));
            if !damaged {
                // A truncation that was interrupted may take effect, as ever.
                model.allows(report.log_end.0)?;
            }
            // A truncation that was interrupted may have taken effect.
            let proven = if damaged { limits.proven.min(model.lowest_cut()) } else { 0 };
            self.look_at_damaged(&mut engine, &model, report, (damaged, proven))?;
        }
        drop(engine);
        copy.kill();
        Ok(())
    }

    fn look_at_damaged(
        &mut self,
        engine: &mut LocalEngine<SimPlatform>,
        model: &LogModel,
        report: &LogReport,
        (damaged, proven): (bool, u64),
    ) -> Check {
        let reported = report.corrupt.is_some() || !report.quarantined.is_empty();
        ensure(damaged || !reported, "false corruption", || format!("{report:?}"))?;
        ensure(reported || report.log_end.0 >= proven, "D6", || {
            format!("silently cut to {}, flushed was {proven}: {report:?}", report.log_end)
        })?;
        let handle = match engine.log(&model.name, &LogOptions::default()) {
            Ok(handle) => handle,
            Err(error) => return broken("D6", format!("{}: {error}", model.name)),
        };
        let known: Vec<_> = report.corrupt.iter().chain(&report.quarantined).cloned().collect();
        let refused = read_around(engine, handle, model, (proven, &known))?;
        self.coverage.add("damaged offsets refused", u64::from(refused));
        ensure(damaged || !refused, "D7", || format!("{} was not damaged", model.name))?;
        let failure = engine.failure(handle);
        ensure(damaged || failure.is_none(), "false corruption", || format!("{failure:?}"))?;
        self.append_after_damage(engine, handle, model, report)
    }

    /// What still takes appends keeps them.
    fn append_after_damage(
        &mut self,
        engine: &mut LocalEngine<SimPlatform>,
        handle: LocalLog,
        model: &LogModel,
        report: &LogReport,
    ) -> Check {
        self.attempts += 1;
        let batch = batch_of(self.attempts, &[700, 30]);
        let Ok(ticket) = engine.append(handle, batch.clone(), Ack::LEADER_FLUSHED) else {
            return broken("L5", "an append is refused at once");
        };
        let result = engine.run_until(&ticket);
        if report.corrupt.is_some() {
            return ensure(result.is_err(), "D6", || "a corrupt log was appended to".to_owned());
        }
        let Ok(appended) = result else {
            return broken("D14", format!("{} takes no append: {result:?}", model.name));
        };
        ensure(appended.base_offset == report.log_end, "A1", || format!("{appended:?}"))?;
        let read = engine.read(handle, appended.base_offset, Isolation::Durable);
        let Some(Ok(found)) = read.ok().and_then(|mut reader| reader.next()) else {
            return broken("D7", format!("{}: what was appended is not read", model.name));
        };
        let records = Rc::new(batch);
        let wanted = records.records(appended.base_offset).flatten().map(|record| record.value);
        let found: Vec<_> = found.records().flatten().map(|record| record.value).collect();
        ensure(found.iter().copied().eq(wanted), "D7", || {
            format!("{}: something else than was appended is read", model.name)
        })
    }
}

/// Reads the whole log, stepping over errors; returns whether some offset below `proven` was
/// refused.
fn read_around(
    engine: &LocalEngine<SimPlatform>,
    handle: LocalLog,
    model: &LogModel,
    (proven, known): (u64, &[std::ops::Range<Offset>]),
) -> Check<bool> {
    let limit = engine.marks(handle).written.0;
    let mut next = engine.marks(handle).log_start.0;
    let mut refused = false;
    while next < limit {
        let mut reader = match engine.read(handle, Offset(next), Isolation::Written) {
            Ok(reader) => reader,
            Err(_) => return Ok(true),
        };
        loop {
            match reader.next() {
                None => {
                    ensure(next >= limit, "D7", || format!("the read ended at {next}"))?;
                    return Ok(refused);
                }
                Some(Ok(batch)) => {
                    let base = batch.base_offset().0;
                    let gap =
                        known.iter().any(|range| range.start.0 <= next && range.end.0 >= base);
                    ensure(base <= next || refused || gap, "D7", || {
                        format!("offsets {next}..{base} were skipped without a word")
                    })?;
                    let entry = model.entries.get(model.index_of(base));
                    let Some(entry) = entry.filter(|entry| entry.base == base) else {
                        return broken("D7", format!("offset {base} was never appended"));
                    };
                    reads::same(entry, &batch, next.max(base))?;
                    next = entry.end();
                }
                Some(Err(_)) => {
                    refused |= next < proven;
                    // Look for what can be read behind it.
                    let entry = model.entries.get(model.index_of(next));
                    next = entry.map_or(limit, super::super::oracle::Entry::end);
                    break;
                }
            }
        }
    }
    Ok(refused)
}

fn count_refusal(coverage: &mut crate::coverage::Coverage, error: &highwater::Error) {
    let text = error.to_string();
    for label in ["M2", "M7", "M8", "S4", "S6"] {
        if text.contains(&format!("case {label}")) {
            coverage.hit(label);
        }
    }
}

/// The files of a log, under the names they have once opening has ended a renaming away and back
/// that a crash cut short.
fn files_of(disk: &SimDisk, name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let directory = World::log_path(name);
    let files = disk.files().into_iter().filter(|path| path.parent() == Some(&directory));
    let named = |path: &PathBuf| match path.extension() {
        Some(end) if end == "away" => path.with_extension(""),
        _ => path.clone(),
    };
    files.map(|path| (named(&path), disk.read_file(&path).unwrap_or_default())).collect()
}

/// Returns the highest flushed mark that is on the media after the damage: in `log.meta` as it was,
/// or in a good batch header behind it. What is above cannot be told from a torn tail.
fn proven_after(disk: &SimDisk, name: &str, meta: &LogMeta, harm: &Harm) -> u64 {
    let mut proven = meta.flushed.offset.0;
    if matches!(harm, Harm::OldMeta | Harm::Foreign | Harm::FalseClean)
        || meta.state == LogState::Clean
    {
        return proven;
    }
    for (path, bytes) in files_of(disk, name) {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        let Some(base) = highwater_segment::segment::parse_segment_file_name(file) else {
            continue;
        };
        if base < meta.flushed.segment {
            continue;
        }
        let header = highwater_segment::SegmentHeader::decode(&bytes);
        let (Ok(header), Some(body)) = (header, bytes.get(narrow(FIRST_BATCH.0)..)) else {
            continue;
        };
        let found = evidence(body, Position(FIRST_BATCH.0), Some(header.salt), meta.generation);
        proven = proven.max(found.proven.0);
    }
    proven
}
