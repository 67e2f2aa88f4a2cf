//! Gathering groups, assigning offsets, writing, and moving `written`.

use std::sync::Arc;

use highwater_io::{AlignedBuffer, IoError, IoErrorKind, Monotonic, Operation, Output, Token};
use highwater_segment::builder::Stamp;
use highwater_segment::filler::fill;
use highwater_segment::meta::Mark;
use highwater_segment::{BLOCK_BYTES, HEADER_BYTES, Position};

use super::waiters::{AckContext, Waiter};
use super::{Flight, LogCore, Place, State, Turn, queued_bytes};
use crate::ack::Ack;
use crate::convert::{to_u64, to_usize};
use crate::error::Error;
use crate::metrics::FlushReason;
use crate::options::{GROUP_BYTES, WRITES_IN_FLIGHT};
use crate::tail::Stretch;

/// The most bytes reserved ahead at once.
const RESERVE_STEP_MAX: u64 = 16 << 20;
/// The least bytes reserved at once, so that small logs stay cheap.
pub(super) const RESERVE_STEP_MIN: u64 = 64 << 10;

/// Where the next batch goes, and the bytes before it in its block: that block is rewritten, with
/// an identical prefix, when the next group is.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) position: Position,
    bytes: Vec<u8>,
}

impl Tail {
    pub(super) fn new(position: Position, bytes: Vec<u8>) -> Self {
        let prefix = position.0 - position.block_start().0;
        assert_eq!(to_u64(bytes.len()), prefix, "the tail is the prefix of its block");
        Tail { position, bytes }
    }
}

/// A group on its way to the disk.
#[derive(Debug)]
pub(super) struct WriteInFlight {
    token: Token,
    /// When the kernel got it.
    submitted_at: Option<Monotonic>,
    /// Where the log's written prefix ends once this and all before it are done.
    end: Place,
    /// Durable by itself when it completes.
    dsync: bool,
    done: bool,
    /// Where it begins in its file.
    start: Position,
    /// What was written, once that is done.
    buffer: Option<AlignedBuffer>,
}

/// What the index is told of a batch.
#[derive(Debug)]
pub(super) struct IndexHint {
    position: Position,
    max_timestamp_ms: i64,
}

/// What the next group will be.
struct Plan {
    batches: usize,
    bytes: u64,
    waits_for_flush: bool,
    pads: bool,
}

impl LogCore {
    /// Forms and submits groups as long as the rules let another one go.
    pub(super) fn pump_writes(&mut self, turn: &mut Turn<'_>) {
        loop {
            self.take_flush_wishes(turn);
            while self.answer_known(turn) {
                self.take_flush_wishes(turn);
            }
            if self.groups_held() || self.roll_in_progress() {
                return;
            }
            let Some(plan) = self.plan_group() else { return };
            let room = self.keeper.segment_bytes() - self.tail.position.0;
            if plan.bytes > room || self.active_is_full {
                self.request_roll();
                return;
            }
            let end = Position(self.tail.position.0 + plan.bytes).block_end();
            if end.0 > self.active().reserved_to {
                self.request_space(end.0, turn);
                return;
            }
            if plan.waits_for_flush && self.durable_in_flight() {
                return;
            }
            self.write_group(&plan, turn);
            self.reserve_ahead(turn);
        }
    }

    /// A wish to flush at the head of the queue: it waits for all that has an offset by now.
    fn take_flush_wishes(&mut self, turn: &mut Turn<'_>) {
        while self.pending.front().is_some_and(|p| p.batch.is_none())
            && !self.drain_is_over()
            && !self.waiters.is_full()
        {
            let Some(wish) = self.pending.pop_front() else { return };
            turn.released.add(self.number, queued_bytes(None));
            self.count_drained();
            let (base, end) = (self.next_offset, self.next_offset);
            let waiter = Waiter {
                base,
                records: 0,
                end,
                epoch: self.epoch,
                ack: Ack::LEADER_FLUSHED,
                cell: wish.cell,
                assigned_at: turn.now,
                submitted_at: turn.now,
                written_at: turn.now,
                acked: false,
                bytes: self.written_or_in_flight().bytes,
            };
            let (written, context) = (self.written.mark.offset, self.ack_context(turn.now));
            let counters = &mut self.counters;
            self.waiters.push(waiter, &context, counters);
            self.waiters.written_moved(written, turn.now, &context, counters);
            self.waiters.flushed_moved(&context, counters);
        }
    }

