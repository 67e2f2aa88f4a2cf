//! Reading a log's records from another process.

mod follow;
mod time;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_io::uring::ReaderIo;
use highwater_io::{Blocking, FileId, Io};
use highwater_segment::meta::Mark;
use highwater_segment::recovery::{HeaderFact, MetaCase};
use highwater_segment::scan::Chain;
use highwater_segment::{Epoch, FIRST_BATCH, Offset, Salt};

use self::follow::Following;
use super::tail::{Meaning, damage_error, find_tail, is_not_found, meaning_of};
use super::{LogView, check_root};
use crate::error::{Error, ErrorKind, Result};
use crate::indexes::{self, Ask, SealedIndex, SealedSegment};
use crate::leases::Leases;
use crate::marks::Isolation;
use crate::reader::ReadBatch;
use crate::shared::generation_rule;
use crate::walker::{WalkError, Walked, Walker, file_evidence};

/// Reads a log's batches in order from outside its process, up to the end of what verifies (or,
/// with [`Isolation::Durable`], of what is proven to be flushed). Ends with an error where damage
/// stops it, never silently short.
#[derive(Debug)]
pub struct OutsideReader<I: Io = ReaderIo> {
    io: Blocking<I>,
    root: PathBuf,
    view: LogView,
    from: Offset,
    next: Offset,
    limit: Option<Offset>,
    /// The newest segment there was at the last look: what a writer begins behind it is not
    /// waited for.
    newest: Option<Offset>,
    walk: Option<Walk>,
    done: bool,
    /// Set for a reader that goes on when more is there.
    following: Option<Following>,
    leases: Arc<Leases>,
}

#[derive(Debug)]
struct Walk {
    walker: Walker,
    base: Offset,
    by_hint: bool,
}

impl OutsideReader {
    /// Opens the log for reading from `from` on.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if there is no such directory or log, [`ErrorKind::Config`] for a foreign
    /// directory or a bad name, [`ErrorKind::Corrupt`] if `log.meta` is lost,
    /// [`ErrorKind::Trimmed`] below the log's start.
    pub fn open(dir: &Path, log: &str, from: Offset, isolation: Isolation) -> Result<Self> {
        OutsideReader::open_with(ReaderIo::new(), dir, log, from, isolation)
    }

    /// Opens the log for reading from its start on, wherever that is.
    ///
    /// # Errors
    /// As [`open`](OutsideReader::open).
    pub fn open_at_start(dir: &Path, log: &str, isolation: Isolation) -> Result<Self> {
        OutsideReader::open_from(ReaderIo::new(), (dir, log), None, isolation)
    }

    /// Opens the log for reading from the first record with a timestamp of `timestamp_ms`
    /// (milliseconds since 1970) or later. If there is none yet, reads what comes behind the end.
    /// Timestamps need not rise along a log: what follows the first can be older.
    ///
    /// # Errors
    /// As [`open`](OutsideReader::open); [`ErrorKind::Corrupt`] for damage on the way, which may
    /// hold the record.
    pub fn open_at_time(
        dir: &Path,
        log: &str,
        timestamp_ms: i64,
        isolation: Isolation,
    ) -> Result<Self> {
        let mut reader = OutsideReader::open_at_start(dir, log, isolation)?;
        reader.seek_time(timestamp_ms)?;
        Ok(reader)
    }
}

impl<I: Io> OutsideReader<I> {
    /// As [`open`](OutsideReader::open), on a given [`Io`].
    ///
    /// # Errors
    /// As there.
    pub fn open_with(
        io: I,
        dir: &Path,
        log: &str,
        from: Offset,
        isolation: Isolation,
    ) -> Result<Self> {
        Self::open_from(io, (dir, log), Some(from), isolation)
    }

    /// Opens the log for reading from an offset, or from its start.
    fn open_from(
        io: I,
        (dir, log): (&Path, &str),
        from: Option<Offset>,
        isolation: Isolation,
    ) -> Result<Self> {
        let mut io = Blocking::new(io);
        check_root(&mut io, dir)?;
        let view = LogView::load(&mut io, dir, log)?;
        // A log whose making a kill cut short holds nothing yet.
        let never_made = view.case == MetaCase::M1NeverCreated;
        let log_start = if never_made { Offset(0) } else { view.meta()?.log_start };
        let from = from.unwrap_or(log_start);
        if from < log_start {
            return Err(Error::new(ErrorKind::Trimmed { log_start }, "read log", log)
                .detail(format!("offset {from} is below the log's start {log_start}")));
        }
        let limit = match isolation {
            Isolation::Durable if never_made => None,
            Isolation::Durable => Some(find_tail(&mut io, dir, log)?.proven),
            Isolation::Written | Isolation::Committed => None,
        };
        Ok(OutsideReader {
            io,
            root: dir.to_owned(),
            newest: view.bases.last().copied(),
            view,
            from,
            next: from,
            limit,
            walk: None,
            done: never_made,
            following: None,
            leases: Arc::default(),
        })
    }

