//! Opening a log for writing: gather the facts, ask the tables, carry out what they decide.
//!
//! Straight-line code over a [`Blocking`] view. The order of the steps is the promise; each says
//! which crash it survives. A crash anywhere in here leaves a log that the next opening finds in
//! the same state or further on (D5).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_io::{Access, AlignedBuffer, Blocking, Entry, EntryKind, FileId, Io, IoErrorKind};
use highwater_segment::meta::{
    EpochStart, LogMeta, LogState, META_BYTES, META_FILE_NAME, Mark, ProducersMark, SLOT_BYTES,
    decode_slots, slot_of,
};
use highwater_segment::recovery::{MetaCase, decide_meta};
use highwater_segment::segment::{
    SEGMENT_HEADER_BYTES, SegmentHeader, parse_segment_file_name, segment_file_name,
};
use highwater_segment::{
    BLOCK_BYTES, Epoch, FIRST_BATCH, Generation, LogId, Offset, Position, Salt,
};

use crate::convert::{to_u64, to_usize};
use crate::core::Sealed;
use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::marks::Marks;
use crate::names;
use crate::options::{DEFAULT_SEGMENT_BYTES, LogOptions, Preparation};
use crate::pool::{pool_directory, prepare_segment};
use crate::producers::{KnownProducers, snapshot_offsets};
use crate::recover::{Recovery, recover};
use crate::report::{LogReport, ProducersReport};
use crate::shared::{LogShared, Published, ReaderBudgets, SegmentInfo};

/// The directory of spare segments; also what tells an engine's directory from any other.
pub(crate) const POOL_DIRECTORY: &str = ".pool";
/// The bytes reserved for a segment when it is made.
const FIRST_RESERVE_BYTES: u64 = 64 << 10;

/// The segment appends go to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActiveSegment {
    pub(crate) base: Offset,
    pub(crate) salt: Salt,
    pub(crate) reserved_to: u64,
    /// Its last block holds flushed bytes and must not be rewritten: the first append rolls. (Not
    /// before: opening works on a full disk.)
    pub(crate) is_full: bool,
    /// All of it was written and flushed by this opening.
    pub(crate) is_prepared: bool,
}

/// A log that is ready for its shard: everything flushed, the new generation in both slots, no
/// file open.
#[derive(Debug)]
pub(crate) struct OpenedLog {
    pub(crate) directory: PathBuf,
    /// The pool, and this log's spares in it.
    pub(crate) pool: PathBuf,
    pub(crate) spares: Vec<PathBuf>,
    /// The segments below the active one, oldest first.
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) shared: Arc<LogShared>,
    pub(crate) meta: LogMeta,
    pub(crate) end: Mark,
    /// The bytes of the last block before `end`.
    pub(crate) tail: Vec<u8>,
    /// What is known of the log's producers at `end`.
    pub(crate) producers: KnownProducers,
    /// `None` only for a read-only log.
    pub(crate) active: Option<ActiveSegment>,
    pub(crate) read_only: Option<Error>,
    pub(crate) report: LogReport,
    /// It lies on the file system that flush rounds flush.
    pub(crate) may_join_rounds: bool,
}

impl OpenedLog {
    /// Returns this with its published state put into `shared`, which handles already hold.
    pub(crate) fn into_shared(mut self, shared: &Arc<LogShared>) -> Self {
        let published = self.shared.lock().clone();
        shared.lock().replace(published);
        shared.note_upheaval();
        shared.tail.clear();
        shared.lookout.tell();
        self.shared = Arc::clone(shared);
        self
    }
}

/// Where a log lies and who opens it.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    /// The engine's directory.
    pub(crate) root: &'a Path,
    pub(crate) name: &'a str,
    /// This start of the node.
    pub(crate) incarnation: u128,
    /// The names in the engine's directory and its pool were synced under this lock already.
    pub(crate) parents_synced: bool,
    /// What the engine holds for readers.
    pub(crate) budgets: &'a ReaderBudgets,
    pub(crate) device: &'a Device,
    /// How many failures of the device there had been when this opening began.
    pub(crate) failures_before: u64,
}

