//! Following a log inside its process: a reader that waits where the marks are told.

use std::time::Duration;

use highwater_io::Io;
use highwater_io::clock::monotonic_now;
use highwater_io::uring::ReaderIo;
use highwater_segment::Offset;

use super::{ReadBatch, Reader};
use crate::error::{Error, Result};
use crate::watch::Awaited;

/// Reads a log's batches in order and waits for those to come.
///
/// It never holds the log back: one that is slower than retention gets
/// [`Trimmed`](crate::ErrorKind::Trimmed), one that has read what a truncation took, too. An error
/// stays until [`seek`](Self::seek).
///
/// With the feature `stream` it is a `Stream` for any executor: a batch that is there is read on
/// the polling thread, by blocking reads if it is not in memory any more.
#[derive(Debug)]
pub struct Follower<I: Io = ReaderIo> {
    reader: Reader<I>,
    failure: Option<Error>,
    /// The stream has told its last item.
    ended: bool,
}

impl<I: Io> Follower<I> {
    pub(crate) fn new(reader: Reader<I>) -> Self {
        Follower { reader, failure: None, ended: false }
    }

    /// Returns the next batch if it is there: below the mark of the isolation.
    ///
    /// *Blocking*: while it is read, if it is not in memory.
    ///
    /// # Errors
    /// As [`Reader`]: [`Trimmed`](crate::ErrorKind::Trimmed),
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Io`](crate::ErrorKind::Io).
    pub fn poll(&mut self) -> Result<Option<ReadBatch>> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        match self.reader.next().transpose() {
            // A damaged range that is known is told once, and read over by the next call.
            Err(error) if self.reader.failed => {
                self.failure = Some(error.clone());
                Err(error)
            }
            other => other,
        }
    }

    /// Returns the next batch, and waits for it if it is not there yet.
    ///
    /// *Blocking*: until then, at most for `timeout` if there is one.
    ///
    /// # Errors
    /// [`Timeout`](crate::ErrorKind::Timeout); as [`poll`](Self::poll); the log's failure, or
    /// [`Closed`](crate::ErrorKind::Closed), when nothing more will come - unless it is reopened.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<ReadBatch> {
        let deadline = timeout.map(|timeout| monotonic_now().plus(timeout));
        loop {
            if let Some(batch) = self.poll()? {
                return Ok(batch);
            }
            let left = deadline.map(|deadline| deadline.since(monotonic_now()));
            self.reader.shared.wait_for(&self.awaited(), left)?;
        }
    }

    fn awaited(&self) -> Awaited {
        let Reader { next, isolation, generation, .. } = self.reader;
        Awaited { next, isolation, generation }
    }

    /// Moves to `offset`, also after an error.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn seek(&mut self, offset: Offset) -> Result<()> {
        (self.failure, self.ended) = (None, false);
        self.reader.seek(offset)
    }

    /// Returns the offset behind what was read last.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.reader.next
    }
}

#[cfg(feature = "stream")]
mod stream {
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use futures_core::Stream;

    use super::{Follower, Io, ReadBatch, Result};
    use crate::error::ErrorKind;

    /// Ends after an error, and when the log is closed.
    impl<I: Io + Unpin> Stream for Follower<I> {
        type Item = Result<ReadBatch>;

        fn poll_next(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Self::Item>> {
            if self.ended {
                return Poll::Ready(None);
            }
            loop {
                if let Some(item) = self.poll().transpose() {
                    self.ended = self.failure.is_some();
                    return Poll::Ready(Some(item));
                }
                let more = ready!(self.reader.shared.poll_for(&self.awaited(), context));
                if let Err(error) = more {
                    self.ended = true;
                    let closed = *error.kind() == ErrorKind::Closed;
                    return Poll::Ready((!closed).then_some(Err(error)));
                }
            }
        }
    }
}
