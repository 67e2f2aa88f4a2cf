//! Lives: opening (with crashes on the way), the look after every operation, and the ways to end.
//!
//! Verified at every opening: D4 and D2 (the end), A8 (epoch and generation rise), that a log is
//! never refused, cut or read-only without damage, D10 (no log vanishes), that options stay, the
//! clean mark, and by reading everything D7, A1, A2.

use std::time::Duration;

use highwater::{ErrorKind, Isolation, LocalEngine, LocalLog, LogReport, Mode, Reader};
use highwater_io::IoErrorKind;
use highwater_io::sim::{Fault, FaultRule, SimIo, SimPlatform, Survival};
use highwater_segment::recovery::MetaCase;
use highwater_segment::segment::parse_segment_file_name;

use super::plan::some_policy;
use super::world::World;
use crate::checks::{media, reads};
use crate::failure::{Check, broken, ensure};
use crate::oracle::Exists;
use crate::producers;

/// I/O boundaries of one life, at most: a loop that does not end is a failure, not a hang.
pub(crate) const BOUNDARIES_MAX: u64 = 100_000;
/// Openings of one life that may crash before one is left alone.
const OPENINGS_MAX: u32 = 5;

/// A process and its engine.
pub(crate) struct Life {
    pub(crate) platform: SimPlatform,
    pub(crate) engine: LocalEngine<SimPlatform>,
    /// The handle of each log, by its place in the world.
    pub(crate) handles: Vec<Option<LocalLog>>,
    /// A reader of each log that stays open over what happens to it, and what it reads next.
    pub(crate) readers: Vec<Option<(Reader<SimIo>, u64)>>,
    /// The boundary at which it began.
    pub(crate) began: u64,
    /// The handles of logs that did not come back from maintenance.
    pub(crate) out_of_service: Vec<Option<LocalLog>>,
    /// The highest segment of each log when the life began.
    pub(crate) segments: Vec<u64>,
}

/// How an opening went.
enum Opening {
    Alive(Box<Life>),
    /// It crashed, or failed for a fault that was placed: try again.
    Again,
}

impl World {
    /// Opens the engine, with a crash inside the opening now and then.
    pub(crate) fn open_life(&mut self) -> Check<Life> {
        for attempt in 0.. {
            let last = attempt + 1 >= OPENINGS_MAX;
            if !last && self.random.chance(1, 4) {
                let ahead = 1 + self.random.below(160);
                self.disk.stop_at_boundary(self.disk.boundaries() + ahead);
            }
            if !last && self.plan.read_errors && self.random.chance(1, 4) {
                self.read_error_while_opening()?;
            }
            if let Opening::Alive(life) = self.open_once()? {
                return Ok(*life);
            }
        }
        broken("L6", "the engine does not open")
    }

    fn open_once(&mut self) -> Check<Opening> {
        let platform = self.disk.start_process();
        let began = self.disk.boundaries();
        let had_rules = self.disk.rules_left();
        let opened = LocalEngine::open(platform.clone(), &self.options);
        self.coverage.add("disk full while opening", u64::from(self.disk_is_full));
        let clean = std::mem::take(&mut self.closed_cleanly);
        let engine = match opened {
            _ if !platform.is_alive() => {
                drop(opened);
                self.coverage.hit("crash in open");
                self.note(|| "crash while opening".to_owned());
                self.after_death();
                return Ok(Opening::Again);
            }
            Ok(engine) => engine,
            Err(error) if self.disk.rules_left() < had_rules => {
                self.note(|| format!("opening failed by a placed fault: {error}"));
                platform.kill();
                return Ok(Opening::Again);
            }
            Err(error) => return broken("L6", format!("the engine does not open: {error}")),
        };
        let count = self.logs.len();
        let mut life = Life {
            platform,
            engine,
            handles: vec![None; count],
            readers: (0..count).map(|_| None).collect(),
            began,
            out_of_service: vec![None; count],
            segments: (0..count).map(|index| self.last_segment(index)).collect(),
        };
        let faults = self.disk.rules_left() < had_rules;
        self.closed_cleanly = clean;
        let adopted = self.adopt(&mut life, faults);
        self.closed_cleanly = false;
        if !adopted? || !life.platform.is_alive() {
            life.platform.kill();
            self.bury(life)?;
            return Ok(Opening::Again);
        }
        if self.disk.rules_left() == 0 {
            for model in &mut self.logs {
                (model.flush_may_fail, model.write_may_fail) = (false, false);
            }
        }
        self.probe_second_opening(&life)?;
        self.look_at_pool();
        Ok(Opening::Alive(Box::new(life)))
    }

