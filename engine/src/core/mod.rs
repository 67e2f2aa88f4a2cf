//! One log inside its shard: a state machine. Commands and completions go in, operations come out;
//! it has no clock, no thread and no lock.
//!
//! The way of an append: [`enqueue`](LogCore::enqueue) - `write.rs` gathers a group, assigns
//! offsets, stamps and writes - completions move `written` - `flush.rs` decides when the log is
//! due and moves `flushed` - `waiters.rs` gives the acks. `roll.rs` starts the next segment,
//! `keeper.rs` keeps `log.meta`. Opening, truncating and closing are done outside, on a log that
//! is detached: see [`crate::opening`] and [`crate::maintenance`].

mod flush;
mod keeper;
mod mode;
mod producers;
mod roll;
mod snapshots;
mod spare;
mod trim;
mod waiters;
mod write;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use highwater_io::random::SeededRandom;
use highwater_io::{
    Access, AlignedBuffer, Completion, FileId, IoError, IoErrorKind, Monotonic, OpenMode,
    Operation, Output, Token,
};
use highwater_segment::meta::{LogMeta, Mark};
use highwater_segment::producers::ProducerTable;
use highwater_segment::segment::segment_file_name;
use highwater_segment::{Epoch, Offset, RecordBatch, Salt};

use crate::ack::{Ack, Progress};
use crate::buffers::Buffers;
use crate::error::{Error, ErrorKind};
use crate::marks::Marks;
use crate::metrics::{Counters, LogMetrics};
use crate::number::LogNumber;
use crate::opening::{ActiveSegment, OpenedLog};
use crate::options::{LogSettings, Mode};
use crate::receipt::Promise;
use crate::room::Released;
use crate::rounds::Rounds;
use crate::shared::{LogShared, SegmentInfo};
use crate::tail::TailBudget;

pub(crate) use trim::Sealed;

use flush::FlushInFlight;
use keeper::Keeper;
use producers::Producers;
use roll::Roll;
use spare::Spares;
use trim::Trims;
use waiters::{Waiter, Waiters};
use write::{IndexHint, Tail, WriteInFlight};

/// What one step of a shard gives to and takes from a log.
pub(crate) struct Turn<'a> {
    pub(crate) now: Monotonic,
    pub(crate) wall_clock_ms: i64,
    pub(crate) random: &'a mut SeededRandom,
    pub(crate) operations: &'a mut Vec<(Token, Operation)>,
    /// Of the chunks that this shard keeps for readers.
    pub(crate) tail_budget: &'a Arc<TailBudget>,
    /// Bytes of queued batches that were copied, so that others may be queued.
    pub(crate) released: &'a mut Released,
    /// What groups are written from.
    pub(crate) buffers: &'a mut Buffers,
    /// Flushes that several logs share.
    pub(crate) rounds: &'a mut Rounds,
}

/// An append, or a wish to flush, that has no offset yet.
#[derive(Debug)]
pub(crate) struct Pending {
    /// `None`: a wish to flush what came before.
    pub(crate) batch: Option<RecordBatch>,
    pub(crate) ack: Ack,
    pub(crate) cell: Promise,
}

/// Why a log is taken from its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DetachReason {
    /// For good: later appends are refused.
    Close,
    /// To truncate or reopen it: later appends wait.
    Maintenance,
}

/// What a log was when it left its shard, everything flushed and no operation in flight.
#[derive(Clone, Debug)]
pub(crate) struct DetachedLog {
    pub(crate) meta: LogMeta,
    pub(crate) end: Mark,
    /// What was flushed: `end`, unless the log failed.
    pub(crate) flushed: Mark,
    /// What is known of the producers at `end`.
    pub(crate) producers: ProducerTable,
    /// The log was poisoned or read-only: the marks are what they were.
    pub(crate) failure: Option<Error>,
}

impl DetachedLog {
    /// Returns from where the log is to be rewritten before it is believed, if it is.
    pub(crate) fn rewrite_from(&self) -> Option<Mark> {
        self.failure.is_some().then_some(self.flushed)
    }
}

#[derive(Debug)]
enum State {
    /// The files are being opened; appends wait.
    Attaching,
    Active,
    /// The first so many of the waiting appends still go out, then all is flushed and closed.
    Detaching {
        reason: DetachReason,
        drain: usize,
    },
    /// Files closing after a detach.
    ClosingFiles {
        reason: DetachReason,
    },
    Detached {
        reason: DetachReason,
    },
}

