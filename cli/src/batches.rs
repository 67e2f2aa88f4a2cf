//! From lines of standard input to batches in flight.

use std::ops::RangeInclusive;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use highwater::{Ack, BatchBuilder, Compression, Log, MAX_BATCH_BYTES, Producer};
use highwater_segment::{FIRST_BATCH, MIN_SEGMENT_BYTES};

use crate::acks::{AckEnd, Sent, wait_for_all};
use crate::input::{self, EVENTS_MAX, Event, Lines};
use crate::output::{Exit, Failure};

/// The records of a batch when nothing is said.
const BATCH_RECORDS: u32 = 1024;
/// The bytes of a batch when nothing is said: what fits the smallest segment.
const BATCH_BYTES: u64 = MIN_SEGMENT_BYTES - FIRST_BATCH.0;
/// The most bytes a record takes beside its value: lengths, deltas, and the builder's reserve.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// How lines become batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batching {
    pub(crate) ack: Ack,
    /// Exactly so many lines in a batch.
    pub(crate) exactly: Option<u32>,
    pub(crate) compression: Compression,
    /// The most batches that are not acked.
    pub(crate) in_flight: u32,
    /// Whether to print the acks.
    pub(crate) print: bool,
}

/// Why no more is appended.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The input is at its end.
    End,
    /// Something was refused; nothing of it was appended.
    Refused(Failure),
    /// An append was not acked; the acks' end says why.
    AckFailed,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Refused(failure)
    }
}

/// Appends standard input and waits for the acks.
///
/// With a `producer` each line is the record with its number: those that the log has already are
/// passed over.
pub(crate) fn append_input(
    log: &Log,
    batching: Batching,
    producer: Option<Producer>,
) -> Result<(Stop, AckEnd), Failure> {
    let in_flight = usize::try_from(batching.in_flight).unwrap_or(usize::MAX);
    let (events_in, events) = sync_channel(EVENTS_MAX);
    let (slots_in, slots) = sync_channel(in_flight);
    let (sent_in, sent) = sync_channel(in_flight);
    let (print, failed) = (batching.print, events_in.clone());
    let acker: JoinHandle<AckEnd> = highwater_io::thread::spawn("highwater-acks", move || {
        wait_for_all(&sent, slots, &failed, print)
    })
    .map_err(highwater::Error::from)?;
    let give_back = input::start(events_in)?;
    let mut batcher = Batcher {
        log: log.clone(),
        ack: batching.ack,
        passes_over: producer.as_ref().map_or(0, lines_there),
        producer,
        exactly: batching.exactly,
        compression: batching.compression,
        builder: BatchBuilder::default(),
        bytes: 0,
        lines: 0,
        slots: slots_in,
        sent: sent_in,
    };
    let stop = match batcher.feed(&events, &give_back) {
        Ok(()) => Stop::End,
        Err(stop) => stop,
    };
    // Closes both channels; what was sent is still waited for.
    drop((batcher, events));
    match acker.join() {
        Ok(acks) => Ok((stop, acks)),
        Err(_) => Err(Failure::new(Exit::Error, "cannot wait for acks: the waiting thread ended")),
    }
}

/// Returns how many lines of the input a log has of its producer.
pub(crate) fn lines_there(producer: &Producer) -> u64 {
    u64::from(producer.next_sequence().0.unsigned_abs())
}

/// Gathers lines into batches and appends them.
struct Batcher {
    log: Log,
    ack: Ack,
    producer: Option<Producer>,
    /// So many lines are in the log already.
    passes_over: u64,
    exactly: Option<u32>,
    compression: Compression,
    builder: BatchBuilder,
    /// The bytes of the lines in `builder`.
    bytes: u64,
    /// The lines taken so far.
    lines: u64,
    slots: SyncSender<()>,
    sent: SyncSender<Sent>,
}

impl Batcher {
    fn feed(&mut self, events: &Receiver<Event>, give_back: &Sender<Vec<u8>>) -> Result<(), Stop> {
        let mut lines = Lines::default();
        loop {
            let event = match events.try_recv() {
                Ok(event) => event,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    // The input pauses: nobody should wait for lines that are not there yet.
                    if self.exactly.is_none() {
                        self.send()?;
                    }
                    events.recv().unwrap_or(Event::End)
                }
            };
            match event {
                Event::Chunk(buffer, filled) => {
                    let chunk = buffer.get(..filled).unwrap_or_default();
                    let cut = lines.cut(chunk, |line| self.add(line));
                    if let Err(Stop::Refused(_)) = cut {
                        self.send()?;
                    }
                    cut?;
                    // The reader may have ended; then it needs no buffers.
                    drop(give_back.send(buffer));
                }
                Event::End => {
                    lines.finish(|line| self.add(line))?;
                    return self.send();
                }
                Event::Unreadable(error) => {
                    self.send()?;
                    let why = format!(
                        "cannot read standard input: {error}; the lines before it are appended"
                    );
                    return Err(Failure::new(Exit::Error, why).into());
                }
                Event::AckFailed => return Err(Stop::AckFailed),
            }
        }
    }

    fn add(&mut self, line: &[u8]) -> Result<(), Stop> {
        if self.lines < self.passes_over {
            self.lines += 1;
            return Ok(());
        }
        let grown = self.builder.disk_bytes() + line.len() + RECORD_OVERHEAD_BYTES;
        match self.exactly {
            Some(_) if grown > MAX_BATCH_BYTES => return Err(self.batch_too_large()),
            None if u64::try_from(grown).is_ok_and(|grown| grown > BATCH_BYTES) => self.send()?,
            _ => {}
        }
        self.builder.push(None, None, Some(line), &[]);
        self.bytes += u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.lines += 1;
        if self.builder.record_count() >= self.exactly.unwrap_or(BATCH_RECORDS) {
            self.send()?;
        }
        Ok(())
    }

    /// Appends what is gathered, if there is anything, once there is a slot for it.
    fn send(&mut self) -> Result<(), Stop> {
        let records = u64::from(self.builder.record_count());
        if records == 0 {
            return Ok(());
        }
        let lines = self.lines - records + 1..=self.lines;
        let bytes = std::mem::take(&mut self.bytes);
        let batch = std::mem::take(&mut self.builder)
            .compression(self.compression)
            .build()
            .map_err(|error| refused(&format!("cannot append: {error}"), Exit::Error, &lines))?;
        let batch = match &mut self.producer {
            Some(producer) => producer.number(batch),
            None => batch,
        };
        if self.slots.send(()).is_err() {
            return Err(Stop::AckFailed);
        }
        let receipt = self
            .log
            .append(batch, self.ack)
            .map_err(|error| refused(&error.to_string(), Exit::of(&error), &lines))?;
        self.sent.send(Sent { receipt, lines, bytes }).map_err(|_| Stop::AckFailed)
    }

    fn batch_too_large(&mut self) -> Stop {
        let records = u64::from(std::mem::take(&mut self.builder).record_count());
        let why = format!(
            "cannot append to log {}: a batch is at most {MAX_BATCH_BYTES} bytes; use a smaller \
             --batch-records",
            self.log.name()
        );
        refused(&why, Exit::Error, &(self.lines - records + 1..=self.lines + 1))
    }
}

fn refused(why: &str, exit: Exit, lines: &RangeInclusive<u64>) -> Stop {
    let (first, last) = (lines.start(), lines.end());
    let which =
        if first == last { format!("line {first}") } else { format!("lines {first} to {last}") };
    Failure::new(
        exit,
        format!("{why} (this was {which}; nothing from line {first} on is appended)"),
    )
    .into()
}
