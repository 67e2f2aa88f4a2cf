//! The indexes of segments: the growing one of the segment that is written, in ordinary memory, and
//! those of sealed segments, mapped from their files while somebody looks them up.
//!
//! What sealed segments hold in memory is bounded for the whole engine: the least recently used go
//! when more than [`INDEX_CACHE_BYTES`] are held. Every lookup in a mapping checks all of it again,
//! as others can change a file under us; an index that does not verify, or was not made of exactly
//! this segment, is rebuilt by the reader that needs it, from the segment. All of this happens on
//! readers' threads: a mapping can block its reader while the disk hangs, and nobody else.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use highwater_index::{IndexView, MAX_FILE_BYTES, SparseIndex, index_file_name};
use highwater_io::{
    Access, AlignedBuffer, Blocking, FileId, Io, IoErrorKind, Mapping, Operation, Output,
};
use highwater_segment::meta::EpochStart;
use highwater_segment::scan::{Chain, GenerationRule};
use highwater_segment::{
    BLOCK_BYTES, BatchHeader, Epoch, FIRST_BATCH, HEADER_BYTES, Offset, Position, Salt,
};

use crate::convert::to_usize;
use crate::error::Result;
use crate::walker::{WalkError, Walked, Walker};

/// How many bytes of indexes of sealed segments an engine keeps, mapped or copied; but always the
/// newest. The index of a full segment of 128 MiB has 512 KiB.
pub(crate) const INDEX_CACHE_BYTES: usize = 32 << 20;

/// The index of one segment.
#[derive(Debug)]
pub(crate) struct SegmentIndex {
    slot: Mutex<Slot>,
    /// The largest timestamp of a sealed segment, once it was seen: one number, so that looking for
    /// a time need not load the indexes of all that is older each time.
    sealed_max_ms: OnceLock<i64>,
}

#[derive(Debug)]
enum Slot {
    /// Of what was appended in this life. While the segment's index file is being written it stays.
    Growing(SparseIndex),
    /// Not in memory.
    Away,
    Sealed(Arc<SealedIndex>),
}

impl SegmentIndex {
    pub(crate) fn new(base: Offset) -> Arc<Self> {
        let slot = Mutex::new(Slot::Growing(SparseIndex::new(base.0)));
        Arc::new(SegmentIndex { slot, sealed_max_ms: OnceLock::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        // A half-made index is still only hints.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `change` work on the index of the segment that is being written.
    pub(crate) fn grow<T>(&self, change: impl FnOnce(&mut SparseIndex) -> T) -> Option<T> {
        match &mut *self.lock() {
            Slot::Growing(index) => Some(change(index)),
            Slot::Away | Slot::Sealed(_) => None,
        }
    }

    /// Returns the offset below which the index of the segment that is written knows nothing.
    pub(crate) fn begins_at(&self) -> Option<Offset> {
        match &*self.lock() {
            Slot::Growing(index) => index.first_offset().map(Offset),
            Slot::Away | Slot::Sealed(_) => None,
        }
    }

    /// Forgets what is in memory: the file has it, or a reader makes it anew.
    pub(crate) fn put_away(&self) {
        *self.lock() = Slot::Away;
    }
}

/// A lookup in an index.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Offset(Offset),
    TimestampMs(i64),
}

/// A place to start walking: a batch's base offset and position. `None`: the segment's start.
pub(crate) type Hint = Option<(Offset, Position)>;

fn hint_of(found: Option<(u64, u64)>) -> Hint {
    let usable =
        |(_, position): &(u64, u64)| *position > FIRST_BATCH.0 && position.is_multiple_of(8);
    found.filter(usable).map(|(offset, position)| (Offset(offset), Position(position)))
}

/// Whether an index that begins inside its segment can answer.
fn knows(index: &SparseIndex, ask: Ask) -> bool {
    match ask {
        Ask::Offset(offset) => index.first_offset().is_some_and(|first| first <= offset.0),
        Ask::TimestampMs(_) => false,
    }
}

fn ask_growing(index: &SparseIndex, ask: Ask) -> Hint {
    hint_of(match ask {
        Ask::Offset(offset) => index.lookup(offset.0),
        Ask::TimestampMs(time) => index.lookup_time(time),
    })
}

fn ask_view(index: &IndexView<'_>, ask: Ask) -> Hint {
    hint_of(match ask {
        Ask::Offset(offset) => index.lookup(offset.0),
        Ask::TimestampMs(time) => index.lookup_time(time),
    })
}

/// The index of a sealed segment, which was made of exactly that.
#[derive(Debug)]
pub(crate) struct SealedIndex {
    bytes: Bytes,
    seal: highwater_index::Seal,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Arc<Mapping>),
    Copied(Vec<u8>),
}

impl SealedIndex {
    fn length(&self) -> usize {
        match &self.bytes {
            Bytes::Mapped(mapping) => mapping.length(),
            Bytes::Copied(bytes) => bytes.len(),
        }
    }