/// Which operation a completion ends.
#[derive(Debug)]
enum Flight {
    OpenActive,
    OpenMeta,
    Write,
    Flush,
    Allocate {
        to: u64,
    },
    RollCreate,
    RollAllocate,
    RollHeader,
    RollCleanup,
    AdoptHeader,
    AdoptRename,
    /// A step of the spare in preparation.
    Spare,
    /// A step of a segment's way into the pool.
    Recycle,
    /// A file nobody needs goes; if it stays, the next opening finds it.
    Leftover,
    NameSync {
        base: Offset,
    },
    MetaSlot,
    IndexOpen {
        base: Offset,
        buffer: AlignedBuffer,
        length: usize,
    },
    IndexWrite {
        base: Offset,
        file: FileId,
    },
    SnapshotOpen {
        buffer: AlignedBuffer,
    },
    SnapshotWrite {
        file: FileId,
    },
    Close,
}

/// A file that holds, or may come to hold, unflushed bytes.
#[derive(Debug)]
struct SegmentFile {
    base: Offset,
    salt: Salt,
    file: FileId,
    /// Where it ends, once sealed.
    end: Option<Place>,
    /// So many directories are still to be synced until its name, and no other, is on stable
    /// media; before that `flushed` stays out (D10).
    name_syncs: u8,
    /// The header block is on stable media. Before that no write carries its own durability: the
    /// flush that the first one gets instead covers the header too.
    settled: bool,
    /// Space is reserved up to here.
    reserved_to: u64,
    /// All of it was written and flushed before it was used, and is written over past the page
    /// cache.
    is_prepared: bool,
}

impl SegmentFile {
    fn is_named(&self) -> bool {
        self.name_syncs == 0
    }
}

/// A point in the log: its mark, and how many bytes lie before it since this log was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    mark: Mark,
    bytes: u64,
}

/// One log, owned by one shard.
#[derive(Debug)]
pub(crate) struct LogCore {
    number: LogNumber,
    directory: PathBuf,
    settings: LogSettings,
    /// How the active segment was opened.
    opened_in: Mode,
    pub(crate) shared: Arc<LogShared>,
    state: State,
    /// Why no append is taken any more, if so.
    failure: Option<Error>,
    poisoned: bool,
    epoch: Epoch,
    log_start: Offset,
    next_offset: Offset,
    pending: VecDeque<Pending>,
    tail: Tail,
    /// Reused: the batches of the group that is being formed.
    group: Vec<(Waiter, IndexHint)>,
    files: VecDeque<SegmentFile>,
    writes: VecDeque<WriteInFlight>,
    written: Place,
    flushed: Place,
    dirty_since: Option<Monotonic>,
    flush: Option<FlushInFlight>,
    /// The flush in flight is that of a round.
    in_round: bool,
    /// It is due, and too late for the round in flight.
    is_late: bool,
    /// It was to be written through the page cache at some time: a file may still be open so.
    was_buffered: bool,
    /// It lies on the file system that rounds flush.
    may_join_rounds: bool,
    allocating: bool,
    /// The next append rolls, whatever room there is: see [`ActiveSegment::is_full`].
    active_is_full: bool,
    roll: Roll,
    keeper: Keeper,
    producers: Producers,
    waiters: Waiters,
    spares: Spares,
    trims: Trims,
    flights: BTreeMap<Token, Flight>,
    next_sequence: u64,
    /// Something was submitted that has not gone to the kernel yet.
    handing_over: bool,
    /// What was published last, and whether with a failure.
    public: Option<(Marks, bool)>,
    counters: Counters,
    /// The active segment as opening found it, until its file is open here.
    attaching: Option<ActiveSegment>,
    detached: Option<DetachedLog>,
}

