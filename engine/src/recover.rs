//! Recovery of one log: the walk from the mark to the end, the verdict of the tables, and what is
//! done about it.

use std::path::Path;

use highwater_io::{Access, AlignedBuffer, Blocking, FileId, Io, IoErrorKind};
use highwater_segment::builder::Stamp;
use highwater_segment::filler::fill;
use highwater_segment::meta::{LogMeta, LogState, Mark};
use highwater_segment::producer_snapshot::snapshot_file_name;
use highwater_segment::producers::ProducerTable;
use highwater_segment::recovery::{
    HeaderFact, MetaCase, SegmentCase, SegmentFacts, TailCase, TailFacts, decide_segment,
    decide_tail,
};
use highwater_segment::scan::{Chain, Evidence, Stop};
use highwater_segment::segment::{
    SEGMENT_HEADER_BYTES, SegmentFault, SegmentHeader, segment_file_name,
};
use highwater_segment::{BLOCK_BYTES, Epoch, FIRST_BATCH, Generation, Offset, Position, Salt};

use crate::convert::{to_u64, to_usize};
use crate::core::Sealed;
use crate::error::{Error, ErrorKind, Result};
use crate::names;
use crate::opening::{
    ActiveSegment, OpenedLog, POOL_DIRECTORY, Place, below_start, create_segment, flush_to_media,
    publish, read_tail, write_meta_twice,
};
use crate::pool::{pool_directory, take_stock};
use crate::producers::{KnownProducers, Replayed, remove_snapshots, replay_to_mark};
use crate::report::{LogReport, ProducersReport};
use crate::shared::{SegmentInfo, generation_rule};
use crate::walker::{WalkError, Walked, Walker, file_evidence};

/// How many bytes are rewritten at once after a failed flush.
const REWRITE_BYTES: usize = 1 << 20;

/// A log whose `log.meta` was read, and what is to be done with it.
#[derive(Debug)]
pub(crate) struct Recovery<'a> {
    pub(crate) place: &'a Place<'a>,
    pub(crate) directory: &'a Path,
    pub(crate) bases: Vec<Offset>,
    /// Snapshots of the producers, by rising offsets.
    pub(crate) snapshots: Vec<Offset>,
    pub(crate) meta_case: MetaCase,
    pub(crate) meta: LogMeta,
    /// Direct I/O is refused.
    pub(crate) page_cache: bool,
    /// What is behind this is written anew.
    pub(crate) rewrite_from: Option<Mark>,
}

/// A segment at or above the mark, open and flushed.
#[derive(Debug)]
struct Segment {
    base: Offset,
    file: FileId,
    fact: HeaderFact,
    salt: Option<Salt>,
    length: u64,
}

/// Where the valid chain ended, and why.
#[derive(Debug)]
struct End {
    /// Which of the segments; `None` when the mark's own segment is missing.
    segment: Option<usize>,
    mark: Mark,
    stop: Stop,
    case: TailCase,
    /// What good headers behind the end say.
    evidence: Evidence,
}

/// What the walk found.
#[derive(Debug, Default)]
struct Findings {
    segment_cases: Vec<(Offset, SegmentCase)>,
    quarantined: Vec<std::ops::Range<Offset>>,
    proven: Offset,
    bytes_scanned: u64,
    /// What the batches so far say of their producers.
    producers: Replayed,
}

/// Recovers the log; see the module text.
pub(crate) fn recover<I: Io>(io: &mut Blocking<I>, recovery: Recovery<'_>) -> Result<OpenedLog> {
    let mark = recovery.meta.flushed;
    let mut segments = Vec::new();
    let result = open_segments(io, &recovery, &mut segments)
        .and_then(|()| find_end(io, &recovery, &segments))
        .and_then(|(end, findings)| {
            assert!(
                end.case.is_corruption() || end.mark.offset >= mark.offset,
                "D2: no cut below F"
            );
            if end.case.is_corruption() {
                Ok(read_only(&recovery, &end, findings))
            } else {
                carry_out(io, recovery, &segments, &end, findings)
            }
        });
    for segment in &segments {
        io.close(segment.file)?;
    }
    result
}