    pub(super) fn drain_is_over(&self) -> bool {
        matches!(self.state, State::Detaching { drain: 0, .. })
    }

    pub(super) fn count_drained(&mut self) {
        if let State::Detaching { drain, .. } = &mut self.state {
            *drain -= 1;
        }
    }

    fn groups_held(&self) -> bool {
        let unpadded_in_flight = !self.tail.position.is_block_border() && !self.writes.is_empty();
        self.pending.is_empty()
            || self.drain_is_over()
            || self.writes.len() >= WRITES_IN_FLIGHT
            || unpadded_in_flight
            || self.waiters.is_full()
    }

    /// Returns the group that could go now: as many batches as fit, at least one.
    fn plan_group(&self) -> Option<Plan> {
        let mut plan = Plan { batches: 0, bytes: 0, waits_for_flush: false, pads: false };
        let room = self.keeper.segment_bytes() - self.tail.position.0;
        let drain = match self.state {
            State::Detaching { drain, .. } => drain,
            _ => usize::MAX,
        };
        for pending in self.pending.iter().take(drain) {
            let Some(batch) = &pending.batch else { break };
            let bytes = plan.bytes + batch.disk_bytes();
            let fits = bytes <= to_u64(GROUP_BYTES) && bytes <= room;
            if plan.batches > 0 && !fits {
                break;
            }
            plan.batches += 1;
            plan.bytes = bytes;
            plan.waits_for_flush |= pending.ack.waits_for_flush();
        }
        // A lone group leaves its last block open for the next one, which then waits for it; when
        // more is on its way the padding buys the overlap.
        plan.pads = self.keeper.never_rewrite_flushed()
            || !self.writes.is_empty()
            || self.pending.len() > plan.batches;
        (plan.batches > 0).then_some(plan)
    }

    /// Copies the group into a buffer - this is where offsets are assigned - and submits it.
    fn write_group(&mut self, plan: &Plan, turn: &mut Turn<'_>) {
        let start = self.tail.position;
        let prefix = self.tail.bytes.len();
        let end = start.plus(plan.bytes);
        let span = to_usize(end.block_end().0 - start.block_start().0);
        let mut buffer = turn.buffers.take(span);
        copy(&mut buffer, 0, &self.tail.bytes);
        let bytes_before = self.written_or_in_flight().bytes;
        let index = self.shared.lock().segments.last().map(|active| Arc::clone(&active.index));
        let mut group = std::mem::take(&mut self.group);
        let mut at = prefix;
        let mut left = plan.batches;
        while left > 0 {
            let bytes = bytes_before + to_u64(at - prefix);
            let (end, waiter, hint) = self.place_batch(&mut buffer, at, bytes, turn);
            at = end;
            group.push((waiter, hint));
            // What repeats a batch of this very group could not be told before.
            left -= 1;
            left -= self.refuse_or_note_known(left, turn);
        }
        // Who is told of an append finds it: the log's end is public before the ack is.
        self.publish();
        let context = self.ack_context(turn.now);
        if let Some(index) = &index {
            let generation = self.keeper.generation().0;
            index.grow(|index| {
                for (waiter, hint) in &group {
                    let (offset, position) = (waiter.base.0, hint.position.0);
                    index.note(offset, position, generation, hint.max_timestamp_ms);
                }
            });
        }
        for (waiter, _) in group.drain(..) {
            self.waiters.push(waiter, &context, &mut self.counters);
        }
        self.group = group;
        self.join_known(&context);
        let bytes = to_u64(at - prefix);
        assert!(bytes <= plan.bytes, "the group is no longer than planned");
        // Less than planned if it repeats itself.
        let end = start.plus(bytes);
        let span = to_usize(end.block_end().0 - start.block_start().0);
        let plan = &Plan { bytes, ..*plan };
        let rest = buffer.get_mut(at..span).unwrap_or_default();
        rest.fill(0);
        let mut next = end;
        if plan.pads && !end.is_block_border() {
            let stamp = self.stamp(end, turn.wall_clock_ms);
            fill(rest, &stamp);
            next = end.block_end();
        }
        let kept = to_usize(next.0 - next.block_start().0);
        self.tail.bytes.clear();
        self.tail
            .bytes
            .extend_from_slice(buffer.get(span - 4096..span - 4096 + kept).unwrap_or(&[]));
        self.tail.position = next;
        self.submit_group(buffer, start.block_start(), span, plan, turn);
    }