impl Place<'_> {
    /// Fails if the device has failed meanwhile: the one report of that may have come to another
    /// log, and the flushes of this opening may have lied (D3).
    pub(crate) fn check_device(&self) -> Result<()> {
        self.device.check_since(self.failures_before, "open log", self.name)
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.root.join(self.name)
    }
}

/// Opens the log at `place`, or makes it.
///
/// With `rewrite_from` (after a failed write or flush in this very process: what was flushed then)
/// the bytes behind it are written anew before they are flushed: the kernel reports a failed flush
/// once and then pretends that all is well. What was flushed is not touched: a power cut can harm
/// what is being rewritten, on devices that tear a sector.
pub(crate) fn open_log<I: Io>(
    io: &mut Blocking<I>,
    place: &Place<'_>,
    options: &LogOptions,
    rewrite_from: Option<Mark>,
) -> Result<OpenedLog> {
    let directory = place.directory();
    // Nothing that a killed process left in caches is believed before it is on stable media: the
    // log's own name, the names in it, log.meta, and (in `recover`) every segment at or above the
    // mark. Otherwise a later power cut takes what this process took for granted.
    if !place.parents_synced {
        io.sync_directory(place.root)?;
        io.sync_directory(&place.root.join(POOL_DIRECTORY))?;
    }
    io.sync_directory(&directory)?;
    let mut entries = io.list(&directory)?;
    if names::restore(io, &directory, &entries)? {
        io.sync_directory(&directory)?;
        entries = io.list(&directory)?;
    }
    let bases = segment_bases(&entries);
    let (slots, direct) = if entries.iter().any(|entry| entry.name == META_FILE_NAME) {
        read_meta_flushed(io, &directory)?
    } else {
        (decode_slots(&[]), true)
    };
    let (case, meta) = decide_meta(&slots, !bases.is_empty());
    let Some(meta) = meta else {
        return match case {
            MetaCase::M1NeverCreated => create_log(io, place, options),
            _ => Err(meta_error(case, &directory)),
        };
    };
    check_options(&meta, options, place.name)?;
    let noted = (meta.state == LogState::Poisoned).then_some(meta.flushed);
    if rewrite_from.is_some() || noted.is_some() {
        // The write of the slot that counts may itself have failed: it is made durable before the
        // other one, the last good one perhaps, is overwritten.
        write_slot(io, &directory, &meta)?;
    }
    let recovery = Recovery {
        place,
        directory: &directory,
        bases,
        snapshots: snapshot_offsets(&entries),
        meta_case: case,
        rewrite_from: rewrite_from.map(|mark| mark.max(meta.flushed)).or(noted),
        page_cache: !direct,
        meta,
    };
    recover(io, recovery)
}

/// Returns whether the making of this log was cut short before it had options of its own. Such a
/// log is made anew when it is asked for, with what is asked then.
pub(crate) fn was_never_made<I: Io>(io: &mut Blocking<I>, directory: &Path) -> Result<bool> {
    let entries = io.list(directory)?;
    if !segment_bases(&entries).is_empty() || !names::segments_away(&entries).is_empty() {
        return Ok(false);
    }
    if !entries.iter().any(|entry| entry.name == META_FILE_NAME) {
        return Ok(true);
    }
    let (slots, _) = read_meta_flushed(io, directory)?;
    Ok(decide_meta(&slots, false).0 == MetaCase::M1NeverCreated)
}

fn meta_error(case: MetaCase, directory: &Path) -> Error {
    let subject = directory.join(META_FILE_NAME).display().to_string();
    let corrupt = ErrorKind::Corrupt { range: Offset(0)..Offset(u64::MAX) };
    let (kind, detail, remedy) = match case {
        MetaCase::M8UnknownVersion => {
            (ErrorKind::Config, "it has a version this build does not know", "use a newer build")
        }
        MetaCase::M7TwoLogs => {
            (corrupt, "its two slots belong to different logs", "restore it from a copy")
        }
        _ => (
            corrupt,
            "both slots are damaged or missing while segments exist",
            "restore it from a copy, or use `highwater repair`",
        ),
    };
    Error::new(kind, "open log.meta", &subject)
        .detail(format!("{detail} (case {})", case.label()))
        .remedy(remedy)
}