/// Opens every segment at or above the mark and makes what is cached of it durable: a killed
/// process may have left completed writes in volatile caches, and what is believed here must not
/// be lost by a later power cut.
fn open_segments<I: Io>(
    io: &mut Blocking<I>,
    recovery: &Recovery<'_>,
    segments: &mut Vec<Segment>,
) -> Result<()> {
    let from = recovery.meta.flushed.segment;
    for base in recovery.bases.iter().copied().filter(|base| *base >= from) {
        let path = recovery.directory.join(segment_file_name(base));
        let (file, _) = io.open(&path, Access::ReadWrite, true)?;
        let (fact, salt) = (HeaderFact::Bad, None);
        segments.push(Segment { base, file, fact, salt, length: 0 });
        // Its last life may have written through the cache, which lies after a failed flush: no
        // reader of this one may meet what it shows.
        flush_to_media(io, file, false)?;
        let length = io.length(file)?;
        let (fact, salt) = read_header(io, file, recovery.meta.log_id, base)?;
        if let Some(segment) = segments.last_mut() {
            *segment = Segment { base, file, fact, salt, length };
        }
    }
    Ok(())
}

/// Reads a segment's header block and says what it is.
pub(crate) fn read_header<I: Io>(
    io: &mut Blocking<I>,
    file: FileId,
    log_id: highwater_segment::LogId,
    base: Offset,
) -> Result<(HeaderFact, Option<Salt>)> {
    let buffer = AlignedBuffer::zeroed(SEGMENT_HEADER_BYTES);
    let (buffer, count) = io.read(file, 0, buffer, SEGMENT_HEADER_BYTES);
    Ok(match SegmentHeader::decode(buffer.get(..count?).unwrap_or_default()) {
        Ok(header) if header.log_id == log_id && header.base_offset == base => {
            (HeaderFact::Good, Some(header.salt))
        }
        Ok(_) => (HeaderFact::Foreign, None),
        Err(SegmentFault::Version(_)) => (HeaderFact::UnknownVersion, None),
        Err(_) => (HeaderFact::Bad, None),
    })
}

/// Walks from the mark through the segments to the end of the valid chain.
fn find_end<I: Io>(
    io: &mut Blocking<I>,
    recovery: &Recovery<'_>,
    segments: &[Segment],
) -> Result<(End, Findings)> {
    let mark = recovery.meta.flushed;
    let files = (&recovery.bases[..], &recovery.snapshots[..]);
    let producers = replay_to_mark(io, recovery.directory, &recovery.meta, files)?;
    let mut findings = Findings { proven: mark.offset, producers, ..Findings::default() };
    let mut here = mark;
    let mut last = None;
    for (index, segment) in segments.iter().enumerate() {
        let holds_mark = segment.base == mark.segment;
        if segment.fact != HeaderFact::Good {
            // Without a header the salt is unknown; whatever good batch is inside still proves.
            let generation = recovery.meta.generation;
            let found = file_evidence(io, segment.file, FIRST_BATCH, None, generation)?;
            findings.proven = findings.proven.max(found.proven);
        }
        let facts = SegmentFacts {
            header: segment.fact,
            base: segment.base,
            chain_end: here.offset,
            proven: findings.proven,
            holds_mark,
        };
        let case = decide_segment(&facts);
        findings.segment_cases.push((segment.base, case));
        match case {
            SegmentCase::S1Follows => {}
            SegmentCase::S6UnknownVersion | SegmentCase::S4Overlaps => {
                return Err(segment_error(recovery, segment.base, case));
            }
            _ => return finish(io, recovery, segments, (last, here, Stop::NoBatch), findings),
        }
        if !holds_mark {
            here = Mark { offset: segment.base, segment: segment.base, position: FIRST_BATCH };
        }
        let successor = segments.get(index + 1);
        let (from, table) = (here, &mut findings.producers.table);
        let (walked, stop, bytes) = walk(io, recovery, segment, (from, successor), table)?;
        findings.bytes_scanned += bytes;
        findings.proven = findings.proven.max(walked.proven);
        here = walked.mark;
        last = Some(index);
        let Some(stop) = stop else { continue };
        if let Some(successor) = successor
            && is_damage_inside_sealed(io, recovery, segments, index, &here, &mut findings)?
        {
            findings.quarantined.push(here.offset..successor.base);
            findings.producers.report.incomplete = true;
            here.offset = successor.base;
            continue;
        }
        return finish(io, recovery, segments, (last, here, stop), findings);
    }
    finish(io, recovery, segments, (last, here, Stop::NoBatch), findings)
}

