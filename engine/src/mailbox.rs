//! The bounded queue from handles to the shard thread.
//!
//! It is bounded in batches and in bytes. Who finds no room waits in line and is woken when its
//! turn has come and there is room for it, not before; threads and tasks stand in the same line.
//! Who waits for a log that holds its share of the room lets those behind it pass.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker as TaskWaker;

use highwater_io::Waker;

use crate::core::{DetachReason, DetachedLog, queued_bytes};
use crate::doorbell::Doorbell;
use crate::metrics::EngineMetrics;
use crate::number::LogNumber;
use crate::room::{Fit, Released, Room};
use crate::shard::Command;

/// What travels to the shard thread.
#[derive(Debug)]
pub(crate) enum Message {
    Command(Command),
    Detach {
        log: LogNumber,
        reason: DetachReason,
        reply: SyncSender<DetachedLog>,
    },
    /// A detached log could not be opened again.
    RefuseWaiting {
        log: LogNumber,
    },
    /// A detached log is gone for good.
    Forget {
        log: LogNumber,
    },
    /// Asks for what was counted so far.
    Metrics {
        reply: SyncSender<EngineMetrics>,
    },
    Stop,
}

#[derive(Debug)]
struct State {
    messages: VecDeque<Message>,
    /// How many of `messages` have a place: all but the controls.
    queued: usize,
    /// Places taken by what is queued, and by permits; bytes of permits, of batches in the queue
    /// and, not yet copied, in the shard.
    room: Room,
    line: VecDeque<Arc<InLine>>,
    stopped: bool,
}

impl State {
    /// Takes room if there is some and nobody in line could have it.
    fn take_room(&mut self, log: LogNumber, bytes: usize) -> bool {
        let passes = |other: &Arc<InLine>| {
            other.log != log && self.room.fit(other.log, other.bytes) == Fit::ShareTaken
        };
        let taken = self.line.iter().all(passes) && self.room.fit(log, bytes) == Fit::Fits;
        if taken {
            self.room.take(log, bytes);
        }
        taken
    }

    fn stand_in_line(&mut self, log: LogNumber, bytes: usize) -> Arc<InLine> {
        let standing = Mutex::default();
        let place = Arc::new(InLine { log, bytes, standing, changed: Condvar::new() });
        self.line.push_back(Arc::clone(&place));
        place
    }

    /// Admits who stands in line, in order, as far as there is room; they are told without the
    /// lock. Who waits for a log that holds its share keeps the others of that log back, nobody
    /// else.
    fn admit(&mut self) -> Vec<Arc<InLine>> {
        let mut admitted = Vec::new();
        let mut held_back: Vec<LogNumber> = Vec::new();
        let mut index = 0;
        while let Some(next) = self.line.get(index) {
            let (log, bytes) = (next.log, next.bytes);
            let fit = self.room.fit(log, bytes);
            match fit {
                _ if held_back.contains(&log) => index += 1,
                Fit::Fits => {
                    self.room.take(log, bytes);
                    admitted.extend(self.line.remove(index));
                }
                Fit::ShareTaken => {
                    held_back.push(log);
                    index += 1;
                }
                Fit::Full => break,
            }
        }
        admitted
    }
}

/// Why a message was not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    Full(Command),
    Stopped(Command),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Waiting,
    /// There is room, and it is kept for this one.
    Admitted,
    /// The shard has stopped.
    Refused,
}

/// One who waits for room.
#[derive(Debug)]
pub(crate) struct InLine {
    log: LogNumber,
    bytes: usize,
    standing: Mutex<(Standing, Option<TaskWaker>)>,
    changed: Condvar,
}

impl InLine {
    fn lock(&self) -> MutexGuard<'_, (Standing, Option<TaskWaker>)> {
        // Both fields are set by plain assignments.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, standing: Standing) {
        let mut guard = self.lock();
        guard.0 = standing;
        let task = guard.1.take();
        drop(guard);
        match task {
            Some(task) => task.wake(),
            None => self.changed.notify_one(),
        }
    }

    fn wait(&self) -> Standing {
        let guard = self.lock();
        let waiting = |state: &mut (Standing, _)| state.0 == Standing::Waiting;
        let guard = self.changed.wait_while(guard, waiting);
        guard.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Returns whether there is room, `None` if the shard has stopped; until then `task` is woken
    /// when that changes.
    pub(crate) fn poll(&self, task: &TaskWaker) -> Option<bool> {
        let mut guard = self.lock();
        match guard.0 {
            Standing::Admitted => Some(true),
            Standing::Refused => None,
            Standing::Waiting => {
                let before = guard.1.replace(task.clone());
                // It can own another place in this very line, which is left without this lock.
                drop(guard);
                drop(before);
                Some(false)
            }
        }
    }
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    bell: Doorbell,
    waker: OnceLock<Waker>,
}

impl Mailbox {
    pub(crate) fn new(batches_max: usize, bytes_max: usize) -> Self {
        let state = State {
            messages: VecDeque::new(),
            queued: 0,
            room: Room::new(batches_max, bytes_max),
            line: VecDeque::new(),
            stopped: false,
        };
        Mailbox { state: Mutex::new(state), bell: Doorbell::new(), waker: OnceLock::new() }
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
        let (log, bytes) = room_of(&command);
        let mut state = self.lock();
        if state.stopped {
            return Err(Refused::Stopped(command));
        }
        if !state.take_room(log, bytes) {
            if !wait {
                return Err(Refused::Full(command));
            }
            let place = state.stand_in_line(log, bytes);
            drop(state);
            if place.wait() == Standing::Refused {
                return Err(Refused::Stopped(command));
            }
            return self.push_admitted(command, bytes);
        }
        state.messages.push_back(Message::Command(command));
        state.queued += 1;
        drop(state);
        self.ring();
        Ok(())
    }

