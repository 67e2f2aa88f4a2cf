//! Room in the queue, asked for beforehand: for callers that must not block.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use highwater_segment::RecordBatch;

use crate::ack::Ack;
use crate::engine::stopped;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::mailbox::InLine;
use crate::receipt::Receipt;

/// Room to come in the queue: a future, for any executor. Dropping it leaves the line.
#[derive(Debug)]
#[must_use = "a future does nothing unless polled"]
pub struct Reserve {
    log: Log,
    bytes: usize,
    place: Option<Arc<InLine>>,
}

impl Reserve {
    pub(crate) fn new(log: Log, bytes: usize) -> Self {
        Reserve { log, bytes, place: None }
    }
}

impl Future for Reserve {
    type Output = Result<Permit>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let permit = |this: &Self| Permit { log: Some(this.log.clone()), bytes: this.bytes };
        if self.place.is_none() {
            match self.log.mailbox().reserve(self.log.number(), self.bytes) {
                None => return Poll::Ready(Err(stopped("reserve room"))),
                Some(Ok(())) => return Poll::Ready(Ok(permit(&self))),
                Some(Err(place)) => self.place = Some(place),
            }
        }
        let Some(place) = &self.place else { return Poll::Pending };
        match place.poll(context.waker()) {
            Some(false) => Poll::Pending,
            Some(true) => {
                self.place = None;
                Poll::Ready(Ok(permit(&self)))
            }
            None => {
                self.place = None;
                Poll::Ready(Err(stopped("reserve room")))
            }
        }
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.log.mailbox().leave_line(&place);
        }
    }
}

/// Room for one batch in the queue. Dropping it gives the room back.
#[derive(Debug)]
pub struct Permit {
    /// Gone once it was used.
    log: Option<Log>,
    bytes: usize,
}

impl Permit {
    /// Returns how many bytes the batch may take, as [`RecordBatch::disk_bytes`] counts them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a batch; its receipt tells when `ack` is met. Never blocks.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] for a batch larger than the permit; otherwise as
    /// [`Log::append`]. Nothing was appended, and the room is given back.
    ///
    /// # Panics
    /// Never: a permit is used once.
    pub fn append(mut self, batch: RecordBatch, ack: Ack) -> Result<Receipt> {
        let Some(log) = self.log.take() else { panic!("a permit is used once") };
        let bytes = batch.disk_bytes();
        let fits = usize::try_from(bytes).is_ok_and(|bytes| bytes <= self.bytes);
        let checked = if fits {
            log.check(&batch, ack)
        } else {
            Err(Error::new(ErrorKind::TooLarge, "append to log", log.name())
                .detail(format!("a batch of {bytes} bytes with a permit for {}", self.bytes)))
        };
        if let Err(error) = checked {
            self.log = Some(log);
            return Err(error);
        }
        log.append_admitted(batch, ack, self.bytes)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(log) = self.log.take() {
            log.mailbox().give_back(log.number(), self.bytes);
        }
    }
}