struct WalkedTo {
    mark: Mark,
    proven: Offset,
}

/// Walks one segment from `from` to its successor's base or to a stop.
fn walk<I: Io>(
    io: &mut Blocking<I>,
    recovery: &Recovery<'_>,
    segment: &Segment,
    (from, successor): (Mark, Option<&Segment>),
    producers: &mut ProducerTable,
) -> Result<(WalkedTo, Option<Stop>, u64)> {
    let Some(salt) = segment.salt else { panic!("only segments with good headers are walked") };
    let rule = generation_rule(recovery.meta.generation, &recovery.meta.flushed, segment.base);
    let chain = Chain::new(salt, from.position, from.offset, Epoch(0), rule);
    let mut walker = Walker::new(segment.file, chain);
    let stop = loop {
        let next = walker.chain().next_offset();
        if let Some(successor) = successor
            && next >= successor.base
        {
            if next > successor.base {
                return Err(segment_error(recovery, successor.base, SegmentCase::S4Overlaps));
            }
            break None;
        }
        match walker.step(io) {
            Ok(Walked::Batch { header, .. }) => producers.replay(&header),
            Ok(Walked::Padding) => {}
            Err(WalkError::Stop(stop)) => break Some(stop),
            Err(WalkError::Io(error)) => return Err(read_error(error)),
        }
    };
    let chain = walker.chain();
    let mark =
        Mark { offset: chain.next_offset(), segment: segment.base, position: chain.position() };
    Ok((WalkedTo { mark, proven: chain.proven() }, stop, walker.bytes_read()))
}

/// A read error is never a torn tail: nothing is cut or written, opening can be tried again.
pub(crate) fn read_error(error: highwater_io::IoError) -> Error {
    Error::from_io(error).remedy("nothing was changed; try again, or check the device")
}

/// Whether the damage at `here` lies inside a sealed segment of which everything is proven to have
/// been flushed: then it is kept apart, and the log goes on behind it.
fn is_damage_inside_sealed<I: Io>(
    io: &mut Blocking<I>,
    recovery: &Recovery<'_>,
    segments: &[Segment],
    index: usize,
    here: &Mark,
    findings: &mut Findings,
) -> Result<bool> {
    let Some(successor) = segments.get(index + 1) else { return Ok(false) };
    let evidence = evidence_behind(io, recovery, segments, Some(index), here)?;
    findings.proven = findings.proven.max(evidence.proven);
    let whole_segment_flushed = findings.proven >= successor.base;
    let goes_on = successor.fact == HeaderFact::Good && evidence.newer_generation.is_none();
    Ok(whole_segment_flushed && goes_on)
}

/// Collects what good headers behind `here` say, in this segment and all later ones.
fn evidence_behind<I: Io>(
    io: &mut Blocking<I>,
    recovery: &Recovery<'_>,
    segments: &[Segment],
    index: Option<usize>,
    here: &Mark,
) -> Result<Evidence> {
    let generation = recovery.meta.generation;
    let mut evidence = Evidence::default();
    for (at, segment) in segments.iter().enumerate() {
        let from = match index {
            Some(index) if at < index => continue,
            Some(index) if at == index => here.position,
            _ => FIRST_BATCH,
        };
        let found = file_evidence(io, segment.file, from, segment.salt, generation);
        evidence = evidence.and_then(found.map_err(read_error)?);
    }
    Ok(evidence)
}

