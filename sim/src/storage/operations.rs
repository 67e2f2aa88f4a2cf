//! The operations of a life, one at a time.

use std::rc::Rc;
use std::time::Duration;

use highwater::{Ack, ErrorKind, Isolation, Offset, RecordBatch};
use highwater_io::sim::{Fault, FaultRule};
use highwater_segment::segment::parse_segment_file_name;

use super::life::Life;
use super::plan::{some_ack, some_policy};
use super::world::World;
use crate::batches::make_batch;
use crate::checks::{media, reads};
use crate::failure::{Check, ensure};

impl World {
    /// Does one operation. In a silent life nothing is appended.
    pub(crate) fn step(&mut self, life: &mut Life, silent: bool) -> Check {
        let index = self.random.index(self.logs.len());
        if life.handles[index].is_none() {
            if silent {
                return Ok(());
            }
            if let Some(handle) = life.out_of_service[index].take() {
                life.handles[index] = Some(handle);
                self.reopen(life, index)?;
                let back = life.handles[index].is_some() && life.platform.is_alive();
                self.coverage.add("back in service", u64::from(back));
                return Ok(());
            }
            return self.take_handle(life, index);
        }
        if self.logs[index].poisoned_at.is_some() && self.random.chance(1, 4) {
            return self.reopen(life, index);
        }
        match self.random.below(100) {
            _ if silent => self.read(life, index),
            0..46 => self.append(life, index, false),
            46..52 => self.burst(life, index),
            52..60 => self.flush(life, index),
            60..66 => self.wait(life),
            66..69 if self.plan.trims => self.trim(life, index),
            66..70 => self.change_policy(life, index),
            70..77 => self.read(life, index),
            77..82 => self.follow(life, index),
            82..86 if self.plan.truncations => self.truncate(life, index),
            86..88 => self.reopen(life, index),
            88..91 if self.plan.disk_full => self.change_capacity(),
            91..93 if self.plan.write_errors || self.plan.flush_errors => self.place_fault(index),
            93..97 => self.probe_crash(life),
            _ => self.wait(life),
        }
    }

    /// Appends one batch; with `durable`, and often without, drives the engine to the ack.
    pub(crate) fn append(&mut self, life: &mut Life, index: usize, durable: bool) -> Check {
        let Some(handle) = life.handles[index] else { return Ok(()) };
        let ack = if durable { Ack::LEADER_FLUSHED } else { some_ack(&mut self.random) };
        self.attempts += 1;
        let attempt = self.attempts;
        let batch = make_batch(&mut self.random, attempt, self.plan.sizes);
        let numbered = self.plan.producers && !durable && self.numbers.chance(1, 2);
        let batch = if numbered { self.numbered_batch(index, attempt) } else { Rc::new(batch) };
        let (records, bytes) = (batch.record_count(), batch.disk_bytes());
        self.note(|| {
            let stamp = batch.producer();
            format!(
                "append {attempt} to log-{index}: {records} records, {bytes} bytes, {ack:?}, {stamp:?}"
            )
        });
        self.coverage.hit("append");
        self.coverage.add("large batch", u64::from(bytes > self.plan.segment_bytes / 8));
        let ticket = match life.engine.append(handle, RecordBatch::clone(&batch), ack) {
            Ok(ticket) => ticket,
            Err(error) => {
                let dead = !life.platform.is_alive();
                return ensure(dead, "L5", || format!("an append was refused at once: {error}"));
            }
        };
        self.logs[index].appended(attempt, batch, ack, ticket.clone());
        let wait = durable || self.random.chance(1, 3);
        if !wait {
            return Ok(());
        }
        let result = life.engine.run_until(&ticket);
        let told = ticket.acked().is_some() || !life.platform.is_alive();
        ensure(told, "L5", || format!("attempt {attempt} waits for nothing: {result:?}"))?;
        if durable && self.logs[index].poisoned_at.is_none() {
            let excused = !life.platform.is_alive() || self.disk.rules_left() == 0;
            let faulty = self.logs[index].flush_may_fail || self.logs[index].write_may_fail;
            ensure(result.is_ok() || excused && faulty, "D14", || {
                format!("with everything healed log-{index} does not append: {result:?}")
            })?;
        }
        if self.random.chance(1, 2) {
            self.logs[index].settle(&mut self.coverage)?;
            self.logs[index].drop_acked_tickets();
        }
        Ok(())
    }

