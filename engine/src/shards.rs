//! The threads of an engine: one for each shard, each with a queue, an `Io` and, where that is
//! asked for and there are enough, a core of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use highwater_io::system::SystemPlatform;
use highwater_io::thread::{pin_to, spawn, usable_cores};
use highwater_io::{Backend, Io, Platform, Wait};

use crate::device::Device;
use crate::engine::{lock, stopped};
use crate::error::{Error, ErrorKind, Result};
use crate::mailbox::{Mailbox, Message};
use crate::metrics::EngineMetrics;
use crate::options::{Options, SHARDS_DEFAULT_MAX, ShardId, ShardSettings};
use crate::shard::{Command, Runner};

/// How long a shard may take to tell its figures: it may be inside a durable write that it runs by
/// itself, and a frozen file system keeps it there.
const METRICS_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Shard {
    mailbox: Arc<Mailbox>,
    backend: Backend,
    /// Gone once it was joined.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// All shards of an engine.
#[derive(Debug)]
pub(crate) struct Shards(Vec<Shard>);

impl Shards {
    /// Starts the threads; each makes its `Io` and joins the directory's lock.
    pub(crate) fn start(
        platform: &SystemPlatform,
        options: &Options,
        device: &Arc<Device>,
    ) -> Result<Self> {
        let cores = usable_cores();
        let count = options.shards.unwrap_or(cores.len().clamp(1, SHARDS_DEFAULT_MAX));
        // A core of its own for each, or none: two on one core would be worse off than free ones.
        let pins = options.pin_shards && count <= cores.len();
        let mut shards = Shards(Vec::with_capacity(count));
        for index in 0..count {
            let core = cores.get(index).copied().filter(|_| pins);
            match start_shard(platform, options, device, (index, core)) {
                Ok(shard) => shards.0.push(shard),
                Err(error) => {
                    shards.stop();
                    return Err(error);
                }
            }
        }
        Ok(shards)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn backend(&self) -> Backend {
        self.0[0].backend
    }

    pub(crate) fn mailbox(&self, shard: ShardId) -> &Mailbox {
        &self.0[usize::from(shard.0)].mailbox
    }

    /// Returns the shard that a log has by its name: the same one at every start with as many
    /// shards.
    pub(crate) fn of_name(&self, name: &str) -> ShardId {
        // FNV-1a: names differ in few characters, and this spreads them.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, step);
        let shards = u64::try_from(self.0.len()).unwrap_or(1);
        ShardId(u16::try_from((hash ^ hash >> 32) % shards).unwrap_or(0))
    }

    /// Returns what every log did so far; waits for each shard's next turn.
    pub(crate) fn metrics(&self) -> Result<EngineMetrics> {
        let ask = |shard: &Shard| {
            let (reply, answer) = sync_channel(1);
            let sent = shard.mailbox.push_control(Message::Metrics { reply });
            sent.then_some(answer).ok_or_else(|| stopped("ask for the metrics"))
        };
        // All are asked before the first is waited for.
        let answers: Vec<_> = self.0.iter().map(ask).collect::<Result<_>>()?;
        let mut all: Option<EngineMetrics> = None;
        for answer in answers {
            let metrics = answer.recv_timeout(METRICS_WAIT).map_err(|error| match error {
                RecvTimeoutError::Timeout => {
                    Error::new(ErrorKind::Timeout, "ask for the metrics", "of this engine")
                        .detail("a shard of it waits for a disk that does not answer")
                        .remedy("look at the file system (frozen by fsfreeze?) and at dmesg")
                }
                RecvTimeoutError::Disconnected => stopped("ask for the metrics"),
            })?;
            match &mut all {
                Some(all) => all.merge(metrics),
                None => all = Some(metrics),
            }
        }
        all.ok_or_else(|| stopped("ask for the metrics"))
    }

    /// Ends the threads and waits for what is in flight. On a shard's own thread - a waker that it
    /// calls can own the last handle - that one is not waited for: it ends when the waker returns.
    pub(crate) fn stop(&self) {
        for shard in &self.0 {
            shard.mailbox.push_control(Message::Stop);
        }
        let here = std::thread::current().id();
        for shard in &self.0 {
            let Some(thread) = lock(&shard.thread).take() else { continue };
            if thread.thread().id() == here {
                continue;
            }
            if thread.join().is_err() {
                // The panic was printed by its thread; every receipt was answered as it unwound.
                shard.mailbox.stop();
            }
        }
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.stop();
    }
}

fn start_shard(
    platform: &SystemPlatform,
    options: &Options,
    device: &Arc<Device>,
    (index, core): (usize, Option<usize>),
) -> Result<Shard> {
    let mailbox = Arc::new(Mailbox::new(options.queue_batches, options.queue_bytes));
    let (started, answer) = sync_channel(1);
    let (platform, directory) = (platform.clone(), options.directory.clone());
    let (settings, device) = (ShardSettings::from(options), Arc::clone(device));
    let letters = Arc::clone(&mailbox);
    let thread = spawn(&format!("highwater-{index}"), move || {
        let guard = StopOnDrop(letters);
        let letters = &guard.0;
        if let Some(core) = core {
            // A core that was taken from this process meanwhile: the kernel finds another.
            pin_to(core);
        }
        let runner = platform.shard_io().map_err(Error::from_io).and_then(|io| {
            let mut runner = Runner::new(io, settings, device);
            runner.lock(&directory)?;
            Ok(runner)
        });
        match runner {
            Ok(runner) => {
                letters.set_waker(runner.io.waker());
                if started.send(Ok(runner.io.backend())).is_ok() {
                    run_shard(runner, letters);
                }
            }
            Err(error) => drop(started.send(Err(error))),
        }
    })?;
    match answer.recv() {
        Ok(Ok(backend)) => Ok(Shard { mailbox, backend, thread: Mutex::new(Some(thread)) }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(stopped("start a shard")),
    }
}

/// Whatever ends the shard thread, nobody goes on waiting for it.
struct StopOnDrop(Arc<Mailbox>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        for message in self.0.stop() {
            if let Message::Command(Command::Append { cell, .. } | Command::Flush { cell, .. }) =
                message
            {
                cell.ack(Err(stopped("append to a log")));
            }
        }
    }
}

fn run_shard<I: Io>(mut runner: Runner<I>, mailbox: &Mailbox) {
    // At most one for each caller of `detach`, who waits for the answer.
    let mut replies = BTreeMap::new();
    let mut messages = VecDeque::new();
    let mut commands = Vec::new();
    loop {
        mailbox.exchange(&mut runner.shard.released, &mut messages);
        if !messages.is_empty() {
            runner.poll(Wait::No);
        } else if !runner.run_alone() {
            // One call starts what was submitted and waits for what comes first: the end of an
            // operation, a deadline, or somebody at the door.
            let wait = if mailbox.fall_asleep() { Wait::Forever } else { Wait::No };
            runner.poll(wait);
            mailbox.wake_up();
        }
        for message in messages.drain(..) {
            match message {
                Message::Command(command) => commands.push(command),
                Message::Detach { log, reason, reply } => {
                    commands.push(Command::Detach { log, reason });
                    replies.insert(log, reply);
                }
                Message::RefuseWaiting { log } => runner.shard.refuse_waiting(log),
                Message::Forget { log } => runner.shard.forget(log),
                // A caller that gave up has no use for it.
                Message::Metrics { reply } => drop(reply.send(runner.metrics())),
                Message::Stop => return,
            }
        }
        runner.step(commands.drain(..));
        replies.retain(|log, reply| match runner.shard.take_detached(*log) {
            // A caller that gave up has no use for it.
            Some(detached) => {
                drop(reply.send(detached));
                false
            }
            // A log that is not here never will be: dropping the reply answers the caller.
            None => runner.shard.has(*log),
        });
    }
}