/// Asks the tail table.
fn finish<I: Io>(
    io: &mut Blocking<I>,
    recovery: &Recovery<'_>,
    segments: &[Segment],
    (index, mark, stop): (Option<usize>, Mark, Stop),
    mut findings: Findings,
) -> Result<(End, Findings)> {
    let evidence = evidence_behind(io, recovery, segments, index, &mark)?;
    findings.proven = findings.proven.max(evidence.proven);
    let meta = &recovery.meta;
    let segment_is_there = index.is_some() || meta.flushed.offset == meta.flushed.segment;
    let facts = TailFacts {
        mark: meta.flushed.offset,
        clean: recovery.meta_case == MetaCase::M3Clean,
        // A mark whose own segment is gone cannot be reached.
        stop: if segment_is_there { mark.offset } else { meta.flushed.segment },
        proven: findings.proven,
        newer_generation: evidence.newer_generation.is_some()
            || matches!(stop, Stop::NewerGeneration(_)),
        successor: segments.len() > index.map_or(0, |index| index + 1),
        plain: stop.is_plain_end(),
    };
    let mut case = decide_tail(&facts);
    let short = index.and_then(|index| segments.get(index)).is_some_and(|segment| {
        let holds_mark = segment.base == meta.flushed.segment;
        holds_mark && segment.length < meta.flushed.position.0
    });
    if short && !case.is_corruption() {
        // The file ends below the mark: flushed bytes are gone even if no batch was seen to end.
        case = TailCase::T4BelowMark;
    }
    let mark = Mark { offset: facts.stop, ..mark };
    // Whatever lies behind the end goes: label it for the report.
    for segment in segments.iter().skip(findings.segment_cases.len()) {
        let facts = SegmentFacts {
            header: segment.fact,
            base: segment.base,
            chain_end: mark.offset,
            proven: findings.proven,
            holds_mark: false,
        };
        findings.segment_cases.push((segment.base, decide_segment(&facts)));
    }
    Ok((End { segment: index, mark, stop, case, evidence }, findings))
}

fn segment_error(recovery: &Recovery<'_>, base: Offset, case: SegmentCase) -> Error {
    let path = recovery.directory.join(segment_file_name(base)).display().to_string();
    let (kind, detail) = if case == SegmentCase::S6UnknownVersion {
        (ErrorKind::Config, "it has a version this build does not know")
    } else {
        (ErrorKind::Corrupt { range: base..Offset(u64::MAX) }, "two segments claim its offsets")
    };
    Error::new(kind, "open segment", &path)
        .detail(format!("{detail} (case {})", case.label()))
        .remedy("use the build that wrote it, or restore it from a copy")
}

/// The log with damage below a proven mark: nothing is written, what is before the damage can be
/// read.
fn read_only(recovery: &Recovery<'_>, end: &End, findings: Findings) -> OpenedLog {
    let meta = recovery.meta.clone();
    let behind = end.evidence.resumes.map_or(findings.proven, |(_, offset)| offset);
    let behind = behind.max(meta.flushed.offset).max(end.mark.offset.plus(1));
    let range = end.mark.offset..behind;
    let path = recovery.directory.join(segment_file_name(end.mark.segment)).display().to_string();
    let error = Error::new(ErrorKind::Corrupt { range: range.clone() }, "append behind", &path)
        .at(end.mark.position.0)
        .detail(format!(
            "offsets {}..{} were flushed and no longer verify: {} (case {})",
            range.start,
            range.end,
            end.stop.describe(),
            end.case.label()
        ))
        .remedy("restore the file from a copy, or cut with `highwater repair`");
    let segments: Vec<_> = recovery.bases.iter().map(|b| SegmentInfo::new(*b, None)).collect();
    let mut report = make_report(recovery, end, &findings);
    report.corrupt = Some(range);
    let mut shown = meta.clone();
    shown.log_start = meta.log_start.min(end.mark.offset);
    let shared = publish(recovery.place, &shown, end.mark, segments, &report, Some(&error));
    shared.lock().generation_mark = meta.flushed;
    OpenedLog {
        directory: recovery.directory.to_owned(),
        pool: pool_directory(recovery.place.root),
        spares: Vec::new(),
        sealed: Vec::new(),
        shared,
        meta,
        end: Mark { position: end.mark.position.block_start(), ..end.mark },
        tail: Vec::new(),
        producers: KnownProducers::default(),
        active: None,
        read_only: Some(error),
        report,
        may_join_rounds: false,
    }
}

