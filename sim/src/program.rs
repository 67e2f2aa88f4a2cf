//! A few lives of one log as data: what is appended, cut, trimmed and flushed, where the process
//! dies, and what a power cut leaves of everything unsynced. For fuzzers: every program is a
//! possible history, so every failure is a bug.
//!
//! The oracle is that of [`crash_states`](crate::crash_states): what opening leaves is a prefix
//! of what was appended that ends behind a batch and holds everything promised (D2, D4), it is
//! read as it was written (A1, A2, D7), no damage is reported (D6), epochs and generations rise
//! (A8), acks and marks are honest (D1). Behind the last life the log is opened again, takes
//! appends, loses the power, and is opened once more (D5).

use highwater::{Ack, Mode, Preparation};
use highwater_io::sim::{PieceSurvival, SimDisk, SimProfile};

use crate::crash_states::Workload;
use crate::crash_states::stage::{Cut, Stage, Step};
use crate::failure::{Check, Failure};
use crate::oracle::LogModel;

/// Lives of one program, at most.
pub const LIVES_MAX: usize = 4;
/// Acts of one life, at most.
pub const ACTS_MAX: usize = 12;
/// The most bytes of one value: three of them fill a segment.
const VALUE_BYTES_MAX: u64 = 20_000;
const RECORDS_MAX: usize = 8;
const SEGMENT_BYTES: u64 = 64 << 10;
/// I/O boundaries of a life that is not to die, at most.
const BOUNDARIES_MAX: u64 = 100_000;

/// A history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The order in which the disk does things.
    pub seed: u64,
    /// The log never writes a block again that holds flushed bytes; the device tears sectors.
    pub never_rewrite_flushed: bool,
    /// Segments are prepared when the log is opened.
    pub prepared: bool,
    /// At most [`LIVES_MAX`] count.
    pub lives: Vec<Life>,
}

/// One life of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// It dies behind so many I/O boundaries, its opening included, if it lives so long.
    pub dies_behind: Option<u16>,
    /// At most [`ACTS_MAX`] count.
    pub acts: Vec<Act>,
    /// How it ends if it lives so long.
    pub closes: bool,
    /// What a power cut behind it leaves of each unsynced piece, over and over; none for no cut.
    pub power_cut: Vec<Fate>,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Append a batch.
    Append {
        /// How many records.
        records: u8,
        /// How many bytes each value has.
        bytes: u16,
        /// Wait until it is flushed, or written, or for nothing.
        ack: u8,
        /// Drive the engine to the ack.
        wait: bool,
    },
    /// Flush and wait.
    Flush,
    /// Let so many times 256 microseconds pass.
    Wait(u8),
    /// Remove this share of the batches from the end; with `inside`, from inside a batch.
    Truncate(u8, bool),
    /// Remove this share of the offsets from the start.
    Trim(u8),
    /// Close and open the log.
    Reopen,
}

/// What a power cut leaves of one unsynced piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Lost,
    /// All.
    Kept,
    /// The first sectors.
    Prefix(u8),
    /// All but one sector.
    Hole(u8),
    /// The sectors whose bit is set, over and over.
    Only(u64),
    /// The sectors before one, and the start of that one; whole sectors where the device keeps P1.
    Torn(u8, u8),
}

/// What was met by a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Openings that ended.
    pub openings: u64,
    /// Lives that died on the way.
    pub deaths: u64,
    /// Power cuts.
    pub power_cuts: u64,
}

/// Runs a program.
///
/// # Errors
/// The broken promise.
pub fn run(program: &Program) -> Result<Met, Failure> {
    let workload = Workload {
        name: "program",
        logs: 1,
        never_rewrite_flushed: program.never_rewrite_flushed,
        prepare: if program.prepared { Preparation::AtOpen } else { Preparation::Never },
        retention_bytes: None,
        mode: Mode::Direct,
        before: &[],
        steps: &[],
    };
    let profile =
        SimProfile { tear_sectors: program.never_rewrite_flushed, ..SimProfile::default() };
    let disk = SimDisk::new(program.seed, profile);
    let model = LogModel::new("log-0", SEGMENT_BYTES, program.never_rewrite_flushed);
    let mut stage = Stage::new(disk, vec![model], &workload);
    let mut met = Met::default();
    for life in program.lives.iter().take(LIVES_MAX) {
        live(&mut stage, life, program.never_rewrite_flushed, &mut met)?;
    }
    stage.disk.stop_at_boundary(stage.disk.boundaries() + BOUNDARIES_MAX);
    stage.another_life()?;
    met.openings += 2;
    Ok(met)
}