    /// Several appends without a look in between, so that many writes are in flight.
    fn burst(&mut self, life: &mut Life, index: usize) -> Check {
        for _ in 0..1 + self.random.below(12) {
            let other =
                if self.random.chance(1, 4) { self.random.index(self.logs.len()) } else { index };
            self.append(life, other, false)?;
        }
        Ok(())
    }

    fn flush(&mut self, life: &mut Life, index: usize) -> Check {
        let Some(handle) = life.handles[index] else { return Ok(()) };
        self.note(|| format!("flush log-{index}"));
        let ticket = life.engine.flush(handle);
        self.logs[index].flush_asked(self.attempts + 1, ticket.clone());
        if self.random.chance(1, 2) {
            drop(life.engine.run_until(&ticket));
        }
        Ok(())
    }

    /// Lets time pass; long waits reach the interval flush and the idle checkpoint.
    fn wait(&mut self, life: &mut Life) -> Check {
        let micros = [0, 20, 400, 20_000, 250_000][self.random.index(5)];
        self.note(|| format!("wait {micros} us"));
        let before = self.sequences();
        let until = self.disk.now().plus(Duration::from_micros(micros));
        loop {
            let left = until.since(self.disk.now());
            life.engine.poll(left);
            if left.is_zero() || !life.platform.is_alive() {
                break;
            }
        }
        let moved = micros >= 100_000 && self.sequences() != before;
        self.coverage.add("idle checkpoint", u64::from(moved));
        Ok(())
    }

    fn sequences(&self) -> Vec<u64> {
        let slots = self.logs.iter().map(|log| media::slots(&self.disk, Self::root(), &log.name));
        slots.map(|slots| slots.iter().map(|slot| slot.sequence).max().unwrap_or(0)).collect()
    }

    fn change_policy(&mut self, life: &mut Life, index: usize) -> Check {
        let policy = some_policy(&mut self.random);
        self.note(|| format!("log-{index} is flushed by {policy:?}"));
        let options = self.plan.options(policy);
        let result = life.engine.log(&self.logs[index].name, &options);
        ensure(result.is_ok() || !life.platform.is_alive(), "options", || format!("{result:?}"))
    }

    fn read(&mut self, life: &mut Life, index: usize) -> Check {
        let Some(handle) = life.handles[index] else { return Ok(()) };
        let all = [Isolation::Written, Isolation::Committed, Isolation::Durable];
        let isolation = all[self.random.index(3)];
        let from = self.random.below(self.logs[index].end() + 2);
        // Mostly of what is there.
        let start = life.engine.marks(handle).log_start.0;
        let from = if self.random.chance(1, 8) { from } else { from.max(start) };
        let batches = if self.random.chance(1, 3) { usize::MAX } else { 1 + self.random.index(8) };
        self.logs[index].settle(&mut self.coverage)?;
        self.logs[index].observe(life.engine.marks(handle))?;
        if self.random.chance(1, 4) {
            return self.look_up(life, index, isolation);
        }
        let ended =
            reads::read(&life.engine, handle, &self.logs[index], (from, isolation, batches))?;
        self.note(|| format!("read log-{index} from {from}, {isolation:?}, {batches} batches"));
        let model = &self.logs[index];
        let reads::Ended::Error(error) = ended else {
            return ensure(from >= model.start_floor, "trim", || {
                format!("log-{index} was read from {from}, it starts at {}", model.start_floor)
            });
        };
        let log_start = Offset(model.start_floor);
        if from < log_start.0 && *error.kind() == (ErrorKind::Trimmed { log_start }) {
            self.coverage.hit("read below the start");
            return Ok(());
        }
        // After a failed flush, direct reads show that the written bytes are gone.
        let excused = !life.platform.is_alive() || model.flush_may_fail || model.write_may_fail;
        ensure(excused, "D7", || format!("reading log-{index} from {from}: {error}"))
    }

