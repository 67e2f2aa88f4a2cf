//! Driving the engine through a workload's steps with the oracle beside it, until the end or the
//! crash.
//!
//! Verified: what `oracle` verifies at acks, marks and openings (D1, D2, D4, A2, A8, A9), and by
//! reading everything after each opening D7, A1. Not verified here: faults of the device.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use highwater::{
    Ack, FlushPolicy, Isolation, LocalEngine, LocalLog, LogOptions, Mode, Offset, Options,
    Preparation, RecordBatch, Ticket,
};
use highwater_io::sim::{SimDisk, SimPlatform};

use super::workloads::Workload;
use crate::batches::{batch_of, numbered_batch};
use crate::checks::{media, reads};
use crate::coverage::Coverage;
use crate::failure::{Check, broken, ensure};
use crate::oracle::{Exists, LogModel};
use crate::producers;

/// The engine's directory on the simulated disk.
pub(crate) const ROOT: &str = "/data";

/// One step of a workload.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Start a process and open the engine.
    Open,
    /// Make or get the log with this number.
    Log(usize),
    /// Append one record with a value of so many bytes; does not wait.
    Append(usize, u64, Ack),
    /// Append a batch of so many records with values of so many bytes each.
    Batch(usize, usize, u64, Ack),
    /// Append a record with a value of so many bytes as the one with this number of a producer.
    Numbered(usize, i32, u64, Ack),
    /// Wait for the newest ack.
    Await,
    /// Flush and wait.
    Flush(usize),
    /// Let so many microseconds pass.
    Wait(u64),
    /// Raise the log's start to an offset, and wait.
    Trim(usize, u64),
    /// Truncate.
    Truncate(usize, Cut),
    /// Reopen the log.
    Reopen(usize),
    /// Close the engine.
    Close,
    /// Kill the process; what is in flight lands later.
    Kill,
    /// Leave only so many free bytes on the disk; 0 lifts the limit.
    Free(u64),
}

/// Where to truncate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// Between two batches, so many before the end.
    Border(usize),
    /// Inside the batch so many before the end.
    Inside(usize),
    /// To an offset.
    To(u64),
}

impl Cut {
    /// Returns the offset of this cut of a log.
    pub(crate) fn of(self, model: &LogModel) -> u64 {
        let entry = |back: usize| {
            let at = model.entries.len().saturating_sub(back + 1);
            model.entries.get(at).map_or(0, |entry| entry.base)
        };
        match self {
            Cut::Border(back) => entry(back),
            Cut::Inside(back) => entry(back) + 1,
            Cut::To(to) => to,
        }
    }
}

/// Returns the options a workload's log is made with.
pub(crate) fn options_of(
    model: &LogModel,
    prepare: Preparation,
    retention_bytes: Option<u64>,
) -> LogOptions {
    LogOptions {
        segment_bytes: Some(model.segment_bytes),
        never_rewrite_flushed: Some(model.never_rewrite_flushed),
        flush: FlushPolicy::NONE,
        prepare,
        retention_bytes,
        ..LogOptions::default()
    }
}

/// A disk, a process on it, and the oracle.
pub(crate) struct Stage {
    pub(crate) disk: SimDisk,
    pub(crate) models: Vec<LogModel>,
    pub(crate) coverage: Coverage,
    process: Option<(SimPlatform, LocalEngine<SimPlatform>)>,
    handles: Vec<Option<LocalLog>>,
    attempts: u64,
    /// The numbered batches sent so far, and to which log.
    numbered: Vec<(usize, Rc<RecordBatch>)>,
    last: Option<Ticket>,
    /// Of every log.
    prepare: Preparation,
    mode: Mode,
    retention_bytes: Option<u64>,
}

impl Stage {
    pub(crate) fn new(disk: SimDisk, models: Vec<LogModel>, workload: &Workload) -> Stage {
        let (coverage, handles) = (Coverage::default(), vec![None; models.len()]);
        Stage {
            disk,
            models,
            coverage,
            process: None,
            handles,
            attempts: 0,
            numbered: Vec::new(),
            last: None,
            prepare: workload.prepare,
            mode: workload.mode,
            retention_bytes: workload.retention_bytes,
        }
    }

    /// Counts attempts from here on, so that another run has other values.
    pub(crate) fn count_from(&mut self, attempt: u64) {
        self.attempts = attempt;
    }