    /// Returns the index, all of it checked. `None`: it does not verify (any more).
    fn view(&self) -> Option<IndexView<'_>> {
        let bytes = match &self.bytes {
            Bytes::Mapped(mapping) => mapping.bytes().ok()?,
            Bytes::Copied(bytes) => bytes,
        };
        let view = IndexView::decode(bytes, self.seal.base_offset).ok()?;
        (*view.seal() == self.seal).then_some(view)
    }

    /// Returns where to start walking. `None`: it does not verify (any more).
    pub(crate) fn ask(&self, ask: Ask) -> Option<Hint> {
        self.view().map(|view| ask_view(&view, ask))
    }

    /// Returns the largest timestamp in the segment. `None`: it does not verify (any more).
    pub(crate) fn newest_ms(&self) -> Option<i64> {
        self.view().map(|view| view.max_timestamp_ms())
    }
}

/// A sealed segment with its open file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealedSegment<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) file: FileId,
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) salt: Salt,
    pub(crate) rule: GenerationRule,
    pub(crate) epochs: &'a [EpochStart],
}

/// What an engine holds of indexes of sealed segments.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    /// The least recently used first.
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    index: Weak<SegmentIndex>,
    bytes: usize,
}

impl Indexes {
    /// Answers from what is in memory; `None`: it has to be loaded.
    pub(crate) fn ask(&self, index: &Arc<SegmentIndex>, ask: Ask, is_sealed: bool) -> Option<Hint> {
        let sealed = match &*index.lock() {
            Slot::Growing(growing) if growing.is_whole() => return Some(ask_growing(growing, ask)),
            Slot::Growing(growing) if !is_sealed && knows(growing, ask) => {
                return Some(ask_growing(growing, ask));
            }
            Slot::Sealed(sealed) => Arc::clone(sealed),
            Slot::Growing(_) | Slot::Away => return None,
        };
        let answer = sealed.ask(ask)?;
        self.used(index, sealed.length());
        Some(answer)
    }

    /// Returns the largest timestamp of a sealed segment, if that is known without its file.
    pub(crate) fn known_max_ms(&self, index: &SegmentIndex) -> Option<i64> {
        let known = index.sealed_max_ms.get().copied();
        known.or_else(|| match &*index.lock() {
            Slot::Growing(growing) if growing.is_whole() => growing.max_timestamp_ms(),
            _ => None,
        })
    }

    /// Keeps a loaded index, and lets the least recently used go.
    pub(crate) fn keep(&self, index: &Arc<SegmentIndex>, sealed: SealedIndex) -> Arc<SealedIndex> {
        let sealed = Arc::new(sealed);
        if let Some(max_ms) = sealed.newest_ms() {
            index.sealed_max_ms.get_or_init(|| max_ms);
        }
        *index.lock() = Slot::Sealed(Arc::clone(&sealed));
        self.used(index, sealed.length());
        sealed
    }

