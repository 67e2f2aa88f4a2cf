//! Reading a log from inside its process.
//!
//! A reader walks the files on its own thread with its own [`Io`]; it takes from the shard only
//! the published marks. Every byte it gives out was checked: header, place, generation, offset and
//! records (D7). It never holds anything back: a reader that is too slow for a truncation gets
//! [`ErrorKind::Trimmed`].

mod batch;
mod follow;
mod place;
mod time;

use std::path::PathBuf;
use std::sync::Arc;

use highwater_io::uring::ReaderIo;
use highwater_io::{Blocking, Io};
use highwater_segment::meta::EpochStart;
use highwater_segment::segment::segment_file_name;
use highwater_segment::{Generation, LogId, Offset};

use crate::error::{Error, ErrorKind, Result};
use crate::marks::Isolation;
use crate::shared::{LogShared, SegmentInfo, was_cut_off};
use crate::tail::ReaderPlace;
use crate::walker::{WalkError, Walked, Walker, file_evidence};

pub use batch::ReadBatch;
pub use follow::Follower;
pub(crate) use time::first_at;

/// Reads a log's batches in order. [`None`] means: nothing more below the mark for now; asking
/// again later goes on where it was.
#[derive(Debug)]
pub struct Reader<I: Io = ReaderIo> {
    io: Blocking<I>,
    directory: PathBuf,
    shared: Arc<LogShared>,
    log_id: LogId,
    isolation: Isolation,
    from: Offset,
    next: Offset,
    generation: Generation,
    /// When the epochs of the log began, as of that generation.
    epochs: Arc<[EpochStart]>,
    walker: Option<Walk>,
    /// The segment whose index led nowhere: its file may say the same again.
    without_hints: Option<Offset>,
    failed: bool,
    looked: Option<Look>,
    /// Tells the tail cache what is no longer needed.
    place: Arc<ReaderPlace>,
}

/// A look at what is published, which holds until the next upheaval.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// How many upheavals there were.
    as_of: u64,
    /// Up to where may be read.
    limit: Offset,
    /// Up to where that can be done without another look: a damaged range begins there.
    until: Offset,
}

#[derive(Debug)]
struct Walk {
    walker: Walker,
    base: Offset,
    /// Where the segment ends, if it is sealed, as of so many upheavals.
    end: Option<Offset>,
    as_of: Option<u64>,
    /// Started from an index entry; if that leads nowhere the segment's start is the truth.
    by_hint: bool,
}

impl<I: Io> Reader<I> {
    pub(crate) fn new(
        io: I,
        directory: PathBuf,
        shared: Arc<LogShared>,
        log_id: LogId,
        from: Option<Offset>,
        isolation: Isolation,
    ) -> Result<Self> {
        let (generation, epochs, log_start) = {
            let published = shared.lock();
            (published.generation, Arc::clone(&published.epochs), published.marks.log_start)
        };
        let from = from.unwrap_or(log_start);
        if from < log_start {
            return Err(Error::new(ErrorKind::Trimmed { log_start }, "read log", &shared.name)
                .detail(format!("offset {from} is below the log's start {log_start}")));
        }
        let place = shared.tail.reader_opens(from);
        Ok(Reader {
            io: Blocking::new(io),
            directory,
            shared,
            log_id,
            isolation,
            from,
            next: from,
            generation,
            epochs,
            walker: None,
            without_hints: None,
            failed: false,
            looked: None,
            place,
        })
    }

