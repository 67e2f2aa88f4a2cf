//! The workload that counts: logs of the real engine.

use std::path::{Path, PathBuf};

use highwater::inspect::{Damage, OutsideReader, verify};
use highwater::segment::recovery::MetaCase;
use highwater::{
    BackendChoice, Engine, ErrorKind, FlushPolicy, Isolation, LogOptions, Mode, Offset, Options,
    Preparation,
};
use highwater_io::random::SeededRandom;

use crate::device::Marker;
use crate::life::{Life, LogState};
use crate::records::read_all;
use crate::replay::Mark;
use crate::timeline::{Kept, RecordId, Timeline};
use crate::workload::{Failure, Verdict, Workload};

/// Steps of the lives before the first cut, and of the one behind it.
const FIRST_STEPS: [u64; 4] = [130, 90, 90, 60];
const SECOND_STEPS: [u64; 2] = [35, 20];

/// A log of the workload: its name, its segments' size and its flush policy.
const LOGS: [(&str, u64, FlushPolicy); 2] = [
    ("small", 64 << 10, FlushPolicy { bytes: Some(48 << 10), ..FlushPolicy::NONE }),
    ("large", 256 << 10, FlushPolicy { records: Some(40), ..FlushPolicy::NONE }),
];

/// Appends, flushes and truncates two logs through several lives of the engine.
///
/// As a *control* it takes appends that wait for no flush to be safe, and flushes nothing: the
/// losses that follow must be caught.
#[derive(Debug)]
pub struct Logs {
    random: SeededRandom,
    backend: BackendChoice,
    control: bool,
    mode: Mode,
    /// Logs share flushes, in segments that are prepared; how many were spared so far.
    shared: Option<u64>,
    next_id: RecordId,
    first: Vec<Timeline>,
    second: Vec<Timeline>,
}

impl Logs {
    /// Returns a workload whose steps follow from `seed`.
    #[must_use]
    pub fn new(seed: u64, backend: BackendChoice, control: bool) -> Self {
        let random = SeededRandom::new(seed).split("logs");
        let (first, second, mode) = (Vec::new(), Vec::new(), Mode::Direct);
        Logs { random, backend, control, mode, shared: None, next_id: 0, first, second }
    }

    /// Returns the same workload with logs that share flushes.
    #[must_use]
    pub fn with_shared_flushes(self) -> Self {
        Logs { shared: Some(0), ..self }
    }

    /// Returns how many flushes of a log were spared by that of another, if they were shared.
    #[must_use]
    pub fn shared_flushes(&self) -> Option<u64> {
        self.shared
    }

    /// Returns the same workload with its segments written this way.
    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Self {
        Logs { mode, ..self }
    }

    /// Opens the engine and both logs; nothing may be damaged.
    fn open(&self, directory: &Path) -> Result<Engine, Failure> {
        let engine = Engine::open(Options {
            backend: self.backend,
            // Only logs of one shard share.
            shards: self.shared.map(|_| 1),
            shared_flush: self.shared.is_some(),
            ..Options::at(directory)
        })?;
        let recovery = engine.recovery();
        if let Some((name, error)) = recovery.failed.first() {
            return Err(format!("log {name} does not open: {error}").into());
        }
        for report in &recovery.logs {
            if report.corrupt.is_some() || !report.quarantined.is_empty() {
                return Err(format!("opened as damaged: {report:?}").into());
            }
        }
        Ok(engine)
    }