    fn next_batch(&mut self) -> Result<Option<ReadBatch>> {
        self.look_for_more()?;
        if self.view.case == MetaCase::M1NeverCreated {
            return Ok(None);
        }
        loop {
            let Some(mut walk) = self.take_walk()? else { return Ok(None) };
            let reached = walk.walker.chain().next_offset();
            if self.limit.is_some_and(|limit| reached >= limit) {
                return self.pause(walk);
            }
            if self.view.successor(walk.base).is_some_and(|base| reached >= base) {
                self.next = self.next.max(reached);
                walk.walker.close(&mut self.io)?;
                let newest = self.newest.filter(|_| self.following.is_none());
                if newest.is_some_and(|newest| walk.base >= newest) {
                    return Ok(None);
                }
                continue;
            }
            match walk.walker.step(&mut self.io) {
                Ok(Walked::Padding) => self.walk = Some(walk),
                Ok(Walked::Batch { header, records }) => {
                    let wanted = self.from.max(self.next);
                    let batch = (header.end_offset() > wanted)
                        .then(|| ReadBatch::new(header, walk.walker.take(&records), wanted));
                    self.next = self.next.max(header.end_offset());
                    // Whatever hinted at this place was right.
                    walk.by_hint = false;
                    self.walk = Some(walk);
                    if batch.is_some() {
                        return Ok(batch);
                    }
                }
                Err(WalkError::Io(error)) => return Err(error.into()),
                Err(WalkError::Stop(_)) if walk.by_hint => {
                    // The index is only a hint: the segment's own start is the truth.
                    walk.walker.close(&mut self.io)?;
                    self.walk = self.start(walk.base, false)?;
                }
                Err(WalkError::Stop(_)) if self.is_end_so_far(&walk)? => return self.pause(walk),
                Err(WalkError::Stop(stop)) => {
                    let meaning = meaning_of(
                        &mut self.io,
                        &self.root,
                        &mut self.view,
                        &mut walk.walker,
                        walk.base,
                        stop,
                    )?;
                    let chain = walk.walker.chain();
                    let end = Mark {
                        offset: chain.next_offset(),
                        segment: walk.base,
                        position: chain.position(),
                    };
                    match meaning {
                        None => self.walk = Some(walk),
                        Some(Meaning::Changed) => {
                            walk.walker.close(&mut self.io)?;
                            self.look_anew()?;
                        }
                        Some(Meaning::End { .. }) => return self.pause(walk),
                        Some(Meaning::Damage { until }) => {
                            return Err(damage_error(&self.view, &end, until, &stop));
                        }
                    }
                }
            }
        }
    }

    /// Returns the walk to go on with; `None` at the log's end.
    fn take_walk(&mut self) -> Result<Option<Walk>> {
        if let Some(walk) = self.walk.take() {
            return Ok(Some(walk));
        }
        let Some(base) = self.view.bases.iter().copied().rfind(|base| *base <= self.next) else {
            let mark = self.view.meta()?.flushed.offset;
            if mark <= self.next {
                return Ok(None);
            }
            let range = self.next..self.view.bases.first().copied().unwrap_or(mark);
            return Err(Error::new(ErrorKind::Corrupt { range }, "read log", &self.view.name)
                .detail(format!("no segment holds offset {} (case T4)", self.next))
                .remedy("restore the segment from a copy"));
        };
        match self.start(base, self.next > base) {
            // Trimmed or cut off between the two looks.
            Err(error) if is_not_found(&error) && self.is_outdated(base)? => {
                self.look_anew()?;
                self.take_walk()
            }
            other => other,
        }
    }

    /// Returns whether the log no longer has the segment that `base` begins.
    fn is_outdated(&mut self, base: Offset) -> Result<bool> {
        let now = LogView::load(&mut self.io, &self.root, &self.view.name)?;
        Ok(!now.bases.contains(&base))
    }

