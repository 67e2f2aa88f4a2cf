//! Reading ahead of a walk along a sealed segment: several reads in flight, chunks of equal size in
//! their order.

use std::collections::VecDeque;
use std::sync::Arc;

use highwater_io::blocking::StartedRead;
use highwater_io::{AlignedBuffer, Blocking, FileId, Io};

use crate::convert::{to_u64, to_usize};
use crate::leases::{Chunk, Leases};

/// How many bytes one read brings.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
/// How many reads are in flight while nobody appends.
pub(crate) const DEPTH: usize = 4;
/// How many chunks that were given out are looked at for use again.
const SPENT_MAX: usize = 4;

/// A chunk with its place in the file.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) start: u64,
    pub(super) chunk: Arc<Chunk>,
}

impl Placed {
    pub(super) fn end(&self) -> u64 {
        self.start + to_u64(self.chunk.bytes().len())
    }

    fn from(&self, position: u64) -> &[u8] {
        self.chunk.bytes().get(to_usize(position - self.start)..).unwrap_or_default()
    }
}

/// What lies in front of a walk.
#[derive(Debug)]
pub(super) enum Front {
    /// In one chunk.
    Whole(Placed),
    /// Across the border of two: copied together.
    Bridge(Vec<u8>),
}

/// The reads of one walk.
#[derive(Debug)]
pub(super) struct Ahead {
    file: FileId,
    leases: Arc<Leases>,
    /// The chunks from the walk's place on, without a gap.
    here: VecDeque<Placed>,
    /// Behind them, in their order.
    in_flight: VecDeque<(u64, StartedRead)>,
    /// Where the next read begins.
    next: u64,
    /// A read was short or failed: nothing more is read ahead.
    ended: bool,
    /// Chunks behind the walk; the batches in them may still be in use.
    spent: VecDeque<Arc<Chunk>>,
}

impl Ahead {
    pub(super) fn new(file: FileId, start: u64, leases: &Arc<Leases>) -> Self {
        Ahead {
            file,
            leases: Arc::clone(leases),
            here: VecDeque::new(),
            in_flight: VecDeque::new(),
            next: start,
            ended: false,
            spent: VecDeque::new(),
        }
    }

    /// Returns `count` bytes from `position` on, with up to `depth` reads in flight. `None`: the
    /// file does not hold them, or a read failed; who reads it plainly learns which.
    pub(super) fn front<I: Io>(
        &mut self,
        io: &mut Blocking<I>,
        position: u64,
        count: usize,
        depth: usize,
    ) -> Option<Front> {
        while let Some(passed) = self.here.front().filter(|front| front.end() <= position) {
            self.spent.push_back(Arc::clone(&passed.chunk));
            self.here.pop_front();
        }
        self.start_reads(io, depth);
        let end = position + to_u64(count);
        while self.here.back().is_none_or(|last| last.end() < end) {
            self.take_next(io, depth)?;
        }
        let first = self.here.front()?;
        if first.end() >= end {
            return Some(Front::Whole(first.clone()));
        }
        let mut bridge = Vec::with_capacity(count);
        for placed in &self.here {
            let bytes = placed.from(position.max(placed.start));
            bridge.extend_from_slice(bytes.get(..bytes.len().min(count - bridge.len()))?);
        }
        (bridge.len() == count).then_some(Front::Bridge(bridge))
    }

    /// Keeps as many reads in flight as there shall be.
    fn start_reads<I: Io>(&mut self, io: &mut Blocking<I>, depth: usize) {
        if self.ended || self.in_flight.len() >= depth {
            return;
        }
        let missing = depth - self.in_flight.len();
        let reads: Vec<_> = (0..missing)
            .map(|at| (self.next + to_u64(at * CHUNK_BYTES), self.take_buffer()))
            .collect();
        let starts: Vec<_> = reads.iter().map(|(start, _)| *start).collect();
        self.next += to_u64(missing * CHUNK_BYTES);
        let started = io.start_reads(self.file, CHUNK_BYTES, reads);
        self.in_flight.extend(starts.into_iter().zip(started));
    }

    /// Waits for the next chunk.
    fn take_next<I: Io>(&mut self, io: &mut Blocking<I>, depth: usize) -> Option<()> {
        self.start_reads(io, depth);
        let (start, read) = self.in_flight.pop_front()?;
        let (buffer, result) = io.finish_read(read);
        if result.ok() != Some(CHUNK_BYTES) {
            self.ended = true;
        }
        if self.ended {
            return None;
        }
        let chunk = Arc::new(Chunk::new(buffer, &self.leases));
        self.here.push_back(Placed { start, chunk });
        Some(())
    }

    /// Returns a buffer that nobody uses any more, or a new one.
    fn take_buffer(&mut self) -> AlignedBuffer {
        for _ in 0..self.spent.len() {
            let Some(chunk) = self.spent.pop_front() else { break };
            match Arc::try_unwrap(chunk) {
                Ok(chunk) => {
                    if let Some(buffer) = chunk.into_buffer() {
                        return buffer;
                    }
                }
                Err(leased) => self.spent.push_back(leased),
            }
        }
        while self.spent.len() > SPENT_MAX {
            // Its batches keep it as long as they need.
            self.spent.pop_front();
        }
        AlignedBuffer::zeroed(CHUNK_BYTES)
    }

    /// Waits for what is in flight, so that the file can be closed.
    pub(super) fn settle<I: Io>(self, io: &mut Blocking<I>) {
        for (_, read) in self.in_flight {
            // What it brought, or failed with, matters to nobody.
            drop(io.finish_read(read));
        }
    }
}
