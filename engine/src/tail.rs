//! The tail cache: what was just written, for the readers of this process.
//!
//! It holds no copies: the chunks are the very buffers that were written, and a reader *leases* one
//! by sharing it. They are kept only while a reader of the log is open, and only up to a budget of
//! bytes of the whole shard; a reader that finds nothing here reads the file. Whatever comes from
//! here is checked like any bytes of a file.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
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
#[derive(Debug)]
struct Chunk {
    segment: Offset,
    start: u64,
    length: usize,
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
    chunks: Mutex<VecDeque<Chunk>>,
    readers: AtomicUsize,
}

impl Tail {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Chunk>> {
        // Whatever is in here is only a copy of what is in a file.
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether chunks are of use to anyone.
    pub(crate) fn is_read(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0
    }

    /// Notes that a reader of the log is open.
    pub(crate) fn reader_opens(&self) {
        self.readers.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that one is closed; with the last one the chunks go.
    pub(crate) fn reader_closes(&self) {
        if self.readers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.clear();
        }
    }

    /// Forgets everything: the log was cut, or what was written is in doubt.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Keeps what was written to `segment` from `start` on. Returns a buffer that is free again: an
    /// older one, or this one if there is no room for it.
    pub(crate) fn keep(
        &self,
        (segment, start, length): (Offset, u64, usize),
        buffer: AlignedBuffer,
        budget: &Arc<TailBudget>,
    ) -> Option<AlignedBuffer> {
        let mut chunks = self.lock();
        // Under the lock: either this sees that the last reader has gone, or that one clears what
        // is added here. A chunk that stayed would be older than what is written next.
        if !self.is_read() {
            return Some(buffer);
        }
        let mut free = None;
        while !budget.take(buffer.len()) {
            let Some(oldest) = chunks.pop_front() else { return Some(buffer) };
            let shared = Arc::clone(&oldest.buffer);
            drop(oldest);
            free = Arc::into_inner(shared).or(free);
        }
        let (buffer, budget) = (Arc::new(buffer), Arc::clone(budget));
        chunks.push_back(Chunk { segment, start, length, buffer, budget });
        free
    }

    /// Returns the newest chunk that holds `count` bytes of a segment from `position` on.
    pub(crate) fn lease(&self, segment: Offset, position: u64, count: usize) -> Option<Lease> {
        let chunks = self.lock();
        let end = position + to_u64(count);
        // The newest first: a block that was rewritten is in two of them.
        let found = chunks.iter().rev().find(|chunk| {
            chunk.segment == segment
                && chunk.start <= position
                && end <= chunk.start + to_u64(chunk.length)
        });
        found.map(|chunk| Lease {
            buffer: Arc::clone(&chunk.buffer),
            start: chunk.start,
            length: chunk.length,
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

    #[test]
    fn the_newest_chunk_that_holds_all_is_leased() {
        let (tail, budget) = (Tail::default(), TailBudget::new(4 * BLOCK));
        let unread = tail.keep((Offset(0), 4096, BLOCK), block(5), &budget);
        assert!(unread.is_some(), "nobody reads");
        tail.reader_opens();
        for (start, byte) in [(4096, 1), (8192, 2), (4096, 3)] {
            assert!(tail.keep((Offset(0), start, BLOCK), block(byte), &budget).is_none());
        }
        let byte = |segment, position, count| {
            tail.lease(Offset(segment), position, count).map(|lease| lease.buffer[0])
        };
        assert_eq!(byte(0, 4100, 88), Some(3));
        assert_eq!(byte(0, 8192, BLOCK), Some(2));
        assert_eq!(byte(0, 8191, 2), None, "across two chunks");
        assert_eq!(byte(9, 4100, 88), None, "of another segment");
        tail.reader_closes();
        assert_eq!(byte(0, 4100, 88), None);
        assert_eq!(budget.bytes.load(Ordering::Relaxed), 0, "nothing is held back");
    }

    #[test]
    fn the_budget_bounds_the_chunks_of_all_logs_and_a_lease_outlives_its_chunk() {
        let budget = TailBudget::new(3 * BLOCK);
        let (first, second) = (Tail::default(), Tail::default());
        first.reader_opens();
        second.reader_opens();
        for byte in 0..2 {
            assert!(first.keep((Offset(0), 4096, BLOCK), block(byte), &budget).is_none());
        }
        let lease = first.lease(Offset(0), 4096, 8).expect("kept");
        assert!(second.keep((Offset(0), 4096, BLOCK), block(7), &budget).is_none());
        let free = first.keep((Offset(0), 8192, BLOCK), block(8), &budget);
        assert_eq!(free.expect("the oldest is free again")[0], 0);
        assert!(first.keep((Offset(0), 12288, BLOCK), block(9), &budget).is_none(), "leased");
        assert_eq!(lease.buffer[0], 1);
        let refused =
            second.keep((Offset(0), 8192, 2 * BLOCK), block(4), &TailBudget::new(BLOCK / 2));
        assert_eq!(refused.expect("no room")[0], 4);
    }
}