    /// Returns a stage for what was left of this one on `disk`.
    pub(crate) fn on(&self, disk: SimDisk) -> Stage {
        let handles = vec![None; self.models.len()];
        Stage {
            disk,
            models: self.models.clone(),
            coverage: Coverage::default(),
            process: None,
            handles,
            numbered: self.numbered.clone(),
            last: None,
            ..*self
        }
    }

    fn is_dead(&self) -> bool {
        self.process.as_ref().is_some_and(|(platform, _)| !platform.is_alive())
    }

    /// Does the steps. Returns whether the process lived through all of them.
    pub(crate) fn run(&mut self, steps: &[Step]) -> Check<bool> {
        for step in steps {
            let alive = self.step(*step)? && !self.is_dead();
            if !alive {
                self.bury()?;
                return Ok(false);
            }
            self.look()?;
        }
        Ok(true)
    }

    fn engine(&mut self) -> &mut LocalEngine<SimPlatform> {
        match &mut self.process {
            Some((_, engine)) => engine,
            None => panic!("a workload opens the engine first"),
        }
    }

    fn handle(&self, log: usize) -> LocalLog {
        match self.handles[log] {
            Some(handle) => handle,
            None => panic!("a workload makes the log first"),
        }
    }

    /// Does one step; false if the process died in it and is gone.
    fn step(&mut self, step: Step) -> Check<bool> {
        match step {
            Step::Open => return self.open(),
            Step::Log(log) => return self.log(log),
            Step::Append(log, bytes, ack) => self.append(log, &[bytes], ack)?,
            Step::Batch(log, records, bytes, ack) => {
                self.append(log, &vec![bytes; records], ack)?;
            }
            Step::Numbered(log, sequence, bytes, ack) => {
                let batch = numbered_batch(sequence, bytes);
                self.numbered.push((log, Rc::clone(&batch)));
                self.send(log, batch, ack)?;
            }
            Step::Await => {
                if let Some(ticket) = self.last.clone() {
                    drop(self.engine().run_until(&ticket));
                }
            }
            Step::Flush(log) => {
                let handle = self.handle(log);
                let ticket = self.engine().flush(handle);
                self.models[log].flush_asked(self.attempts + 1, ticket.clone());
                drop(self.engine().run_until(&ticket));
            }
            Step::Wait(micros) => {
                let until = self.disk.now().plus(Duration::from_micros(micros));
                while self.disk.now() < until && !self.is_dead() {
                    let left = until.since(self.disk.now());
                    self.engine().poll(left);
                }
            }
            Step::Trim(log, to) => {
                let handle = self.handle(log);
                self.models[log].start_asked = self.models[log].start_asked.max(to);
                let ticket = self.engine().trim(handle, Offset(to));
                drop(self.engine().run_until(&ticket));
            }
            Step::Truncate(log, cut) => return self.truncate(log, cut),
            Step::Reopen(log) => return self.reopen(log),
            Step::Close => return self.close(),
            Step::Kill => {
                self.disk.kill();
                self.bury()?;
            }
            Step::Free(bytes) => {
                let capacity = (bytes > 0).then(|| self.disk.used_bytes() + bytes);
                self.disk.set_capacity(capacity);
            }
        }
        Ok(true)
    }

    fn append(&mut self, log: usize, lengths: &[u64], ack: Ack) -> Check {
        let batch = Rc::new(batch_of(self.attempts + 1, lengths));
        self.send(log, batch, ack)
    }

    fn send(&mut self, log: usize, batch: Rc<RecordBatch>, ack: Ack) -> Check {
        self.attempts += 1;
        let (attempt, handle) = (self.attempts, self.handle(log));
        match self.engine().append(handle, RecordBatch::clone(&batch), ack) {
            Ok(ticket) => {
                self.models[log].appended(attempt, batch, ack, ticket.clone());
                self.last = Some(ticket);
                Ok(())
            }
            Err(_) if self.is_dead() => Ok(()),
            Err(error) => broken("L5", format!("an append is refused at once: {error}")),
        }
    }