fn make_report(recovery: &Recovery<'_>, end: &End, findings: &Findings) -> LogReport {
    let producers = &findings.producers;
    let known = producers.table.len();
    LogReport {
        name: recovery.place.name.to_owned(),
        meta_case: recovery.meta_case,
        tail_case: Some(end.case),
        segment_cases: findings.segment_cases.clone(),
        mark: recovery.meta.flushed.offset,
        log_end: end.mark.offset,
        end_position: end.mark.position,
        stopped_by: end.stop.describe(),
        removed_segments: Vec::new(),
        quarantined: findings.quarantined.clone(),
        corrupt: None,
        rewritten: recovery.rewrite_from.is_some(),
        page_cache: recovery.page_cache,
        bytes_scanned: findings.bytes_scanned,
        producers: ProducersReport { known, ..producers.report.clone() },
        epoch: recovery.meta.epoch,
        generation: recovery.meta.generation,
    }
}

/// Cuts, flushes, raises the generation, and removes what lies above: in this order, so that a
/// crash between any two steps leaves either the old log or the new one.
fn carry_out<I: Io>(
    io: &mut Blocking<I>,
    recovery: Recovery<'_>,
    segments: &[Segment],
    end: &End,
    findings: Findings,
) -> Result<OpenedLog> {
    let mut report = make_report(&recovery, end, &findings);
    let producers = findings.producers;
    let mut mark = end.mark;
    let untouched = recovery.meta_case == MetaCase::M3Clean && end.case == TailCase::T1PlainEnd;
    let never_rewrite = recovery.meta.never_rewrite_flushed;
    let active = end.segment.and_then(|index| segments.get(index));
    let kept = end.segment.map_or(&[][..], |index| segments.get(..=index).unwrap_or_default());
    if let Some(from) = recovery.rewrite_from {
        rewrite_behind(io, (&from, &mark), kept)?;
    }
    if !untouched {
        renew_names(io, &recovery, kept, &producers)?;
    }
    let mut tail = Vec::new();
    if let Some(active) = active {
        tail = read_tail(io, active.file, mark.position)?;
        if !untouched && !never_rewrite && !mark.position.is_block_border() {
            fill_cut_block(io, &recovery.meta, active, &mut mark, &tail)?;
            tail.clear();
        }
    }
    // Everything that is kept is on stable media before the generation says so.
    for segment in kept {
        io.flush(segment.file)?;
    }
    io.sync_directory(recovery.directory)?;
    io.sync_directory(&recovery.place.root.join(POOL_DIRECTORY))?;
    recovery.place.check_device()?;
    let mut meta = next_meta(&recovery, mark, &producers);
    write_meta_twice(io, recovery.directory, &mut meta)?;
    // Only now: a segment above the cut that comes back (its removal was not synced) holds nothing
    // of the new generation.
    let above = segments.iter().skip(kept.len()).map(|segment| segment.base);
    report.removed_segments = above.collect();
    let bases = remove_unused(io, &recovery, &meta, &report.removed_segments, &producers)?;
    if let Some(active) = active {
        remove_index(io, recovery.directory, active.base)?;
    }
    io.sync_directory(recovery.directory)?;
    let placed = place_active(io, &recovery, &meta, active, mark, tail)?;
    report.log_end = placed.end.offset;
    report.end_position = placed.end.position;
    report.epoch = meta.epoch;
    report.generation = meta.generation;
    let salts = segments.iter().map(|segment| (segment.base, segment.salt));
    let salts: std::collections::BTreeMap<_, _> = salts.collect();
    let info = |base| SegmentInfo::new(base, salts.get(&base).copied().flatten());
    let mut infos: Vec<_> = bases.into_iter().map(info).collect();
    if infos.last().is_none_or(|last| last.base != placed.active.base) {
        infos.push(SegmentInfo::new(placed.active.base, Some(placed.active.salt)));
    }
    let sealed = sealed_below(placed.active.base, &infos, meta.segment_bytes);
    let shared = publish(recovery.place, &meta, placed.end, infos, &report, None);
    shared.lock().generation_mark = meta.flushed;
    let spares = take_stock(io, recovery.place.root, &meta)?;
    Ok(OpenedLog {
        directory: recovery.directory.to_owned(),
        pool: pool_directory(recovery.place.root),
        spares,
        sealed,
        shared,
        meta,
        end: placed.end,
        tail: placed.tail,
        producers: producers.into_known(),
        active: Some(placed.active),
        read_only: None,
        report,
        may_join_rounds: false,
    })
}