    /// Lives on with the logs that `timelines` tell of, for lives of so many steps each.
    fn live(
        &mut self,
        engine: Engine,
        directory: &Path,
        timelines: Vec<Timeline>,
        steps: &[u64],
        marker: &dyn Marker,
    ) -> Result<Vec<Timeline>, Failure> {
        let mut logs: Vec<LogState> = timelines.into_iter().map(LogState::new).collect();
        let mut opened = Some(engine);
        for steps in steps {
            let engine = match opened.take() {
                Some(engine) => engine,
                None => self.open(directory)?,
            };
            for (log, (name, segment_bytes, flush)) in logs.iter_mut().zip(LOGS) {
                let flush = if self.control { FlushPolicy::NONE } else { flush };
                let (segment_bytes, mode) = (Some(segment_bytes), self.mode);
                let prepare = match self.shared {
                    Some(_) => Preparation::AtOpen,
                    None => Preparation::default(),
                };
                let options =
                    LogOptions { segment_bytes, flush, mode, prepare, ..Default::default() };
                log.start(engine.log(name, options)?, marker)?;
            }
            let mut life = Life {
                logs: &mut logs,
                marker,
                random: self.random.split(&format!("life {}", self.next_id)),
                control: self.control,
                together: self.shared.is_some(),
                next_id: &mut self.next_id,
            };
            for _ in 0..*steps {
                life.step()?;
            }
            if let Some(shared) = &mut self.shared {
                *shared += engine.metrics()?.shared_flushes;
            }
            if !self.control && life.random.chance(1, 3) {
                life.end();
                engine.close()?;
                life.closed();
            } else {
                // As good as a crash: what is in flight lands, nothing else does.
                life.end();
                drop(engine);
            }
        }
        Ok(logs.into_iter().map(|log| log.timeline).collect())
    }
}