impl LogCore {
    /// Returns the log that `opened` describes; its files are opened by the first
    /// [`pump`](Self::pump). Appends in `pending` go first.
    pub(crate) fn attach(
        number: LogNumber,
        opened: OpenedLog,
        settings: LogSettings,
        pending: VecDeque<Pending>,
        mut counters: Counters,
    ) -> Self {
        let log_start = opened.shared.marks().log_start;
        let place = Place { mark: opened.end, bytes: 0 };
        counters.restart(opened.end.offset);
        let tail = Tail::new(opened.end.position, opened.tail);
        opened.shared.set_mode(settings.mode);
        LogCore {
            number,
            directory: opened.directory,
            settings,
            opened_in: settings.mode,
            shared: opened.shared,
            state: State::Attaching,
            failure: opened.read_only,
            poisoned: false,
            epoch: opened.meta.epoch,
            log_start,
            next_offset: opened.end.offset,
            pending,
            tail,
            group: Vec::new(),
            files: VecDeque::new(),
            writes: VecDeque::new(),
            written: place,
            flushed: place,
            dirty_since: None,
            flush: None,
            in_round: false,
            is_late: false,
            was_buffered: settings.mode == Mode::Buffered,
            may_join_rounds: opened.may_join_rounds,
            allocating: false,
            active_is_full: opened.active.is_some_and(|active| active.is_full),
            roll: Roll::Idle,
            spares: Spares::new(opened.pool, opened.meta.log_id, opened.spares),
            trims: Trims::new(opened.sealed),
            producers: Producers::new(opened.producers),
            keeper: Keeper::new(opened.meta),
            waiters: Waiters::default(),
            flights: BTreeMap::new(),
            next_sequence: 0,
            handing_over: false,
            public: None,
            counters,
            attaching: opened.active,
            detached: None,
        }
    }

    /// Takes an append or a wish to flush. Refusals are told through its receipt at once.
    pub(crate) fn enqueue(&mut self, pending: Pending, turn: &mut Turn<'_>) {
        let closed = matches!(
            self.state,
            State::Detaching { reason: DetachReason::Close, .. }
                | State::ClosingFiles { reason: DetachReason::Close }
                | State::Detached { reason: DetachReason::Close }
        );
        if closed {
            let error = Error::new(ErrorKind::Closed, "append to log", &self.shared.name)
                .detail("the log is closed");
            self.refuse(pending, error, turn);
        } else if let Some(error) = self.failure.clone() {
            self.refuse(pending, error, turn);
        } else if let Some(error) = self.too_large(&pending) {
            self.refuse(pending, error, turn);
        } else {
            self.pending.push_back(pending);
        }
    }

    /// A batch that no segment can hold would wait for a roll for ever.
    fn too_large(&self, pending: &Pending) -> Option<Error> {
        let bytes = pending.batch.as_ref()?.disk_bytes();
        let room = self.keeper.segment_bytes() - highwater_segment::FIRST_BATCH.0;
        let error = || {
            Error::new(ErrorKind::TooLarge, "append to log", &self.shared.name)
                .detail(format!("a batch of {bytes} bytes; a segment holds {room}"))
                .remedy("send smaller batches, or make a log with a larger segment_bytes")
        };
        (bytes > room).then(error)
    }

    fn refuse(&mut self, pending: Pending, error: Error, turn: &mut Turn<'_>) {
        turn.released.add(self.number, queued_bytes(pending.batch.as_ref()));
        pending.cell.ack(Err(error));
    }

    pub(crate) fn number(&self) -> LogNumber {
        self.number
    }

    pub(crate) fn set_settings(&mut self, settings: LogSettings) {
        self.settings = settings;
        self.was_buffered |= settings.mode == Mode::Buffered;
        self.shared.set_mode(settings.mode);
    }

    /// Begins to take the log from its shard: what is queued goes out, all is flushed, the files
    /// are closed; then [`take_detached`](Self::take_detached) has it.
    pub(crate) fn detach(&mut self, reason: DetachReason) {
        assert!(!matches!(self.state, State::Detached { .. }), "a log is detached once");
        self.state = State::Detaching { reason, drain: self.pending.len() };
    }

    /// Returns the detached log, once, with the appends that wait for its return.
    pub(crate) fn take_detached(&mut self) -> Option<(DetachedLog, VecDeque<Pending>)> {
        let detached = self.detached.take()?;
        Some((detached, std::mem::take(&mut self.pending)))
    }