/// Returns the segments below the active one; of how they were made nothing is known any more.
fn sealed_below(active: Offset, infos: &[SegmentInfo], bytes: u64) -> Vec<Sealed> {
    let bases = infos.iter().map(|info| info.base).filter(|base| *base < active);
    let sealed = |base| Sealed { base, bytes, max_timestamp_ms: None, is_whole: false };
    bases.map(sealed).collect()
}

/// After a failed write or flush: writes the bytes from `from` to `mark` anew.
fn rewrite_behind<I: Io>(
    io: &mut Blocking<I>,
    (from, mark): (&Mark, &Mark),
    kept: &[Segment],
) -> Result<()> {
    for segment in kept.iter().filter(|segment| segment.base >= from.segment) {
        rewrite(io, from, mark, (segment.base, segment.file, segment.length))?;
    }
    Ok(())
}

/// Writes the names of the segments above the mark anew. The sync that made them may have failed,
/// in this process or in one that could not note it, and unlike bytes they cannot be read back
/// from the media.
fn renew_names<I: Io>(
    io: &mut Blocking<I>,
    recovery: &Recovery<'_>,
    kept: &[Segment],
    producers: &Replayed,
) -> Result<()> {
    let mark = recovery.meta.flushed;
    let is_above = |base: Offset| base > mark.segment || mark.position == FIRST_BATCH;
    for segment in kept.iter().filter(|segment| is_above(segment.base)) {
        names::renew(io, recovery.directory, &segment_file_name(segment.base))?;
    }
    // A snapshot's name reaches the media with that of the next segment; the mark in a segment
    // proves that of the snapshots before it.
    for offset in producers.kept().filter(|offset| *offset >= mark.segment) {
        names::renew(io, recovery.directory, &snapshot_file_name(offset))?;
    }
    Ok(())
}

/// Removes the segments above the cut, what a trim left behind, and snapshots of no use: the new
/// generation is in both slots.
/// Returns the bases of the others.
fn remove_unused<I: Io>(
    io: &mut Blocking<I>,
    recovery: &Recovery<'_>,
    meta: &LogMeta,
    above: &[Offset],
    producers: &Replayed,
) -> Result<Vec<Offset>> {
    remove_snapshots(io, recovery.directory, producers.unused())?;
    let bases = recovery.bases.iter().copied().filter(|base| !above.contains(base));
    let mut bases: Vec<_> = bases.collect();
    let unused = below_start(&bases, meta);
    // A segment leaves when a snapshot, or that there is none, says what it says of the producers.
    let known = bases.iter().skip(1).take_while(|end| **end <= producers.known_below()).count();
    let rest = bases.split_off(unused.len().min(known));
    for base in bases.iter().chain(above) {
        io.remove(&recovery.directory.join(segment_file_name(*base)))?;
        remove_index(io, recovery.directory, *base)?;
    }
    Ok(rest)
}

