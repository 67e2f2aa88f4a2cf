//! Starting the next segment.
//!
//! A roll waits until the previously sealed segment is flushed and `log.meta` says so: at most two
//! segments ever hold unflushed bytes, and recovery scans at most those two.

use highwater_index::index_file_name;
use highwater_io::{
    Access, AlignedBuffer, FileId, IoError, IoErrorKind, OpenMode, Operation, Output,
};
use highwater_segment::meta::Mark;
use highwater_segment::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_file_name};
use highwater_segment::{FIRST_BATCH, Offset, Salt};

use super::write::{RESERVE_STEP_MIN, Tail};
use super::{Flight, LogCore, Place, SegmentFile, Turn};
use crate::shared::SegmentInfo;

/// How far a roll has come.
#[derive(Debug)]
pub(super) enum Roll {
    Idle,
    /// The next append does not fit; wait for the older segment's flush and mark.
    Wanted,
    Creating {
        base: Offset,
        salt: Salt,
    },
    Reserving {
        base: Offset,
        salt: Salt,
        file: FileId,
    },
    WritingHeader {
        base: Offset,
        salt: Salt,
        file: FileId,
        named: bool,
    },
    /// The disk is full: the blank file goes away again, for good. Appends wait for that: were its
    /// name to come back after the older segment grew beyond it, it would end that segment too
    /// early.
    CleaningUp {
        steps: u8,
    },
}

impl LogCore {
    pub(super) fn roll_in_progress(&self) -> bool {
        !matches!(self.roll, Roll::Idle)
    }

    pub(super) fn roll_wanted(&self) -> bool {
        matches!(self.roll, Roll::Wanted)
    }

    pub(super) fn request_roll(&mut self) {
        assert!(matches!(self.roll, Roll::Idle), "one roll at a time");
        self.roll = Roll::Wanted;
    }

    /// Begins the wanted roll once the segment before the active one is flushed and marked.
    pub(super) fn pump_roll(&mut self, turn: &mut Turn<'_>) {
        if !self.roll_wanted() || self.allocating {
            return;
        }
        let active_base = self.active().base;
        if self.files.len() > 1 || !self.mark_reached(active_base) {
            return;
        }
        let base = self.next_offset;
        assert!(base > active_base, "a segment without a batch is not sealed");
        let salt = Salt(turn.random.next_u64());
        let path = self.directory.join(segment_file_name(base));
        let mode = OpenMode { access: Access::CreateNew, direct: true };
        self.roll = Roll::Creating { base, salt };
        self.submit(Flight::RollCreate, Operation::Open { path, mode }, turn);
    }

    pub(super) fn roll_created(&mut self, result: Result<Output, IoError>, turn: &mut Turn<'_>) {
        let Roll::Creating { base, salt } = self.roll else { panic!("a roll creates once") };
        match result {
            Ok(Output::File { file, .. }) => {
                self.roll = Roll::Reserving { base, salt, file };
                let operation = Operation::Allocate { file, position: 0, length: RESERVE_STEP_MIN };
                self.submit(Flight::RollAllocate, operation, turn);
            }
            Ok(other) => panic!("open returned {other:?}"),
            Err(error) => {
                if error.kind == IoErrorKind::NoSpace {
                    self.refuse_for_space(error, turn);
                } else {
                    self.poison(error, turn);
                }
                self.roll = Roll::Idle;
            }
        }
    }

    pub(super) fn roll_allocated(&mut self, result: Result<Output, IoError>, turn: &mut Turn<'_>) {
        let Roll::Reserving { base, salt, file } = self.roll else {
            panic!("a roll reserves once")
        };
        match result {
            Err(error) if error.kind == IoErrorKind::NoSpace => {
                self.refuse_for_space(error, turn);
                self.roll = Roll::CleaningUp { steps: 3 };
                self.submit(Flight::RollCleanup, Operation::Close { file }, turn);
                let path = self.directory.join(segment_file_name(base));
                self.submit(Flight::RollCleanup, Operation::Remove { path }, turn);
            }
            Err(error) if error.kind != IoErrorKind::Unsupported => {
                self.poison(error, turn);
                self.roll = Roll::Idle;
                self.submit_close(file, turn);
            }
            _ => self.write_header(base, salt, file, turn),
        }
    }

