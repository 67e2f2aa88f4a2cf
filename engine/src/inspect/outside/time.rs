//! Finding a place by time from outside.

use highwater_io::Io;
use highwater_segment::Offset;
use highwater_segment::recovery::HeaderFact;

use super::OutsideReader;
use crate::error::Result;
use crate::indexes::Ask;
use crate::inspect::tail::is_not_found;
use crate::reader::first_at;

impl<I: Io> OutsideReader<I> {
    /// Moves on to the first record with a timestamp of `timestamp_ms` or later and returns its
    /// offset; [`None`] at the end, where the reader stands then.
    ///
    /// # Errors
    /// As reading; damage on the way is an error, as it may hold the record.
    pub fn seek_time(&mut self, timestamp_ms: i64) -> Result<Option<Offset>> {
        if self.done {
            return Ok(None);
        }
        loop {
            let base = self.view.bases.iter().copied().rfind(|base| *base <= self.next);
            let end = base.and_then(|base| self.view.successor(base));
            if let (Some(base), Some(end)) = (base, end)
                && let Some(next) = self.skip_older(base, end, timestamp_ms)?
            {
                self.next = self.next.max(next);
                if self.next >= end {
                    continue;
                }
            }
            while let Some(batch) = self.next_batch()? {
                if let Some(found) = first_at(&batch, timestamp_ms) {
                    self.seek(found)?;
                    return Ok(Some(found));
                }
                if end.is_some_and(|end| self.next >= end) {
                    break;
                }
            }
            let at_end = end.is_none_or(|end| self.next < end);
            self.seek(self.next)?;
            if at_end {
                return Ok(None);
            }
        }
    }

    fn seek(&mut self, offset: Offset) -> Result<()> {
        if let Some(walk) = self.walk.take() {
            walk.walker.close(&mut self.io)?;
        }
        (self.from, self.next) = (offset, offset);
        Ok(())
    }

    /// Returns up to where the index of a sealed segment says that all is older.
    fn skip_older(
        &mut self,
        base: Offset,
        end: Offset,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>> {
        let (file, fact, salt) = match self.view.open_segment(&mut self.io, base) {
            Ok(opened) => opened,
            // Gone meanwhile: the walk sees to that.
            Err(error) if is_not_found(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let index = match (fact, salt) {
            (HeaderFact::Good, Some(salt)) => self.load_index(base, file, salt),
            _ => Ok(None),
        };
        self.io.close(file)?;
        let Some(index) = index? else { return Ok(None) };
        let newest = index.newest_ms();
        if newest.is_some_and(|newest| newest < timestamp_ms) {
            return Ok(Some(end));
        }
        Ok(index.ask(Ask::TimestampMs(timestamp_ms)).flatten().map(|(offset, _)| offset))
    }
}
