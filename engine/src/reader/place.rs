//! Where a reader begins in a segment: at the nearest place its index knows.

use std::path::Path;
use std::sync::Arc;

use highwater_index::SparseIndex;
use highwater_io::{Access, FileId, Io};
use highwater_segment::scan::{Chain, GenerationRule};
use highwater_segment::segment::segment_file_name;
use highwater_segment::{Epoch, FIRST_BATCH, Offset, Salt};

use super::{Reader, Walk};
use crate::error::{Error, ErrorKind, Result};
use crate::indexes::{self, Ask, Hint, SealedIndex, SealedSegment};
use crate::recover::read_header;
use crate::shared::SegmentInfo;
use crate::walker::Walker;

/// A segment with its open file.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) info: SegmentInfo,
    pub(super) file: FileId,
    salt: Salt,
    rule: GenerationRule,
    /// Where it ends, if it is sealed.
    pub(super) end: Option<Offset>,
}

impl<I: Io> Reader<I> {
    /// Opens the segment that holds the next offset, at the nearest place its index knows.
    /// `None`: the log was cut meanwhile.
    pub(super) fn find_place(&mut self) -> Result<Option<Walk>> {
        let Some(opened) = self.open_segment()? else { return Ok(None) };
        let base = opened.info.base;
        // A reader that comes from the segment before needs no index.
        let trusted = self.next > base && self.without_hints != Some(base);
        let hint = if trusted { self.ask(&opened, Ask::Offset(self.next)) } else { None };
        let (offset, position) = hint.unwrap_or((base, FIRST_BATCH));
        let chain = Chain::new(opened.salt, position, offset, Epoch(0), opened.rule);
        let mut walker = Walker::new(opened.file, chain).with_tail(&self.shared, base);
        if opened.end.is_some() {
            walker = walker.with_read_ahead(&self.shared.budgets.leases);
        }
        let by_hint = hint.is_some();
        Ok(Some(Walk { walker, base, end: None, as_of: None, by_hint }))
    }

