//! What opening learns of a log's producers: a snapshot that holds, and a replay of what follows.
//!
//! The state is what the log's batches say; snapshots only shorten the way. None is believed that
//! lies above the mark (what it says may not have been flushed), that does not verify, or that a
//! later epoch cut off. Without any the whole log is replayed.

use std::path::Path;

use highwater_io::{Access, AlignedBuffer, Blocking, Entry, EntryKind, FileId, Io, IoErrorKind};
use highwater_segment::meta::{LogMeta, Mark, ProducersMark};
use highwater_segment::producer_snapshot::{
    ProducerSnapshot, SNAPSHOT_BYTES_MAX, parse_snapshot_file_name, snapshot_file_name,
};
use highwater_segment::producers::ProducerTable;
use highwater_segment::scan::Chain;
use highwater_segment::segment::segment_file_name;
use highwater_segment::{BLOCK_BYTES, Epoch, FIRST_BATCH, Offset, Salt};

use crate::convert::to_usize;
use crate::error::{Error, Result};
use crate::opening::flush_to_media;
use crate::recover::{read_error, read_header};
use crate::report::ProducersReport;
use crate::shared::generation_rule;
use crate::walker::{WalkError, Walked, Walker};

/// How many snapshots at or below the mark a log keeps at least: one to use, and one should it be
/// damaged.
pub(crate) const SNAPSHOTS_KEPT: usize = 2;

/// A snapshot file of an open log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotFile {
    pub(crate) offset: Offset,
    pub(crate) count: u32,
    /// Its bytes and its name are on stable media.
    pub(crate) durable: bool,
}

/// What is known of a log's producers, and from which files.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownProducers {
    pub(crate) table: ProducerTable,
    /// The snapshot files that stay, by rising offsets.
    pub(crate) files: Vec<SnapshotFile>,
}

/// What stands in [`KnownProducers`] before the log is walked from the mark on.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) table: ProducerTable,
    pub(crate) report: ProducersReport,
    files: Vec<SnapshotFile>,
    /// Snapshots of no use.
    unused: Vec<Offset>,
    /// Batches below are asked by nobody: what they say stands in a snapshot, or they say nothing.
    known_below: Offset,
    from: ProducersMark,
}

impl Replayed {
    /// Returns what `log.meta` says of a log that ends at `end`.
    pub(crate) fn mark_at(&self, end: Offset) -> ProducersMark {
        let log_time_ms = self.table.log_time_ms();
        if self.table.is_empty() {
            return ProducersMark { offset: end, count: 0, log_time_ms };
        }
        ProducersMark { log_time_ms, ..self.from }
    }

    /// Returns below where no opening and no truncation looks at a batch to know the producers.
    pub(crate) fn known_below(&self) -> Offset {
        if self.table.is_empty() { Offset::MAX } else { self.known_below }
    }

    /// Returns the snapshots to be removed once the new generation is on stable media.
    pub(crate) fn unused(&self) -> &[Offset] {
        &self.unused
    }

    /// Returns the offsets of the snapshots that stay.
    pub(crate) fn kept(&self) -> impl Iterator<Item = Offset> {
        self.files.iter().map(|file| file.offset)
    }

    /// Returns what the shard goes on with.
    pub(crate) fn into_known(self) -> KnownProducers {
        KnownProducers { table: self.table, files: self.files }
    }
}

/// Returns the offsets of the snapshots among `entries`, rising.
pub(crate) fn snapshot_offsets(entries: &[Entry]) -> Vec<Offset> {
    let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
    let mut offsets: Vec<_> = files.filter_map(|e| parse_snapshot_file_name(&e.name)).collect();
    offsets.sort_unstable();
    offsets
}

