//! Checking every byte of a log.

use std::ops::Range;
use std::path::{Path, PathBuf};

use highwater_index::{IndexView, index_file_name};
use highwater_io::threads::InlineIo;
use highwater_io::{Access, AlignedBuffer, Blocking, Io};
use highwater_segment::meta::{
    LogMeta, MAX_EPOCHS, META_FILE_NAME, ProducersMark, SLOT_BYTES, slot_of,
};
use highwater_segment::producer_snapshot::{ProducerSnapshot, snapshot_file_name};
use highwater_segment::recovery::{HeaderFact, MetaCase};
use highwater_segment::scan::{Chain, GenerationRule, Stop};
use highwater_segment::{Codec, Epoch, FIRST_BATCH, Offset, Position, Records, StoredRecords};

use super::tail::{Meaning, close_read, meaning_of};
use super::{LogView, check_root};
use crate::control::log_names;
use crate::convert::{to_u64, to_usize};
use crate::error::{Error, ErrorKind, Result};
use crate::producers::{read_file, snapshot_offsets};
use crate::shared::generation_rule;
use crate::walker::{WalkError, Walked, Walker, file_evidence};

/// One place that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The byte at which verification stopped.
    pub position: u64,
    /// The offsets that cannot be served because of it.
    pub offsets: Range<Offset>,
    /// The label of the case in `docs/durability.md`.
    pub case: &'static str,
    /// What was found.
    pub what: String,
}

/// What verifying one log gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogVerdict {
    /// The log's name.
    pub name: String,
    /// How it was left: `clean`, `open` or `poisoned`; empty if `log.meta` is lost.
    pub state: String,
    /// Batches that verify.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes that were read of the segments.
    pub bytes: u64,
    /// The end of the verified prefix.
    pub log_end: Offset,
    /// Damage to what was flushed.
    pub damages: Vec<Damage>,
    /// The unflushed end that a crash left; opening the log for writing cuts it.
    pub torn_tail: Option<Damage>,
    /// What else is worth knowing; not damage.
    pub notes: Vec<String>,
}

/// Checks every byte of the logs in `dir`, or of one.
///
/// # Errors
/// [`ErrorKind::Io`] or [`ErrorKind::Config`] if `dir` is not an engine's directory or the log is
/// not there. Damage is not an error here but what is returned.
pub fn verify(dir: &Path, log: Option<&str>) -> Result<Vec<LogVerdict>> {
    verify_with(InlineIo::new(), dir, log)
}

/// As [`verify`], on a given [`Io`].
///
/// # Errors
/// As there.
pub fn verify_with<I: Io>(io: I, dir: &Path, log: Option<&str>) -> Result<Vec<LogVerdict>> {
    let mut io = Blocking::new(io);
    check_root(&mut io, dir)?;
    let names = match log {
        Some(name) => vec![name.to_owned()],
        None => log_names(&mut io, dir)?,
    };
    names.iter().map(|name| verify_log(&mut io, dir, name)).collect()
}

fn verify_log<I: Io>(io: &mut Blocking<I>, root: &Path, name: &str) -> Result<LogVerdict> {
    // Beside a writer the log can change under us; a few fresh starts suffice.
    for _ in 0..32 {
        let view = LogView::load(io, root, name)?;
        let verdict = empty(&view);
        let mut verifier = Verifier { root, view, verdict };
        if verifier.run(io)? {
            return Ok(verifier.verdict);
        }
    }
    Err(Error::new(ErrorKind::Timeout, "verify log", name)
        .detail("it was truncated or reopened again and again")
        .remedy("try again"))
}

fn empty(view: &LogView) -> LogVerdict {
    LogVerdict {
        name: view.name.clone(),
        state: view.meta.as_ref().map_or("", |meta| meta.state.name()).to_owned(),
        batches: 0,
        records: 0,
        bytes: 0,
        log_end: Offset(0),
        damages: Vec::new(),
        torn_tail: None,
        notes: Vec::new(),
    }
}

