//! The tail cache: what was just written, for the readers of this process.
//!
//! It holds no copies: the chunks are the very buffers that were written, and a reader *leases* one
//! by sharing it. They are kept only until every open reader of the log has passed them - so that
//! beside readers that keep up the same few buffers, still in the processor's caches, are written
//! again and again - and only up to a budget of bytes of the whole shard; a reader that finds
//! nothing here reads the file. Whatever comes from here is checked like any bytes of a file.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_io::AlignedBuffer;
use highwater_segment::Offset;

use crate::convert::to_u64;

/// How many bytes of chunks the logs of one shard keep.
#[derive(Debug)]
pub(crate) struct TailBudget {
    bytes_max: usize,
    bytes: AtomicUsize,
}

impl TailBudget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(TailBudget { bytes_max, bytes: AtomicUsize::new(0) })
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

/// A written stretch of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) segment: Offset,
    /// Where it begins in its file.
    pub(crate) start: u64,
    pub(crate) length: usize,
    /// The offset behind its last record.
    pub(crate) end: Offset,
}

#[derive(Debug)]
struct Chunk {
    stretch: Stretch,
    buffer: Arc<AlignedBuffer>,
    budget: Arc<TailBudget>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Also while a lease goes on: the budget bounds what the cache holds back.
        self.budget.bytes.fetch_sub(self.buffer.len(), Ordering::Relaxed);
    }
}

/// A chunk that a reader shares.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) buffer: Arc<AlignedBuffer>,
    /// Where the buffer begins in its file.
    pub(crate) start: u64,
    /// How much of it was written.
    pub(crate) length: usize,
}

/// The newest chunks of one log, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    state: Mutex<State>,
    readers: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Chunk>,
    /// Where each open reader is.
    places: Vec<Arc<ReaderPlace>>,
}

/// Up to where a reader has read.
#[derive(Debug)]
pub(crate) struct ReaderPlace(AtomicU64);

impl ReaderPlace {
    /// Notes that the reader needs nothing below `next`.
    pub(crate) fn moves_to(&self, next: Offset) {
        self.0.store(next.0, Ordering::Relaxed);
    }
}

impl State {
    /// Lets go what every reader has passed, oldest first: a chunk that is gone is never newer than
    /// one that stays, as a block that was rewritten is in two of them. Returns the buffers:
    /// readers pass several between two writes.
    fn release(&mut self) -> Vec<AlignedBuffer> {
        let places = self.places.iter().map(|place| place.0.load(Ordering::Relaxed));
        let passed = Offset(places.min().unwrap_or(u64::MAX));
        let mut free = Vec::new();
        // The last one stays: its end is where the next group may begin.
        while self.chunks.len() > 1
            && let Some(oldest) = self.chunks.front()
            && oldest.stretch.end <= passed
            && Arc::strong_count(&oldest.buffer) == 1
        {
            free.extend(self.release_oldest());
        }
        free
    }

    fn release_oldest(&mut self) -> Option<AlignedBuffer> {
        let oldest = self.chunks.pop_front()?;
        let shared = Arc::clone(&oldest.buffer);
        drop(oldest);
        Arc::into_inner(shared)
    }
}

impl Tail {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whatever is in here is only a copy of what is in a file.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether chunks are of use to anyone.
    pub(crate) fn is_read(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0
    }

    /// Notes that a reader of the log is open; returns where it tells how far it is.
    pub(crate) fn reader_opens(&self, next: Offset) -> Arc<ReaderPlace> {
        let place = Arc::new(ReaderPlace(AtomicU64::new(next.0)));
        self.lock().places.push(Arc::clone(&place));
        self.readers.fetch_add(1, Ordering::Relaxed);
        place
    }