/// Returns what is known of the producers at the mark of `meta`.
///
/// A read error fails the opening, as it does everywhere in it; damage only costs what stood there.
pub(crate) fn replay_to_mark<I: Io>(
    io: &mut Blocking<I>,
    directory: &Path,
    meta: &LogMeta,
    (bases, snapshots): (&[Offset], &[Offset]),
) -> Result<Replayed> {
    // A log without producers says how far that is so.
    let none_below = if meta.producers.count == 0 { meta.producers.offset } else { Offset(0) };
    let mut replayed =
        Replayed { unused: snapshots.to_vec(), from: meta.producers, ..Replayed::default() };
    let useful = |offset: &&Offset| **offset <= meta.flushed.offset && **offset > none_below;
    let mut start = None;
    for offset in snapshots.iter().rev().filter(useful) {
        if let Some(snapshot) = load_snapshot(io, directory, meta, *offset)? {
            start = Some(snapshot);
            break;
        }
        replayed.report.unusable.push(*offset);
    }
    let from = if let Some(ProducerSnapshot { at, table, .. }) = start {
        let count = u32::try_from(table.len()).unwrap_or(u32::MAX);
        let first = first_segment(bases, meta);
        replayed.files = kept(snapshots, (at.offset, count), first);
        let before = replayed.files.iter().rfind(|file| file.offset <= first);
        replayed.known_below = before.map_or(Offset(0), |file| file.offset);
        replayed.unused.retain(|offset| replayed.files.iter().all(|file| file.offset != *offset));
        replayed.report.snapshot = Some(at.offset);
        replayed.from = ProducersMark { offset: at.offset, count, ..meta.producers };
        replayed.table = table;
        at
    } else {
        replayed.from = ProducersMark { offset: none_below, count: 0, ..meta.producers };
        replayed.known_below = none_below;
        replayed.table = ProducerTable::at(meta.producers.log_time_ms);
        if none_below == meta.flushed.offset { meta.flushed } else { unknown_place(none_below) }
    };
    replayed.report.replayed_from = from.offset;
    if from.offset < meta.flushed.offset {
        replay(io, directory, meta, bases, &from, &mut replayed)?;
    }
    Ok(replayed)
}

/// An offset whose place in its segment is not known: the walk begins where the segment does.
fn unknown_place(offset: Offset) -> Mark {
    Mark { offset, segment: Offset(u64::MAX), position: FIRST_BATCH }
}

/// Returns the snapshots that stay beside the one in use, which was just made durable: all from the
/// one with which the log's first segment begins, so that a truncation to any place still knows
/// the producers; and one more than is needed, should that be damaged.
fn kept(snapshots: &[Offset], (used, count): (Offset, u32), first: Offset) -> Vec<SnapshotFile> {
    let usable = snapshots.partition_point(|offset| *offset <= used);
    let needed = snapshots.partition_point(|offset| *offset <= first).saturating_sub(1);
    let from = needed.min(usable.saturating_sub(SNAPSHOTS_KEPT));
    // How many producers an older one holds is asked by nobody: it is used when the newer is lost.
    let older = |offset: &Offset| {
        let count = if *offset == used { count } else { 0 };
        SnapshotFile { offset: *offset, count, durable: true }
    };
    snapshots.get(from..usable).unwrap_or_default().iter().map(older).collect()
}

/// Returns where the first segment begins that the log needs.
fn first_segment(bases: &[Offset], meta: &LogMeta) -> Offset {
    let started = bases.partition_point(|base| *base <= meta.log_start);
    bases.get(started.saturating_sub(1)).copied().unwrap_or_default()
}

/// Returns the snapshot at `offset`, durable, if it holds.
fn load_snapshot<I: Io>(
    io: &mut Blocking<I>,
    directory: &Path,
    meta: &LogMeta,
    offset: Offset,
) -> Result<Option<ProducerSnapshot>> {
    let path = directory.join(snapshot_file_name(offset));
    let (file, direct) = io.open(&path, Access::ReadWrite, true)?;
    let bytes = flush_to_media(io, file, direct).and_then(|()| read_file(io, file));
    io.close(file)?;
    Ok(believable(&bytes?, meta, offset))
}

/// Reads a whole snapshot file; one that is too long is none.
pub(crate) fn read_file<I: Io>(io: &mut Blocking<I>, file: FileId) -> Result<Vec<u8>> {
    let length = to_usize(io.length(file)?.next_multiple_of(BLOCK_BYTES));
    if length == 0 || length > SNAPSHOT_BYTES_MAX {
        return Ok(Vec::new());
    }
    let (buffer, count) = io.read(file, 0, AlignedBuffer::zeroed(length), length);
    Ok(buffer.get(..count.map_err(read_error)?).unwrap_or_default().to_vec())
}

/// Returns the snapshot that `bytes` hold, if it is this log's, of this offset, and not cut off.
pub(crate) fn believable(bytes: &[u8], meta: &LogMeta, offset: Offset) -> Option<ProducerSnapshot> {
    let snapshot = ProducerSnapshot::decode(bytes).ok()?;
    // Every cut begins an epoch where it cut.
    let later = meta.epochs.iter().find(|epoch| epoch.epoch > snapshot.leader_epoch);
    let cut_off = later.is_some_and(|later| later.start < offset);
    let ours = snapshot.log_id == meta.log_id && snapshot.at.offset == offset;
    (ours && !cut_off).then_some(snapshot)
}