    /// Moves to `offset`: the next batch is the one that holds it. Below the log's start the next
    /// read says so.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn seek(&mut self, offset: Offset) -> Result<()> {
        self.drop_walker()?;
        self.looked = None;
        (self.from, self.next, self.failed) = (offset, offset, false);
        self.place.moves_to(offset);
        Ok(())
    }

    fn next_batch(&mut self) -> Result<Option<ReadBatch>> {
        let mut looks = 0;
        loop {
            let Some(look) = self.look()? else { return Ok(None) };
            let mut walk = match self.walker.take() {
                Some(walk) => walk,
                None => match self.find_place()? {
                    Some(walk) => walk,
                    None => continue,
                },
            };
            if walk.as_of != Some(look.as_of) {
                (walk.end, walk.as_of) = (self.successor_of(walk.base), Some(look.as_of));
            }
            if walk.end.is_some_and(|end| walk.walker.chain().next_offset() >= end) {
                self.next = self.next.max(walk.walker.chain().next_offset());
                walk.walker.close(&mut self.io)?;
                continue;
            }
            let walk = self.walker.insert(walk);
            match walk.walker.step(&mut self.io) {
                Ok(Walked::Padding) => {}
                Ok(Walked::Batch { header, .. }) if was_cut_off(&self.epochs, &header) => {
                    if walk.by_hint {
                        self.forget_hints()?;
                        continue;
                    }
                    let error = self.missing(&self.shared.lock().segments);
                    return Err(error);
                }
                Ok(Walked::Batch { header, records }) => {
                    let from = self.from.max(self.next);
                    if header.end_offset() <= from {
                        continue;
                    }
                    if header.end_offset() > look.limit {
                        // Only where the log was cut and grew again since the look at its marks.
                        let cut = self.shared.lock().generation != self.generation;
                        assert!(cut, "B6: nothing above the mark is read");
                        self.drop_walker()?;
                        self.looked = None;
                        continue;
                    }
                    self.next = header.end_offset();
                    self.place.moves_to(self.next);
                    return Ok(Some(ReadBatch::new(header, walk.walker.take(&records), from)));
                }
                Err(WalkError::Io(error)) => return Err(error.into()),
                Err(WalkError::Stop(_)) if looks < 2 => {
                    // The window may have been read before these bytes were written; if they are
                    // not in memory either, the media is asked.
                    walk.walker.look_anew(looks > 0);
                    looks += 1;
                }
                Err(WalkError::Stop(_)) if walk.by_hint => {
                    if self.is_overtaken() {
                        self.drop_walker()?;
                        continue;
                    }
                    self.forget_hints()?;
                    looks = 0;
                }
                Err(WalkError::Stop(stop)) => {
                    if self.is_overtaken() {
                        self.drop_walker()?;
                        continue;
                    }
                    let what = stop.describe();
                    return Err(self.corrupt(look.limit, &what)?);
                }
            }
        }
    }

    /// Returns the look at what is published that holds now; `None` if there is nothing more.
    fn look(&mut self) -> Result<Option<Look>> {
        let as_of = self.shared.upheavals();
        if let Some(look) = self.looked
            && look.as_of == as_of
            && self.next < look.until
        {
            return Ok(Some(look));
        }
        let limit = self.look_at_log()?;
        self.looked = limit.map(|limit| {
            let published = self.shared.lock();
            let ranges = published.quarantined.iter().map(|range| range.start);
            let damage = ranges.filter(|start| *start > self.next).min();
            Look { as_of, limit, until: damage.map_or(limit, |start| start.min(limit)) }
        });
        Ok(self.looked)
    }

    /// Looks at the published state; returns up to where may be read, or `None` if there is
    /// nothing more.
    fn look_at_log(&mut self) -> Result<Option<Offset>> {
        let (marks, generation, quarantined, cut) = {
            let published = self.shared.lock();
            let next = self.next;
            let quarantined = published.quarantined.iter().find(|range| range.contains(&next));
            let cut = published.lowest_cut_since(self.generation);
            (published.marks, published.generation, quarantined.cloned(), cut)
        };
        if generation != self.generation {
            // Truncated or reopened: what was read ahead is stale.
            self.generation = generation;
            self.epochs = Arc::clone(&self.shared.lock().epochs);
            self.drop_walker()?;
            let cut = cut.unwrap_or(marks.log_end).min(marks.log_end);
            if self.next > cut {
                let kind = ErrorKind::Trimmed { log_start: marks.log_start };
                return Err(Error::new(kind, "read log", &self.shared.name).detail(format!(
                    "what was read up to offset {} was removed from {cut} on meanwhile",
                    self.next
                )));
            }
        }
        if self.next < marks.log_start {
            self.drop_walker()?;
            let log_start = marks.log_start;
            let kind = ErrorKind::Trimmed { log_start };
            return Err(Error::new(kind, "read log", &self.shared.name).detail(format!(
                "offset {} is below the log's start {log_start} by now",
                self.next
            )));
        }
        if let Some(range) = quarantined {
            self.drop_walker()?;
            self.next = range.end;
            return Err(Error::new(
                ErrorKind::Corrupt { range: range.clone() },
                "read log",
                &self.shared.name,
            )
            .detail(format!("offsets {}..{} are damaged", range.start, range.end))
            .remedy("reading on skips them; restore the segment from a copy"));
        }
        let limit = marks.limit(self.isolation);
        Ok((self.next < limit).then_some(limit))
    }

    /// Returns whether what this reader stands on may be gone: the log was cut or trimmed since the
    /// last look at it. The file of a trimmed segment can already hold newer batches; none of them
    /// has the salt this reader asks for.
    fn is_overtaken(&self) -> bool {
        let published = self.shared.lock();
        published.generation != self.generation || self.next < published.marks.log_start
    }

    fn segment(&self, base: Offset) -> Result<SegmentInfo> {
        let published = self.shared.lock();
        let found = published.segments.iter().find(|info| info.base == base).cloned();
        found.ok_or_else(|| self.missing(&published.segments))
    }

    fn successor_of(&self, base: Offset) -> Option<Offset> {
        let published = self.shared.lock();
        published.segments.iter().map(|info| info.base).find(|other| *other > base)
    }

    /// Returns the error for an offset that no file holds. Its range is never empty, so it ends the
    /// reading: an empty one would pass for a range already skipped, again and again.
    fn missing(&self, segments: &[SegmentInfo]) -> Error {
        let later = segments.iter().map(|info| info.base).find(|base| *base > self.next);
        let end = later.unwrap_or(self.next.plus(1));
        Error::new(ErrorKind::Corrupt { range: self.next..end }, "read log", &self.shared.name)
            .detail(format!("no segment holds offset {} (case T4)", self.next))
            .remedy("restore the segment from a copy")
    }

    fn drop_walker(&mut self) -> Result<()> {
        if let Some(walk) = self.walker.take() {
            walk.walker.close(&mut self.io)?;
        }
        Ok(())
    }

    /// Returns the error for damage in front of the walker.
    fn corrupt(&mut self, limit: Offset, what: &str) -> Result<Error> {
        let Some(walk) = &self.walker else { panic!("damage is met by a walk") };
        let (file, position) = (walk.walker.file(), walk.walker.chain().position());
        let found = file_evidence(&mut self.io, file, position, None, self.generation)?;
        let end = found.resumes.map_or(limit, |(_, offset)| offset).max(self.next.plus(1));
        let path = self.directory.join(segment_file_name(walk.base)).display().to_string();
        let range = self.next..end;
        let detail = format!("offsets {}..{end} do not verify: {what}", self.next);
        Ok(Error::new(ErrorKind::Corrupt { range }, "read segment", &path)
            .at(position.0)
            .detail(detail)
            .remedy("run `highwater verify`; restore the segment from a copy"))
    }
}

impl<I: Io> Drop for Reader<I> {
    fn drop(&mut self) {
        self.shared.tail.reader_closes(&self.place);
    }
}

impl<I: Io> Iterator for Reader<I> {
    type Item = Result<ReadBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = self.next_batch();
        // A damaged range that is known is skipped by the next call; any other error ends it.
        let skips = |error: &Error| match error.kind() {
            ErrorKind::Corrupt { range } => range.end <= self.next,
            _ => false,
        };
        self.failed = result.as_ref().is_err_and(|error| !skips(error));
        result.transpose()
    }
}