    /// Looks for a time: of one of the records, or beyond them.
    fn look_up(&mut self, life: &mut Life, index: usize, isolation: Isolation) -> Check {
        let Some(handle) = life.handles[index] else { return Ok(()) };
        let newest = 10_200 + self.attempts * 20;
        let time = i64::try_from(9_500 + self.random.below(newest - 9_400)).unwrap_or(i64::MAX);
        self.note(|| format!("look up {time} in log-{index}, {isolation:?}"));
        self.coverage.hit("look up a time");
        let model = &self.logs[index];
        match reads::look_up(&life.engine, handle, model, (time, isolation))? {
            reads::Ended::Whole => Ok(()),
            reads::Ended::Error(error) => {
                let excused =
                    !life.platform.is_alive() || model.flush_may_fail || model.write_may_fail;
                ensure(excused, "D8", || format!("looking up {time} in log-{index}: {error}"))
            }
        }
    }

    /// Goes on with a reader that stays open, so that it meets rolls, trims, truncations and what
    /// is still in memory; begins one where none is.
    fn follow(&mut self, life: &mut Life, index: usize) -> Check {
        let Some(handle) = life.handles[index] else { return Ok(()) };
        self.logs[index].settle(&mut self.coverage)?;
        self.logs[index].observe(life.engine.marks(handle))?;
        if life.readers[index].is_none() {
            let marks = life.engine.marks(handle);
            let from = [marks.log_start, marks.written][self.random.index(2)];
            let reader = life.engine.read(handle, from, Isolation::Written);
            life.readers[index] = reader.ok().map(|reader| (reader, from.0));
            self.note(|| format!("follow log-{index} from {from}"));
        }
        let Some((mut reader, next)) = life.readers[index].take() else { return Ok(()) };
        let batches = if self.random.chance(1, 2) { usize::MAX } else { 1 + self.random.index(5) };
        let limit = life.engine.marks(handle).written.0;
        let model = &self.logs[index];
        let (next, ended) = reads::go_on(&mut reader, model, (next, limit, batches))?;
        self.note(|| format!("followed log-{index} to {next}"));
        let model = &self.logs[index];
        match ended {
            reads::Ended::Whole => {
                self.coverage.hit("followed");
                life.readers[index] = Some((reader, next));
                Ok(())
            }
            reads::Ended::Error(error) if matches!(error.kind(), ErrorKind::Trimmed { .. }) => {
                self.coverage.hit("overtaken reader");
                let excused = self.plan.truncations || self.plan.trims || model.retained;
                let excused = excused || model.flush_may_fail || model.write_may_fail;
                ensure(excused, "D7", || format!("following log-{index} at {next}: {error}"))
            }
            reads::Ended::Error(error) => {
                let excused = !life.platform.is_alive()
                    || model.flush_may_fail
                    || model.write_may_fail
                    || model.poisoned_at.is_some();
                ensure(excused, "D7", || format!("following log-{index} at {next}: {error}"))
            }
        }
    }