    /// Handles the end of one operation of this log.
    ///
    /// # Panics
    /// If it was not submitted by this log.
    pub(crate) fn complete(&mut self, completion: Completion, turn: &mut Turn<'_>) {
        let Some(flight) = self.flights.remove(&completion.token) else {
            panic!("completion {:?} of an operation nobody submitted", completion.token)
        };
        let Completion { token, result, buffer } = completion;
        match (flight, result) {
            (Flight::OpenActive, result) => self.active_opened(result, turn),
            (Flight::OpenMeta, result) => self.meta_opened(result),
            (Flight::Write, result) => self.write_completed(token, result, buffer, turn),
            (Flight::Flush, result) => self.flush_completed(result, turn),
            (Flight::Allocate { to }, result) => self.allocate_completed(to, result, turn),
            (Flight::RollCreate, result) => self.roll_created(result, turn),
            (Flight::RollAllocate, result) => self.roll_allocated(result, turn),
            (Flight::RollHeader, result) => self.roll_header_written(result, turn),
            (Flight::RollCleanup, result) => self.roll_cleaned(result, turn),
            (Flight::AdoptHeader, result) => self.adopt_header_written(result, turn),
            (Flight::AdoptRename, result) => self.adopted(result, turn),
            (Flight::Spare, result) => self.spare_completed(result, buffer, turn),
            (Flight::Recycle, result) => self.recycle_completed(result, turn),
            (Flight::NameSync { base }, result) => self.name_synced(base, result, turn),
            (Flight::MetaSlot, result) => self.meta_written(result, turn),
            (Flight::IndexOpen { base, buffer, length }, result) => {
                self.index_opened(result, (base, buffer, length), turn);
            }
            // The index is derived data: an error costs time at the next start, nothing else.
            (Flight::IndexWrite { base, file }, _) => {
                self.index_saved(base);
                self.submit_close(file, turn);
            }
            (Flight::SnapshotOpen { buffer }, result) => {
                self.snapshot_opened(result, buffer, turn);
            }
            (Flight::SnapshotWrite { file }, result) => self.snapshot_written(file, result, turn),
            (Flight::Close | Flight::Leftover, _) => {}
        }
    }

    /// Goes on as far as possible without waiting: submits what may be submitted now.
    pub(crate) fn pump(&mut self, turn: &mut Turn<'_>) {
        self.pump_mode(turn);
        if self.attaching.is_some() || self.keeper.needs_file() {
            self.pump_opening(turn);
        }
        if self.failure.is_some() && !self.pending.is_empty() {
            self.refuse_all_pending(turn);
        }
        if let Some(failure) = &self.failure
            && !self.trims.is_empty()
        {
            let failure = failure.clone();
            self.trims.fail_all(&failure);
        }
        if self.is_ready() {
            self.drop_flushed_files(turn);
            self.pump_writes(turn);
            self.pump_roll(turn);
            self.pump_trims(turn);
            self.pump_flush(turn);
            self.pump_spares(turn);
        }
        self.pump_meta(turn);
        self.pump_detach(turn);
        self.publish();
    }

    /// Returns when this log wants to be pumped again although nothing completes.
    pub(crate) fn deadline(&self) -> Option<Monotonic> {
        if self.failure.is_some() {
            return None;
        }
        [self.flush_deadline(), self.meta_deadline()].into_iter().flatten().min()
    }

    /// Wakes who was answered since the last time.
    pub(crate) fn wake_all(&mut self) {
        self.waiters.wake_all();
    }

    /// Returns the log's name and what was counted so far.
    pub(crate) fn metrics(&mut self, now: Monotonic) -> (String, LogMetrics) {
        (self.shared.name.clone(), self.counters.snapshot(now))
    }

    /// Returns the counters of a log that leaves its shard.
    pub(crate) fn take_counters(&mut self) -> Counters {
        std::mem::take(&mut self.counters)
    }

    /// Poisons the log because a flush of another log on the same file system failed while this
    /// one had unflushed bytes, or names on their way: the device may have dropped those too.
    pub(crate) fn poison_if_dirty(&mut self, error: &IoError, turn: &mut Turn<'_>) {
        let unnamed = self.names_are_changing() || self.trims.names_are_changing();
        // A write that is done on the device and not reaped yet counts like one that is.
        if self.written_or_in_flight().mark.offset > self.flushed.mark.offset || unnamed {
            self.poison(error.clone(), turn);
        }
    }

    /// Returns whether an operation is in flight.
    fn is_busy(&self) -> bool {
        // A round flushes a file of one of its logs: it stays open until then.
        !self.flights.is_empty() || self.in_round
    }