/// Returns where the engine lives: beside what the file system itself puts there.
fn place(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// Looks from outside, before anything is opened: nothing may be damaged. Returns what is there.
fn look(directory: &Path) -> Result<Vec<Option<Vec<RecordId>>>, Failure> {
    if !directory.exists() {
        return Ok(vec![None; LOGS.len()]);
    }
    for verdict in verify(directory, None)? {
        if let Some(damage) = verdict.damages.iter().find(|damage| !is_torn_slot(damage)) {
            return Err(format!("verify before opening: {damage:?}").into());
        }
    }
    let read =
        |name: &str| match OutsideReader::open(directory, name, Offset(0), Isolation::Written) {
            Ok(reader) => read_all(reader).map(Some),
            // Cut down while it was made: there is a directory, but no log.
            Err(error) if *error.kind() == ErrorKind::Io => Ok(None),
            Err(error) => Err(error.into()),
        };
    LOGS.iter().map(|(name, ..)| read(name)).collect()
}

/// A cut can tear the second write of a close or the first of an open, and the other slot then says
/// clean: nobody can tell this from damage to a closed log, so `verify` reports it (case M6).
fn is_torn_slot(damage: &Damage) -> bool {
    damage.case == MetaCase::M6BadSlotBesideClean.label()
}

/// Reads what the opened engine has of each log, and compares it with what was seen from outside.
fn read_opened(
    engine: &Engine,
    outside: &[Option<Vec<RecordId>>],
) -> Result<Vec<Option<Vec<RecordId>>>, Failure> {
    let there = engine.log_names();
    let mut all = Vec::new();
    for ((name, ..), outside) in LOGS.iter().zip(outside) {
        if !there.iter().any(|there| there == name) {
            all.push(None);
            continue;
        }
        let log = engine.log(name, LogOptions::default())?;
        if let Some(error) = log.failure() {
            return Err(format!("log {name} refuses appends: {error}").into());
        }
        let found = read_all(log.read(Offset(0), Isolation::Written)?)?;
        let marks = log.marks();
        let ends = [marks.flushed, marks.written, marks.log_end];
        if ends.iter().any(|end| usize::try_from(end.0) != Ok(found.len())) {
            return Err(format!("log {name} holds {} records, but {marks:?}", found.len()).into());
        }
        if outside.as_ref().unwrap_or(&Vec::new()) != &found {
            let outside = outside.as_ref().map_or(0, Vec::len);
            let inside = found.len();
            return Err(format!("log {name}: {outside} from outside, {inside} inside").into());
        }
        all.push(Some(found));
    }
    Ok(all)
}

/// Compares what is there with what was promised; also returns what is promised from now on.
fn judge(
    timelines: &[Timeline],
    found: &[Option<Vec<RecordId>>],
    cut: Mark,
) -> Result<(Verdict, Vec<usize>), Failure> {
    let mut verdict = Verdict::default();
    let mut floors = Vec::new();
    for (((name, ..), timeline), found) in LOGS.iter().zip(timelines).zip(found) {
        match timeline.judge(found.as_deref(), cut) {
            Kept::All { owed, floor } => {
                verdict.owed += owed;
                floors.push(floor);
            }
            Kept::Lost { owed, lost, what } => {
                verdict.owed += owed;
                verdict.lost += lost;
                verdict.first_loss.get_or_insert(format!("log {name}: {what}"));
                floors.push(0);
            }
            Kept::Wrong(what) => return Err(format!("log {name}: {what}").into()),
        }
    }
    Ok((verdict, floors))
}

impl Workload for Logs {
    fn first_life(&mut self, directory: &Path, marker: &dyn Marker) -> Result<(), Failure> {
        let directory = place(directory);
        let engine = self.open(&directory)?;
        let fresh = LOGS.iter().map(|_| Timeline::new(Vec::new(), 0)).collect();
        self.first = self.live(engine, &directory, fresh, &FIRST_STEPS, marker)?;
        Ok(())
    }

    fn check_and_continue(
        &mut self,
        directory: &Path,
        cut: Mark,
        marker: &dyn Marker,
    ) -> Result<Verdict, Failure> {
        let directory = place(directory);
        let outside = look(&directory)?;
        let engine = self.open(&directory)?;
        let opened = marker.mark();
        let found = read_opened(&engine, &outside)?;
        let (verdict, floors) = judge(&self.first, &found, cut)?;
        let mut timelines = Vec::new();
        for (found, floor) in found.into_iter().zip(floors) {
            let length = found.as_ref().map_or(0, Vec::len);
            let is_there = found.is_some();
            let mut timeline = Timeline::new(found.unwrap_or_default(), floor);
            if is_there {
                timeline.create(Mark(0));
                timeline.promise(length, opened);
            }
            timelines.push(timeline);
        }
        if verdict.lost == 0 {
            self.second = self.live(engine, &directory, timelines, &SECOND_STEPS, marker)?;
        }
        Ok(verdict)
    }

    fn check_again(&mut self, directory: &Path, cut: Mark) -> Result<Verdict, Failure> {
        let directory = place(directory);
        let outside = look(&directory)?;
        let engine = self.open(&directory)?;
        let found = read_opened(&engine, &outside)?;
        let (verdict, _) = judge(&self.second, &found, cut)?;
        engine.close()?;
        for verdict in verify(&directory, None)? {
            if !verdict.damages.is_empty() || verdict.torn_tail.is_some() {
                return Err(format!("verify after closing: {verdict:?}").into());
            }
        }
        Ok(verdict)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use highwater::{Ack, BackendChoice};

    use super::*;
    use crate::records::batch;
    use crate::scratch::Scratch;

    /// Found by a cut in a close: the rig took what `verify` must say then for damage.
    #[test]
    fn a_slot_that_a_cut_tore_beside_a_clean_one_is_no_damage_and_a_torn_batch_is() {
        let scratch = Scratch::new("logs").expect("a directory");
        let directory = place(scratch.path());
        let backend = BackendChoice::Threads;
        let engine = Engine::open(Options { backend, ..Options::at(&directory) }).expect("opens");
        let log = engine.log(LOGS[0].0, LogOptions::default()).expect("opens");
        let appended = log.append(batch(0..9).expect("builds"), Ack::LEADER_FLUSHED);
        appended.expect("appends").wait().expect("acked");
        engine.close().expect("closes");
        let tear = |name: &str, position: u64| {
            let path = directory.join(LOGS[0].0).join(name);
            let file = std::fs::OpenOptions::new().write(true).open(path).expect("is there");
            file.write_all_at(&[0xa5; 32], position).expect("written");
        };
        tear("log.meta", 512);
        assert!(look(&directory).is_ok());
        tear("00000000000000000000.log", 4096 + 16);
        look(&directory).expect_err("the batch is damaged");
    }
}