    /// Takes over what opening found. Returns false if it has to be tried again.
    fn adopt(&mut self, life: &mut Life, faults: bool) -> Check<bool> {
        let recovery = life.engine.recovery().clone();
        let mut refused = false;
        for (name, error) in &recovery.failed {
            self.note(|| format!("{name} not opened: {error}"));
            self.coverage.hit("open of one log failed");
            let made = self.logs.iter().any(|log| log.name == *name && log.exists == Exists::Yes);
            // Its making was cut short, and there is no space to finish it.
            let full = self.disk_is_full && !made && *error.kind() == ErrorKind::Full;
            let struck = faults && matches!(error.kind(), ErrorKind::Io);
            ensure(struck || full, "false corruption", || {
                format!("{name} does not open: {error}")
            })?;
            refused |= struck;
        }
        if refused {
            return Ok(false);
        }
        for index in 0..self.logs.len() {
            let report = recovery.logs.iter().find(|report| report.name == self.logs[index].name);
            match report {
                Some(report) => self.adopt_log(life, index, report)?,
                None => {
                    let model = &self.logs[index];
                    let failed = recovery.failed.iter().any(|(name, _)| *name == model.name);
                    ensure(model.exists != Exists::Yes || failed, "D10", || {
                        format!("log {} has vanished", model.name)
                    })?;
                }
            }
            if !life.platform.is_alive() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn adopt_log(&mut self, life: &mut Life, index: usize, report: &LogReport) -> Check {
        self.coverage.report(report);
        self.note(|| {
            format!(
                "{} opened: {} {:?} {:?}, mark {}, end {} at {}, generation {}, stopped by: {}",
                report.name,
                report.meta_case.label(),
                report.segment_cases,
                report.tail_case,
                report.mark,
                report.log_end,
                report.end_position,
                report.generation,
                report.stopped_by
            )
        });
        ensure(
            report.corrupt.is_none() && report.quarantined.is_empty(),
            "false corruption",
            || format!("{report:?}"),
        )?;
        // A log whose making a full disk had cut short was not open, and so not closed.
        let closed = self.closed_cleanly && self.logs[index].exists == Exists::Yes;
        ensure(!closed || report.meta_case == MetaCase::M3Clean, "clean mark", || {
            format!("{} was closed cleanly, but opening found {:?}", report.name, report.meta_case)
        })?;
        let model = &mut self.logs[index];
        ensure(model.exists != Exists::No, "D10", || format!("{} was never made", model.name))?;
        let (durable, written) = (model.durable_floor, model.written_floor);
        model.resolve(report.log_end.0)?;
        model.opened(report)?;
        media::scan_is_bounded(report)?;
        model.exists = Exists::Yes;
        let survived = durable < written && report.log_end.0 >= written;
        self.coverage.add("written but not flushed survives a kill", u64::from(survived));
        let on_border = report.end_position.is_block_border();
        self.coverage.add("end position on a block border", u64::from(on_border));
        let filled = on_border && report.meta_case != MetaCase::M3Clean;
        self.coverage.add("filler at recovery", u64::from(filled && report.log_end.0 > 0));
        self.take_handle(life, index)?;
        if life.platform.is_alive() && self.disk.rules_left() == 0 {
            self.read_whole(life, index)?;
        }
        Ok(())
    }

    /// Gets the handle of a log that exists, or makes the log.
    pub(crate) fn take_handle(&mut self, life: &mut Life, index: usize) -> Check {
        let policy = some_policy(&mut self.random);
        let options = self.plan.options(policy);
        let model = &mut self.logs[index];
        model.retained = options.retention_bytes.is_some();
        let buffered = options.mode == Mode::Buffered && self.plan.profile.direct_io;
        self.coverage.add("buffered", u64::from(buffered));
        let made = model.exists != Exists::Yes;
        if made {
            model.exists = Exists::Maybe;
        }
        let had_rules = self.disk.rules_left();
        match life.engine.log(&model.name, &options) {
            Ok(handle) => life.handles[index] = Some(handle),
            Err(_) if !life.platform.is_alive() => return Ok(()),
            Err(error) => {
                let full = self.disk_is_full && *error.kind() == ErrorKind::Full;
                let struck = self.disk.rules_left() < had_rules;
                let name = model.name.clone();
                self.note(|| format!("{name} cannot be made: {error}"));
                return ensure(made && (full || struck), "D14", || {
                    format!("{name} cannot be had: {error}")
                });
            }
        }
        if let Some(handle) = life.handles[index] {
            model.starts_at(life.engine.marks(handle).log_start.0)?;
        }
        let name = model.name.clone();
        if !life.platform.is_alive() {
            return Ok(());
        }
        let slots = media::slots(&self.disk, Self::root(), &name);
        let newest = slots.iter().max_by_key(|slot| slot.sequence);
        let (epoch, generation) = newest.map_or((0, 0), |slot| (slot.epoch.0, slot.generation.0));
        if self.disk.rules_left() == 0 && !model.write_may_fail {
            media::current(&self.disk, Self::root(), &name)?;
        }
        let model = &mut self.logs[index];
        for slot in slots {
            let same = slot.segment_bytes == model.segment_bytes
                && slot.never_rewrite_flushed == model.never_rewrite_flushed;
            ensure(same, "options", || format!("{name} was made with {slot:?}"))?;
        }
        if model.exists == Exists::Maybe {
            model.exists = Exists::Yes;
            model.begins(epoch, generation)?;
            self.coverage.hit("log created");
            if let Some(handle) = life.handles[index] {
                self.coverage.report(life.engine.log_report(handle));
            }
            self.note(|| format!("{name} made"));
        }
        let model = &self.logs[index];
        ensure((epoch, generation) == (model.epoch, model.generation), "flushed before use", || {
            format!("{name}: epoch {epoch}, generation {generation} on the media, {model:?}")
        })
    }

    pub(crate) fn read_whole(&mut self, life: &Life, index: usize) -> Check {
        let Some(handle) = life.handles[index] else { return Ok(()) };
        producers::known(&life.engine, handle, &self.logs[index])?;
        let start = life.engine.marks(handle).log_start.0;
        let asked = (start, Isolation::Written, usize::MAX);
        match reads::read(&life.engine, handle, &self.logs[index], asked)? {
            reads::Ended::Whole => Ok(()),
            reads::Ended::Error(error) => {
                let dead = !life.platform.is_alive();
                ensure(dead, "D7", || format!("{}: {error}", self.logs[index].name))
            }
        }
    }

    /// Looks at everything that can be seen after an operation.
    pub(crate) fn look(&mut self, life: &Life) -> Check {
        let mut acks = 0;
        for (index, handle) in life.handles.iter().enumerate() {
            let Some(handle) = *handle else { continue };
            let model = &mut self.logs[index];
            if model.in_maintenance {
                continue;
            }
            acks += model.settle(&mut self.coverage)?;
            model.observe(life.engine.marks(handle))?;
            if let Some(error) = life.engine.failure(handle)
                && model.poisoned_at.is_none()
            {
                let dead = life.platform.is_alive();
                let excused = !dead || model.flush_may_fail || model.write_may_fail;
                ensure(excused, "false poison", || format!("{} refuses: {error}", model.name))?;
                model.poisoned_at = Some(model.durable_floor);
                self.coverage.hit("poisoned");
            }
            if self.operation.is_multiple_of(4) {
                media::not_ahead(&self.disk, Self::root(), model)?;
            }
        }
        self.look_at_pool();
        if acks > 0 {
            let ends: Vec<_> = self
                .logs
                .iter()
                .map(|log| (log.durable_floor, log.written_floor, log.end()))
                .collect();
            self.note(|| format!("{acks} acked; flushed, written, end: {ends:?}"));
        }
        Ok(())
    }

    /// Within a life a spare only leaves the pool to become a segment.
    fn look_at_pool(&mut self) {
        let files = self.disk.files();
        let is_spare = |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "spare");
        let spares = files.iter().filter(is_spare).count();
        self.coverage.add("spare made", u64::from(spares > self.spares));
        self.coverage.add("spare adopted", u64::from(spares < self.spares));
        self.spares = spares;
    }

    /// Lets the process live as long as any reasonable one.
    pub(crate) fn bound_life(&mut self) {
        self.disk.stop_at_boundary(self.disk.boundaries() + BOUNDARIES_MAX);
    }

    /// Learns what a dead engine can still tell, and lets it go.
    pub(crate) fn bury(&mut self, life: Life) -> Check {
        let passed = self.disk.boundaries() - life.began;
        ensure(passed < BOUNDARIES_MAX, "L5", || format!("{passed} boundaries and no end"))?;
        self.count_rolls(&life);
        let Life { engine, handles, readers, .. } = life;
        drop(readers);
        for (index, handle) in handles.iter().enumerate() {
            if let Some(handle) = *handle {
                self.logs[index].settle(&mut self.coverage)?;
                if !self.logs[index].in_maintenance {
                    self.logs[index].observe(engine.marks(handle))?;
                }
            }
        }
        drop(engine);
        for model in &mut self.logs {
            model.settle(&mut self.coverage)?;
        }
        Ok(())
    }

    /// After every process is dead: perhaps the power goes too, perhaps some time passes.
    pub(crate) fn after_death(&mut self) {
        let cut = self.plan.power_cuts && (!self.plan.kills || self.random.chance(1, 2));
        if cut {
            let survival = self.some_survival();
            self.note(|| format!("power cut: {survival:?}"));
            self.disk.power_cut(survival);
            for model in &mut self.logs {
                model.power_was_cut();
            }
        } else if self.random.chance(1, 2) {
            let late = self.random.below(60_000) >> self.random.below(12);
            self.disk.advance(Duration::from_micros(late));
        }
    }

    pub(crate) fn some_survival(&mut self) -> Survival {
        match self.random.below(4) {
            0 => {
                self.coverage.hit("nothing survives");
                Survival::Nothing
            }
            1 => {
                self.coverage.hit("everything survives");
                Survival::Everything
            }
            _ => {
                self.coverage.hit("something survives");
                Survival::Random(self.random.next_u64())
            }
        }
    }

    /// Chooses whether and when this life will be killed.
    pub(crate) fn place_crash(&mut self) {
        if (self.plan.kills || self.plan.power_cuts) && self.random.chance(2, 3) {
            let ahead = (1 + self.random.below(8000)) >> self.random.below(5);
            self.disk.stop_at_boundary(self.disk.boundaries() + ahead);
        } else {
            self.bound_life();
        }
    }

    /// Ends a life: it was killed on the way, or it is closed, dropped or killed now.
    pub(crate) fn end_life(&mut self, life: Life) -> Check {
        if !life.platform.is_alive() {
            self.note(|| "crash".to_owned());
            self.bury(life)?;
            self.after_death();
            return Ok(());
        }
        match self.random.below(4) {
            0 if self.plan.kills || self.plan.power_cuts => {
                self.note(|| "killed between operations".to_owned());
                life.platform.kill();
                self.bury(life)?;
                self.after_death();
            }
            1 => {
                self.note(|| "dropped".to_owned());
                self.bury(life)?;
                self.disk.kill();
                self.after_death();
            }
            _ => self.close(life)?,
        }
        Ok(())
    }

    /// Returns the base of a log's newest segment.
    fn last_segment(&self, index: usize) -> u64 {
        let directory = Self::log_path(&self.logs[index].name);
        let files = self.disk.files();
        let names = files.iter().filter(|path| path.parent() == Some(&directory));
        let names = names.filter_map(|path| path.file_name()?.to_str());
        names.filter_map(parse_segment_file_name).map(|base| base.0).max().unwrap_or(0)
    }

    fn count_rolls(&mut self, life: &Life) {
        for (index, before) in life.segments.iter().enumerate() {
            let rolled = self.last_segment(index) > *before;
            self.coverage.add("roll", u64::from(rolled));
        }
    }

    fn close(&mut self, life: Life) -> Check {
        self.count_rolls(&life);
        if self.random.chance(1, 3) {
            let ahead = 1 + self.random.below(40);
            self.disk.stop_at_boundary(self.disk.boundaries() + ahead);
        }
        let Life { engine, platform, readers, .. } = life;
        drop(readers);
        let poisoned = self.logs.iter().any(|model| model.poisoned_at.is_some());
        let faults = self.logs.iter().any(|model| model.flush_may_fail || model.write_may_fail);
        let result = engine.close();
        for model in &mut self.logs {
            model.settle(&mut self.coverage)?;
        }
        self.note(|| format!("close: {result:?}"));
        if platform.is_alive() && result.is_ok() {
            ensure(!poisoned, "D3", || "a poisoned log was closed as if it were clean".to_owned())?;
            self.coverage.hit("clean close");
            self.closed_cleanly = true;
            for model in &mut self.logs {
                let end = model.end();
                (model.durable_floor, model.written_floor) = (end, end);
            }
        } else {
            self.coverage.hit("close with I/O error or crash");
            let dead = !platform.is_alive();
            self.coverage.add("crash in close", u64::from(dead));
            let excused = dead || poisoned || faults;
            ensure(excused, "close", || format!("closing failed: {result:?}"))?;
        }
        platform.kill();
        self.disk.kill();
        self.after_death();
        Ok(())
    }

    /// Everything healed: the log opens, takes an append with a flush, and reads whole.
    pub(crate) fn last_life(&mut self) -> Check {
        self.disk.set_capacity(None);
        self.disk_is_full = false;
        self.bound_life();
        let mut life = self.open_life()?;
        self.bound_life();
        for index in 0..self.logs.len() {
            self.operation += 1;
            self.append(&mut life, index, true)?;
            self.look(&life)?;
            self.send_again(&mut life, index)?;
            if self.logs[index].poisoned_at.is_none() {
                self.read_whole(&life, index)?;
            }
        }
        self.close(life)
    }

    /// A read error that goes away again is never a torn tail: on a copy of the disk the opening
    /// fails for that log, can be tried again, and nothing was cut.
    fn read_error_while_opening(&mut self) -> Check {
        let copy = self.disk.clone_state();
        copy.stop_at_boundary(copy.boundaries() + BOUNDARIES_MAX);
        let kind = IoErrorKind::Device;
        let nth = self.random.below(6);
        let rule = FaultRule::new("read", "/log-", Fault::Refuse(kind)).nth(nth);
        if self.disk.rules_left() > 0 {
            return Ok(());
        }
        copy.inject(rule);
        let opened = LocalEngine::open(copy.start_process(), &self.options);
        let Ok(engine) = opened else { return Ok(()) };
        let failed = engine.recovery().failed.clone();
        drop(engine);
        copy.kill();
        if copy.rules_left() > 0 {
            return Ok(());
        }
        ensure(!failed.is_empty(), "D6", || format!("an opening passed over a read error {nth}"))?;
        self.coverage.hit("tail read error while opening");
        for (name, error) in &failed {
            if self.disk_is_full && *error.kind() == ErrorKind::Full {
                continue;
            }
            ensure(*error.kind() == ErrorKind::Io, "D6", || {
                format!("a read error of {name} was taken for something else: {error}")
            })?;
        }
        self.verify_copy(&copy, "D6").map(drop)
    }
}
