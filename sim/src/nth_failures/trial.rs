//! One run of a workload in which one operation fails, or all from one on.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use highwater::{
    Error, ErrorKind, LocalEngine, LocalLog, LogReport, Marks, Offset, Options, Ticket,
};
use highwater_io::sim::{Fault, FaultRule, SimDisk, SimPlatform, Survival, Trouble};
use highwater_segment::meta::{LogState, META_FILE_NAME, decode_slots};

use super::{Summary, Way};
use crate::batches::batch_of;
use crate::checks::{media, reads};
use crate::coverage::Coverage;
use crate::crash_states::stage::{Cut, ROOT, Stage, Step, options_of};
use crate::crash_states::{Workload, beginning};
use crate::failure::{Check, broken, ensure};
use crate::oracle::{Exists, LogModel};

/// A workload under way.
pub(crate) struct Trial<'a> {
    pub(crate) disk: SimDisk,
    pub(crate) notes: Vec<String>,
    workload: &'a Workload,
    way: Way,
    /// A failed log is opened again at once, or only when the workload is through.
    at_once: bool,
    models: Vec<LogModel>,
    process: Option<(SimPlatform, LocalEngine<SimPlatform>)>,
    handles: Vec<Option<LocalLog>>,
    attempts: u64,
    last: Option<Ticket>,
    coverage: Coverage,
    errors: u64,
}

