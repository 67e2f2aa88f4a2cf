//! Walking along one segment file: windows of bytes for a [`Chain`].

mod ahead;

use std::ops::{Deref, Range};
use std::sync::Arc;

use highwater_io::{AlignedBuffer, Blocking, FileId, Io, IoError};
use highwater_segment::meta::EpochStart;
use highwater_segment::scan::{Chain, Evidence, Step, Stop, evidence};
use highwater_segment::{BatchHeader, Generation, HEADER_BYTES, Offset, Position, Salt};

use crate::convert::{to_u64, to_usize};
use crate::leases::{Chunk, Leases};
use crate::shared::{LogShared, was_cut_off};

use ahead::{Ahead, DEPTH, Front};

/// How many bytes are read at once.
pub(crate) const WINDOW_BYTES: usize = 256 << 10;
/// How many bytes are read at once when looking for evidence behind damage.
const EVIDENCE_WINDOW_BYTES: usize = 1 << 20;
/// Windows of evidence overlap by so much, so that no header is cut by their border.
const EVIDENCE_OVERLAP_BYTES: usize = 4096;

/// What a walk passed.
#[derive(Clone, Debug)]
pub(crate) enum Walked {
    /// A batch; `records` is where its records lie in [`Walker::bytes`] until the next step.
    Batch { header: BatchHeader, records: Range<usize> },
    /// A filler or the zeros that stand for one.
    Padding,
}

/// Why a walk does not go on.
#[derive(Clone, Debug)]
pub(crate) enum WalkError {
    /// Nothing that fits the chain.
    Stop(Stop),
    /// The bytes could not be read. Never a torn tail.
    Io(IoError),
}

/// The bytes in front of a walker.
#[derive(Debug)]
enum Window {
    Own(AlignedBuffer),
    /// Read ahead, or shared with the log's tail cache.
    Chunk(Arc<Chunk>),
    /// One batch, put together from two chunks.
    Bridge(Vec<u8>),
}

/// The records of a batch, for whoever keeps it.
#[derive(Clone, Debug)]
pub(crate) enum RecordBytes {
    Leased(Arc<Chunk>, Range<usize>),
    Own(Vec<u8>, Range<usize>),
}

impl Deref for RecordBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (bytes, range) = match self {
            RecordBytes::Leased(chunk, range) => (chunk.bytes(), range),
            RecordBytes::Own(bytes, range) => (bytes.as_slice(), range),
        };
        bytes.get(range.clone()).unwrap_or_default()
    }
}

impl From<&[u8]> for RecordBytes {
    fn from(bytes: &[u8]) -> Self {
        RecordBytes::Own(bytes.to_vec(), 0..bytes.len())
    }
}

impl Deref for Window {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Window::Own(buffer) => buffer,
            Window::Chunk(chunk) => chunk.bytes(),
            Window::Bridge(bytes) => bytes,
        }
    }
}

/// A chain with the file it walks along.
#[derive(Debug)]
pub(crate) struct Walker {
    file: FileId,
    chain: Chain,
    /// The chain before the zeros that it passed last. At the tail of an open log such zeros can be
    /// where the next group begins, which writes the block anew; so they are believed only as long
    /// as what is behind them fits.
    before_gap: Option<Chain>,
    window: Option<Window>,
    /// Where to look before the file, and as which segment.
    tail: Option<(Arc<LogShared>, Offset)>,
    start: u64,
    filled: usize,
    at_end: bool,
    bytes_read: u64,
    /// When the known epochs began: a batch of a lower epoch behind such a start was cut off.
    epochs: Vec<EpochStart>,
    /// Set where reading ahead is of use: with the budget that what is given out counts against.
    leases: Option<Arc<Leases>>,
    /// Where the log ended at the last read ahead: if it has grown since, somebody appends.
    seen_end: Option<Offset>,
    ahead: Option<Ahead>,
    /// Reads in flight that brought, or will bring, what is of no use any more.
    stale: Option<Ahead>,
}

impl Walker {
    pub(crate) fn new(file: FileId, chain: Chain) -> Self {
        Walker {
            file,
            chain,
            before_gap: None,
            window: None,
            tail: None,
            start: 0,
            filled: 0,
            at_end: false,
            bytes_read: 0,
            epochs: Vec::new(),
            leases: None,
            seen_end: None,
            ahead: None,
            stale: None,
        }
    }

    /// Returns this with the epochs of `log.meta` to check batches by. Without a successor's name
    /// to end it - the file was removed - a segment's remainder from before a cut would otherwise
    /// pass for its continuation.
    pub(crate) fn with_epochs(mut self, epochs: Vec<EpochStart>) -> Self {
        self.epochs = epochs;
        self
    }

