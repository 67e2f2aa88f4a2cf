//! The other end of an append: waits for the receipts in their order and tells of them.

use std::ops::RangeInclusive;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};

use highwater::{Appended, Error, Offset, Receipt};
use serde::Serialize;

use crate::input::Event;
use crate::output::{Failure, Output};

/// A batch that was appended and not acked yet.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) receipt: Receipt,
    /// The lines in it, counted from 1.
    pub(crate) lines: RangeInclusive<u64>,
    /// The bytes of these lines, without newlines.
    pub(crate) bytes: u64,
}

/// What was acked, without a gap from the first line on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) first: Option<Offset>,
    pub(crate) end: Option<Offset>,
}

/// How the acks ended.
#[derive(Debug, Default)]
pub(crate) struct AckEnd {
    pub(crate) tally: Tally,
    /// The first append that was not acked: its lines and why.
    pub(crate) failed: Option<(RangeInclusive<u64>, Error)>,
    /// From which offset on acks could not be printed, and why.
    pub(crate) unprinted: Option<(Offset, Failure)>,
}

/// One line of `--acks jsonl`.
#[derive(Debug, Serialize)]
struct AckLine {
    base_offset: u64,
    records: u32,
    written: u64,
    flushed: u64,
}

/// Waits for every receipt in turn. Each frees one of the `slots` once it is acked; a failure ends
/// it all. Only a prefix of the input is ever reported.
pub(crate) fn wait_for_all(
    sent: &Receiver<Sent>,
    slots: Receiver<()>,
    events: &SyncSender<Event>,
    print: bool,
) -> AckEnd {
    let mut end = AckEnd::default();
    let mut printer = Printer { output: print.then(Output::new) };
    loop {
        let next = match sent.try_recv() {
            Ok(next) => next,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                printer.flush(&mut end);
                let Ok(next) = sent.recv() else { break };
                next
            }
        };
        let acked = next.receipt.poll().unwrap_or_else(|| {
            printer.flush(&mut end);
            next.receipt.wait()
        });
        match acked {
            Ok(appended) => {
                end.tally.records += u64::from(appended.records);
                end.tally.bytes += next.bytes;
                end.tally.first.get_or_insert(appended.base_offset);
                end.tally.end = Some(appended.end_offset());
                printer.print(&appended, &mut end);
                // The sender of slots may be gone; then nobody waits for one.
                slots.recv().ok();
            }
            Err(error) => {
                end.failed = Some((next.lines, error));
                printer.flush(&mut end);
                // In this order: whoever waits for a slot does not take events meanwhile.
                drop(slots);
                drop(events.send(Event::AckFailed));
                return end;
            }
        }
    }
    printer.flush(&mut end);
    end
}

/// Prints acks until that fails; the appends go on without it.
struct Printer {
    output: Option<Output>,
}

impl Printer {
    fn print(&mut self, appended: &Appended, end: &mut AckEnd) {
        let Some(output) = &mut self.output else { return };
        let printed = output.json(&AckLine {
            base_offset: appended.base_offset.0,
            records: appended.records,
            written: appended.marks.written.0,
            flushed: appended.marks.flushed.0,
        });
        self.note(printed, appended.base_offset, end);
    }

    fn flush(&mut self, end: &mut AckEnd) {
        let Some(output) = &mut self.output else { return };
        let flushed = output.flush();
        self.note(flushed, end.tally.end.unwrap_or_default(), end);
    }

    fn note(&mut self, result: Result<(), Failure>, offset: Offset, end: &mut AckEnd) {
        if let Err(failure) = result {
            self.output = None;
            end.unprinted = Some((offset, failure));
        }
    }
}
