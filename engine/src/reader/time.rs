//! Finding a place by time.

use highwater_io::Io;
use highwater_segment::Offset;

use super::{ReadBatch, Reader};
use crate::error::{ErrorKind, Result};
use crate::indexes::Ask;

/// How often a lookup begins anew because the log's start moved under it.
const ATTEMPTS: usize = 32;

/// Returns the first record of a batch that is not older than `timestamp_ms`.
pub(crate) fn first_at(batch: &ReadBatch, timestamp_ms: i64) -> Option<Offset> {
    if batch.header().max_timestamp_ms < timestamp_ms {
        return None;
    }
    let mut records = batch.records().filter_map(std::result::Result::ok);
    records.find(|record| record.timestamp_ms >= timestamp_ms).map(|record| record.offset)
}

impl<I: Io> Reader<I> {
    /// Moves to the first record with a timestamp of `timestamp_ms` or later and returns its
    /// offset; [`None`] if there is none below the mark: the reader is there then, and reads what
    /// comes. Timestamps need not rise along a log: what follows can be older again.
    ///
    /// # Errors
    /// As reading; damage on the way is an error, as it may hold the record.
    pub fn seek_time(&mut self, timestamp_ms: i64) -> Result<Option<Offset>> {
        let mut attempts = 0;
        loop {
            let log_start = self.shared.marks().log_start;
            self.seek(log_start)?;
            match self.look_for_time(timestamp_ms) {
                // The oldest segments went meanwhile.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Trimmed { .. }) && attempts < ATTEMPTS =>
                {
                    attempts += 1;
                }
                found => return found,
            }
        }
    }

    fn look_for_time(&mut self, timestamp_ms: i64) -> Result<Option<Offset>> {
        while self.look_at_log()?.is_some() {
            let Some(opened) = self.open_segment()? else { continue };
            let end = opened.end;
            let start = match end.and_then(|end| Some((end, self.newest_in(&opened)?))) {
                Some((end, newest)) if newest < timestamp_ms => {
                    // All of it is older.
                    self.io.close(opened.file)?;
                    self.next = end;
                    continue;
                }
                _ => self.ask(&opened, Ask::TimestampMs(timestamp_ms)),
            };
            self.io.close(opened.file)?;
            self.next = start.map_or(self.next, |(offset, _)| self.next.max(offset));
            // To the end of this segment; the next one has an index of its own.
            while let Some(batch) = self.next_batch()? {
                if let Some(found) = first_at(&batch, timestamp_ms) {
                    self.seek(found)?;
                    return Ok(Some(found));
                }
                if end.is_some_and(|end| self.next >= end) {
                    break;
                }
            }
            self.drop_walker()?;
        }
        Ok(None)
    }
}