    /// Returns this looking into the log's tail cache before it reads `segment`'s file.
    pub(crate) fn with_tail(mut self, shared: &Arc<LogShared>, segment: Offset) -> Self {
        self.tail = Some((Arc::clone(shared), segment));
        self
    }

    /// Returns this reading ahead, once it has read a window: for a sealed segment, whose bytes do
    /// not change any more.
    pub(crate) fn with_read_ahead(mut self, leases: &Arc<Leases>) -> Self {
        self.leases = Some(Arc::clone(leases));
        self
    }

    /// Returns a walker at the same place that has read nothing.
    pub(crate) fn fresh(&self) -> Self {
        Walker::new(self.file, self.before_gap.unwrap_or(self.chain))
            .with_epochs(self.epochs.clone())
    }

    pub(crate) fn chain(&self) -> &Chain {
        &self.chain
    }

    pub(crate) fn file(&self) -> FileId {
        self.file
    }

    /// Returns how many bytes were read from the file so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Returns the bytes of the window, for the range of a [`Walked::Batch`].
    pub(crate) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        self.window.as_ref().and_then(|window| window.get(range.clone())).unwrap_or_default()
    }

    /// Returns the records of the batch that was just passed, for keeping: a lease where there is
    /// one to be had, else a copy.
    pub(crate) fn take(&mut self, range: &Range<usize>) -> RecordBytes {
        match &mut self.window {
            Some(Window::Chunk(chunk)) if chunk.can_be_leased() => {
                RecordBytes::Leased(Arc::clone(chunk), range.clone())
            }
            Some(Window::Bridge(bytes)) => {
                self.filled = 0;
                RecordBytes::Own(std::mem::take(bytes), range.clone())
            }
            _ => RecordBytes::from(self.bytes(range)),
        }
    }

    /// Closes the file, once nothing reads from it any more.
    pub(crate) fn close<I: Io>(mut self, io: &mut Blocking<I>) -> Result<(), IoError> {
        self.settle(io);
        io.close(self.file)
    }

    /// Waits for the reads in flight and goes on without any.
    fn settle<I: Io>(&mut self, io: &mut Blocking<I>) {
        for ahead in [self.ahead.take(), self.stale.take()].into_iter().flatten() {
            ahead.settle(io);
        }
    }

    /// Forgets the window, zeros that were passed last included, so that the next step looks again
    /// where the walk looks - into memory first -, or at the media alone.
    pub(crate) fn look_anew(&mut self, at_media: bool) {
        if at_media {
            self.forget();
            return;
        }
        self.chain = self.before_gap.take().unwrap_or(self.chain);
        self.filled = 0;
        self.at_end = false;
    }

    /// Forgets what was read, zeros that were passed last included, so that the next step reads the
    /// media again.
    pub(crate) fn forget(&mut self) {
        self.chain = self.before_gap.take().unwrap_or(self.chain);
        self.tail = None;
        self.leases = None;
        self.stale = self.ahead.take().or(self.stale.take());
        self.filled = 0;
        self.at_end = false;
    }

    /// Passes the next batch, filler or gap.
    pub(crate) fn step<I: Io>(&mut self, io: &mut Blocking<I>) -> Result<Walked, WalkError> {
        let result = self.try_step(io);
        if result.is_err() {
            // Whoever looks into it reads this place plainly.
            self.settle(io);
            self.leases = None;
        }
        result
    }

    fn try_step<I: Io>(&mut self, io: &mut Blocking<I>) -> Result<Walked, WalkError> {
        loop {
            let position = self.chain.position().0;
            let block = self.chain.position().block_start().0;
            let inside = position >= self.start && position <= self.start + to_u64(self.filled);
            let at = if inside { to_usize(position - self.start) } else { 0 };
            let all: &[u8] = self.window.as_deref().unwrap_or_default();
            let bytes = if inside { all.get(at..self.filled).unwrap_or_default() } else { &[][..] };
            let before = self.chain;
            match self.chain.step(bytes) {
                // Also where the file ends before the position: its block was read, and holds less.
                Ok(Step::NeedBytes(_)) if self.at_end && self.start == block => {
                    let blank = bytes.iter().all(|byte| *byte == 0);
                    let stop = if blank { Stop::NoBatch } else { Stop::CutShort };
                    return Err(WalkError::Stop(stop));
                }
                Ok(Step::NeedBytes(count)) => self.fill(io, count).map_err(WalkError::Io)?,
                Ok(Step::Batch { header, .. }) if was_cut_off(&self.epochs, &header) => {
                    self.chain = before;
                    return Err(WalkError::Stop(Stop::EpochWentBack(header.leader_epoch)));
                }
                Ok(Step::Batch { header, records }) => {
                    self.before_gap = None;
                    let start = at + HEADER_BYTES;
                    let records = start..start + records.len();
                    return Ok(Walked::Batch { header, records });
                }
                Ok(Step::Filler { .. }) => {
                    self.before_gap = None;
                    return Ok(Walked::Padding);
                }
                Ok(Step::Gap { .. }) => {
                    self.before_gap = Some(before);
                    return Ok(Walked::Padding);
                }
                Err(stop) => return Err(WalkError::Stop(stop)),
            }
        }
    }

    /// Reads a window that starts in the chain's block and holds `count` bytes from its position,
    /// or all there are. `count` was compared with the largest batch by the header's decoder.
    fn fill<I: Io>(&mut self, io: &mut Blocking<I>, count: usize) -> Result<(), IoError> {
        let position = self.chain.position();
        self.start = position.block_start().0;
        let needed = to_usize(position.0 - self.start) + count;
        assert!(needed <= highwater_segment::MAX_BATCH_BYTES + 2 * 4096, "reads are bounded");
        if let Some((shared, segment)) = &self.tail
            && let Some(lease) = shared.tail.lease(*segment, position.0, count)
        {
            (self.start, self.filled, self.at_end) = (lease.start, lease.length, false);
            let chunk = Chunk::shared(lease.buffer, &shared.budgets.leases);
            self.window = Some(Window::Chunk(Arc::new(chunk)));
            // It has caught up with what is in memory.
            self.settle(io);
            return Ok(());
        }
        if self.fill_ahead(io, count) {
            return Ok(());
        }
        let buffer = match self.window.take() {
            Some(Window::Own(window)) if window.len() >= needed => window,
            _ => AlignedBuffer::zeroed(needed.max(WINDOW_BYTES)),
        };
        let length = if needed > WINDOW_BYTES { buffer.len() } else { WINDOW_BYTES };
        let (buffer, result) = io.read(self.file, self.start, buffer, length);
        self.window = Some(Window::Own(buffer));
        self.filled = 0;
        let count = result?;
        self.filled = count;
        self.at_end = count < length;
        self.bytes_read += to_u64(count);
        Ok(())
    }
}

