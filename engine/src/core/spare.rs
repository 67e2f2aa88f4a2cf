//! Spare segments of one log: preparing them while a segment fills, and giving them away again.
//!
//! A spare is a file of the pool with the size of a segment, every block written, whose header
//! block says that it is free. Its name there need not be durable: after a crash it is found or it
//! is not. `roll.rs` takes spares, `trim.rs` brings them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use highwater_io::{
    Access, AlignedBuffer, FileId, IoError, IoErrorKind, OpenMode, Operation, Output,
};
use highwater_segment::spare::{encode_spare, spare_file_name};
use highwater_segment::{BLOCK_BYTES, LogId};

use super::{Flight, LogCore, State, Turn};
use crate::convert::{to_u64, to_usize};
use crate::options::{Preparation, SPARES_MAX, WRITES_IN_FLIGHT};

/// How many zeros are written at once: small, so that an append waits for little.
const FILL_BYTES: u64 = 256 << 10;
/// A log prepares its next segment once this part of the active one is filled: small logs never
/// come so far.
const PREPARE_BEHIND: u64 = 4;

/// A spare that is open and ready.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) path: PathBuf,
    pub(super) file: FileId,
    /// This process knows that every block of it was written, past the page cache, and flushed. A
    /// segment that grew has its whole length, too, but blocks at its end that never were.
    pub(super) is_whole: bool,
}

/// How far the spare in preparation is.
#[derive(Debug)]
enum Step {
    Idle,
    Creating {
        path: PathBuf,
    },
    Reserving {
        path: PathBuf,
        file: FileId,
    },
    /// Filled with zeros up to `to`. The buffer is here between two writes.
    Filling {
        path: PathBuf,
        file: FileId,
        to: u64,
        buffer: Option<AlignedBuffer>,
    },
    Flushing {
        path: PathBuf,
        file: FileId,
    },
    Stamping {
        path: PathBuf,
        file: FileId,
    },
    /// Opening one that was found, or that a trim brought.
    Opening {
        path: PathBuf,
    },
    /// It could not be had; once more after the next roll.
    GaveUp,
}

/// The spares of a log.
#[derive(Debug)]
pub(super) struct Spares {
    pool: PathBuf,
    log_id: LogId,
    ready: VecDeque<Spare>,
    /// Found when the log was opened.
    found: VecDeque<PathBuf>,
    step: Step,
    /// The one that is being made shall go: its space is needed.
    unwanted: bool,
}

impl Spares {
    pub(super) fn new(pool: PathBuf, log_id: LogId, found: Vec<PathBuf>) -> Self {
        let (ready, found) = (VecDeque::new(), found.into());
        Spares { pool, log_id, ready, found, step: Step::Idle, unwanted: false }
    }

    pub(super) fn pool(&self) -> &Path {
        &self.pool
    }

    /// Returns a name in the pool that no other file has.
    pub(super) fn new_path(&self, turn: &mut Turn<'_>) -> PathBuf {
        self.pool.join(spare_file_name(self.log_id, turn.random.next_u64()))
    }

    pub(super) fn log_id(&self) -> LogId {
        self.log_id
    }

    pub(super) fn take(&mut self) -> Option<Spare> {
        self.ready.pop_front()
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn add(&mut self, spare: Spare) {
        self.ready.push_back(spare);
        assert!(self.ready.len() <= SPARES_MAX, "spares are bounded");
    }

    /// Returns whether another spare is of use.
    pub(super) fn has_room(&self) -> bool {
        let making = !matches!(self.step, Step::Idle | Step::GaveUp);
        self.ready.len() + self.found.len() + usize::from(making) < SPARES_MAX
    }

    /// The next segment begins: what could not be had may be there now.
    pub(super) fn try_again(&mut self) {
        self.unwanted = false;
        if matches!(self.step, Step::GaveUp) {
            self.step = Step::Idle;
        }
    }
}

/// Turns the good end of a step that has a file into a failure: the spare is given up.
fn refuse(step: &Step, result: Result<Output, IoError>) -> Result<Output, IoError> {
    match step {
        Step::Reserving { path, .. }
        | Step::Filling { path, .. }
        | Step::Flushing { path, .. }
        | Step::Stamping { path, .. } => result.and_then(|_| {
            let (kind, path) = (IoErrorKind::NoSpace, path.clone());
            Err(IoError { kind, operation: "prepare", path, position: None, errno: None })
        }),
        _ => result,
    }
}

/// Returns the header block of a spare, ready to be written.
pub(super) fn spare_block(log_id: LogId) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::zeroed(to_usize(BLOCK_BYTES));
    buffer.copy_from_slice(&encode_spare(log_id));
    buffer
}