    /// The header is durable before a batch is written behind it; the name is synced beside it.
    fn write_header(&mut self, base: Offset, salt: Salt, file: FileId, turn: &mut Turn<'_>) {
        let header =
            SegmentHeader { log_id: self.keeper.snapshot().log_id, base_offset: base, salt };
        let mut buffer = AlignedBuffer::zeroed(SEGMENT_HEADER_BYTES);
        buffer.copy_from_slice(&header.encode());
        self.roll = Roll::WritingHeader { base, salt, file, named: false };
        let length = SEGMENT_HEADER_BYTES;
        let operation = Operation::Write { file, position: 0, buffer, length, dsync: true };
        self.submit(Flight::RollHeader, operation, turn);
        let path = self.directory.clone();
        self.submit(Flight::NameSync { base }, Operation::SyncDirectory { path }, turn);
    }

    pub(super) fn roll_cleaned(&mut self, result: Result<Output, IoError>, turn: &mut Turn<'_>) {
        let Roll::CleaningUp { steps } = &mut self.roll else {
            panic!("a roll is cleaned up once")
        };
        *steps -= 1;
        match *steps {
            0 => self.roll = Roll::Idle,
            1 => {
                let path = self.directory.clone();
                self.submit(Flight::RollCleanup, Operation::SyncDirectory { path }, turn);
            }
            _ => {}
        }
        if let Err(error) = result {
            self.poison(error, turn);
        }
    }

    pub(super) fn name_synced(
        &mut self,
        base: Offset,
        result: Result<Output, IoError>,
        turn: &mut Turn<'_>,
    ) {
        if let Err(error) = result {
            self.poison(error, turn);
            return;
        }
        // A sync of the segment before may end during this one's roll; it says nothing of this
        // name.
        if let Roll::WritingHeader { base: rolling, named, .. } = &mut self.roll
            && *rolling == base
        {
            *named = true;
        }
        if let Some(file) = self.files.iter_mut().find(|file| file.base == base) {
            file.named = true;
        }
    }

    pub(super) fn roll_header_written(
        &mut self,
        result: Result<Output, IoError>,
        turn: &mut Turn<'_>,
    ) {
        let Roll::WritingHeader { base, salt, file, named } = self.roll else {
            panic!("a roll writes its header once")
        };
        self.roll = Roll::Idle;
        if let Err(error) = result {
            self.poison(error, turn);
        }
        if self.poisoned {
            self.submit_close(file, turn);
            return;
        }
        assert_eq!(base, self.next_offset, "A1: no offset is assigned during a roll");
        self.seal_active(turn);
        self.active_is_full = false;
        let reserved_to = RESERVE_STEP_MIN;
        self.files.push_back(SegmentFile { base, salt, file, end: None, named, reserved_to });
        assert!(self.files.len() <= 2, "at most two segments hold unflushed bytes");
        self.tail = Tail::new(FIRST_BATCH, Vec::new());
        self.publish_segment(SegmentInfo::new(base, Some(salt)));
    }

    fn seal_active(&mut self, turn: &mut Turn<'_>) {
        let bytes = self.written_or_in_flight().bytes;
        let (offset, position) = (self.next_offset, self.tail.position);
        let active = self.active_mut();
        let segment = active.base;
        active.end = Some(Place { mark: Mark { offset, segment, position }, bytes });
        self.write_index(segment, turn);
    }

    /// Saves the sealed segment's index. Best effort, never waited for.
    fn write_index(&mut self, base: Offset, turn: &mut Turn<'_>) {
        let info = {
            let published = self.shared.lock();
            published.segments.iter().find(|info| info.base == base).cloned()
        };
        let Some(info) = info else { return };
        let bytes = info.index().encode();
        let mut buffer = AlignedBuffer::zeroed(bytes.len());
        let Some(place) = buffer.get_mut(..bytes.len()) else { return };
        place.copy_from_slice(&bytes);
        let length = buffer.len();
        let path = self.directory.join(index_file_name(base.0));
        let mode = OpenMode { access: Access::CreateNew, direct: true };
        let flight = Flight::IndexOpen { buffer, length };
        self.submit(flight, Operation::Open { path, mode }, turn);
    }

    pub(super) fn index_opened(
        &mut self,
        result: Result<Output, IoError>,
        buffer: AlignedBuffer,
        length: usize,
        turn: &mut Turn<'_>,
    ) {
        if let Ok(Output::File { file, .. }) = result {
            let operation = Operation::Write { file, position: 0, buffer, length, dsync: false };
            self.submit(Flight::IndexWrite { file }, operation, turn);
        }
    }
}
