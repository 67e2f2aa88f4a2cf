//! The logs that are damaged: a segment of 64 KiB or two, closed or killed.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use highwater::{Ack, Isolation, LocalEngine, LogOptions, Mode, Offset, Options, Preparation};
use highwater_io::sim::{Fault, FaultRule, SimDisk, Survival};
use highwater_segment::segment::parse_segment_file_name;

use crate::crash_states::stage::Step::{
    Append, Await, Batch, Close, Flush, Kill, Log, Open, Reopen, Truncate,
};
use crate::crash_states::stage::{Cut, ROOT, Stage, Step};
use crate::crash_states::{Workload, beginning};
use crate::oracle::LogModel;

const LEADER: Ack = Ack::LEADER;
const FLUSHED: Ack = Ack::LEADER_FLUSHED;
/// Two of them and some small ones fill the smallest segment.
const LARGE: u64 = 19_000;

/// Where a batch lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) base: u64,
    position: u64,
    end: u64,
}

/// A disk without a process, and all that is known of the log on it.
pub(crate) struct Image {
    pub(crate) name: &'static str,
    pub(crate) disk: SimDisk,
    pub(crate) model: LogModel,
    /// The same disk at earlier moments.
    pub(crate) earlier: Vec<SimDisk>,
    /// The disk of another log of the same shape.
    pub(crate) other: SimDisk,
    placed: Vec<Placed>,
}

impl Image {
    /// Returns the files of the log, sorted.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        files_of(&self.disk)
    }

    /// Returns its segments, in their order.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let mut files = self.files();
        files.retain(|path| base_of(path).is_some());
        files
    }

    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        self.disk.read_file(path).unwrap_or_default()
    }

    /// Returns the base of the first batch of the log that damage at this byte can concern: it lies
    /// there or behind it. `None` if the file is no segment.
    pub(crate) fn hit(&self, path: &Path, at: u64) -> Option<u64> {
        let base = base_of(path)?;
        let bases: Vec<_> = self.segments().iter().filter_map(|path| base_of(path)).collect();
        let next = bases.iter().copied().find(|other| *other > base).unwrap_or(u64::MAX);
        let own = self.placed.iter().filter(|batch| (base..next).contains(&batch.base));
        // The header block speaks for all of the segment.
        let mut behind = own.filter(|batch| at < 4096 || batch.end > at || batch.position >= at);
        Some(behind.next().map_or(next.min(self.model.end()), |batch| batch.base))
    }
}

fn base_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    parse_segment_file_name(name).map(|base| base.0)
}

fn files_of(disk: &SimDisk) -> Vec<PathBuf> {
    let directory = directory();
    disk.files().into_iter().filter(|path| path.starts_with(&directory)).collect()
}

/// Returns the log's directory.
pub(crate) fn directory() -> PathBuf {
    Path::new(ROOT).join("log-0")
}

const fn workload(name: &'static str, steps: &'static [Step]) -> Workload {
    Workload {
        name,
        logs: 1,
        never_rewrite_flushed: false,
        prepare: Preparation::Never,
        retention_bytes: None,
        mode: Mode::Direct,
        before: &[],
        steps,
    }
}

/// The logs, and where an earlier copy is taken.
const WORKLOADS: [Workload; 4] = [
    workload(
        "closed",
        &[
            Open,
            Log(0),
            Append(0, 900, FLUSHED),
            Await,
            Batch(0, 9, 700, LEADER),
            Append(0, 9000, FLUSHED),
            Await,
            Close,
            Open,
            Append(0, 100, LEADER),
            Append(0, 200, LEADER),
            Await,
            Append(0, LARGE, FLUSHED),
            Await,
            Batch(0, 3, 3977, FLUSHED),
            Await,
            Close,
        ],
    ),
    workload(
        "killed",
        &[
            Open,
            Log(0),
            Append(0, 900, FLUSHED),
            Await,
            Append(0, LARGE, LEADER),
            Batch(0, 5, 900, FLUSHED),
            Await,
            Reopen(0),
            Append(0, 300, FLUSHED),
            Await,
            Batch(0, 4, 2000, LEADER),
            Append(0, 10, FLUSHED),
            Await,
            Append(0, 5000, LEADER),
            Append(0, 700, LEADER),
            Await,
            Batch(0, 7, 300, LEADER),
            Await,
            Kill,
        ],
    ),
    workload(
        "sealed",
        &[
            Open,
            Log(0),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Batch(0, 6, 800, LEADER),
            Await,
            Append(0, LARGE, FLUSHED),
            Await,
            Append(0, LARGE, LEADER),
            Await,
            Flush(0),
            Append(0, 50, LEADER),
            Await,
            Close,
            Open,
            Append(0, 60, FLUSHED),
            Await,
            Append(0, LARGE, FLUSHED),
            Await,
            Close,
        ],
    ),
    workload(
        "truncated",
        &[
            Open,
            Log(0),
            Append(0, LARGE, FLUSHED),
            Append(0, LARGE, FLUSHED),
            Append(0, 3000, FLUSHED),
            Await,
            Truncate(0, Cut::Border(1)),
            Append(0, 900, FLUSHED),
            Await,
            Batch(0, 3, 500, FLUSHED),
            Await,
            Append(0, 400, LEADER),
            Await,
            Kill,
            Open,
            Append(0, 4000, FLUSHED),
            Await,
            Append(0, 77, LEADER),
            Await,
            Kill,
        ],
    ),
];