    fn place_batch(
        &mut self,
        buffer: &mut AlignedBuffer,
        at: usize,
        bytes_before: u64,
        turn: &mut Turn<'_>,
    ) -> (usize, Waiter, IndexHint) {
        let Some(pending) = self.pending.pop_front() else { panic!("the plan counted a batch") };
        let Some(batch) = pending.batch else { panic!("the plan counted a batch") };
        self.count_drained();
        let block = self.tail.position.block_start();
        let position = block.plus(to_u64(at));
        let header = batch.header(&self.stamp(position, turn.wall_clock_ms));
        copy(buffer, at, &header.encode());
        copy(buffer, at + HEADER_BYTES, batch.records_bytes());
        let end = at + to_usize(batch.disk_bytes());
        let padding = at + HEADER_BYTES + batch.records_bytes().len();
        buffer.get_mut(padding..end).unwrap_or_default().fill(0);
        let base = self.next_offset;
        self.next_offset = base.plus(batch.record_count());
        turn.released.add(self.number, queued_bytes(Some(&batch)));
        self.producers.note(&batch, &header);
        let waiter = Waiter {
            base,
            records: batch.record_count(),
            end: self.next_offset,
            epoch: self.epoch,
            ack: pending.ack,
            cell: pending.cell,
            assigned_at: turn.now,
            submitted_at: turn.now,
            written_at: turn.now,
            acked: false,
            bytes: bytes_before + batch.disk_bytes(),
        };
        self.counters.log.batches += 1;
        self.counters.log.records += u64::from(batch.record_count());
        (end, waiter, IndexHint { position, max_timestamp_ms: header.max_timestamp_ms })
    }

    fn stamp(&self, position: Position, now_ms: i64) -> Stamp {
        Stamp {
            salt: self.active().salt.low(),
            generation: self.keeper.generation(),
            position,
            base_offset: self.next_offset,
            leader_epoch: self.epoch,
            flush_mark: self.flushed.mark.offset,
            now_ms,
        }
    }

    fn submit_group(
        &mut self,
        buffer: AlignedBuffer,
        position: Position,
        length: usize,
        plan: &Plan,
        turn: &mut Turn<'_>,
    ) {
        let active = self.active();
        let (file, base) = (active.file, active.base);
        // Alone and directly behind what is flushed: this write can carry its own durability.
        let covered = active.is_named() && active.settled;
        let alone = self.writes.is_empty() && self.flush.is_none() && covered;
        let behind_flushed = self.written == self.flushed;
        // In a round one flush serves many logs; a durable write would be a flush for itself.
        let dsync =
            plan.waits_for_flush && alone && behind_flushed && !self.is_for_rounds(base, turn);
        let before = self.written_or_in_flight();
        let mark = Mark { offset: self.next_offset, segment: base, position: self.tail.position };
        let end = Place { mark, bytes: before.bytes + plan.bytes };
        let operation = Operation::Write { file, position: position.0, buffer, length, dsync };
        let token = self.submit(Flight::Write, operation, turn);
        let counters = &mut self.counters.log;
        counters.groups += 1;
        counters.bytes += plan.bytes;
        counters.written_bytes += to_u64(length);
        counters.group_bytes.record(plan.bytes);
        self.writes.push_back(WriteInFlight {
            token,
            submitted_at: None,
            end,
            dsync,
            done: false,
            start: position,
            buffer: None,
        });
        assert!(self.writes.len() <= WRITES_IN_FLIGHT, "writes in flight are bounded");
    }