fn live(stage: &mut Stage, life: &Life, tears: bool, met: &mut Met) -> Check {
    let ahead = life.dies_behind.map_or(BOUNDARIES_MAX, |count| 1 + u64::from(count));
    stage.disk.stop_at_boundary(stage.disk.boundaries() + ahead);
    let alive = act_out(stage, life, met)?;
    met.deaths += u64::from(!alive);
    stage.run(&[Step::Kill])?;
    if life.power_cut.is_empty() {
        return Ok(());
    }
    let mut fates = life.power_cut.iter().cycle();
    stage.disk.power_cut_with(&mut |_| survival(fates.next().copied(), tears));
    stage.power_was_cut();
    met.power_cuts += 1;
    Ok(())
}

/// Returns whether the process lived through all of it.
fn act_out(stage: &mut Stage, life: &Life, met: &mut Met) -> Check<bool> {
    if !stage.run(&[Step::Open, Step::Log(0)])? {
        return Ok(false);
    }
    met.openings += 1;
    for act in life.acts.iter().take(ACTS_MAX) {
        for step in steps(*act, &stage.models[0]).into_iter().flatten() {
            if !stage.run(&[step])? {
                return Ok(false);
            }
        }
    }
    if life.closes { stage.run(&[Step::Close]) } else { Ok(true) }
}

fn steps(act: Act, model: &LogModel) -> [Option<Step>; 2] {
    let step = match act {
        Act::Append { records, bytes, ack, wait } => {
            let acks = [Ack::NONE, Ack::LEADER, Ack::LEADER_FLUSHED];
            let (records, ack) =
                (1 + usize::from(records) % RECORDS_MAX, acks[usize::from(ack) % 3]);
            let most = if records == 1 { VALUE_BYTES_MAX } else { 2000 };
            let append = Step::Batch(0, records, u64::from(bytes) % most, ack);
            return [Some(append), wait.then_some(Step::Await)];
        }
        Act::Flush => Step::Flush(0),
        Act::Wait(times) => Step::Wait(256 * u64::from(times)),
        Act::Truncate(share, inside) => {
            let count = model.entries.len();
            let back = count * usize::from(share) / 256;
            let cut = if inside { Cut::Inside(back) } else { Cut::Border(back) };
            Step::Truncate(0, Cut::To(cut.of(model).max(model.start_floor)))
        }
        Act::Trim(share) => {
            let (start, end) = (model.start_floor, model.end());
            Step::Trim(0, start + end.saturating_sub(start) * u64::from(share) / 255)
        }
        Act::Reopen => Step::Reopen(0),
    };
    [Some(step), None]
}

fn survival(fate: Option<Fate>, tears: bool) -> PieceSurvival {
    match fate {
        None | Some(Fate::Lost) => PieceSurvival::Lost,
        Some(Fate::Kept) => PieceSurvival::Kept,
        Some(Fate::Prefix(sectors)) => PieceSurvival::Prefix { sectors: sectors.into() },
        Some(Fate::Hole(sector)) => PieceSurvival::Hole { sector: sector.into() },
        Some(Fate::Only(mask)) => {
            PieceSurvival::Only((0..256).map(|sector| mask >> (sector % 64) & 1 == 1).collect())
        }
        Some(Fate::Torn(sector, _)) if !tears => PieceSurvival::Prefix { sectors: sector.into() },
        Some(Fate::Torn(sector, bytes)) => {
            PieceSurvival::Torn { sector: sector.into(), bytes: 2 * usize::from(bytes) }
        }
    }
}