impl LogCore {
    /// Closes the spares that are ready; they are opened again as if they had been found.
    pub(super) fn reopen_spares(&mut self, turn: &mut Turn<'_>) {
        while let Some(spare) = self.spares.take() {
            self.spares.found.push_back(spare.path);
            self.submit_close(spare.file, turn);
        }
    }

    /// Goes on preparing the next segment, if that is due and the disk has room for more.
    pub(super) fn pump_spares(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.state, State::Active) {
            return;
        }
        match &mut self.spares.step {
            Step::Idle => self.begin_spare(turn),
            Step::Filling { .. } => self.fill_spare(turn),
            _ => {}
        }
    }

    fn begin_spare(&mut self, turn: &mut Turn<'_>) {
        let mode = self.settings.mode.open_mode(Access::ReadWrite);
        if let Some(path) = self.spares.found.pop_front() {
            self.spares.step = Step::Opening { path: path.clone() };
            self.submit(Flight::Spare, Operation::Open { path, mode }, turn);
            return;
        }
        let due = match self.settings.prepare {
            Preparation::Never => false,
            Preparation::Ahead | Preparation::AtOpen => self.fill_goal() > 0,
        };
        // What a trim is about to bring need not be made.
        if !due || !self.spares.ready.is_empty() || self.trim_brings_a_spare() {
            return;
        }
        let path = self.spares.new_path(turn);
        self.spares.step = Step::Creating { path: path.clone() };
        let mode = OpenMode { access: Access::CreateNew, ..mode };
        self.submit(Flight::Spare, Operation::Open { path, mode }, turn);
    }

    /// Returns up to where the spare should be filled by now: it is ready a little before the
    /// active segment is full.
    fn fill_goal(&self) -> u64 {
        let segment = self.keeper.segment_bytes();
        let idle = segment / PREPARE_BEHIND;
        let filled = self.tail.position.0.saturating_sub(idle);
        filled.saturating_mul(3) / 2
    }

    fn fill_spare(&mut self, turn: &mut Turn<'_>) {
        let segment = self.keeper.segment_bytes();
        let goal = self.fill_goal();
        // A log that keeps the disk busy by itself grows its segments instead.
        let busy = self.writes.len() >= WRITES_IN_FLIGHT / 2;
        let Step::Filling { file, to, buffer, .. } = &mut self.spares.step else { return };
        if busy || *to >= goal {
            return;
        }
        let (file, position) = (*file, *to);
        let Some(buffer) = buffer.take() else { return };
        let length = to_usize(FILL_BYTES.min(segment - position));
        let operation = Operation::Write { file, position, buffer, length, dsync: false };
        self.submit(Flight::Spare, operation, turn);
    }

    /// Handles the end of one step of the spare in preparation.
    pub(super) fn spare_completed(
        &mut self,
        result: Result<Output, IoError>,
        buffer: Option<AlignedBuffer>,
        turn: &mut Turn<'_>,
    ) {
        let step = std::mem::replace(&mut self.spares.step, Step::Idle);
        let result = if self.spares.unwanted { refuse(&step, result) } else { result };
        match (step, result) {
            (Step::Creating { path }, Ok(Output::File { file, .. })) => {
                let length = self.keeper.segment_bytes();
                self.spares.step = Step::Reserving { path, file };
                let operation = Operation::Allocate { file, position: 0, length };
                self.submit(Flight::Spare, operation, turn);
            }
            (Step::Opening { path }, Ok(Output::File { file, .. })) => {
                self.spares.add(Spare { path, file, is_whole: false });
            }
            (Step::Opening { .. } | Step::Creating { .. }, _) => self.spares.step = Step::GaveUp,
            (Step::Reserving { path, file }, result) => match result {
                Err(error) if error.kind != IoErrorKind::Unsupported => {
                    self.drop_spare(path, file, turn);
                }
                _ => {
                    let buffer = Some(AlignedBuffer::zeroed(to_usize(FILL_BYTES)));
                    self.spares.step = Step::Filling { path, file, to: BLOCK_BYTES, buffer };
                }
            },
            (Step::Filling { path, file, to, .. }, Ok(Output::Bytes(count))) => {
                let to = to + to_u64(count);
                if to < self.keeper.segment_bytes() {
                    self.spares.step = Step::Filling { path, file, to, buffer };
                } else {
                    self.spares.step = Step::Flushing { path, file };
                    self.submit(Flight::Spare, Operation::Flush { file }, turn);
                }
            }
            (Step::Flushing { path, file }, Ok(_)) => {
                self.spares.step = Step::Stamping { path, file };
                let buffer = spare_block(self.spares.log_id);
                let length = buffer.len();
                let operation = Operation::Write { file, position: 0, buffer, length, dsync: true };
                self.submit(Flight::Spare, operation, turn);
            }
            (Step::Stamping { path, file }, Ok(_)) => {
                let is_whole = !self.was_buffered;
                self.spares.add(Spare { path, file, is_whole });
            }
            // Nothing of the log was in it: without the spare the log grows its next segment. (A
            // failed flush concerns every log with unflushed bytes: the shard sees to that.)
            (
                Step::Filling { path, file, .. }
                | Step::Flushing { path, file }
                | Step::Stamping { path, file },
                _,
            ) => self.drop_spare(path, file, turn),
            (Step::Idle | Step::GaveUp, _) => panic!("a spare's step ends once"),
        }
        if !matches!(self.state, State::Active) {
            self.close_spares(turn);
        }
    }

    fn drop_spare(&mut self, path: PathBuf, file: FileId, turn: &mut Turn<'_>) {
        // Not while another is being made: its step ends by itself.
        if matches!(self.spares.step, Step::Idle) {
            self.spares.step = Step::GaveUp;
        }
        self.submit_close(file, turn);
        self.submit(Flight::Leftover, Operation::Remove { path }, turn);
    }

    /// The disk is full: the space that spares take is of more use to the active segment. One that
    /// is being made goes when its step has ended.
    pub(super) fn give_up_spares(&mut self, turn: &mut Turn<'_>) {
        self.spares.unwanted = true;
        for spare in std::mem::take(&mut self.spares.ready) {
            self.drop_spare(spare.path, spare.file, turn);
        }
        if let Step::Filling { buffer: Some(_), .. } = &self.spares.step
            && let Step::Filling { path, file, .. } =
                std::mem::replace(&mut self.spares.step, Step::GaveUp)
        {
            self.drop_spare(path, file, turn);
        }
    }

    /// Closes the files of the spares when the log leaves its shard; they are found again.
    pub(super) fn close_spares(&mut self, turn: &mut Turn<'_>) {
        for spare in std::mem::take(&mut self.spares.ready) {
            self.submit_close(spare.file, turn);
        }
        // One that is between two writes; any other closes when its step has ended.
        if let Step::Filling { file, buffer: Some(_), .. } = &self.spares.step {
            let file = *file;
            self.spares.step = Step::GaveUp;
            self.submit_close(file, turn);
        }
    }
}