impl Walker {
    /// Reads ahead of a walk that goes on; returns whether the window holds `count` bytes now.
    fn fill_ahead<I: Io>(&mut self, io: &mut Blocking<I>, count: usize) -> bool {
        if let Some(stale) = self.stale.take() {
            stale.settle(io);
        }
        let Some(leases) = &self.leases else { return false };
        let position = self.chain.position();
        let start = position.block_start().0;
        if self.bytes_read == 0 && self.ahead.is_none() {
            // Whoever wants a batch or two needs no more than a window.
            return false;
        }
        // A chunk is used again when nobody holds it.
        self.window = None;
        // Beside appends one read at a time: a reader that is behind takes of a busy disk no more
        // than one of the many writes in flight does.
        let log_end = self.tail.as_ref().map(|(shared, _)| shared.marks().log_end);
        let depth = if self.seen_end == log_end { DEPTH } else { 1 };
        self.seen_end = log_end;
        let ahead = self.ahead.get_or_insert_with(|| Ahead::new(self.file, start, leases));
        match ahead.front(io, position.0, count, depth) {
            Some(Front::Whole(placed)) => {
                self.start = placed.start;
                self.filled = placed.chunk.bytes().len();
                self.window = Some(Window::Chunk(placed.chunk));
            }
            Some(Front::Bridge(bytes)) => {
                self.start = position.0;
                self.filled = bytes.len();
                self.window = Some(Window::Bridge(bytes));
            }
            None => {
                self.settle(io);
                self.leases = None;
                return false;
            }
        }
        self.at_end = false;
        true
    }
}

/// Returns what the good headers of `file` from `from` to its end say.
pub(crate) fn file_evidence<I: Io>(
    io: &mut Blocking<I>,
    file: FileId,
    from: Position,
    salt: Option<Salt>,
    generation: Generation,
) -> Result<Evidence, IoError> {
    let mut found = Evidence::default();
    let mut start = from.block_start();
    let mut buffer = AlignedBuffer::zeroed(EVIDENCE_WINDOW_BYTES);
    loop {
        let (returned, result) = io.read(file, start.0, buffer, EVIDENCE_WINDOW_BYTES);
        buffer = returned;
        let count = result?;
        // Behind the stop only: the stop's own header is the damage or proves itself.
        let skip = to_usize(from.0.saturating_sub(start.0));
        if skip >= count {
            // The file ends before the place; it may have been cut anywhere.
            return Ok(found);
        }
        let bytes = buffer.get(skip..count).unwrap_or_default();
        let position = start.plus(to_u64(skip));
        found = found.and_then(evidence(bytes, position, salt, generation));
        if count < EVIDENCE_WINDOW_BYTES {
            return Ok(found);
        }
        start = start.plus(to_u64(EVIDENCE_WINDOW_BYTES - EVIDENCE_OVERLAP_BYTES));
    }
}