pub(crate) fn check_options(meta: &LogMeta, options: &LogOptions, name: &str) -> Result<()> {
    let differs = |option: &str, asked: String, persisted: String| {
        Err(Error::new(ErrorKind::Config, "open log", name)
            .detail(format!("{option} {asked} is asked for, the log was made with {persisted}"))
            .remedy("leave the option out, or make another log"))
    };
    if let Some(asked) = options.segment_bytes
        && asked != meta.segment_bytes
    {
        return differs("segment_bytes", asked.to_string(), meta.segment_bytes.to_string());
    }
    if let Some(asked) = options.never_rewrite_flushed
        && asked != meta.never_rewrite_flushed
    {
        let persisted = meta.never_rewrite_flushed.to_string();
        return differs("never_rewrite_flushed", asked.to_string(), persisted);
    }
    Ok(())
}

/// Returns which of the rising `bases` are of no use any more: they lie wholly below the log's
/// start, trimmed or left over from a trim that a crash cut short, and below the mark's segment.
pub(crate) fn below_start<'a>(bases: &'a [Offset], meta: &LogMeta) -> &'a [Offset] {
    let started = bases.partition_point(|base| *base <= meta.log_start);
    let marked = bases.partition_point(|base| *base < meta.flushed.segment);
    bases.get(..started.saturating_sub(1).min(marked)).unwrap_or_default()
}

/// Returns the base offsets of the segments among `entries`, rising.
pub(crate) fn segment_bases(entries: &[Entry]) -> Vec<Offset> {
    let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
    let mut bases: Vec<_> = files.filter_map(|e| parse_segment_file_name(&e.name)).collect();
    bases.sort_unstable();
    bases
}

/// Flushes `log.meta`, drops it from caches and reads its slots; also whether direct I/O works.
fn read_meta_flushed<I: Io>(
    io: &mut Blocking<I>,
    directory: &Path,
) -> Result<([highwater_segment::recovery::Slot; 2], bool)> {
    let path = directory.join(META_FILE_NAME);
    let (file, direct) = io.open(&path, Access::ReadWrite, true)?;
    let read = flush_to_media(io, file, direct).and_then(|()| {
        let (buffer, count) = io.read(file, 0, AlignedBuffer::zeroed(META_BYTES), META_BYTES);
        Ok((decode_slots(buffer.get(..count?).unwrap_or_default()), direct))
    });
    io.close(file)?;
    read
}

/// Makes what is cached of `file` durable, and later reads come from the media.
pub(crate) fn flush_to_media<I: Io>(
    io: &mut Blocking<I>,
    file: FileId,
    direct: bool,
) -> Result<()> {
    io.flush(file)?;
    if !direct {
        io.drop_cache(file)?;
    }
    Ok(())
}

/// Writes `meta` into its slot, durably.
fn write_slot<I: Io>(io: &mut Blocking<I>, directory: &Path, meta: &LogMeta) -> Result<()> {
    let path = directory.join(META_FILE_NAME);
    let (file, _) = io.open(&path, Access::ReadWrite, true)?;
    let mut buffer = AlignedBuffer::zeroed(SLOT_BYTES);
    buffer.copy_from_slice(&meta.encode());
    let position = to_u64(slot_of(meta.sequence) * SLOT_BYTES);
    let written = io.write(file, position, buffer, SLOT_BYTES, true).1;
    io.close(file)?;
    Ok(written?)
}