    /// Queues a command that has its room: `bytes` of it, of which it may use fewer.
    pub(crate) fn push_admitted(&self, command: Command, bytes: usize) -> Result<(), Refused> {
        let (log, used) = room_of(&command);
        let spare = bytes.checked_sub(used);
        let Some(spare) = spare else { panic!("a permit holds what is sent with it") };
        let mut state = self.lock();
        if state.stopped {
            return Err(Refused::Stopped(command));
        }
        state.messages.push_back(Message::Command(command));
        state.queued += 1;
        state.room.give_back_bytes(log, spare);
        let admitted = if spare > 0 { state.admit() } else { Vec::new() };
        drop(state);
        tell_all(&admitted, Standing::Admitted);
        self.ring();
        Ok(())
    }

    /// Takes room, or a place in line for it.
    pub(crate) fn reserve(&self, log: LogNumber, bytes: usize) -> Option<Result<(), Arc<InLine>>> {
        let mut state = self.lock();
        if state.stopped {
            return None;
        }
        let taken = state.take_room(log, bytes);
        Some(if taken { Ok(()) } else { Err(state.stand_in_line(log, bytes)) })
    }

    /// Leaves the line, giving back the room if there was some already.
    pub(crate) fn leave_line(&self, place: &Arc<InLine>) {
        let mut state = self.lock();
        let before = state.line.len();
        state.line.retain(|other| !Arc::ptr_eq(other, place));
        let waited = state.line.len() < before;
        let stopped = state.stopped;
        if waited {
            // Who stood behind may be smaller.
            let admitted = state.admit();
            drop(state);
            tell_all(&admitted, Standing::Admitted);
        } else if !stopped {
            // Not in the line of a queue that goes on: it was admitted, told of it yet or not.
            drop(state);
            self.give_back(place.log, place.bytes);
        }
    }

    /// Gives back the room of a permit that was not used.
    pub(crate) fn give_back(&self, log: LogNumber, bytes: usize) {
        let mut state = self.lock();
        state.room.give_back_places(1);
        state.room.give_back_bytes(log, bytes);
        let admitted = state.admit();
        drop(state);
        tell_all(&admitted, Standing::Admitted);
    }

    /// Queues what is not an append: at most a few for each log, and one for each caller that
    /// waits for its answer. Returns whether the shard still runs.
    pub(crate) fn push_control(&self, message: Message) -> bool {
        let mut state = self.lock();
        if state.stopped {
            return false;
        }
        state.messages.push_back(message);
        drop(state);
        self.ring();
        true
    }

    fn ring(&self) {
        if self.bell.must_ring()
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
    }

    /// Gives back the bytes of batches that were copied or refused, and moves what is queued to
    /// `into`, which is empty.
    pub(crate) fn exchange(&self, released: &mut Released, into: &mut VecDeque<Message>) {
        assert!(into.is_empty(), "what was taken before is dealt with");
        let mut state = self.lock();
        let more_room = !released.is_empty() || state.queued > 0;
        for (log, bytes) in released.drain() {
            state.room.give_back_bytes(log, bytes);
        }
        std::mem::swap(&mut state.messages, into);
        let queued = std::mem::take(&mut state.queued);
        state.room.give_back_places(queued);
        let admitted = if more_room { state.admit() } else { Vec::new() };
        drop(state);
        tell_all(&admitted, Standing::Admitted);
    }

    /// Returns whether the shard may sleep: nothing is queued, and who queues something wakes it.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.bell.fall_asleep(|| self.lock().messages.is_empty())
    }

    /// Says that the shard is awake: nobody needs to wake it.
    pub(crate) fn wake_up(&self) {
        self.bell.wake_up();
    }

    /// Refuses everything from now on; returns what was still queued.
    pub(crate) fn stop(&self) -> VecDeque<Message> {
        let mut state = self.lock();
        state.stopped = true;
        let left = std::mem::take(&mut state.messages);
        let line: Vec<_> = state.line.drain(..).collect();
        drop(state);
        tell_all(&line, Standing::Refused);
        left
    }
}

/// Returns the log that a command takes room for, and how many bytes.
fn room_of(command: &Command) -> (LogNumber, usize) {
    match command {
        Command::Append { log, batch, .. } => (*log, queued_bytes(Some(batch))),
        Command::Flush { log, .. } => (*log, queued_bytes(None)),
        other => panic!("{other:?} is a control, which takes no room"),
    }
}

fn tell_all(line: &[Arc<InLine>], standing: Standing) {
    for place in line {
        place.tell(standing);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::number::LogNumbers;

    /// Notes, when it is dropped, whether the place was locked.
    struct Looks(Arc<InLine>, Arc<AtomicBool>);

    impl Wake for Looks {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Looks {
        fn drop(&mut self) {
            self.1.store(self.0.standing.try_lock().is_err(), Ordering::SeqCst);
        }
    }

    #[test]
    fn a_task_is_dropped_without_the_lock_when_another_takes_its_place() {
        let (mailbox, log) = (Mailbox::new(1, 1 << 20), LogNumbers::default().take());
        assert!(matches!(mailbox.reserve(log, 10), Some(Ok(()))));
        let Some(Err(place)) = mailbox.reserve(log, 10) else { panic!("there is no room") };
        let was_locked = Arc::new(AtomicBool::new(true));
        let first = Arc::new(Looks(Arc::clone(&place), Arc::clone(&was_locked))).into();
        assert_eq!(place.poll(&first), Some(false));
        drop(first);
        assert_eq!(place.poll(TaskWaker::noop()), Some(false));
        assert!(!was_locked.load(Ordering::SeqCst), "it was dropped, and not under the lock");
    }
}