/// A log in one life, for writes that go wrong on the way.
const ONE_LIFE: Workload = workload(
    "one life",
    &[
        Open,
        Log(0),
        Append(0, 900, FLUSHED),
        Await,
        Append(0, 9000, LEADER),
        Batch(0, 5, 300, FLUSHED),
        Await,
        Append(0, 50, FLUSHED),
        Await,
        Append(0, LARGE, FLUSHED),
        Append(0, LARGE, FLUSHED),
        Append(0, LARGE, LEADER),
        Append(0, 700, FLUSHED),
        Await,
        Append(0, 60, LEADER),
        Await,
    ],
);

/// Returns the log whose write number `nth` to a file with this in its name went wrong, closed or
/// killed afterwards; `None` if there are fewer.
pub(crate) fn with_fault(file: &str, fault: Fault, nth: u64, closes: bool) -> Option<Image> {
    let (disk, models) = beginning(&ONE_LIFE);
    disk.reseed(nth);
    disk.inject(FaultRule::new("write", file, fault).nth(nth));
    let mut stage = Stage::new(disk, models, &ONE_LIFE);
    let end = if closes { Close } else { Kill };
    let lived = stage.run(ONE_LIFE.steps).and_then(|_| stage.run(&[end]));
    assert!(lived.is_ok(), "nobody notices yet: {lived:?}");
    if stage.disk.rules_left() > 0 {
        return None;
    }
    stage.disk.kill();
    stage.disk.advance(Duration::from_secs(1));
    stage.disk.power_cut(Survival::Everything);
    let (disk, other) = (stage.disk.clone_state(), stage.disk.clone_state());
    let model = stage.models.pop()?;
    Some(Image { name: "one life", disk, model, earlier: Vec::new(), other, placed: Vec::new() })
}

/// Returns every log, always the same.
pub(crate) fn all() -> Rc<Vec<Image>> {
    thread_local! {
        static ALL: Rc<Vec<Image>> = Rc::new(WORKLOADS.iter().map(make).collect());
    }
    ALL.with(Rc::clone)
}

fn make(workload: &Workload) -> Image {
    let (other, _) = live(workload, 99);
    let (mut stages, model) = live(workload, 7);
    let disk = stages.pop().unwrap_or_else(|| panic!("{} has steps", workload.name));
    let placed = places(&disk);
    let other = other.into_iter().next_back().unwrap_or_else(|| disk.clone_state());
    Image { name: workload.name, disk, model, earlier: stages, other, placed }
}

/// Lives through a workload; returns the disk, everything on its media, behind every wait, opening
/// and end.
fn live(workload: &Workload, seed: u64) -> (Vec<SimDisk>, LogModel) {
    let (disk, models) = beginning(workload);
    disk.reseed(seed);
    let mut stage = Stage::new(disk, models, workload);
    stage.count_from(seed << 20);
    let mut copies = Vec::new();
    for step in workload.steps {
        let lived = stage.run(&[*step]);
        assert_eq!(lived, Ok(true), "{} lives", workload.name);
        if matches!(step, Await | Open | Close | Kill) {
            let copy = stage.disk.clone_state();
            copy.advance(Duration::from_secs(1));
            copy.power_cut(Survival::Everything);
            copies.push(copy);
        }
    }
    let model = stage.models.pop().unwrap_or_else(|| panic!("{} has a log", workload.name));
    (copies, model)
}

/// Returns where each batch lies, as an opening of a copy reads them.
fn places(disk: &SimDisk) -> Vec<Placed> {
    let platform = disk.clone_state().start_process();
    let engine = LocalEngine::open(platform, &Options::at(ROOT));
    let mut engine = engine.unwrap_or_else(|error| panic!("the disk is good: {error}"));
    let log = engine.log("log-0", &LogOptions::default());
    let log = log.unwrap_or_else(|error| panic!("the log is good: {error}"));
    let reader = engine.read(log, Offset(0), Isolation::Written);
    let reader = reader.unwrap_or_else(|error| panic!("the log is good: {error}"));
    let placed = reader.map(|batch| {
        let batch = batch.unwrap_or_else(|error| panic!("the log is good: {error}"));
        let header = batch.header();
        let position = header.position.0;
        Placed {
            base: header.base_offset.0,
            position,
            end: position + u64::from(header.total_bytes).next_multiple_of(8),
        }
    });
    placed.collect()
}