/// Walks from `from` to the mark and notes every batch.
fn replay<I: Io>(
    io: &mut Blocking<I>,
    directory: &Path,
    meta: &LogMeta,
    bases: &[Offset],
    from: &Mark,
    replayed: &mut Replayed,
) -> Result<()> {
    let first = bases.partition_point(|base| *base <= from.offset).saturating_sub(1);
    let bases = bases.get(first..).unwrap_or_default();
    for (index, base) in bases.iter().copied().enumerate() {
        if base > meta.flushed.segment {
            break;
        }
        let successor = bases.get(index + 1).copied().unwrap_or(Offset(u64::MAX));
        let end = successor.min(meta.flushed.offset);
        let path = directory.join(segment_file_name(base));
        let (file, _) = io.open(&path, Access::Read, true)?;
        let walked = match read_header(io, file, meta.log_id, base) {
            Ok((_, Some(salt))) => {
                replay_segment(io, (file, salt, base), meta, (from, end), replayed)
            }
            Ok((_, None)) => {
                replayed.report.incomplete = true;
                Ok(())
            }
            Err(error) => Err(error),
        };
        io.close(file)?;
        walked?;
    }
    Ok(())
}

fn replay_segment<I: Io>(
    io: &mut Blocking<I>,
    (file, salt, base): (FileId, Salt, Offset),
    meta: &LogMeta,
    (from, end): (&Mark, Offset),
    replayed: &mut Replayed,
) -> Result<()> {
    let rule = generation_rule(meta.generation, &meta.flushed, base);
    let begins = from.segment == base;
    let (position, offset) =
        if begins { (from.position, from.offset) } else { (FIRST_BATCH, base) };
    let chain = Chain::new(salt, position, offset, Epoch(0), rule);
    let mut walker = Walker::new(file, chain).with_epochs(meta.epochs.clone());
    while walker.chain().next_offset() < end {
        match walker.step(io) {
            Ok(Walked::Batch { header, .. }) if header.base_offset >= from.offset => {
                replayed.table.replay(&header);
            }
            Ok(_) => {}
            Err(WalkError::Io(error)) => return Err(read_error(error)),
            // Damage to what was flushed: readers will hear of it. What follows is replayed.
            Err(WalkError::Stop(_)) => {
                replayed.report.incomplete = true;
                break;
            }
        }
    }
    replayed.report.bytes_replayed += walker.bytes_read();
    Ok(())
}

/// Removes snapshots that are of no use any more. Should one come back after a power cut, it is
/// looked at again.
pub(crate) fn remove_snapshots<I: Io>(
    io: &mut Blocking<I>,
    directory: &Path,
    offsets: &[Offset],
) -> Result<()> {
    for offset in offsets {
        match io.remove(&directory.join(snapshot_file_name(*offset))) {
            Err(error) if error.kind != IoErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Writes the snapshot of a log that is closed at `end`, so that its next opening has nothing to
/// replay. A full disk costs that opening some time, nothing else.
pub(crate) fn write_at_close<I: Io>(
    io: &mut Blocking<I>,
    directory: &Path,
    snapshot: &ProducerSnapshot,
) -> Result<bool> {
    let path = directory.join(snapshot_file_name(snapshot.at.offset));
    let (file, _) = match io.open(&path, Access::CreateNew, true) {
        // It was opened here and nothing was appended.
        Err(error) if error.kind == IoErrorKind::AlreadyExists => return Ok(false),
        Err(error) if error.kind == IoErrorKind::NoSpace => return Ok(false),
        other => other?,
    };
    let bytes = snapshot.encode();
    let mut buffer = AlignedBuffer::zeroed(bytes.len());
    buffer.copy_from_slice(&bytes);
    let written = io.write(file, 0, buffer, bytes.len(), true).1;
    io.close(file)?;
    match written {
        Err(error) if error.kind == IoErrorKind::NoSpace => {
            io.remove(&path)?;
            Ok(false)
        }
        Err(error) => Err(Error::from_io(error)),
        Ok(()) => {
            io.sync_directory(directory)?;
            Ok(true)
        }
    }
}
