//! The bounded queue from handles to the shard thread.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use highwater_io::{Wait, Waker};

use crate::core::{DetachReason, DetachedLog, queued_bytes};
use crate::metrics::EngineMetrics;
use crate::shard::{Command, LogIndex};

/// What travels to the shard thread.
#[derive(Debug)]
pub(crate) enum Message {
    Command(Command),
    Detach {
        log: LogIndex,
        reason: DetachReason,
        reply: SyncSender<DetachedLog>,
    },
    /// A detached log does not come back.
    Forget {
        log: LogIndex,
    },
    /// Asks for what was counted so far.
    Metrics {
        reply: SyncSender<EngineMetrics>,
    },
    Stop,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    /// Bytes of batches in the queue and, not yet copied, in the shard.
    bytes: usize,
    sleeping: bool,
    stopped: bool,
}

/// Why a message was not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    Full(Command),
    Stopped(Command),
}

/// The queue; bounded in messages and in bytes.
#[derive(Debug)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    room: Condvar,
    waker: OnceLock<Waker>,
    batches_max: usize,
    bytes_max: usize,
}

impl Mailbox {
    pub(crate) fn new(batches_max: usize, bytes_max: usize) -> Self {
        Mailbox {
            state: Mutex::default(),
            room: Condvar::new(),
            waker: OnceLock::new(),
            batches_max,
            bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_waker(&self, waker: Waker) {
        // The shard thread is the only one that sets it, once.
        assert!(self.waker.set(waker).is_ok(), "one shard, one waker");
    }

    /// Queues a command; with `wait` until there is room.
    pub(crate) fn push(&self, command: Command, wait: bool) -> Result<(), Refused> {
        let bytes = match &command {
            Command::Append { batch, .. } => queued_bytes(Some(batch)),
            Command::Flush { .. } => queued_bytes(None),
            _ => 0,
        };
        let mut state = self.lock();
        loop {
            if state.stopped {
                return Err(Refused::Stopped(command));
            }
            // A batch larger than the whole budget goes alone.
            let fits = state.bytes == 0 || state.bytes + bytes <= self.bytes_max;
            if state.messages.len() < self.batches_max && fits {
                break;
            }
            if !wait {
                return Err(Refused::Full(command));
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes += bytes;
        state.messages.push_back(Message::Command(command));
        self.wake_if_sleeping(state);
        Ok(())
    }

    /// Queues what is not an append: at most a few at a time, one for each caller that waits for
    /// its answer. Returns whether the shard still runs.
    pub(crate) fn push_control(&self, message: Message) -> bool {
        let mut state = self.lock();
        if state.stopped {
            return false;
        }
        state.messages.push_back(message);
        self.wake_if_sleeping(state);
        true
    }

    fn wake_if_sleeping(&self, mut state: MutexGuard<'_, State>) {
        // The shard says that it sleeps before it polls; a waker used earlier ends the next poll.
        let wake = std::mem::take(&mut state.sleeping);
        drop(state);
        if let (true, Some(waker)) = (wake, self.waker.get()) {
            waker.wake();
        }
    }

    /// Returns what is queued; with nothing queued the shard may sleep until it is woken.
    pub(crate) fn take(&self) -> (VecDeque<Message>, Wait) {
        let mut state = self.lock();
        if state.messages.is_empty() {
            state.sleeping = true;
            return (VecDeque::new(), Wait::Forever);
        }
        state.sleeping = false;
        let messages = std::mem::take(&mut state.messages);
        drop(state);
        self.room.notify_all();
        (messages, Wait::No)
    }

    /// Gives back the bytes of batches that were copied or refused.
    pub(crate) fn release(&self, bytes: usize) {
        if bytes > 0 {
            let mut state = self.lock();
            assert!(state.bytes >= bytes, "no more is released than was taken");
            state.bytes -= bytes;
            drop(state);
            self.room.notify_all();
        }
    }

    /// Refuses everything from now on; returns what was still queued.
    pub(crate) fn stop(&self) -> VecDeque<Message> {
        let mut state = self.lock();
        state.stopped = true;
        let left = std::mem::take(&mut state.messages);
        drop(state);
        self.room.notify_all();
        left
    }
}
