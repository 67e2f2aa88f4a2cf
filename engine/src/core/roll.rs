//! Starting the next segment.
//!
//! A roll waits until the previously sealed segment is flushed and `log.meta` says so: at most two
//! segments ever hold unflushed bytes, and recovery scans at most those two.

use std::sync::Arc;

use highwater_index::index_file_name;
use highwater_io::{
    Access, AlignedBuffer, FileId, IoError, IoErrorKind, OpenMode, Operation, Output,
};
use highwater_segment::meta::Mark;
use highwater_segment::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_file_name};
use highwater_segment::{FIRST_BATCH, Offset, Salt};

use super::spare::Spare;
use super::trim::Sealed;
use super::write::{RESERVE_STEP_MIN, Tail};
use super::{Flight, LogCore, Place, SegmentFile, Turn};
use crate::indexes::SegmentIndex;
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
    /// A spare gets the new segment's header, and then its name.
    Adopting {
        base: Offset,
        salt: Salt,
        spare: Spare,
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

    /// Returns whether the active segment could be sealed: no roll is on its way, and it holds
    /// something.
    pub(super) fn may_roll(&self) -> bool {
        !self.roll_in_progress() && self.active().base < self.next_offset
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
        // One snapshot at a time; and the name of this one is covered by the sync of the next
        // segment's.
        if self.snapshot_in_flight() {
            return;
        }
        // One sync of a directory at a time: one that fails can take along the names that another,
        // which succeeds, was to make durable.
        if self.trims.names_are_changing() || !self.active().is_named() {
            return;
        }
        if self.roll_lets_one_go() {
            return;
        }
        let base = self.next_offset;
        assert!(base > active_base, "a segment without a batch is not sealed");
        let salt = Salt(turn.random.next_u64());
        if let Some(spare) = self.spares.take() {
            self.adopt(base, salt, spare, turn);
            return;
        }
        let path = self.directory.join(segment_file_name(base));
        let mode = self.settings.mode.open_mode(Access::CreateNew);
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
                // No file was made, so nothing is in doubt: the next append tries again.
                if matches!(error.kind, IoErrorKind::NoSpace | IoErrorKind::Resources) {
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

    /// Begins the next segment in a spare. Its header is written before it gets its name, so a
    /// killed process never leaves the name with an old header; both are durable before `flushed`
    /// crosses into it, and until then a power cut can leave any of them: S3, nothing proven.
    fn adopt(&mut self, base: Offset, salt: Salt, spare: Spare, turn: &mut Turn<'_>) {
        let (file, buffer) = (spare.file, self.header_block(base, salt));
        self.roll = Roll::Adopting { base, salt, spare };
        let length = SEGMENT_HEADER_BYTES;
        let operation = Operation::Write { file, position: 0, buffer, length, dsync: false };
        self.submit(Flight::AdoptHeader, operation, turn);
    }

    pub(super) fn adopt_header_written(
        &mut self,
        result: Result<Output, IoError>,
        turn: &mut Turn<'_>,
    ) {
        let Roll::Adopting { base, spare, .. } = &self.roll else {
            panic!("a spare is adopted once")
        };
        if let Err(error) = result {
            self.poison(error, turn);
            self.give_up_adoption(turn);
            return;
        }
        let to = self.directory.join(segment_file_name(*base));
        let operation = Operation::Rename { from: spare.path.clone(), to };
        self.submit(Flight::AdoptRename, operation, turn);
    }

    fn give_up_adoption(&mut self, turn: &mut Turn<'_>) {
        if let Roll::Adopting { spare, .. } = std::mem::replace(&mut self.roll, Roll::Idle) {
            self.submit_close(spare.file, turn);
        }
    }

    pub(super) fn adopted(&mut self, result: Result<Output, IoError>, turn: &mut Turn<'_>) {
        if let Err(error) = result {
            let vanished = error.kind == IoErrorKind::NotFound;
            self.give_up_adoption(turn);
            if vanished {
                // Somebody took it out of the pool: the segment is made anew.
                self.roll = Roll::Wanted;
            } else {
                self.poison(error, turn);
            }
            return;
        }
        let Roll::Adopting { base, salt, spare } = std::mem::replace(&mut self.roll, Roll::Idle)
        else {
            panic!("a spare is adopted once")
        };
        if self.poisoned {
            self.submit_close(spare.file, turn);
            return;
        }
        let reserved_to = self.keeper.segment_bytes();
        let file = spare.file;
        // Until both are synced a power cut can bring it back under either name, or both.
        for path in [self.directory.clone(), self.spares.pool().to_owned()] {
            self.submit(Flight::NameSync { base }, Operation::SyncDirectory { path }, turn);
        }
        let name_syncs = 2;
        let (settled, is_prepared) = (false, spare.is_whole && !self.was_buffered);
        let next = SegmentFile {
            base,
            salt,
            file,
            end: None,
            name_syncs,
            settled,
            reserved_to,
            is_prepared,
        };
        self.begin_segment(next, turn);
    }

    fn header_block(&self, base: Offset, salt: Salt) -> AlignedBuffer {
        let log_id = self.spares.log_id();
        let header = SegmentHeader { log_id, base_offset: base, salt };
        let mut buffer = AlignedBuffer::zeroed(SEGMENT_HEADER_BYTES);
        buffer.copy_from_slice(&header.encode());
        buffer
    }

    /// The header is durable before a batch is written behind it; the name is synced beside it.
    fn write_header(&mut self, base: Offset, salt: Salt, file: FileId, turn: &mut Turn<'_>) {
        let buffer = self.header_block(base, salt);
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
            file.name_syncs = file.name_syncs.saturating_sub(1);
        }
        if self.files.iter().all(|file| file.base != base || file.is_named()) {
            self.snapshots_named(base, turn);
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
        let (name_syncs, reserved_to) = (u8::from(!named), RESERVE_STEP_MIN);
        let (settled, is_prepared) = (true, false);
        let next = SegmentFile {
            base,
            salt,
            file,
            end: None,
            name_syncs,
            settled,
            reserved_to,
            is_prepared,
        };
        self.begin_segment(next, turn);
    }

    /// Seals the active segment and goes on in the next.
    fn begin_segment(&mut self, next: SegmentFile, turn: &mut Turn<'_>) {
        assert_eq!(next.base, self.next_offset, "A1: no offset is assigned during a roll");
        self.seal_active(turn);
        self.active_is_full = false;
        let base = next.base;
        self.publish_segment(SegmentInfo::new(base, Some(next.salt)));
        self.files.push_back(next);
        assert!(self.files.len() <= 2, "at most two segments hold unflushed bytes");
        self.tail = Tail::new(FIRST_BATCH, Vec::new());
        self.spares.try_again();
        self.begin_snapshot(base, turn);
        self.retain(turn.wall_clock_ms);
    }

    fn seal_active(&mut self, turn: &mut Turn<'_>) {
        let bytes = self.written_or_in_flight().bytes;
        let (offset, position) = (self.next_offset, self.tail.position);
        let active = self.active_mut();
        let segment = active.base;
        let is_whole = active.is_prepared;
        active.end = Some(Place { mark: Mark { offset, segment, position }, bytes });
        let max_timestamp_ms = self.write_index(segment, offset, turn);
        self.note_sealed(Sealed { base: segment, bytes: position.0, max_timestamp_ms, is_whole });
    }

    fn index_of(&self, base: Offset) -> Option<Arc<SegmentIndex>> {
        let published = self.shared.lock();
        let info = published.segments.iter().rfind(|info| info.base == base);
        info.map(|info| Arc::clone(&info.index))
    }

    /// Saves the index of a segment that was just sealed, and returns its largest timestamp. Best
    /// effort, never waited for; one that began inside its segment is made anew by a reader that
    /// needs it.
    fn write_index(&mut self, base: Offset, end: Offset, turn: &mut Turn<'_>) -> Option<i64> {
        let (index, salt) = (self.index_of(base)?, self.active().salt);
        let (bytes, max_timestamp_ms) = index.grow(|index| {
            let bytes = index.encode(salt.0, end.0);
            (bytes, index.max_timestamp_ms().filter(|_| index.is_whole()))
        })?;
        let Some(bytes) = bytes else {
            index.put_away();
            return None;
        };
        let mut buffer = AlignedBuffer::zeroed(bytes.len());
        buffer.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        let length = buffer.len();
        let path = self.directory.join(index_file_name(base.0));
        let mode = OpenMode { access: Access::CreateNew, direct: true };
        let flight = Flight::IndexOpen { base, buffer, length };
        self.submit(flight, Operation::Open { path, mode }, turn);
        max_timestamp_ms
    }

    pub(super) fn index_opened(
        &mut self,
        result: Result<Output, IoError>,
        (base, buffer, length): (Offset, AlignedBuffer, usize),
        turn: &mut Turn<'_>,
    ) {
        if let Ok(Output::File { file, .. }) = result {
            let operation = Operation::Write { file, position: 0, buffer, length, dsync: false };
            self.submit(Flight::IndexWrite { base, file }, operation, turn);
        } else {
            self.index_saved(base);
        }
    }

    /// The file has the index now, or a reader makes it anew.
    pub(super) fn index_saved(&self, base: Offset) {
        if let Some(index) = self.index_of(base) {
            index.put_away();
        }
    }
}