    /// The log was truncated or reopened: go on only if nothing that was read is gone.
    fn look_anew(&mut self) -> Result<()> {
        let before = self.view.meta()?.epoch;
        self.view = LogView::load(&mut self.io, &self.root, &self.view.name)?;
        self.newest = self.view.bases.last().copied();
        let meta = self.view.meta()?;
        let log_start = meta.log_start;
        if self.next < log_start {
            let kind = ErrorKind::Trimmed { log_start };
            return Err(Error::new(kind, "read log", &self.view.name)
                .detail(format!("offset {} is below the log's start by now", self.next))
                .remedy("read again from the log's start"));
        }
        // Every opening and every truncation begins an epoch at its cut.
        let newer = meta.epochs.iter().filter(|start| start.epoch > before);
        let cut = newer.map(|start| start.start).min().unwrap_or(Offset::MAX);
        if self.next > cut && self.next > self.from {
            let kind = ErrorKind::Trimmed { log_start: meta.log_start };
            return Err(Error::new(kind, "read log", &self.view.name)
                .detail(format!(
                    "what was read up to offset {} was removed from {cut} on meanwhile",
                    self.next
                ))
                .remedy("read again"));
        }
        Ok(())
    }

    /// Begins to walk in a segment: at the place its index knows, or at its start.
    fn start(&mut self, base: Offset, by_index: bool) -> Result<Option<Walk>> {
        let (file, fact, salt) = self.view.open_segment(&mut self.io, base)?;
        let meta = self.view.meta()?;
        let (Some(salt), HeaderFact::Good) = (salt, fact) else {
            let generation = meta.generation;
            let found = file_evidence(&mut self.io, file, FIRST_BATCH, None, generation);
            self.io.close(file)?;
            if self.view.was_being_made(&mut self.io, base)? {
                self.look_anew()?;
                return self.take_walk();
            }
            return self.bad_header(base, found?.proven);
        };
        let (rule, epochs) =
            (generation_rule(meta.generation, &meta.flushed, base), meta.epochs.clone());
        let index = if by_index { self.load_index(base, file, salt)? } else { None };
        let hint = index.and_then(|index| index.ask(Ask::Offset(self.next)).flatten());
        let hint = self.left_at(base).or(hint);
        let (offset, position) = hint.unwrap_or((base, FIRST_BATCH));
        let chain = Chain::new(salt, position, offset, Epoch(0), rule);
        let mut walker = Walker::new(file, chain).with_epochs(epochs);
        if self.view.successor(base).is_some() {
            walker = walker.with_read_ahead(&self.leases);
        }
        Ok(Some(Walk { walker, base, by_hint: hint.is_some() }))
    }

    /// Returns the index of a sealed segment, if there is one that fits. Nothing is rebuilt here,
    /// as nothing could be kept.
    fn load_index(
        &mut self,
        base: Offset,
        file: FileId,
        salt: Salt,
    ) -> Result<Option<SealedIndex>> {
        let Some(end) = self.view.successor(base) else { return Ok(None) };
        let meta = self.view.meta()?;
        let segment = SealedSegment {
            directory: &self.view.directory,
            file,
            base,
            end,
            salt,
            rule: generation_rule(meta.generation, &meta.flushed, base),
            epochs: &meta.epochs,
        };
        Ok(indexes::load(&mut self.io, &segment))
    }

    /// A header that does not verify: damage, unless the segment is just being made.
    fn bad_header(&self, base: Offset, proven: Offset) -> Result<Option<Walk>> {
        let meta = self.view.meta()?;
        let proven = proven.max(meta.flushed.offset);
        if base >= proven && !self.view.was_closed_in(base) {
            return Ok(None);
        }
        let until = self.view.successor(base).unwrap_or(proven).max(base.plus(1));
        let path = self.view.path(base).display().to_string();
        Err(Error::new(ErrorKind::Corrupt { range: base..until }, "read segment", &path)
            .at(0)
            .detail("its header block is damaged (case S5)")
            .remedy("restore the segment from a copy"))
    }
}

impl<I: Io> Iterator for OutsideReader<I> {
    type Item = Result<ReadBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let result = self.next_batch();
        self.done = match &result {
            Ok(Some(_)) => false,
            Ok(None) => self.following.is_none(),
            Err(_) => true,
        };
        result.transpose()
    }
}