/// Writes `meta` into both slots, each durable before the other is touched; afterwards the
/// snapshot counts even if one slot is damaged. Raises the sequence by two.
pub(crate) fn write_meta_twice<I: Io>(
    io: &mut Blocking<I>,
    directory: &Path,
    meta: &mut LogMeta,
) -> Result<()> {
    let path = directory.join(META_FILE_NAME);
    let (file, _) = io.open(&path, Access::ReadWrite, true)?;
    let mut result = Ok(());
    for _ in 0..2 {
        meta.sequence += 1;
        let mut buffer = AlignedBuffer::zeroed(SLOT_BYTES);
        buffer.copy_from_slice(&meta.encode());
        let position = to_u64(slot_of(meta.sequence) * SLOT_BYTES);
        result = io.write(file, position, buffer, SLOT_BYTES, true).1;
        if result.is_err() {
            break;
        }
    }
    io.close(file)?;
    Ok(result?)
}

/// Makes a new log: both slots and all directories are flushed before the first segment gets its
/// name, so that a segment without a good slot is never a crash's doing (M1, M2).
fn create_log<I: Io>(
    io: &mut Blocking<I>,
    place: &Place<'_>,
    options: &LogOptions,
) -> Result<OpenedLog> {
    let directory = place.directory();
    let epochs = vec![EpochStart { epoch: Epoch(1), start: Offset(0) }];
    let mut meta = LogMeta {
        sequence: 0,
        log_id: LogId(random_u128(io)),
        incarnation: place.incarnation,
        state: LogState::Open,
        generation: Generation(1),
        epoch: Epoch(1),
        log_start: Offset(0),
        flushed: Mark { offset: Offset(0), segment: Offset(0), position: FIRST_BATCH },
        high_watermark: Offset(0),
        durable_watermark: Offset(0),
        segment_bytes: options.segment_bytes.unwrap_or(DEFAULT_SEGMENT_BYTES),
        never_rewrite_flushed: options.never_rewrite_flushed.unwrap_or(false),
        epochs,
        truncations: Vec::new(),
        producers: ProducersMark::default(),
    };
    let direct = ensure_meta_file(io, &directory)?;
    write_meta_twice(io, &directory, &mut meta)?;
    io.sync_directory(&directory)?;
    io.sync_directory(place.root)?;
    let (salt, end) = create_segment(io, &directory, meta.log_id, Offset(0))?;
    let (mut reserved_to, mut is_prepared) = (FIRST_RESERVE_BYTES, false);
    if options.prepare == Preparation::AtOpen {
        let prepared = prepare_segment(io, &directory, Offset(0), meta.segment_bytes)?;
        is_prepared = prepared.is_some();
        reserved_to = prepared.unwrap_or(reserved_to);
    }
    let is_full = false;
    let active = ActiveSegment { base: Offset(0), salt, reserved_to, is_full, is_prepared };
    let report = LogReport {
        name: place.name.to_owned(),
        meta_case: MetaCase::M1NeverCreated,
        tail_case: None,
        segment_cases: Vec::new(),
        mark: Offset(0),
        log_end: Offset(0),
        end_position: FIRST_BATCH,
        stopped_by: String::new(),
        removed_segments: Vec::new(),
        quarantined: Vec::new(),
        corrupt: None,
        rewritten: false,
        page_cache: !direct,
        bytes_scanned: 0,
        producers: ProducersReport::default(),
        epoch: meta.epoch,
        generation: meta.generation,
    };
    let segments = vec![SegmentInfo::new(Offset(0), Some(salt))];
    let shared = publish(place, &meta, end, segments, &report, None);
    Ok(OpenedLog {
        directory,
        pool: pool_directory(place.root),
        spares: Vec::new(),
        sealed: Vec::new(),
        shared,
        meta,
        end,
        tail: Vec::new(),
        producers: KnownProducers::default(),
        active: Some(active),
        read_only: None,
        report,
        may_join_rounds: false,
    })
}