impl<'a> Trial<'a> {
    /// Returns the run in which the operation behind `number` others fails.
    pub(crate) fn new(workload: &'a Workload, way: Way, number: u64) -> Trial<'a> {
        let (disk, models) = beginning(workload);
        let rule = FaultRule::any(Fault::Trouble(way.trouble)).nth(number);
        disk.inject(if way.for_ever { rule.for_ever() } else { rule });
        disk.reseed(number);
        Trial {
            disk,
            notes: Vec::new(),
            workload,
            way,
            at_once: number.is_multiple_of(2),
            handles: vec![None; models.len()],
            models,
            process: None,
            attempts: 0,
            last: None,
            coverage: Coverage::default(),
            errors: 0,
        }
    }

    /// Runs it to the end of the workload and through every way to go on; returns whether an
    /// operation failed.
    pub(crate) fn run(&mut self, summary: &mut Summary) -> Check<bool> {
        for step in self.workload.steps {
            if self.process.is_none() && !matches!(step, Step::Open | Step::Free(_)) {
                // It did not open.
                continue;
            }
            self.note(|| format!("{step:?}"));
            self.step(*step)?;
            self.look()?;
        }
        let struck = self.has_struck();
        if struck {
            self.disk.set_capacity(None);
            for index in 0..self.models.len() {
                self.bring_back(index)?;
            }
            self.look()?;
            self.every_end(summary)?;
        }
        summary.errors += self.errors;
        Ok(struck)
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.notes.len() < 1000 {
            self.notes.push(what());
        }
    }

    fn has_struck(&self) -> bool {
        !self.disk.struck().is_empty()
    }

    /// Tells the oracle what failed.
    fn learn(&mut self) {
        let struck = self.disk.struck();
        let hidden = |verb: &str| match self.way.trouble {
            Trouble::ShortTransfer => true,
            Trouble::Interrupted | Trouble::TryAgain => {
                !self.way.for_ever && verb != "flush" && verb != "sync directory"
            }
            _ => false,
        };
        let failed =
            |verbs: &[&str]| struck.iter().any(|(verb, _)| verbs.contains(verb) && !hidden(verb));
        let (flush, write) = (failed(&["flush", "sync directory"]), failed(&["write"]));
        for model in &mut self.models {
            model.flush_may_fail |= flush;
            model.write_may_fail |= write;
        }
    }

    /// Checks that an error is one that such a failure may have, and says what failed.
    fn excuse(&mut self, error: &Error) -> Check {
        self.errors += 1;
        self.learn();
        self.note(|| format!("  {} {error}", error.kind().name()));
        let full = self.way.trouble == Trouble::NoSpace || self.workload.fills_the_disk();
        ensure(self.has_struck() || full, "false error", || error.to_string())?;
        ensure(self.way.trouble != Trouble::ShortTransfer || full, "false error", || {
            format!("a short transfer was not continued: {error}")
        })?;
        let text = error.to_string();
        if *error.kind() == ErrorKind::Closed {
            // What a failed truncation or reopening left closed, until it is opened again.
            let mut closed = self.models.iter().filter(|model| model.poisoned_at.is_some());
            return ensure(closed.any(|model| text.contains(&model.name)), "error names", || {
                format!("no log that is out of service: {text}")
            });
        }
        let kind = match error.kind() {
            ErrorKind::Io | ErrorKind::Poisoned => true,
            ErrorKind::Full => full,
            _ => false,
        };
        ensure(kind, "error kind", || format!("{}: {error}", error.kind().name()))?;
        let source = error.io().is_some_and(|io| {
            let place = io.path.starts_with(ROOT) || io.path == Path::new("/");
            place && !io.operation.is_empty() && text.contains(&io.path.display().to_string())
        });
        ensure(source && text.starts_with("cannot "), "error names", || {
            format!("neither operation nor file: {text}")
        })
    }

    fn engine(&mut self) -> &mut LocalEngine<SimPlatform> {
        match &mut self.process {
            Some((_, engine)) => engine,
            None => panic!("a step needs an engine"),
        }
    }

    fn step(&mut self, step: Step) -> Check {
        match step {
            Step::Open => self.open(),
            Step::Log(index) => self.log(index),
            // Without its numbers: what a failed duplicate would be judged by is not modelled here.
            Step::Append(index, bytes, ack) | Step::Numbered(index, _, bytes, ack) => {
                self.append(index, &[bytes], ack)
            }
            Step::Batch(index, records, bytes, ack) => {
                self.append(index, &vec![bytes; records], ack)
            }
            Step::Await => match self.last.clone() {
                Some(ticket) => self.await_it(&ticket),
                None => Ok(()),
            },
            Step::Flush(index) => {
                let Some(handle) = self.handles[index] else { return Ok(()) };
                let ticket = self.engine().flush(handle);
                let attempts = self.attempts;
                self.models[index].flush_asked(attempts + 1, ticket.clone());
                self.await_it(&ticket)
            }
            Step::Wait(micros) => {
                let until = self.disk.now().plus(Duration::from_micros(micros));
                while self.disk.now() < until {
                    let left = until.since(self.disk.now());
                    self.engine().poll(left);
                }
                Ok(())
            }
            Step::Trim(index, to) => {
                let Some(handle) = self.handles[index] else { return Ok(()) };
                let to = to.min(self.engine().marks(handle).log_end.0);
                self.models[index].start_asked = self.models[index].start_asked.max(to);
                let ticket = self.engine().trim(handle, Offset(to));
                self.await_it(&ticket)
            }
            Step::Truncate(index, cut) => self.truncate(index, cut),
            Step::Reopen(index) => self.reopen(index),
            Step::Close => self.close(),
            Step::Kill => {
                self.last = None;
                self.disk.kill();
                self.bury()
            }
            Step::Free(bytes) => {
                let capacity = (bytes > 0).then(|| self.disk.used_bytes() + bytes);
                self.disk.set_capacity(capacity);
                Ok(())
            }
        }
    }

    fn open(&mut self) -> Check {
        for again in [false, true] {
            let platform = self.disk.start_process();
            let opened = LocalEngine::open(platform.clone(), &Options::at(ROOT));
            match opened {
                Ok(engine) => {
                    self.process = Some((platform, engine));
                    return self.adopt();
                }
                Err(error) => {
                    self.excuse(&error)?;
                    platform.kill();
                    let for_ever = self.way.for_ever;
                    ensure(for_ever || !again, "reopen", || {
                        format!("opening after one failure: {error}")
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Takes over what opening found.
    fn adopt(&mut self) -> Check {
        let recovery = self.engine().recovery().clone();
        let failed: BTreeMap<_, _> = recovery.failed.into_iter().collect();
        for index in 0..self.models.len() {
            let name = self.models[index].name.clone();
            if let Some(error) = failed.get(&name) {
                self.excuse(error)?;
                // In the same process.
                self.log(index)?;
                continue;
            }
            match recovery.logs.iter().find(|report| report.name == name) {
                Some(report) => {
                    self.found(index, report)?;
                    self.log(index)?;
                }
                None => ensure(self.models[index].exists != Exists::Yes, "D10", || {
                    format!("{name} vanished")
                })?,
            }
        }
        Ok(())
    }

    /// Checks what an opening says of a log that exists.
    fn found(&mut self, index: usize, report: &LogReport) -> Check {
        self.learn();
        let model = &mut self.models[index];
        ensure(model.exists != Exists::No, "D10", || format!("{} was never made", model.name))?;
        let sound = report.corrupt.is_none() && report.quarantined.is_empty();
        ensure(sound, "false corruption", || format!("{report:?}"))?;
        model.resolve(report.log_end.0)?;
        model.begins(report.epoch.0, report.generation.0)?;
        model.exists = Exists::Yes;
        Ok(())
    }

    /// Gets the handle of a log; makes or opens it if it is not there.
    fn log(&mut self, index: usize) -> Check {
        let model = &mut self.models[index];
        let options = options_of(model, self.workload.prepare, self.workload.retention_bytes);
        let name = model.name.clone();
        for again in [false, true] {
            let model = &mut self.models[index];
            if model.exists == Exists::No {
                model.exists = Exists::Maybe;
            }
            match self.engine().log(&name, &options) {
                Ok(handle) => {
                    self.handles[index] = Some(handle);
                    let report = self.engine().log_report(handle).clone();
                    if report.generation.0 != self.models[index].generation {
                        self.found(index, &report)?;
                    }
                    return self.read_whole(index);
                }
                Err(error) => {
                    self.excuse(&error)?;
                    let for_ever = self.way.for_ever;
                    ensure(for_ever || !again, "reopen", || {
                        format!("{name} after one failure: {error}")
                    })?;
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, index: usize, lengths: &[u64], ack: highwater::Ack) -> Check {
        let Some(handle) = self.handles[index] else { return Ok(()) };
        self.attempts += 1;
        let attempt = self.attempts;
        let batch = batch_of(attempt, lengths);
        let ticket = match self.engine().append(handle, batch.clone(), ack) {
            Ok(ticket) => ticket,
            Err(error) => return broken("L5", format!("an append is refused at once: {error}")),
        };
        self.models[index].appended(attempt, Rc::new(batch), ack, ticket.clone());
        self.last = Some(ticket);
        Ok(())
    }

    fn await_it(&mut self, ticket: &Ticket) -> Check {
        match self.engine().run_until(ticket) {
            Ok(_) => Ok(()),
            Err(error) => self.excuse(&error),
        }
    }

    fn truncate(&mut self, index: usize, cut: Cut) -> Check {
        let Some(handle) = self.handles[index] else { return Ok(()) };
        self.models[index].settle(&mut self.coverage)?;
        let start = self.engine().marks(handle).log_start.0;
        let to = cut.of(&self.models[index]).max(start);
        self.models[index].truncate_begins(to);
        self.models[index].in_maintenance = true;
        let result = self.engine().truncate(handle, Offset(to));
        self.maintained(index, result)
    }

    fn reopen(&mut self, index: usize) -> Check {
        let Some(handle) = self.handles[index] else { return Ok(()) };
        self.models[index].in_maintenance = true;
        let result = self.engine().reopen(handle);
        self.maintained(index, result)
    }

    /// Goes on behind a truncation or a reopening.
    fn maintained(&mut self, index: usize, result: highwater::Result<Marks>) -> Check {
        let Some(handle) = self.handles[index] else { return Ok(()) };
        self.models[index].settle(&mut self.coverage)?;
        if let Err(error) = &result {
            self.excuse(error)?;
        }
        self.learn();
        if self.engine().failure(handle).is_some() {
            // It did not come back.
            let end = self.models[index].durable_floor;
            self.models[index].poisoned_at.get_or_insert(end);
            return Ok(());
        }
        let marks = self.engine().marks(handle);
        ensure(marks.flushed == marks.log_end, "D4", || format!("opened with {marks:?}"))?;
        self.models[index].resolve(marks.log_end.0)?;
        let name = self.models[index].name.clone();
        let slots = media::slots(&self.disk, Path::new(ROOT), &name);
        let newest = slots.iter().max_by_key(|slot| slot.sequence);
        let Some(newest) = newest else {
            return broken("flushed before use", format!("{name} has no good slot"));
        };
        self.models[index].begins(newest.epoch.0, newest.generation.0)?;
        self.read_whole(index)
    }

    /// Opens again what refuses writes, or could not be had.
    fn bring_back(&mut self, index: usize) -> Check {
        if self.process.is_none() {
            return Ok(());
        }
        let Some(handle) = self.handles[index] else { return self.log(index) };
        if self.engine().failure(handle).is_none() {
            return Ok(());
        }
        self.note(|| format!("bring back {index}"));
        for again in [false, true] {
            self.reopen(index)?;
            if self.engine().failure(handle).is_none() {
                return Ok(());
            }
            ensure(self.way.for_ever || !again, "reopen", || {
                format!("log {index} does not come back after one failure")
            })?;
        }
        Ok(())
    }

    fn read_whole(&mut self, index: usize) -> Check {
        let Some(handle) = self.handles[index] else { return Ok(()) };
        self.models[index].settle(&mut self.coverage)?;
        let Some((_, engine)) = &self.process else { return Ok(()) };
        let start = engine.marks(handle).log_start.0;
        self.models[index].starts_at(start)?;
        let asked = (start, highwater::Isolation::Written, usize::MAX);
        match reads::read(engine, handle, &self.models[index], asked)? {
            reads::Ended::Whole => Ok(()),
            reads::Ended::Error(error) => self.excuse(&error),
        }
    }

    /// Looks at everything that can be seen after a step.
    fn look(&mut self) -> Check {
        self.learn();
        if self.process.is_none() {
            return Ok(());
        }
        for index in 0..self.models.len() {
            let Some(handle) = self.handles[index] else { continue };
            self.models[index].settle(&mut self.coverage)?;
            let (marks, failure) = {
                let engine = self.engine();
                (engine.marks(handle), engine.failure(handle))
            };
            if !self.models[index].in_maintenance {
                self.models[index].observe(marks)?;
            }
            let Some(error) = failure else { continue };
            if self.models[index].poisoned_at.is_none() {
                self.excuse(&error)?;
                self.models[index].poisoned_at = Some(self.models[index].durable_floor);
                if self.at_once {
                    self.bring_back(index)?;
                }
            }
        }
        let open = self.models.iter().zip(&self.handles).filter(|(_, handle)| handle.is_some());
        self.no_false_clean(open.map(|(model, _)| model))
    }

    /// A log that is open, or refuses writes, is not marked clean (D3), on the media or in caches.
    fn no_false_clean<'b>(&self, models: impl Iterator<Item = &'b LogModel>) -> Check {
        for model in models {
            let path = Path::new(ROOT).join(&model.name).join(META_FILE_NAME);
            let seen = self.disk.read_file(&path).unwrap_or_default();
            let clean = decode_slots(&seen).into_iter().flatten().filter(|slot| {
                slot.state == LogState::Clean && slot.generation.0 >= model.generation
            });
            ensure(clean.count() == 0, "D3", || {
                format!("{} is marked clean while it is open or poisoned", model.name)
            })?;
        }
        Ok(())
    }

    fn bury(&mut self) -> Check {
        if let Some((platform, engine)) = self.process.take() {
            platform.kill();
            for (model, handle) in self.models.iter_mut().zip(&mut self.handles) {
                let Some(handle) = handle.take() else { continue };
                model.settle(&mut self.coverage)?;
                if !model.in_maintenance {
                    model.observe(engine.marks(handle))?;
                }
            }
        }
        for model in &mut self.models {
            model.settle(&mut self.coverage)?;
        }
        Ok(())
    }

    fn close(&mut self) -> Check {
        let Some((platform, engine)) = self.process.take() else { return Ok(()) };
        let poisoned: Vec<_> = self
            .handles
            .iter()
            .map(|handle| handle.is_some_and(|handle| engine.failure(handle).is_some()))
            .collect();
        let result = engine.close();
        self.learn();
        for model in &mut self.models {
            model.settle(&mut self.coverage)?;
        }
        match &result {
            Err(error) => self.excuse(error)?,
            Ok(()) => {
                ensure(!poisoned.contains(&true), "D3", || {
                    "a poisoned log was closed as if it were clean".to_owned()
                })?;
                for (model, handle) in self.models.iter_mut().zip(&self.handles) {
                    if handle.is_some() {
                        let end = model.end();
                        (model.durable_floor, model.written_floor) = (end, end);
                    }
                }
            }
        }
        let refused = self.models.iter().zip(&poisoned).filter(|(_, poisoned)| **poisoned);
        self.no_false_clean(refused.map(|(model, _)| model))?;
        self.handles.fill(None);
        platform.kill();
        Ok(())
    }

    /// A stated limit: the sync that failed was that of the engine's directory's name, and the
    /// kernel reports it once.
    fn a_directorys_name_may_go(&self) -> bool {
        let struck = self.disk.struck();
        struck.iter().any(|(verb, path)| *verb == "sync directory" && path == Path::new("/"))
    }

    /// Ends the process in every way, and goes on.
    fn every_end(&mut self, summary: &mut Summary) -> Check {
        let random = Survival::Random(self.attempts + self.errors);
        for cut in [None, Some(Survival::Nothing), Some(Survival::Everything), Some(random)] {
            if cut.is_none() && self.a_directorys_name_may_go() {
                // It would go later.
                continue;
            }
            let copy = self.disk.clone_state();
            if let Some(survival) = cut {
                copy.power_cut(survival);
            }
            self.note(|| format!("end: killed, power cut {cut:?}"));
            self.go_on(copy, cut.is_some(), summary)?;
        }
        self.note(|| "end: closed".to_owned());
        self.close()?;
        self.disk.power_cut(Survival::Nothing);
        self.go_on(self.disk.clone_state(), true, summary)
    }

    /// Opens what is left: as long as the failure lasts, and when it is over.
    fn go_on(&mut self, disk: SimDisk, cut: bool, summary: &mut Summary) -> Check {
        let mut models = self.models.clone();
        if cut {
            models.iter_mut().for_each(LogModel::power_was_cut);
            if self.a_directorys_name_may_go() {
                summary.vanished += forget_what_vanished(&disk, &mut models, self.workload);
            }
        }
        if self.way.for_ever {
            let platform = disk.start_process();
            let opened = LocalEngine::open(platform.clone(), &Options::at(ROOT));
            match &opened {
                Err(error) => self.excuse(error)?,
                Ok(engine) => {
                    for (_, error) in &engine.recovery().failed {
                        self.excuse(error)?;
                    }
                    for report in &engine.recovery().logs {
                        let model = models.iter_mut().find(|model| model.name == report.name);
                        let Some(model) = model else { continue };
                        model.resolve(report.log_end.0)?;
                    }
                }
            }
            platform.kill();
            // Its flushes may have failed, too.
            let flush =
                disk.struck().iter().any(|(verb, _)| matches!(*verb, "flush" | "sync directory"));
            let hidden = self.way.trouble == Trouble::ShortTransfer;
            models.iter_mut().for_each(|model| model.flush_may_fail |= flush && !hidden);
        }
        disk.heal();
        summary.states += 1;
        let mut stage = Stage::new(disk, models, self.workload);
        stage.another_life()
    }
}

/// Starts anew with the logs whose directories are gone; returns how many.
fn forget_what_vanished(disk: &SimDisk, models: &mut [LogModel], workload: &Workload) -> u64 {
    let files = disk.files();
    let (_, fresh) = beginning(workload);
    let mut vanished = 0;
    for (model, fresh) in models.iter_mut().zip(fresh) {
        let directory = Path::new(ROOT).join(&model.name);
        if !files.iter().any(|file| file.starts_with(&directory)) {
            vanished += u64::from(model.durable_floor > 0);
            *model = fresh;
        }
    }
    vanished
}
