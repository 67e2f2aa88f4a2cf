//! Following a log from another process.
//!
//! Nothing tells an outsider that a log has grown, so it looks: at `log.meta`, at the directory and
//! at the place where it stands. Between two looks it waits in its [`Io`], from 1 ms when something
//! was just there up to 100 ms: a bounded, small cost on any file system. Being notified of each
//! write (`inotify(7)`) would add work to every write of the log, and does not see writes of other
//! machines.
//!
//! What stops a walk at the end of the newest segment is no damage until `log.meta` proves that
//! there was more; then it is looked into as ever.

use std::time::Duration;

use highwater_io::{Io, Wait};
use highwater_segment::recovery::MetaCase;
use highwater_segment::{Offset, Position};

use super::{OutsideReader, Walk};
use crate::error::{Error, ErrorKind, Result};
use crate::inspect::LogView;
use crate::inspect::tail::find_tail;
use crate::marks::Isolation;
use crate::reader::ReadBatch;

/// The first wait for more, after something was there.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// The longest wait between two looks.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// The state of a reader that goes on.
#[derive(Debug)]
pub(super) struct Following {
    /// It has found nothing more: the next look begins with the log's files.
    paused: bool,
    /// The wait before the next look.
    wait: Duration,
    durable: bool,
    /// Where the walk stood that was given up for a new generation: segment, offset, position.
    left: Option<(Offset, Offset, Position)>,
}

impl<I: Io> OutsideReader<I> {
    /// Returns a reader that goes on: its [`None`] means that there is nothing more *for now*, and
    /// asking again looks anew. After a restart of the writer it goes on if nothing that was read
    /// is gone, and ends with [`ErrorKind::Trimmed`] if it is.
    ///
    /// `isolation` is the one it was opened with.
    #[must_use]
    pub fn follow(mut self, isolation: Isolation) -> Self {
        let durable = isolation == Isolation::Durable;
        // A log that was never finished is looked for as well.
        let paused = std::mem::take(&mut self.done);
        self.following = Some(Following { paused, wait: WAIT_MIN, durable, left: None });
        self
    }

    /// Returns the next batch, waiting for it at most for `timeout`; [`None`] if none has come.
    ///
    /// *Blocking*: until then. It looks for more every 1 to 100 ms.
    ///
    /// # Errors
    /// As the iterator, which ends with them.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<ReadBatch>> {
        let deadline = self.io.io().now().plus(timeout);
        loop {
            if let Some(batch) = self.next() {
                return batch.map(Some);
            }
            let left = deadline.since(self.io.io().now());
            let Some(following) = &mut self.following else { return Ok(None) };
            if left.is_zero() || self.done {
                return Ok(None);
            }
            let wait = following.wait.min(left);
            following.wait = (following.wait * 2).min(WAIT_MAX);
            // Nothing is in flight: this only waits.
            self.io.io().poll(Wait::AtMost(wait), &mut Vec::new());
        }
    }

    /// Stops for now: the walk goes on from here when there is more.
    pub(super) fn pause(&mut self, walk: Walk) -> Result<Option<ReadBatch>> {
        match &mut self.following {
            Some(following) => {
                following.paused = true;
                self.walk = Some(walk);
            }
            None => walk.walker.close(&mut self.io)?,
        }
        Ok(None)
    }

    /// Whether what stopped the walk is the end as far as a follower knows: the newest segment, and
    /// `log.meta` knows of nothing behind it.
    pub(super) fn is_end_so_far(&self, walk: &Walk) -> Result<bool> {
        if self.following.is_none() || self.view.successor(walk.base).is_some() {
            return Ok(false);
        }
        let mark = self.view.meta()?.flushed;
        let chain = walk.walker.chain();
        let short = mark.segment == walk.base && chain.position() < mark.position;
        Ok(mark.offset <= chain.next_offset() && !short)
    }

    /// Returns where a walk of a follower was given up, if it was in this segment and nothing has
    /// moved since.
    pub(super) fn left_at(&mut self, base: Offset) -> Option<(Offset, Position)> {
        let left = self.following.as_mut()?.left.take()?;
        let (segment, offset, position) = left;
        (segment == base && offset == self.next).then_some((offset, position))
    }

    /// Begins a new look of a follower that has paused: first at the log's files, then, by the walk
    /// that goes on, at its place.
    pub(super) fn look_for_more(&mut self) -> Result<()> {
        let Some(following) = &mut self.following else { return Ok(()) };
        if !std::mem::take(&mut following.paused) {
            following.wait = WAIT_MIN;
            return Ok(());
        }
        let now = LogView::load(&mut self.io, &self.root, &self.view.name)?;
        if now.case == MetaCase::M1NeverCreated {
            following.paused = true;
            return Ok(());
        }
        if self.view.case == MetaCase::M1NeverCreated {
            self.view = now;
            return self.raise_limit();
        }
        let (before, meta) = (self.view.meta()?.generation, now.meta()?);
        if meta.generation != before {
            self.leave_walk()?;
            self.look_anew()?;
            return self.raise_limit();
        }
        if self.next < meta.log_start {
            let kind = ErrorKind::Trimmed { log_start: meta.log_start };
            return Err(Error::new(kind, "read log", &self.view.name)
                .detail(format!("offset {} is below the log's start by now", self.next))
                .remedy("read again from the log's start"));
        }
        self.view = now;
        if let Some(walk) = &mut self.walk {
            walk.walker.forget();
        }
        self.raise_limit()
    }

    /// Gives up a walk whose rules no longer hold, but not its place.
    fn leave_walk(&mut self) -> Result<()> {
        let Some(walk) = self.walk.take() else { return Ok(()) };
        let chain = walk.walker.chain();
        let left = (walk.base, chain.next_offset(), chain.position());
        walk.walker.close(&mut self.io)?;
        if let Some(following) = &mut self.following {
            following.left = Some(left);
        }
        Ok(())
    }

    /// A follower of what is durable goes up to the highest mark on the media: that of `log.meta`,
    /// or of a batch between here and the end.
    fn raise_limit(&mut self) -> Result<()> {
        if !self.following.as_ref().is_some_and(|following| following.durable) {
            return Ok(());
        }
        let mut proven = self.view.meta()?.flushed.offset;
        match &self.walk {
            Some(walk) => {
                let mut ahead = walk.walker.fresh();
                while ahead.step(&mut self.io).is_ok() {}
                proven = proven.max(ahead.chain().proven());
            }
            None => {
                let tail = find_tail(&mut self.io, &self.root, &self.view.name)?;
                proven = proven.max(tail.proven);
            }
        }
        self.limit = Some(self.limit.map_or(proven, |limit| limit.max(proven)));
        Ok(())
    }
}