    fn used(&self, index: &Arc<SegmentIndex>, bytes: usize) {
        let mut gone = Vec::new();
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let this = Arc::as_ptr(index);
            kept.retain(|kept| kept.index.as_ptr() != this && kept.index.strong_count() > 0);
            kept.push_back(Kept { index: Arc::downgrade(index), bytes });
            let mut held: usize = kept.iter().map(|kept| kept.bytes).sum();
            while held > INDEX_CACHE_BYTES && kept.len() > 1 {
                let Some(oldest) = kept.pop_front() else { break };
                held -= oldest.bytes;
                gone.extend(oldest.index.upgrade());
            }
        }
        gone.iter().for_each(|index| index.put_away());
    }
}

/// Returns the saved index of a segment if it is there, verifies, and was made of just this.
pub(crate) fn load<I: Io>(
    io: &mut Blocking<I>,
    segment: &SealedSegment<'_>,
) -> Option<SealedIndex> {
    let path = segment.directory.join(index_file_name(segment.base.0));
    // Through the page cache, where a mapping looks.
    let (file, _) = io.open(&path, Access::Read, false).ok()?;
    let bytes = load_bytes(io, file);
    io.close(file).ok()?;
    let bytes = bytes?;
    let seal = {
        let all = match &bytes {
            Bytes::Mapped(mapping) => mapping.bytes().ok()?,
            Bytes::Copied(bytes) => bytes,
        };
        *IndexView::decode(all, segment.base.0).ok()?.seal()
    };
    is_of(io, &seal, segment).then_some(SealedIndex { bytes, seal })
}

fn load_bytes<I: Io>(io: &mut Blocking<I>, file: FileId) -> Option<Bytes> {
    let length = to_usize(io.length(file).ok()?);
    // Zeros to the end of the block may follow.
    if length == 0 || length > MAX_FILE_BYTES.next_multiple_of(to_usize(BLOCK_BYTES)) {
        return None;
    }
    match io.run(Operation::Map { file }).0 {
        Ok(Output::Mapped(mapping)) if mapping.length() == length => {
            return Some(Bytes::Mapped(mapping));
        }
        Err(error) if error.kind != IoErrorKind::Unsupported => return None,
        _ => {}
    }
    let whole = length.next_multiple_of(to_usize(BLOCK_BYTES));
    let (buffer, count) = io.read(file, 0, AlignedBuffer::zeroed(whole), whole);
    Some(Bytes::Copied(buffer.get(..count.ok()?)?.to_vec()))
}

/// Returns whether an index was made of what the segment holds now: its salt and its end, and the
/// last batch is that of the same generation at the same place. What a truncation and later appends
/// put in its place has another.
fn is_of<I: Io>(
    io: &mut Blocking<I>,
    seal: &highwater_index::Seal,
    segment: &SealedSegment<'_>,
) -> bool {
    let claimed = (seal.base_offset, seal.end_offset, seal.salt);
    if claimed != (segment.base.0, segment.end.0, segment.salt.0) {
        return false;
    }
    let position = Position(u64::from(seal.last_position));
    let start = position.block_start();
    let length = 2 * to_usize(BLOCK_BYTES);
    let (buffer, count) = io.read(segment.file, start.0, AlignedBuffer::zeroed(length), length);
    let at = to_usize(position.0 - start.0);
    let Ok(count) = count else { return false };
    let head = buffer.get(..count).and_then(|bytes| bytes.get(at..at + HEADER_BYTES));
    head.and_then(|head| BatchHeader::decode(head).ok()).is_some_and(|last| {
        last.position == position
            && last.salt == segment.salt.low()
            && last.generation.0 == seal.last_generation
            && last.end_offset() == segment.end
    })
}

/// Walks through a sealed segment, every batch checked, and returns its index, encoded. `None`: not
/// all of it verifies, so nothing is said about it.
pub(crate) fn rebuild<I: Io>(
    io: &mut Blocking<I>,
    segment: &SealedSegment<'_>,
) -> Result<Option<Vec<u8>>> {
    let index = walk(io, segment, segment.end)?;
    Ok(index.and_then(|index| index.encode(segment.salt.0, segment.end.0)))
}