    /// Asks for the log's start to be raised, and half the time waits until it is.
    fn trim(&mut self, life: &mut Life, index: usize) -> Check {
        let Some(handle) = life.handles[index] else { return Ok(()) };
        let marks = life.engine.marks(handle);
        let (start, end) = (marks.log_start.0, marks.log_end.0);
        let to = (start + self.random.below(end - start + 1)).max(start);
        let to = if self.random.chance(1, 8) { end } else { to };
        self.note(|| format!("trim log-{index} to {to}"));
        self.coverage.hit("trim");
        self.logs[index].start_asked = self.logs[index].start_asked.max(to);
        let ticket = life.engine.trim(handle, Offset(to));
        if self.random.chance(1, 2) {
            let result = life.engine.run_until(&ticket);
            let model = &self.logs[index];
            let excused = !life.platform.is_alive()
                || model.poisoned_at.is_some()
                || model.flush_may_fail
                || model.write_may_fail;
            ensure(result.is_ok() || excused, "trim", || format!("log-{index}: {result:?}"))?;
            if let Ok(trimmed) = result {
                ensure(trimmed.marks.log_start.0 >= to, "trim", || {
                    format!("a trim of log-{index} to {to} ended with {:?}", trimmed.marks)
                })?;
            }
        }
        Ok(())
    }

    fn truncate(&mut self, life: &mut Life, index: usize) -> Check {
        let Some(handle) = life.handles[index] else { return Ok(()) };
        self.logs[index].settle(&mut self.coverage)?;
        let to = self.some_cut(index).max(life.engine.marks(handle).log_start.0);
        self.note(|| format!("truncate log-{index} to {to}"));
        self.short_life();
        self.logs[index].truncate_begins(to);
        self.logs[index].in_maintenance = true;
        let result = life.engine.truncate(handle, Offset(to));
        self.note(|| format!("truncated: {result:?}"));
        self.logs[index].settle(&mut self.coverage)?;
        if !life.platform.is_alive() {
            self.coverage.hit("crash in truncate");
            if let Ok(marks) = &result {
                self.logs[index].resolve(marks.log_end.0)?;
            }
            return Ok(());
        }
        self.logs[index].in_maintenance = false;
        if let Ok(marks) = &result {
            let cut = self.logs[index].cut_for(to);
            ensure(marks.log_end.0 == cut, "truncate", || {
                format!("a truncation to {to} ended at {}, not {cut}", marks.log_end)
            })?;
        }
        self.maintained(life, index, result.as_ref().err())
    }

    /// Returns where to truncate: inside a batch, between two, at a segment's edge, the end, 0.
    fn some_cut(&mut self, index: usize) -> u64 {
        let model = &self.logs[index];
        let end = model.end();
        let some = self.random.index(model.entries.len().max(1));
        // Mostly near the end, so that something is left to go on with.
        let some = some.max(self.random.index(model.entries.len().max(1)));
        let Some(entry) = model.entries.get(some) else { return 0 };
        match self.random.below(16) {
            0 => {
                self.coverage.hit("truncate to zero");
                0
            }
            1..3 => {
                self.coverage.hit("truncate to the end");
                end + self.random.below(2)
            }
            3..6 => {
                let files = self.disk.files();
                let directory = Self::log_path(&model.name);
                let names = files.iter().filter(|path| path.parent() == Some(&directory));
                let names = names.filter_map(|path| path.file_name()?.to_str());
                let bases: Vec<_> = names.filter_map(parse_segment_file_name).collect();
                self.coverage.hit("truncate at an edge");
                bases.get(self.random.index(bases.len().max(1))).map_or(0, |base| base.0)
            }
            6..11 => {
                self.coverage.hit("truncate inside a batch");
                entry.base + self.random.below(u64::from(entry.batch.record_count()))
            }
            _ => entry.base,
        }
    }

    fn reopen(&mut self, life: &mut Life, index: usize) -> Check {
        let Some(handle) = life.handles[index] else { return Ok(()) };
        self.note(|| format!("reopen log-{index}"));
        self.short_life();
        self.logs[index].in_maintenance = true;
        let result = life.engine.reopen(handle);
        self.note(|| format!("reopened: {result:?}"));
        self.logs[index].settle(&mut self.coverage)?;
        if !life.platform.is_alive() {
            self.coverage.hit("crash in reopen");
            if let Ok(marks) = &result {
                self.logs[index].resolve(marks.log_end.0)?;
            }
            return Ok(());
        }
        self.logs[index].in_maintenance = false;
        self.coverage.hit("reopened: log");
        self.maintained(life, index, result.as_ref().err())
    }