struct Verifier<'a> {
    root: &'a Path,
    view: LogView,
    verdict: LogVerdict,
}

/// How one segment ended.
enum Ended {
    /// At its successor's base, or at the log's end.
    Well,
    /// Not all of it verifies.
    Badly,
    /// The log changed meanwhile.
    Changed,
}

impl Verifier<'_> {
    /// Returns whether the verdict holds; otherwise the log changed meanwhile.
    fn run<I: Io>(&mut self, io: &mut Blocking<I>) -> Result<bool> {
        self.check_meta();
        let Some(meta) = self.view.meta.clone() else { return Ok(true) };
        self.verdict.log_end = meta.log_start;
        let first = self.view.bases.first().copied();
        let mark_segment_is_there = self.view.bases.contains(&meta.flushed.segment);
        // Also an empty one: a log is closed with the segment its next append would go to.
        let must_be_there =
            meta.flushed.offset > meta.flushed.segment || self.view.case == MetaCase::M3Clean;
        if !mark_segment_is_there && must_be_there {
            let what = "the file is missing".to_owned();
            let offsets = meta.flushed.segment..meta.flushed.offset;
            self.damage(self.view.path(meta.flushed.segment), 0, offsets, "T4", what);
        }
        if let Some(first) = first.filter(|first| *first > meta.log_start) {
            let what = "the segment that starts the log is missing".to_owned();
            self.damage(self.view.directory.clone(), 0, meta.log_start..first, "T4", what);
        }
        // What a writer begins from here on is not waited for: it may be faster than this.
        let newest = self.view.bases.last().copied();
        let mut next = first;
        while let Some(base) = next {
            match self.segment(io, base)? {
                // Asked anew each time: a writer may have rolled meanwhile.
                Ended::Well | Ended::Badly => {
                    next = self.view.successor(base);
                    next = next.filter(|_| newest.is_some_and(|last| base < last));
                }
                Ended::Changed if self.was_trimmed(io, base)? => {
                    next = self.view.bases.first().copied();
                    next = next.filter(|first| newest.is_some_and(|last| *first <= last));
                }
                Ended::Changed => return Ok(false),
            }
        }
        let meta = self.view.meta()?.clone();
        self.indexes(io);
        self.snapshots(io, &meta)?;
        Ok(true)
    }

    /// Returns whether nothing but a trim took the segment away that begins at `base`: the verdict
    /// on the rest holds, and goes on where the log starts now.
    fn was_trimmed<I: Io>(&mut self, io: &mut Blocking<I>, base: Offset) -> Result<bool> {
        let now = LogView::load(io, self.root, &self.view.name)?;
        let (before, meta) = (self.view.meta()?, now.meta()?);
        let (log_start, first) = (meta.log_start, now.bases.first().copied());
        let same = meta.generation == before.generation && meta.log_id == before.log_id;
        let gone =
            log_start > base && first.is_some_and(|first| first > base && first <= log_start);
        if same && gone {
            self.verdict.log_end = first.unwrap_or(log_start);
            self.view = now;
        }
        Ok(same && gone)
    }

    fn damage(
        &mut self,
        file: PathBuf,
        position: u64,
        offsets: Range<Offset>,
        case: &'static str,
        what: String,
    ) {
        self.verdict.damages.push(Damage { file, position, offsets, case, what });
    }

    /// The slots: a bad one beside a clean one is damage, beside an open one a torn write.
    fn check_meta(&mut self) {
        let file = self.view.directory.join(META_FILE_NAME);
        let case = self.view.case;
        for (slot, result) in self.view.slots.clone().into_iter().enumerate() {
            let position = to_u64(slot * SLOT_BYTES);
            let fault = match result {
                Err(fault) => fault,
                Ok(meta) if slot_of(meta.sequence) == slot => continue,
                Ok(meta) => {
                    let number = meta.sequence;
                    let what = format!("snapshot {number} stands in slot {slot}, not its own");
                    let none = Offset(0)..Offset(0);
                    self.damage(file.clone(), position, none, case.label(), what);
                    continue;
                }
            };
            let what = format!("slot {slot} of log.meta does not verify: {fault}");
            match case {
                MetaCase::M5TornSlot | MetaCase::M1NeverCreated => {
                    self.verdict.notes.push(format!("{what} (case {})", case.label()));
                }
                _ => {
                    let all = Offset(0)..Offset(0);
                    self.damage(file.clone(), position, all, case.label(), what);
                }
            }
        }
        if case == MetaCase::M7TwoLogs {
            let what = "the two slots belong to different logs".to_owned();
            self.damage(file, 0, Offset(0)..Offset(u64::MAX), case.label(), what);
        }
    }

    fn segment<I: Io>(&mut self, io: &mut Blocking<I>, base: Offset) -> Result<Ended> {
        let meta = self.view.meta()?.clone();
        let path = self.view.path(base);
        let (file, fact, salt) = match self.view.open_segment(io, base) {
            Ok(opened) => opened,
            Err(error)
                if error.io().is_some_and(|e| e.kind == highwater_io::IoErrorKind::NotFound) =>
            {
                return Ok(Ended::Changed);
            }
            Err(error) => return Err(error),
        };
        if base > self.verdict.log_end && !self.verdict.damages.is_empty() {
            // Behind damage the walk starts anew: what follows is judged by itself.
            self.verdict.log_end = base;
        }
        let (Some(salt), HeaderFact::Good) = (salt, fact) else {
            let found = file_evidence(io, file, FIRST_BATCH, None, meta.generation);
            close_read(io, file)?;
            if self.view.was_being_made(io, base)? {
                return Ok(Ended::Changed);
            }
            return Ok(self.bad_header(base, &path, fact, found?.proven));
        };
        let last = self.view.successor(base).is_none();
        if base != self.verdict.log_end && last && base > meta.flushed.offset {
            close_read(io, file)?;
            self.verdict.notes.push(format!(
                "{} lies above the log's end {} (case S2)",
                path.display(),
                self.verdict.log_end
            ));
            return Ok(Ended::Well);
        }
        let clean = self.view.case == MetaCase::M3Clean;
        let rule = if clean {
            // A closed log ends at its mark: all before it is of any generation up to the last.
            GenerationRule { current: meta.generation, exact_from: Position(u64::MAX) }
        } else {
            generation_rule(meta.generation, &meta.flushed, base)
        };
        let mut walker = Walker::new(file, Chain::new(salt, FIRST_BATCH, base, Epoch(0), rule))
            .with_epochs(meta.epochs.clone());
        let ended = self.walk(io, &mut walker, base);
        self.verdict.bytes += walker.bytes_read();
        self.verdict.log_end = walker.chain().next_offset();
        let ended = match ended {
            Ok(Ended::Well) => {
                let successor = self.view.successor(base);
                self.sealed_end(io, &mut walker, &path, successor)
            }
            other => other,
        };
        close_read(io, file)?;
        ended
    }

    fn bad_header(&mut self, base: Offset, path: &Path, fact: HeaderFact, proven: Offset) -> Ended {
        let mark = self.view.meta.as_ref().map(|meta| meta.flushed).unwrap_or_default();
        let (case, what) = match fact {
            HeaderFact::UnknownVersion => ("S6", "its version is unknown to this build"),
            HeaderFact::Foreign => ("S5", "its header belongs to another log or another name"),
            _ => ("S5", "its header block does not verify"),
        };
        let proven = proven.max(mark.offset);
        let is_lost = base < proven || self.view.was_closed_in(base);
        if is_lost || fact == HeaderFact::UnknownVersion {
            let until = self.view.successor(base).unwrap_or(proven).max(base.plus(1));
            self.damage(path.to_owned(), 0, base..until, case, what.to_owned());
        } else {
            let offsets = base..base;
            self.verdict.torn_tail = Some(Damage {
                file: path.to_owned(),
                position: 0,
                offsets,
                case: "S3",
                what: format!("a segment that was just being made: {what}"),
            });
        }
        Ended::Badly
    }

    /// Walks one segment to its end.
    fn walk<I: Io>(
        &mut self,
        io: &mut Blocking<I>,
        walker: &mut Walker,
        base: Offset,
    ) -> Result<Ended> {
        let mark = self.view.meta()?.flushed;
        let clean = self.view.case == MetaCase::M3Clean;
        loop {
            let chain = walker.chain();
            if self.view.successor(base).is_some_and(|next| chain.next_offset() >= next) {
                return Ok(Ended::Well);
            }
            let at_mark = mark.segment == base && chain.position() == mark.position;
            if clean && at_mark && chain.next_offset() == mark.offset {
                return Ok(Ended::Well);
            }
            match walker.step(io) {
                Ok(Walked::Padding) => {}
                Ok(Walked::Batch { header, records }) => {
                    self.count(&header, walker.bytes(&records));
                }
                Err(WalkError::Io(error)) => return Err(error.into()),
                Err(WalkError::Stop(stop)) => {
                    match meaning_of(io, self.root, &mut self.view, walker, base, stop)? {
                        None => {}
                        Some(meaning) => {
                            return Ok(self.stopped(walker, base, stop, meaning));
                        }
                    }
                }
            }
        }
    }

    fn count(&mut self, header: &highwater_segment::BatchHeader, records: &[u8]) {
        self.verdict.batches += 1;
        self.verdict.records += u64::from(header.record_count);
        let base = header.base_timestamp_ms;
        // What is compressed is decompressed: as many records as the header says, and no byte more.
        let (count, first) = (header.record_count, header.base_offset);
        let stored;
        let records = if header.codec() == Codec::None {
            Records::new(records, count, first, base)
        } else {
            stored = StoredRecords::new(records.to_vec(), header.codec());
            stored.records(count, first, base)
        };
        for error in records.filter_map(std::result::Result::err) {
            self.verdict.notes.push(format!("{error} (its checksum holds: it was written so)"));
        }
    }

    fn stopped(&mut self, walker: &Walker, base: Offset, stop: Stop, meaning: Meaning) -> Ended {
        let successor = self.view.successor(base);
        let chain = walker.chain();
        let (position, next) = (chain.position().0, chain.next_offset());
        let file = self.view.path(base);
        match meaning {
            Meaning::Changed => return Ended::Changed,
            Meaning::Damage { until } => {
                let until = successor.unwrap_or(until).max(next.plus(1));
                let mark = self.view.meta.as_ref().map_or(Offset(0), |m| m.flushed.offset);
                let newer = matches!(stop, Stop::NewerGeneration(_));
                let case = match (newer, next < mark) {
                    (true, _) => "T6",
                    (_, true) => "T4",
                    _ => "T5",
                };
                self.damage(file, position, next..until, case, stop.describe());
            }
            Meaning::End { .. } if stop.is_plain_end() && successor.is_none() => {
                return Ended::Well;
            }
            Meaning::End { .. } => {
                let case = if successor.is_some() { "T3" } else { "T2" };
                let what = stop.describe();
                self.verdict.torn_tail =
                    Some(Damage { file, position, offsets: next..next, case, what });
            }
        }
        Ended::Badly
    }

    /// Behind the last batch of a sealed segment stands its filler, or zeros, to the block border.
    fn sealed_end<I: Io>(
        &mut self,
        io: &mut Blocking<I>,
        walker: &mut Walker,
        path: &Path,
        successor: Option<Offset>,
    ) -> Result<Ended> {
        let position = walker.chain().position();
        let Some(successor) = successor.filter(|_| !position.is_block_border()) else {
            return Ok(Ended::Well);
        };
        // An opening or a truncation that began a new segment left what it cut behind.
        let epochs = &self.view.meta()?.epochs;
        let forgotten = epochs.first().is_some_and(|oldest| successor < oldest.start)
            && epochs.len() == MAX_EPOCHS;
        if forgotten || epochs.iter().any(|epoch| epoch.start == successor) {
            return Ok(Ended::Well);
        }
        match walker.step(io) {
            // A remainder from before a cut, or nothing at all.
            Ok(_) | Err(WalkError::Stop(Stop::StaleGeneration(_))) => return Ok(Ended::Well),
            Err(WalkError::Io(error)) => return Err(error.into()),
            Err(WalkError::Stop(_)) => {}
        }
        let block = to_usize(highwater_segment::BLOCK_BYTES);
        let buffer = AlignedBuffer::zeroed(block);
        let (buffer, count) = io.read(walker.file(), position.block_start().0, buffer, block);
        let from = to_usize(position.0 - position.block_start().0);
        let count = count?;
        let rest = buffer.get(from..count).unwrap_or_default();
        // Blocks are written whole: a file that ends inside one was cut.
        if count == block && rest.iter().all(|byte| *byte == 0) {
            return Ok(Ended::Well);
        }
        let next = walker.chain().next_offset();
        let what = "bytes behind the last batch are neither a filler nor zeros".to_owned();
        self.damage(path.to_owned(), position.0, next..next, "T4", what);
        Ok(Ended::Badly)
    }

    /// Snapshots of the producers are derived data too.
    fn snapshots<I: Io>(&mut self, io: &mut Blocking<I>, meta: &LogMeta) -> Result<()> {
        let offsets = snapshot_offsets(&self.view.entries);
        let ProducersMark { offset: newest, count, .. } = meta.producers;
        if count > 0 && !offsets.contains(&newest) {
            let file = self.view.directory.join(snapshot_file_name(newest));
            let file = file.display();
            self.verdict.notes.push(format!("{file} is missing; the log is replayed from before"));
        }
        for offset in offsets {
            let path = self.view.directory.join(snapshot_file_name(offset));
            // Beside a writer it may be gone by now.
            let Ok((file, _)) = io.open(&path, Access::Read, true) else { continue };
            let bytes = read_file(io, file);
            io.close(file)?;
            let fault = match ProducerSnapshot::decode(&bytes?) {
                Ok(found) if found.log_id == meta.log_id && found.at.offset == offset => continue,
                Ok(_) => "it belongs to another log or offset".to_owned(),
                Err(fault) => fault.to_string(),
            };
            let path = path.display();
            let note = format!("{path} is not usable ({fault}); the log is replayed from before");
            self.verdict.notes.push(note);
        }
        Ok(())
    }

    /// Indexes are derived data: a bad one is worth a note.
    fn indexes<I: Io>(&mut self, io: &mut Blocking<I>) {
        for base in self.view.bases.clone() {
            let name = index_file_name(base.0);
            if !self.view.entries.iter().any(|entry| entry.name == name) {
                continue;
            }
            let path = self.view.directory.join(name);
            let Ok((file, _)) = io.open(&path, Access::Read, true) else { continue };
            let limit = highwater_index::MAX_FILE_BYTES.next_multiple_of(4096);
            let length = io.length(file).map_or(0, to_usize).min(limit).next_multiple_of(4096);
            let (buffer, count) = io.read(file, 0, AlignedBuffer::zeroed(length), length);
            let bytes = buffer.get(..count.unwrap_or(0)).unwrap_or_default();
            if let Err(fault) = IndexView::decode(bytes, base.0) {
                let path = path.display();
                self.verdict.notes.push(format!("{path} is not usable ({fault:?}); it is rebuilt"));
            }
            if io.close(file).is_err() {
                return;
            }
        }
    }
}