    pub(super) fn write_completed(
        &mut self,
        token: Token,
        result: Result<Output, IoError>,
        buffer: Option<AlignedBuffer>,
        turn: &mut Turn<'_>,
    ) {
        let Some(write) = self.writes.iter_mut().find(|write| write.token == token) else {
            panic!("a completed write is one of those in flight")
        };
        write.done = true;
        write.buffer = buffer;
        if let Err(error) = result {
            self.poison(error, turn);
        }
        if self.poisoned {
            self.writes.retain(|write| !write.done);
            return;
        }
        let before = self.written;
        let done = self.writes.iter().take_while(|write| write.done).count();
        for front in self.writes.iter().take(done) {
            assert!(front.end.mark.offset > self.written.mark.offset, "writes bring records");
            self.written = front.end;
            if front.dsync {
                assert_eq!(self.flushed, before, "D2b: a durable write stands alone");
                self.flushed = front.end;
            }
        }
        if done == 0 {
            return;
        }
        // Before the marks are public: a reader that goes by them finds no older chunk in its
        // place.
        self.keep_chunks(done, turn);
        // Who is told of an append finds it: the marks are public before the ack is.
        self.publish();
        let (context, counters) = (self.ack_context(turn.now), &mut self.counters);
        for write in self.writes.drain(..done) {
            let submitted_at = write.submitted_at.unwrap_or(turn.now);
            let time = turn.now.since(submitted_at);
            counters.log.write_time.record_time(time);
            if write.dsync {
                counters.log.durable_writes += 1;
                counters.log.flush_reasons.count(FlushReason::Waited);
                counters.log.flush_time.record_time(time);
                counters.flushed(self.flushed.mark.offset, self.flushed.bytes, turn.now);
            }
            self.waiters.written_moved(write.end.mark.offset, submitted_at, &context, counters);
        }
        if self.flushed == self.written {
            self.flushed_moved(turn.now, turn.now);
        } else if self.dirty_since.is_none() {
            self.dirty_since = Some(turn.now);
        }
    }

    /// Gives the buffers of the oldest `done` writes to the readers, if there are any, and takes
    /// back what is free.
    fn keep_chunks(&mut self, done: usize, turn: &mut Turn<'_>) {
        for write in self.writes.iter_mut().take(done) {
            let Mark { segment, offset: end, position } = write.end.mark;
            // Not the zeros of an open last block: the next group is written over them.
            let length = to_usize(position.0 - write.start.0);
            let stretch = Stretch { segment, start: write.start.0, length, end };
            let free = match write.buffer.take() {
                Some(buffer) if self.shared.tail.is_read() => {
                    self.shared.tail.keep(stretch, buffer, turn.tail_budget)
                }
                free => free.into_iter().collect(),
            };
            for buffer in free {
                turn.buffers.give_back(buffer);
            }
        }
    }

    /// Returns the end of everything that was submitted.
    pub(super) fn written_or_in_flight(&self) -> Place {
        self.writes.back().map_or(self.written, |last| last.end)
    }

    pub(super) fn durable_in_flight(&self) -> bool {
        let flush_waited_for = self.flush.is_some() && self.waiters.someone_waits_for_flush();
        flush_waited_for || self.writes.iter().any(|write| write.dsync)
    }

    pub(super) fn ack_context(&self, now: Monotonic) -> AckContext {
        let (marks, progress) = (self.marks(), self.progress());
        AckContext { now, flush_at: now, marks, progress }
    }