    fn is_ready(&self) -> bool {
        let open = matches!(self.state, State::Active | State::Detaching { .. });
        open && self.failure.is_none() && self.attaching.is_none() && !self.keeper.needs_file()
    }

    fn active(&self) -> &SegmentFile {
        let Some(active) = self.files.back() else { panic!("a ready log has an active segment") };
        active
    }

    fn active_mut(&mut self) -> &mut SegmentFile {
        let Some(active) = self.files.back_mut() else {
            panic!("a ready log has an active segment")
        };
        active
    }

    fn submit(&mut self, flight: Flight, operation: Operation, turn: &mut Turn<'_>) -> Token {
        let token = Token(u64::from(self.number.slot()) << 48 | self.next_sequence);
        self.next_sequence += 1;
        self.handing_over = true;
        assert!(self.next_sequence < 1 << 48, "48 bits of operations outlast the hardware");
        let previous = self.flights.insert(token, flight);
        assert!(previous.is_none(), "tokens do not repeat");
        turn.operations.push((token, operation));
        token
    }

    fn submit_close(&mut self, file: FileId, turn: &mut Turn<'_>) {
        self.submit(Flight::Close, Operation::Close { file }, turn);
    }

    fn pump_opening(&mut self, turn: &mut Turn<'_>) {
        let opening = self.flights.values();
        let (mut active_flies, mut meta_flies) = (false, false);
        for flight in opening {
            active_flies |= matches!(flight, Flight::OpenActive);
            meta_flies |= matches!(flight, Flight::OpenMeta);
        }
        if self.failure.is_some() {
            // Read-only: nothing is ever written, so no file is needed.
            self.attaching = None;
            self.keeper.give_up_file();
            self.enter_active();
            return;
        }
        let mode = self.settings.mode.open_mode(Access::ReadWrite);
        if let (Some(active), false) = (&self.attaching, active_flies) {
            let path = self.directory.join(segment_file_name(active.base));
            self.opened_in = self.settings.mode;
            self.submit(Flight::OpenActive, Operation::Open { path, mode }, turn);
        }
        if self.keeper.needs_file() && !meta_flies {
            let path = self.directory.join(highwater_segment::meta::META_FILE_NAME);
            // Small, its own file, and every slot is flushed behind its write: never cached.
            let mode = OpenMode { direct: true, ..mode };
            self.submit(Flight::OpenMeta, Operation::Open { path, mode }, turn);
        }
    }

    fn active_opened(&mut self, result: Result<Output, IoError>, turn: &mut Turn<'_>) {
        let Some(active) = self.attaching.take() else {
            // log.meta could not be opened meanwhile, so the log is not writable.
            if let Ok(Output::File { file, .. }) = result {
                self.submit_close(file, turn);
            }
            return;
        };
        match result {
            Ok(Output::File { file, direct }) => self.files.push_back(SegmentFile {
                base: active.base,
                salt: active.salt,
                file,
                end: None,
                name_syncs: 0,
                settled: true,
                reserved_to: active.reserved_to,
                is_prepared: active.is_prepared && direct,
            }),
            Ok(other) => panic!("open returned {other:?}"),
            Err(error) => self.failure = Some(Error::from_io(error)),
        }
        if !self.keeper.needs_file() {
            self.enter_active();
        }
    }

    fn meta_opened(&mut self, result: Result<Output, IoError>) {
        match result {
            Ok(Output::File { file, .. }) => self.keeper.set_file(file),
            Ok(other) => panic!("open returned {other:?}"),
            Err(error) => {
                self.keeper.give_up_file();
                self.failure = Some(Error::from_io(error));
            }
        }
        if self.attaching.is_none() {
            self.enter_active();
        }
    }

    fn enter_active(&mut self) {
        // A log can be detached again before its files are open.
        if matches!(self.state, State::Attaching) {
            self.state = State::Active;
        }
    }

    /// A write or a flush failed: from here on nothing is promised, nothing is retried (D3).
    fn poison(&mut self, error: IoError, turn: &mut Turn<'_>) {
        if self.poisoned {
            return;
        }
        self.poisoned = true;
        let remedy = match error.kind {
            IoErrorKind::Resources => {
                "the log refuses writes; raise the limit of open files (ulimit -n) or free some \
                 memory, then reopen the log"
            }
            _ => "the log refuses writes; check the device, then reopen the log",
        };
        let failure = Error::from_io(error).with_kind(ErrorKind::Poisoned).remedy(remedy);
        self.failure = Some(failure.clone());
        // What the device has of it is in doubt: readers ask the device.
        self.shared.tail.clear();
        self.publish();
        self.trims.fail_all(&failure);
        self.waiters.fail_all(&failure.unknown());
        self.keeper.note_poison();
        self.refuse_all_pending(turn);
    }