    /// Notes that one is closed; with the last one the chunks go.
    pub(crate) fn reader_closes(&self, place: &Arc<ReaderPlace>) {
        self.lock().places.retain(|other| !Arc::ptr_eq(other, place));
        if self.readers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.clear();
        }
    }

    /// Forgets everything: the log was cut, or what was written is in doubt.
    pub(crate) fn clear(&self) {
        self.lock().chunks.clear();
    }

    /// Keeps what was written. Returns the buffers that are free again: older ones, and this one if
    /// there is no room for it.
    pub(crate) fn keep(
        &self,
        stretch: Stretch,
        buffer: AlignedBuffer,
        budget: &Arc<TailBudget>,
    ) -> Vec<AlignedBuffer> {
        let mut state = self.lock();
        // Under the lock: either this sees that the last reader has gone, or that one clears what
        // is added here. A chunk that stayed would be older than what is written next.
        if !self.is_read() {
            return vec![buffer];
        }
        let mut free = state.release();
        while !budget.take(buffer.len()) {
            if state.chunks.is_empty() {
                free.push(buffer);
                return free;
            }
            free.extend(state.release_oldest());
        }
        let (buffer, budget) = (Arc::new(buffer), Arc::clone(budget));
        state.chunks.push_back(Chunk { stretch, buffer, budget });
        free
    }

    /// Returns the newest chunk that holds `count` bytes of a segment from `position` on.
    pub(crate) fn lease(&self, segment: Offset, position: u64, count: usize) -> Option<Lease> {
        let state = self.lock();
        let end = position + to_u64(count);
        // The newest first: a block that was rewritten is in two of them.
        let found = state.chunks.iter().rev().find(|Chunk { stretch, .. }| {
            stretch.segment == segment
                && stretch.start <= position
                && end <= stretch.start + to_u64(stretch.length)
        });
        found.map(|chunk| Lease {
            buffer: Arc::clone(&chunk.buffer),
            start: chunk.stretch.start,
            length: chunk.stretch.length,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 4096;

    fn block(byte: u8) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::zeroed(BLOCK);
        buffer.fill(byte);
        buffer
    }

    fn stretch(segment: u64, start: u64, length: usize) -> Stretch {
        Stretch { segment: Offset(segment), start, length, end: Offset(start) }
    }

    #[test]
    fn what_every_reader_has_passed_is_free_again_but_the_last_and_what_is_leased() {
        let (tail, budget) = (Tail::default(), TailBudget::new(64 * BLOCK));
        let (slow, fast) = (tail.reader_opens(Offset(0)), tail.reader_opens(Offset(0)));
        let keep = |start: u64, byte| tail.keep(stretch(0, start, BLOCK), block(byte), &budget);
        for number in 1..5_u8 {
            assert!(keep(4096 * u64::from(number), number).is_empty());
        }
        fast.moves_to(Offset(4 * 4096));
        slow.moves_to(Offset(2 * 4096));
        let free: Vec<_> = keep(5 * 4096, 5).iter().map(|free| free[0]).collect();
        assert_eq!(free, [1, 2], "two are passed by both");
        let lease = tail.lease(Offset(0), 3 * 4096, 8).expect("kept");
        tail.reader_closes(&slow);
        assert!(keep(6 * 4096, 6).is_empty(), "the oldest is leased, so no newer one goes");
        drop(lease);
        assert_eq!(keep(7 * 4096, 7).len(), 2);
        fast.moves_to(Offset(u64::MAX));
        assert_eq!(keep(8 * 4096, 8).len(), 2);
        assert_eq!(budget.bytes.load(Ordering::Relaxed), 2 * BLOCK, "the last one stays");
        tail.reader_closes(&fast);
        assert_eq!(budget.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_newest_chunk_that_holds_all_is_leased() {
        let (tail, budget) = (Tail::default(), TailBudget::new(4 * BLOCK));
        let unread = tail.keep(stretch(0, 4096, BLOCK), block(5), &budget);
        assert!(!unread.is_empty(), "nobody reads");
        let reader = tail.reader_opens(Offset(0));
        for (start, byte) in [(4096, 1), (8192, 2), (4096, 3)] {
            assert!(tail.keep(stretch(0, start, BLOCK), block(byte), &budget).is_empty());
        }
        let byte = |segment, position, count| {
            tail.lease(Offset(segment), position, count).map(|lease| lease.buffer[0])
        };
        assert_eq!(byte(0, 4100, 88), Some(3));
        assert_eq!(byte(0, 8192, BLOCK), Some(2));
        assert_eq!(byte(0, 8191, 2), None, "across two chunks");
        assert_eq!(byte(9, 4100, 88), None, "of another segment");
        tail.reader_closes(&reader);
        assert_eq!(byte(0, 4100, 88), None);
        assert_eq!(budget.bytes.load(Ordering::Relaxed), 0, "nothing is held back");
    }

    #[test]
    fn the_budget_bounds_the_chunks_of_all_logs_and_a_lease_outlives_its_chunk() {
        let budget = TailBudget::new(3 * BLOCK);
        let (first, second) = (Tail::default(), Tail::default());
        let _readers = [first.reader_opens(Offset(0)), second.reader_opens(Offset(0))];
        for byte in 0..2 {
            assert!(first.keep(stretch(0, 4096, BLOCK), block(byte), &budget).is_empty());
        }
        let lease = first.lease(Offset(0), 4096, 8).expect("kept");
        assert!(second.keep(stretch(0, 4096, BLOCK), block(7), &budget).is_empty());
        let free = first.keep(stretch(0, 8192, BLOCK), block(8), &budget);
        assert_eq!(free[0][0], 0, "the oldest is free again");
        assert!(first.keep(stretch(0, 12288, BLOCK), block(9), &budget).is_empty(), "leased");
        assert_eq!(lease.buffer[0], 1);
        let refused =
            second.keep(stretch(0, 8192, 2 * BLOCK), block(4), &TailBudget::new(BLOCK / 2));
        assert_eq!(refused.last().map(|free| free[0]), Some(4), "no room");
    }
}