    /// Returns whether something was submitted that has not gone to the kernel yet.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.handing_over
    }

    /// Notes that all that was submitted so far has just gone to the kernel.
    pub(crate) fn handed_over(&mut self, now: Monotonic) {
        if !std::mem::take(&mut self.handing_over) {
            return;
        }
        for write in self.writes.iter_mut().rev().take_while(|w| w.submitted_at.is_none()) {
            write.submitted_at = Some(now);
        }
        if let Some(flush) = &mut self.flush {
            flush.submitted_at.get_or_insert(now);
        }
    }

    // ---------------------------------------------------------------------------------------------
    // Space

    fn request_space(&mut self, needed_to: u64, turn: &mut Turn<'_>) {
        if self.allocating {
            return;
        }
        let reserved = self.active().reserved_to;
        let step = reserved.clamp(RESERVE_STEP_MIN, RESERVE_STEP_MAX);
        let to = needed_to.max(reserved + step).min(self.keeper.segment_bytes());
        self.allocate(to, turn);
    }

    /// Asks for the next stretch before it is needed, so that the writer does not wait for it.
    fn reserve_ahead(&mut self, turn: &mut Turn<'_>) {
        let reserved = self.active().reserved_to;
        let step = reserved.clamp(RESERVE_STEP_MIN, RESERVE_STEP_MAX);
        let left = reserved - self.tail.position.0.min(reserved);
        let more_will_come = reserved < self.keeper.segment_bytes() && reserved > RESERVE_STEP_MIN;
        if !self.allocating && more_will_come && left < step / 2 {
            self.allocate((reserved + step).min(self.keeper.segment_bytes()), turn);
        }
    }

    fn allocate(&mut self, to: u64, turn: &mut Turn<'_>) {
        let active = self.active();
        let (file, from) = (active.file, active.reserved_to);
        assert!(to > from && to.is_multiple_of(BLOCK_BYTES), "reserve forward, whole blocks");
        let operation = Operation::Allocate { file, position: from, length: to - from };
        self.allocating = true;
        self.submit(Flight::Allocate { to }, operation, turn);
    }

    pub(super) fn allocate_completed(
        &mut self,
        to: u64,
        result: Result<Output, IoError>,
        turn: &mut Turn<'_>,
    ) {
        self.allocating = false;
        if self.files.is_empty() {
            return;
        }
        match result {
            Ok(_) => self.active_mut().reserved_to = to,
            Err(error) if error.kind == IoErrorKind::Unsupported => {
                // No reservation on this file system: a full disk is met by the write itself.
                let whole = self.keeper.segment_bytes();
                self.active_mut().reserved_to = whole;
            }
            Err(error) if error.kind == IoErrorKind::NoSpace => {
                // Not so much ahead, perhaps, but what is needed now.
                match self.needed_space() {
                    Some(needed) if needed < to => self.allocate(needed, turn),
                    // A spare has its space: the log goes on there.
                    Some(_) if self.spares.is_ready() && self.may_roll() => self.request_roll(),
                    _ => {
                        self.give_up_spares(turn);
                        self.refuse_for_space(error, turn);
                    }
                }
            }
            Err(error) => self.poison(error, turn),
        }
    }

    /// Returns up to where the next group needs space, if that is not reserved.
    fn needed_space(&self) -> Option<u64> {
        let plan = self.plan_group()?;
        let end = Position(self.tail.position.0 + plan.bytes).block_end().0;
        let fits = end <= self.keeper.segment_bytes();
        (fits && end > self.active().reserved_to).then_some(end)
    }

    /// The disk is full, or there is no descriptor for the next segment: what needs space beyond
    /// what is reserved is refused before it has an offset (D14). What is reserved can still be
    /// used by smaller appends.
    pub(super) fn refuse_for_space(&mut self, error: IoError, turn: &mut Turn<'_>) {
        if self.needed_space().is_none() && !self.roll_in_progress() {
            return;
        }
        let error = Error::from_io(error);
        while self.pending.front().is_some_and(|pending| pending.batch.is_some()) {
            let Some(pending) = self.pending.pop_front() else { return };
            self.count_drained_if_draining();
            self.refuse(pending, error.clone(), turn);
        }
    }

    fn count_drained_if_draining(&mut self) {
        if let State::Detaching { drain, .. } = &mut self.state {
            *drain = drain.saturating_sub(1);
        }
    }
}

fn copy(buffer: &mut AlignedBuffer, at: usize, bytes: &[u8]) {
    let Some(place) = buffer.get_mut(at..at + bytes.len()) else {
        panic!("a group fits its buffer: {} + {} bytes", at, bytes.len())
    };
    place.copy_from_slice(bytes);
}