/// Returns the index of a segment's batches below `end`, where one starts.
pub(crate) fn walk<I: Io>(
    io: &mut Blocking<I>,
    segment: &SealedSegment<'_>,
    end: Offset,
) -> Result<Option<SparseIndex>> {
    let (base, salt, rule) = (segment.base, segment.salt, segment.rule);
    let mut index = SparseIndex::new(base.0);
    let mut walker = Walker::new(segment.file, Chain::new(salt, FIRST_BATCH, base, Epoch(0), rule))
        .with_epochs(segment.epochs.to_vec());
    while walker.chain().next_offset() < end {
        match walker.step(io) {
            Ok(Walked::Padding) => {}
            Ok(Walked::Batch { header, .. }) => {
                let (offset, position) = (header.base_offset.0, header.position.0);
                index.note(offset, position, header.generation.0, header.max_timestamp_ms);
            }
            Err(WalkError::Io(error)) => return Err(error.into()),
            Err(WalkError::Stop(_)) => return Ok(None),
        }
    }
    Ok((walker.chain().next_offset() == end).then_some(index))
}

/// Returns an index that was just rebuilt, in memory.
pub(crate) fn of_bytes(base: Offset, bytes: Vec<u8>) -> Option<SealedIndex> {
    let seal = *IndexView::decode(&bytes, base.0).ok()?.seal();
    Some(SealedIndex { bytes: Bytes::Copied(bytes), seal })
}

/// Puts an index file in the place of what is there. It is derived data: what fails costs time.
pub(crate) fn save<I: Io>(
    io: &mut Blocking<I>,
    directory: &Path,
    base: Offset,
    bytes: &[u8],
) -> std::result::Result<(), highwater_io::IoError> {
    let path = directory.join(index_file_name(base.0));
    match io.remove(&path) {
        Err(error) if error.kind != IoErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (file, _) = io.open(&path, Access::CreateNew, true)?;
    let mut buffer = AlignedBuffer::zeroed(bytes.len());
    buffer[..bytes.len()].copy_from_slice(bytes);
    let length = buffer.len();
    let written = io.write(file, 0, buffer, length, false).1;
    io.close(file)?;
    written
}

/// Removes an index file, if it is there.
pub(crate) fn remove<I: Io>(io: &mut Blocking<I>, directory: &Path, base: Offset) {
    // It is derived data: what stays is believed by nobody.
    io.remove(&directory.join(index_file_name(base.0))).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(base: u64, batches: u64) -> SealedIndex {
        let mut index = SparseIndex::new(base);
        for n in 0..batches {
            index.note(base + n, 4096 * (n + 1), 1, 0);
        }
        of_bytes(Offset(base), index.encode(1, base + batches).expect("whole")).expect("good")
    }

    #[test]
    fn the_least_recently_used_indexes_go_when_the_budget_is_full() {
        let indexes = Indexes::default();
        let batches = 1 << 16;
        let bytes = sealed(0, batches).length();
        let fit = u64::try_from(INDEX_CACHE_BYTES / bytes).expect("small");
        let all: Vec<_> = (0..fit + 3).map(|n| SegmentIndex::new(Offset(n << 20))).collect();
        let ask = |n: usize| indexes.ask(&all[n], Ask::TimestampMs(0), true).is_some();
        for (n, index) in (0..fit + 2).zip(&all) {
            indexes.keep(index, sealed(n << 20, batches));
            if n > 2 {
                assert!(ask(2), "used again and again");
            }
        }
        let held = |n: usize| matches!(*all[n].lock(), Slot::Sealed(_));
        assert_eq!([held(0), held(1), held(2), held(3)], [false, false, true, true]);
        assert_eq!(indexes.kept.lock().expect("fine").len(), to_usize(fit));
        // The one number that is kept of each stays.
        assert_eq!(indexes.known_max_ms(&all[0]), Some(0));
        // A log that is gone holds nothing.
        drop(all);
        let last = SegmentIndex::new(Offset(1));
        indexes.keep(&last, sealed(1, 4));
        assert_eq!(indexes.kept.lock().expect("fine").len(), 1);
    }
}