    fn look(&mut self) -> Check {
        let Some((_, engine)) = &self.process else { return Ok(()) };
        for (model, handle) in self.models.iter_mut().zip(&self.handles) {
            let Some(handle) = *handle else { continue };
            model.settle(&mut self.coverage)?;
            model.observe(engine.marks(handle))?;
            let failure = engine.failure(handle);
            ensure(failure.is_none(), "false poison", || format!("{}: {failure:?}", model.name))?;
        }
        Ok(())
    }

    /// Learns what a dead engine can still tell, and lets it go.
    fn bury(&mut self) -> Check {
        if let Some((_, engine)) = self.process.take() {
            for (model, handle) in self.models.iter_mut().zip(&mut self.handles) {
                let Some(handle) = handle.take() else { continue };
                model.settle(&mut self.coverage)?;
                if !model.in_maintenance {
                    model.observe(engine.marks(handle))?;
                }
            }
            drop(engine);
        }
        for model in &mut self.models {
            model.settle(&mut self.coverage)?;
        }
        Ok(())
    }

    fn open(&mut self) -> Check<bool> {
        let made = self.models.iter().any(|model| model.exists == Exists::Yes);
        let platform = self.disk.start_process();
        let engine = match LocalEngine::open(platform.clone(), &Options::at(ROOT)) {
            _ if !platform.is_alive() => return Ok(false),
            Ok(engine) => engine,
            Err(error) => return broken("L6", format!("the engine does not open: {error}")),
        };
        // Nothing that a killed process still writes may land behind this look at the disk. (Before
        // there is a log, the directory itself may be on its way.)
        let mut late = self.disk.late();
        // A reader saves an index that it has made anew. It has no share of the lock, which it may
        // outlive; an index is believed by its content alone (D8).
        late.retain(|path| path.extension().is_none_or(|extension| extension != "index"));
        ensure(!made || late.is_empty(), "lock", || {
            format!("opened while operations of a killed process are under way: {late:?}")
        })?;
        let recovery = engine.recovery().clone();
        if let Some((name, error)) = recovery.failed.first() {
            return broken("false corruption", format!("{name} does not open: {error}"));
        }
        self.process = Some((platform, engine));
        for log in 0..self.models.len() {
            let report = recovery.logs.iter().find(|report| report.name == self.models[log].name);
            let model = &mut self.models[log];
            let Some(report) = report else {
                ensure(model.exists != Exists::Yes, "D10", || format!("{} vanished", model.name))?;
                continue;
            };
            self.coverage.report(report);
            ensure(model.exists != Exists::No, "D10", || format!("{} was never made", model.name))?;
            let sound = report.corrupt.is_none() && report.quarantined.is_empty();
            ensure(sound, "false corruption", || format!("{report:?}"))?;
            model.resolve(report.log_end.0)?;
            model.opened(report)?;
            media::scan_is_bounded(report)?;
            model.exists = Exists::Yes;
            if !self.log(log)? || !self.read_whole(log)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn log(&mut self, log: usize) -> Check<bool> {
        let model = &mut self.models[log];
        let options =
            LogOptions { mode: self.mode, ..options_of(model, self.prepare, self.retention_bytes) };
        if model.exists == Exists::No {
            model.exists = Exists::Maybe;
        }
        let name = model.name.clone();
        let result = self.engine().log(&name, &options);
        if self.is_dead() {
            return Ok(false);
        }
        match result {
            Ok(handle) => self.handles[log] = Some(handle),
            Err(error) => return broken("D14", format!("{name} cannot be made: {error}")),
        }
        let (epoch, generation) = media::current(&self.disk, Path::new(ROOT), &name)?;
        let model = &mut self.models[log];
        if model.exists == Exists::Maybe {
            model.exists = Exists::Yes;
            model.begins(epoch, generation)?;
        }
        ensure(
            (epoch, generation) == (model.epoch, model.generation),
            "flushed before use",
            || format!("{name} is in epoch {epoch}, generation {generation} on the media"),
        )?;
        Ok(true)
    }

    fn read_whole(&mut self, log: usize) -> Check<bool> {
        let handle = self.handle(log);
        let Some((_, engine)) = &self.process else { return Ok(false) };
        let start = engine.marks(handle).log_start.0;
        self.models[log].starts_at(start)?;
        producers::known(engine, handle, &self.models[log])?;
        let asked = (start, Isolation::Written, usize::MAX);
        match reads::read(engine, handle, &self.models[log], asked)? {
            reads::Ended::Whole => Ok(true),
            reads::Ended::Error(_) if self.is_dead() => Ok(false),
            reads::Ended::Error(error) => {
                broken("D7", format!("{} cannot be read: {error}", self.models[log].name))
            }
        }
    }

    fn truncate(&mut self, log: usize, cut: Cut) -> Check<bool> {
        let model = &mut self.models[log];
        let to = cut.of(model);
        model.truncate_begins(to);
        model.in_maintenance = true;
        let handle = self.handle(log);
        let result = self.engine().truncate(handle, Offset(to));
        self.models[log].settle(&mut self.coverage)?;
        self.maintained(log, &result.map_err(|error| error.to_string()))
    }

    fn reopen(&mut self, log: usize) -> Check<bool> {
        self.models[log].in_maintenance = true;
        let handle = self.handle(log);
        let result = self.engine().reopen(handle);
        self.models[log].settle(&mut self.coverage)?;
        self.maintained(log, &result.map_err(|error| error.to_string()))
    }

    fn maintained(&mut self, log: usize, result: &Result<highwater::Marks, String>) -> Check<bool> {
        if let Ok(marks) = result {
            self.models[log].resolve(marks.log_end.0)?;
        }
        if self.is_dead() {
            return Ok(false);
        }
        ensure(result.is_ok(), "maintenance", || format!("{result:?}"))?;
        let name = self.models[log].name.clone();
        let (epoch, generation) = media::current(&self.disk, Path::new(ROOT), &name)?;
        self.models[log].begins(epoch, generation)?;
        self.read_whole(log)
    }

    fn close(&mut self) -> Check<bool> {
        let Some((platform, engine)) = self.process.take() else { return Ok(true) };
        let result = engine.close();
        self.handles.fill(None);
        for model in &mut self.models {
            model.settle(&mut self.coverage)?;
        }
        if !platform.is_alive() {
            return Ok(false);
        }
        ensure(result.is_ok(), "close", || format!("{result:?}"))?;
        for model in &mut self.models {
            let end = model.end();
            (model.durable_floor, model.written_floor) = (end, end);
        }
        platform.kill();
        Ok(true)
    }

    /// Opens, sends all numbered batches once more, appends to every log, reads everything, loses
    /// the power, and opens again.
    pub(crate) fn another_life(&mut self) -> Check {
        let opened = self.open()?;
        ensure(opened, "L6", || "the engine does not open".to_owned())?;
        for log in 0..self.models.len() {
            if self.models[log].exists != Exists::Yes {
                self.log(log)?;
            }
            self.send_again(log)?;
            for step in [
                Step::Append(log, 300, Ack::LEADER),
                Step::Append(log, 3000, Ack::LEADER_FLUSHED),
                Step::Await,
            ] {
                self.step(step)?;
                self.look()?;
            }
            let model = &self.models[log];
            ensure(model.durable_floor == model.end(), "D1", || {
                format!("{} is flushed to {}, not {}", model.name, model.durable_floor, model.end())
            })?;
            self.read_whole(log)?;
        }
        self.step(Step::Kill)?;
        self.power_cut(highwater_io::sim::Survival::Nothing);
        let opened = self.open()?;
        ensure(opened, "L6", || "the engine does not open again".to_owned())?;
        self.step(Step::Kill).map(drop)
    }

    /// As a producer would that does not know what became of them: each is there once then, or is
    /// refused for what was truncated or is too old.
    fn send_again(&mut self, log: usize) -> Check {
        let numbered = self.numbered.clone();
        for (_, batch) in numbered.into_iter().filter(|(to, _)| *to == log) {
            self.send(log, batch, Ack::LEADER_FLUSHED)?;
            self.step(Step::Await)?;
            let told = self.last.as_ref().is_some_and(|ticket| ticket.acked().is_some());
            ensure(told, "L5", || "a numbered batch hears nothing".to_owned())?;
            self.look()?;
        }
        Ok(())
    }

    pub(crate) fn power_cut(&mut self, survival: highwater_io::sim::Survival) {
        self.disk.power_cut(survival);
        self.power_was_cut();
    }

    pub(crate) fn power_was_cut(&mut self) {
        for model in &mut self.models {
            model.power_was_cut();
        }
    }
}
