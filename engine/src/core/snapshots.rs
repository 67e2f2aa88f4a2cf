//! Snapshots of the producers: one at every roll, so that the next opening replays a segment or
//! two, not the log.
//!
//! No crash is lost on the order here: a snapshot that is torn, has no name yet, or lies above the
//! mark is not believed, and the one before it serves. So nothing waits for one but the next roll;
//! its name reaches the media with that roll's. There is one for each segment, so that a truncation
//! knows the producers too: a segment leaves when the snapshot behind it is on stable media, and
//! the snapshots before that go with it.

use highwater_io::{Access, AlignedBuffer, FileId, IoError, OpenMode, Operation, Output};
use highwater_segment::meta::{Mark, ProducersMark};
use highwater_segment::producer_snapshot::{ProducerSnapshot, snapshot_file_name};
use highwater_segment::{FIRST_BATCH, Offset};

use super::{Flight, LogCore, Turn};
use crate::producers::{SNAPSHOTS_KEPT, SnapshotFile};

impl LogCore {
    /// Begins the snapshot of the producers at `base`, where a segment has just begun: no offset
    /// was assigned since its predecessor ended.
    pub(super) fn begin_snapshot(&mut self, base: Offset, turn: &mut Turn<'_>) {
        assert!(!self.snapshot_in_flight(), "a roll waits for the snapshot of the last");
        self.producers.table.expire(self.settings.producer_expiry_ms());
        if self.producers.table.is_empty() {
            self.producers.untouched = true;
            return;
        }
        if self.producers.files.back().is_some_and(|newest| newest.offset == base) {
            return;
        }
        let at = Mark { offset: base, segment: base, position: FIRST_BATCH };
        let (log_id, leader_epoch) = (self.spares.log_id(), self.epoch);
        let table = std::mem::take(&mut self.producers.table);
        let snapshot = ProducerSnapshot { log_id, at, leader_epoch, table };
        let bytes = snapshot.encode();
        self.producers.table = snapshot.table;
        let count = u32::try_from(self.producers.table.len()).unwrap_or(u32::MAX);
        self.producers.writing = Some(SnapshotFile { offset: base, count, durable: false });
        let mut buffer = AlignedBuffer::zeroed(bytes.len());
        buffer.copy_from_slice(&bytes);
        let path = self.directory.join(snapshot_file_name(base));
        let mode = OpenMode { access: Access::CreateNew, direct: true };
        self.submit(Flight::SnapshotOpen { buffer }, Operation::Open { path, mode }, turn);
    }

    pub(super) fn snapshot_in_flight(&self) -> bool {
        self.producers.writing.is_some()
    }

    pub(super) fn snapshot_opened(
        &mut self,
        result: Result<Output, IoError>,
        buffer: AlignedBuffer,
        turn: &mut Turn<'_>,
    ) {
        // Without it the next opening replays from an older one.
        let Ok(Output::File { file, .. }) = result else {
            self.producers.writing = None;
            return;
        };
        let length = buffer.len();
        let operation = Operation::Write { file, position: 0, buffer, length, dsync: true };
        self.submit(Flight::SnapshotWrite { file }, operation, turn);
    }

    pub(super) fn snapshot_written(
        &mut self,
        file: FileId,
        result: Result<Output, IoError>,
        turn: &mut Turn<'_>,
    ) {
        self.submit_close(file, turn);
        let Some(written) = self.producers.writing.take() else {
            panic!("a snapshot is written once")
        };
        if result.is_ok() {
            self.producers.files.push_back(written);
        } else {
            let path = self.directory.join(snapshot_file_name(written.offset));
            self.submit(Flight::Leftover, Operation::Remove { path }, turn);
        }
    }

    /// The log's directory was synced for the segment at `base`, whose making began when every
    /// snapshot below was written: their names are on stable media too.
    pub(super) fn snapshots_named(&mut self, base: Offset, turn: &mut Turn<'_>) {
        for file in self.producers.files.iter_mut().filter(|file| file.offset < base) {
            file.durable = true;
        }
        self.drop_old_snapshots(turn);
    }

    /// Returns the newest snapshot that serves every truncation: it is on stable media, at or below
    /// where the log's first segment begins, and below the marks of both slots of `log.meta`.
    fn first_snapshot(&self) -> Option<usize> {
        let marked = self.keeper.oldest_mark_segment().min(self.first_segment());
        let serves = |file: &SnapshotFile| file.durable && file.offset <= marked;
        self.producers.files.iter().rposition(serves)
    }

    /// Removes the snapshots that no opening and no truncation will need.
    fn drop_old_snapshots(&mut self, turn: &mut Turn<'_>) {
        let marked = self.keeper.oldest_mark_segment();
        let serves = |file: &&SnapshotFile| file.durable && file.offset <= marked;
        let serving = self.producers.files.iter().filter(serves).count();
        let unneeded = self.first_snapshot().unwrap_or(0);
        for _ in 0..unneeded.min(serving.saturating_sub(SNAPSHOTS_KEPT)) {
            let Some(oldest) = self.producers.files.pop_front() else { return };
            let path = self.directory.join(snapshot_file_name(oldest.offset));
            self.submit(Flight::Leftover, Operation::Remove { path }, turn);
        }
    }

    /// Returns whether no opening and no truncation asks what the batches below `end` say of the
    /// producers.
    pub(super) fn producers_are_kept(&self, end: Offset) -> bool {
        let first = self.first_snapshot().and_then(|at| self.producers.files.get(at));
        self.producers.untouched
            || self.keeper.no_producers_below() >= end
            || first.is_some_and(|first| first.offset >= end)
    }

    /// Returns what the next slot of `log.meta` says of the producers.
    pub(super) fn producers_mark(&self, last: ProducersMark) -> ProducersMark {
        let log_time_ms = self.producers.table.log_time_ms();
        let flushed = self.flushed.mark.offset;
        if self.producers.untouched {
            return ProducersMark { offset: flushed, count: 0, log_time_ms };
        }
        let serves = |file: &&SnapshotFile| file.durable && file.offset <= flushed;
        match self.producers.files.iter().rfind(serves) {
            Some(SnapshotFile { offset, count, .. }) if *offset > last.offset => {
                ProducersMark { offset: *offset, count: *count, log_time_ms }
            }
            _ => ProducersMark { log_time_ms, ..last },
        }
    }
}