    /// Goes on with a log that was truncated or reopened, as far as it is there again.
    fn maintained(
        &mut self,
        life: &mut Life,
        index: usize,
        error: Option<&highwater::Error>,
    ) -> Check {
        let Some(handle) = life.handles[index] else { return Ok(()) };
        let excused = self.logs[index].poisoned_at.is_some()
            || self.logs[index].flush_may_fail
            || self.logs[index].write_may_fail;
        if let Some(error) = error {
            let full = self.disk_is_full && *error.kind() == ErrorKind::Full;
            // Retention moved the start between the choice of the cut and the cut.
            let trimmed = matches!(error.kind(), ErrorKind::Trimmed { .. });
            ensure(excused || full || trimmed, "maintenance", || format!("log-{index}: {error}"))?;
        }
        if life.engine.failure(handle).is_some() {
            // It did not come back: it is reopened later, or the next life opens it.
            self.note(|| format!("log-{index} is out of service"));
            let model = &mut self.logs[index];
            model.observe(life.engine.marks(handle)).ok();
            model.poisoned_at = model.poisoned_at.or(Some(model.durable_floor));
            life.handles[index] = None;
            life.out_of_service[index] = Some(handle);
            return ensure(excused, "D14", || format!("log-{index} is out of service"));
        }
        let marks = life.engine.marks(handle);
        ensure(marks.flushed == marks.log_end, "D4", || format!("opened with {marks:?}"))?;
        self.logs[index].resolve(marks.log_end.0)?;
        let name = self.logs[index].name.clone();
        if self.disk.rules_left() == 0 {
            let model = &mut self.logs[index];
            model.flush_may_fail = false;
            let (epoch, generation) = media::current(&self.disk, Self::root(), &name)?;
            self.logs[index].begins(epoch, generation)?;
            return self.read_whole(life, index);
        }
        let slots = media::slots(&self.disk, Self::root(), &name);
        let newest = slots.iter().max_by_key(|slot| slot.sequence);
        newest.map_or(Ok(()), |slot| self.logs[index].begins(slot.epoch.0, slot.generation.0))
    }

    /// Now and then the process dies within the next few boundaries.
    fn short_life(&mut self) {
        if (self.plan.kills || self.plan.power_cuts) && self.random.chance(1, 5) {
            let ahead = 1 + self.random.below(80);
            self.disk.stop_at_boundary(self.disk.boundaries() + ahead);
        }
    }

    fn change_capacity(&mut self) -> Check {
        self.disk_is_full = !self.disk_is_full;
        let free = self.random.below(8) * 16_384;
        let capacity = self.disk_is_full.then(|| self.disk.used_bytes() + free);
        self.note(|| format!("capacity {capacity:?}, free {free}"));
        self.coverage.add("full spell", u64::from(self.disk_is_full));
        self.disk.set_capacity(capacity);
        Ok(())
    }

    /// Places one failing write, flush or directory sync that will hit this log.
    fn place_fault(&mut self, index: usize) -> Check {
        if self.disk.rules_left() > 0 {
            return Ok(());
        }
        let nth = self.random.below(6);
        let name = &self.logs[index].name;
        let flush = self.plan.flush_errors && (!self.plan.write_errors || self.random.chance(1, 2));
        let rule = if flush && self.random.chance(1, 4) {
            FaultRule::new("sync directory", &format!("/{name}"), Fault::FlushError)
        } else if flush {
            FaultRule::new("flush", &format!("/{name}/"), Fault::FlushError)
        } else {
            FaultRule::new("write", &format!("/{name}/"), Fault::WriteError)
        };
        self.note(|| format!("a fault is placed: {rule:?} after {nth}"));
        self.disk.inject(rule.nth(nth));
        for (other, model) in self.logs.iter_mut().enumerate() {
            // A failed flush poisons every log of the file system that has unflushed bytes.
            model.flush_may_fail |= flush && other == index;
            model.write_may_fail = true;
        }
        Ok(())
    }
}