/// Makes sure that `log.meta` is there and has its space; its name is durable on return. Returns
/// whether direct I/O works.
pub(crate) fn ensure_meta_file<I: Io>(io: &mut Blocking<I>, directory: &Path) -> Result<bool> {
    let path = directory.join(META_FILE_NAME);
    let (file, direct) = match io.open(&path, Access::CreateNew, true) {
        Ok(opened) => opened,
        // Left over from a creation that a crash or a failed sync cut short.
        Err(error) if error.kind == IoErrorKind::AlreadyExists => {
            names::renew(io, directory, META_FILE_NAME)?;
            io.open(&path, Access::ReadWrite, true)?
        }
        Err(error) => return Err(error.into()),
    };
    let reserved = match io.allocate(file, 0, to_u64(META_BYTES)) {
        Err(error) if error.kind != IoErrorKind::Unsupported => Err(error),
        _ => Ok(()),
    };
    io.close(file)?;
    reserved?;
    io.sync_directory(directory)?;
    Ok(direct)
}

/// Makes the segment that starts at `base`: space, header and name are durable on return. A full
/// disk leaves no file behind.
pub(crate) fn create_segment<I: Io>(
    io: &mut Blocking<I>,
    directory: &Path,
    log_id: LogId,
    base: Offset,
) -> Result<(Salt, Mark)> {
    let salt = Salt(io.io().random_u64());
    let path = directory.join(segment_file_name(base));
    let (file, _) = io.open(&path, Access::CreateNew, true)?;
    let reserved = match io.allocate(file, 0, FIRST_RESERVE_BYTES) {
        Err(error) if error.kind != IoErrorKind::Unsupported => Err(error),
        _ => Ok(()),
    };
    let written = reserved.and_then(|()| {
        let mut buffer = AlignedBuffer::zeroed(SEGMENT_HEADER_BYTES);
        buffer.copy_from_slice(&SegmentHeader { log_id, base_offset: base, salt }.encode());
        io.write(file, 0, buffer, SEGMENT_HEADER_BYTES, true).1
    });
    io.close(file)?;
    if let Err(error) = written {
        io.remove(&path)?;
        return Err(error.into());
    }
    io.sync_directory(directory)?;
    Ok((salt, Mark { offset: base, segment: base, position: FIRST_BATCH }))
}

/// Reads the prefix of the block that `position` lies in.
pub(crate) fn read_tail<I: Io>(
    io: &mut Blocking<I>,
    file: FileId,
    position: Position,
) -> Result<Vec<u8>> {
    let length = to_usize(position.0 - position.block_start().0);
    if length == 0 {
        return Ok(Vec::new());
    }
    let block = to_usize(BLOCK_BYTES);
    let start = position.block_start().0;
    let (buffer, count) = io.read(file, start, AlignedBuffer::zeroed(block), block);
    let tail = buffer.get(..length.min(count?)).unwrap_or_default().to_vec();
    assert_eq!(tail.len(), length, "the walk has just passed these bytes");
    Ok(tail)
}

/// Returns what handles and readers see of a log that was just opened.
pub(crate) fn publish(
    place: &Place<'_>,
    meta: &LogMeta,
    end: Mark,
    segments: Vec<SegmentInfo>,
    report: &LogReport,
    read_only: Option<&Error>,
) -> Arc<LogShared> {
    let marks = Marks {
        log_start: meta.log_start,
        flushed: end.offset,
        written: end.offset,
        log_end: end.offset,
        high_watermark: end.offset,
        durable_watermark: end.offset,
    };
    marks.assert_chain();
    LogShared::new(
        place.name,
        Published {
            marks,
            generation: meta.generation,
            generation_mark: meta.flushed,
            epochs: meta.epochs.clone().into(),
            segments,
            cuts: std::collections::VecDeque::new(),
            quarantined: report.quarantined.clone(),
            failure: read_only.cloned(),
        },
        place.budgets,
    )
}

pub(crate) fn random_u128<I: Io>(io: &mut Blocking<I>) -> u128 {
    let (high, low) = (io.io().random_u64(), io.io().random_u64());
    u128::from(high) << 64 | u128::from(low)
}