/// Removes an index that no longer fits its segment; it is derived data.
pub(crate) fn remove_index<I: Io>(
    io: &mut Blocking<I>,
    directory: &Path,
    base: Offset,
) -> Result<()> {
    match io.remove(&directory.join(highwater_index::index_file_name(base.0))) {
        Err(error) if error.kind != IoErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

struct Placed {
    active: ActiveSegment,
    end: Mark,
    tail: Vec<u8>,
}

/// Decides where the first append of the new generation goes.
fn place_active<I: Io>(
    io: &mut Blocking<I>,
    recovery: &Recovery<'_>,
    meta: &LogMeta,
    active: Option<&Segment>,
    mark: Mark,
    tail: Vec<u8>,
) -> Result<Placed> {
    if let Some(Segment { base, salt: Some(salt), length, .. }) = active {
        let reserved_to = (length - length % BLOCK_BYTES).clamp(BLOCK_BYTES, meta.segment_bytes);
        // The cut block may hold flushed bytes that must not be rewritten: the next append starts a
        // segment, and the name of a segment ends its predecessor.
        let is_full = meta.never_rewrite_flushed && !tail.is_empty();
        let active =
            ActiveSegment { base: *base, salt: *salt, reserved_to, is_full, is_prepared: false };
        return Ok(Placed { active, end: mark, tail });
    }
    // There is no segment yet: the crash came before it had its header.
    let (salt, end) = create_segment(io, recovery.directory, meta.log_id, mark.offset)?;
    let reserved_to = 64 << 10;
    let active =
        ActiveSegment { base: mark.offset, salt, reserved_to, is_full: false, is_prepared: false };
    Ok(Placed { active, end, tail: Vec::new() })
}

/// The snapshot that begins the new generation: the cut is the flushed mark, in the same write.
fn next_meta(recovery: &Recovery<'_>, mark: Mark, producers: &Replayed) -> LogMeta {
    let mut meta = recovery.meta.clone();
    meta.state = LogState::Open;
    meta.incarnation = recovery.place.incarnation;
    meta.generation = Generation(meta.generation.0 + 1);
    meta.flushed = mark;
    // Watermarks are monotone within a generation only; the high watermark proves no flush.
    meta.high_watermark = mark.offset;
    meta.durable_watermark = mark.offset;
    meta.producers = producers.mark_at(mark.offset);
    meta.epochs.retain(|epoch| epoch.start <= mark.offset);
    meta.push_epoch(Epoch(meta.epoch.0 + 1), mark.offset);
    meta
}

/// Rewrites the block that the cut lies in: the valid prefix, then a filler of the *old*
/// generation to its end. What was torn there is gone for good, the first batch of the new
/// generation starts on the next block, and a walk from the segment's start finds no gap.
fn fill_cut_block<I: Io>(
    io: &mut Blocking<I>,
    meta: &LogMeta,
    active: &Segment,
    mark: &mut Mark,
    tail: &[u8],
) -> Result<()> {
    let Some(salt) = active.salt else { panic!("the chain ended in a segment with a salt") };
    let block = to_usize(BLOCK_BYTES);
    let mut buffer = AlignedBuffer::zeroed(block);
    let Some((prefix, gap)) = buffer.split_at_mut_checked(tail.len()) else {
        panic!("a tail is shorter than a block")
    };
    prefix.copy_from_slice(tail);
    let stamp = Stamp {
        salt: salt.low(),
        generation: meta.generation,
        position: mark.position,
        base_offset: mark.offset,
        leader_epoch: meta.epoch,
        flush_mark: meta.flushed.offset.min(mark.offset),
        now_ms: 0,
    };
    fill(gap.get_mut(..block - tail.len()).unwrap_or_default(), &stamp);
    io.write(active.file, mark.position.block_start().0, buffer, block, false).1?;
    mark.position = mark.position.block_end();
    Ok(())
}

/// Writes what was read from the mark to the cut once more: after a failed flush the cache shows
/// bytes that are not on the media, and another flush alone would lie.
pub(crate) fn rewrite<I: Io>(
    io: &mut Blocking<I>,
    mark: &Mark,
    end: &Mark,
    (base, file, length): (Offset, FileId, u64),
) -> Result<()> {
    let from = if base == mark.segment { mark.position } else { FIRST_BATCH };
    let to = if base == end.segment {
        end.position.block_end()
    } else {
        Position(length - length % BLOCK_BYTES)
    };
    let mut at = from.block_start();
    let mut buffer = AlignedBuffer::zeroed(REWRITE_BYTES);
    while at < to {
        let length = REWRITE_BYTES.min(to_usize(to.0 - at.0));
        let (returned, count) = io.read(file, at.0, buffer, length);
        let count = count?;
        if count == 0 || !to_u64(count).is_multiple_of(BLOCK_BYTES) {
            return Ok(());
        }
        let (returned, result) = io.write(file, at.0, returned, count, false);
        result?;
        buffer = returned;
        at = at.plus(to_u64(count));
    }
    Ok(())
}