    /// Opens the segment that holds the next offset. `None`: the log was cut meanwhile.
    pub(super) fn open_segment(&mut self) -> Result<Option<Opened>> {
        let (info, rule, end) = {
            let published = self.shared.lock();
            if published.generation != self.generation || self.next < published.marks.log_start {
                return Ok(None);
            }
            let at = published.segments.iter().rposition(|info| info.base <= self.next);
            let info = at.and_then(|at| published.segments.get(at)).cloned();
            let info = info.ok_or_else(|| self.missing(&published.segments))?;
            let end = at.and_then(|at| published.segments.get(at + 1)).map(|next| next.base);
            let rule = published.rule_for(info.base);
            (info, rule, end)
        };
        let path = self.directory.join(segment_file_name(info.base));
        let file = match self.io.open(&path, Access::Read, self.shared.reads_direct()) {
            Ok((file, _)) => file,
            Err(_) if self.is_overtaken() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let salt = match info.salt {
            Some(salt) => salt,
            None => match self.read_salt(file, &info, &path) {
                Ok(Some(salt)) => salt,
                other => {
                    self.io.close(file)?;
                    return other.map(|_| None);
                }
            },
        };
        Ok(Some(Opened { info, file, salt, rule, end }))
    }

    /// Reads the salt from the header block. `None`: the log was cut meanwhile.
    fn read_salt(&mut self, file: FileId, info: &SegmentInfo, path: &Path) -> Result<Option<Salt>> {
        if let (_, Some(salt)) = read_header(&mut self.io, file, self.log_id, info.base)? {
            return Ok(Some(salt));
        }
        if self.is_overtaken() {
            return Ok(None);
        }
        // Without the salt no batch of it can be told from another use's: all of it is lost, and
        // reading goes on behind.
        let end = self.successor_of(info.base).unwrap_or(self.shared.marks().log_end);
        let kind = ErrorKind::Corrupt { range: info.base..end.max(self.next.plus(1)) };
        Err(Error::new(kind, "read segment", &path.display().to_string())
            .detail("its header block is damaged (case S5)")
            .at(0))
    }

    /// Asks the index of a segment, which is loaded or rebuilt for it. Whatever fails in that only
    /// means that the walk begins at the segment's start, and meets there what there is to meet.
    pub(super) fn ask(&mut self, opened: &Opened, ask: Ask) -> Hint {
        let (indexes, index) = (Arc::clone(&self.shared.budgets.indexes), &opened.info.index);
        if let Some(answer) = indexes.ask(index, ask, opened.end.is_some()) {
            return answer;
        }
        if opened.end.is_none() {
            self.complete_index(opened);
            return indexes.ask(index, ask, false).flatten();
        }
        let sealed = indexes.keep(index, self.load_index(opened)?);
        sealed.ask(ask).flatten()
    }

    /// Returns the largest timestamp of a sealed segment, if its index can be had.
    pub(super) fn newest_in(&mut self, opened: &Opened) -> Option<i64> {
        let (indexes, index) = (Arc::clone(&self.shared.budgets.indexes), &opened.info.index);
        if let Some(known) = indexes.known_max_ms(index) {
            return Some(known);
        }
        let sealed = indexes.keep(index, self.load_index(opened)?);
        sealed.newest_ms()
    }

    /// Makes whole the index of a segment that this life began to write on in its middle.
    fn complete_index(&mut self, opened: &Opened) {
        let index = &opened.info.index;
        let written = self.shared.marks().written;
        let end = index.begins_at().unwrap_or(written);
        let epochs = Arc::clone(&self.epochs);
        let segment = SealedSegment {
            directory: Path::new(""),
            file: opened.file,
            base: opened.info.base,
            end,
            salt: opened.salt,
            rule: opened.rule,
            epochs: &epochs,
        };
        if let Ok(Some(before)) = indexes::walk(&mut self.io, &segment, end) {
            index.grow(|growing| growing.prepend(&before, end.0));
        }
    }

    fn load_index(&mut self, opened: &Opened) -> Option<SealedIndex> {
        let (directory, epochs) = (self.directory.clone(), Arc::clone(&self.epochs));
        let segment = SealedSegment {
            directory: &directory,
            file: opened.file,
            base: opened.info.base,
            end: opened.end?,
            salt: opened.salt,
            rule: opened.rule,
            epochs: &epochs,
        };
        if let Some(loaded) = indexes::load(&mut self.io, &segment) {
            return Some(loaded);
        }
        let bytes = indexes::rebuild(&mut self.io, &segment).ok()??;
        if self.may_save(opened) {
            let saved = indexes::save(&mut self.io, &directory, segment.base, &bytes);
            if !self.may_save(opened) {
                // Trimmed or cut meanwhile: nothing shall be left of it. What is, no segment
                // believes.
                indexes::remove(&mut self.io, &directory, segment.base);
            } else if saved.is_ok()
                && let Some(loaded) = indexes::load(&mut self.io, &segment)
            {
                return Some(loaded);
            }
        }
        indexes::of_bytes(segment.base, bytes)
    }

    /// Whether the log is open for writing, by us, and still has this segment.
    fn may_save(&self, opened: &Opened) -> bool {
        let published = self.shared.lock();
        let mut segments = published.segments.iter();
        published.failure.is_none()
            && published.generation == self.generation
            && !self.shared.lookout.has_ended()
            && segments.any(|info| Arc::ptr_eq(&info.index, &opened.info.index))
    }

    /// Begins anew at the segment's start: the index led nowhere, or behind a cut (D8).
    pub(super) fn forget_hints(&mut self) -> Result<()> {
        let Some(base) = self.walker.as_ref().map(|walk| walk.base) else { return Ok(()) };
        self.drop_walker()?;
        self.without_hints = Some(base);
        let index = self.segment(base)?.index;
        index.grow(SparseIndex::clear);
        Ok(())
    }
}