    fn refuse_all_pending(&mut self, turn: &mut Turn<'_>) {
        let Some(error) = self.failure.clone() else { return };
        while let Some(pending) = self.pending.pop_front() {
            self.refuse(pending, error.clone(), turn);
        }
        if let State::Detaching { drain, .. } = &mut self.state {
            *drain = 0;
        }
    }

    fn pump_detach(&mut self, turn: &mut Turn<'_>) {
        match self.state {
            State::Detaching { reason, drain } => {
                let drained = drain == 0
                    && self.writes.is_empty()
                    && self.flush.is_none()
                    && self.trims.is_empty();
                let flushed = self.flushed.mark.offset == self.next_offset;
                let done = drained && flushed || self.failure.is_some();
                if !done || self.is_busy() || self.keeper.poison_note_pending() {
                    return;
                }
                self.close_spares(turn);
                for file in std::mem::take(&mut self.files) {
                    self.submit_close(file.file, turn);
                }
                if let Some(file) = self.keeper.take_file() {
                    self.submit_close(file, turn);
                }
                self.state = State::ClosingFiles { reason };
                self.pump_detach(turn);
            }
            State::ClosingFiles { reason } if !self.is_busy() => {
                assert!(self.failure.is_some() || self.waiters.is_empty(), "all are answered");
                self.detached = Some(DetachedLog {
                    meta: self.keeper.snapshot(),
                    end: self.written.mark,
                    flushed: self.flushed.mark,
                    producers: self.producers.take_table(),
                    failure: self.failure.clone(),
                });
                self.state = State::Detached { reason };
            }
            _ => {}
        }
    }

    fn progress(&self) -> Progress {
        // One replica that is its own ISR: the watermarks are its own marks.
        Progress {
            leader_written: self.written.mark.offset,
            leader_flushed: self.flushed.mark.offset,
            high_watermark: self.written.mark.offset,
            durable_watermark: self.flushed.mark.offset,
        }
    }

    fn marks(&self) -> Marks {
        let progress = self.progress();
        let marks = Marks {
            log_start: self.log_start,
            flushed: progress.leader_flushed,
            written: progress.leader_written,
            log_end: self.next_offset,
            high_watermark: progress.high_watermark,
            durable_watermark: progress.durable_watermark,
        };
        marks.assert_chain();
        marks
    }

    /// Makes the marks public, and the failure. Does nothing if nothing moved.
    fn publish(&mut self) {
        let marks = self.marks();
        let failed = self.failure.is_some();
        if self.public == Some((marks, failed)) {
            return;
        }
        self.public = Some((marks, failed));
        let mut published = self.shared.lock();
        let trims = published.marks.log_start != marks.log_start;
        published.marks = marks;
        let fails = published.failure != self.failure;
        if fails {
            published.failure.clone_from(&self.failure);
        }
        drop(published);
        if trims {
            self.shared.note_upheaval();
        }
        if fails {
            self.shared.lookout.tell();
        } else {
            self.shared.lookout.tell_marks(&marks);
        }
    }

    fn publish_segment(&self, info: SegmentInfo) {
        self.shared.lock().segments.push(info);
        self.shared.note_upheaval();
    }
}

/// What a wish to flush counts against the queue's bytes, so that wishes are bounded too.
const FLUSH_WISH_BYTES: usize = 256;

/// Returns what a queued batch (or wish) counts against the queue's bytes.
pub(crate) fn queued_bytes(batch: Option<&RecordBatch>) -> usize {
    let Some(batch) = batch else { return FLUSH_WISH_BYTES };
    usize::try_from(batch.disk_bytes()).unwrap_or(usize::MAX)
}

impl Drop for LogCore {
    /// Whatever ends the shard, nobody goes on waiting for this log.
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Closed, "append to log", &self.shared.name)
            .detail("the engine stopped");
        self.waiters.fail_all(&error.clone().unknown());
        for pending in self.pending.drain(..) {
            pending.cell.ack(Err(error.clone()));
        }
    }
}
