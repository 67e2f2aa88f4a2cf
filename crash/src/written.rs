//! A log that the binary wrote, and what a reader may get of it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use highwater::{BackendChoice, ReadBatch};
use highwater_io::random::SeededRandom;

use crate::binary::Binary;
use crate::kill::ack;
use crate::scratch::wait_unlocked;
use crate::workload::Failure;

/// The log's name.
pub(crate) const LOG: &str = "flipped";
/// Every line of the log is of this idempotent producer.
pub(crate) const PRODUCER: i64 = 7;
/// Lines in a batch.
const BATCH_RECORDS: usize = 5;
/// Lines appended up to the end of each life: two that are closed, and one that is killed.
const CLOSED_RECORDS: [usize; 2] = [300, 520];
const KILLED_RECORDS: usize = 700;
const SEGMENT_BYTES: &str = "65536";
const LINE_BYTES_MAX: usize = 900;

/// The records of a log, by their offsets.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// The line at each offset.
    pub(crate) records: Vec<Vec<u8>>,
    /// The lines that later lives append.
    pub(crate) lines: Vec<Vec<u8>>,
}

impl Written {
    /// Returns a log without a record yet; the lines follow from the seed.
    pub(crate) fn new(random: &SeededRandom) -> Self {
        let mut random = random.split("lines");
        let line = |_| -> Vec<u8> {
            let length = random.index(LINE_BYTES_MAX);
            let bytes = std::iter::repeat_with(|| random.next_u64().to_le_bytes()).flatten();
            bytes.map(|byte| if byte == b'\n' { 0 } else { byte }).take(length).collect()
        };
        Written { records: Vec::new(), lines: (0..KILLED_RECORDS).map(line).collect() }
    }

    /// Returns what is there when a log that was cut at `end` was appended to.
    pub(crate) fn continued(&self, end: usize, record: &[u8]) -> Written {
        let mut records = self.records[..end].to_vec();
        records.push(record.to_vec());
        Written { records, lines: Vec::new() }
    }

    /// Returns a comparison with what is read from the offset `from` on.
    pub(crate) fn reading(&self, from: usize) -> Reading<'_> {
        Reading {
            records: &self.records,
            skips: false,
            seen: Seen { end: from, failed: false },
            began: false,
        }
    }

    /// Returns the input of a life: the whole of it, as for a run that was interrupted.
    fn input(&self, records: usize) -> Vec<u8> {
        self.lines[..records].iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect()
    }
}

/// Appends lines in two lives that end well.
pub(crate) fn write_closed(
    binary: &Binary,
    directory: &Path,
    written: &mut Written,
) -> Result<(), Failure> {
    for records in CLOSED_RECORDS {
        live(binary, directory, written, records, false)?;
    }
    Ok(())
}

/// Appends more lines in a life that is killed when all are acked as written.
pub(crate) fn write_killed(
    binary: &Binary,
    directory: &Path,
    written: &mut Written,
) -> Result<(), Failure> {
    live(binary, directory, written, KILLED_RECORDS, true)
}

/// Appends the lines up to `records` in a process of its own.
fn live(
    binary: &Binary,
    directory: &Path,
    written: &mut Written,
    records: usize,
    killed: bool,
) -> Result<(), Failure> {
    let mut command: Command = binary.append(directory, LOG, BackendChoice::Auto);
    // One batch in flight: the same places whatever the time it takes.
    command.args(["--in-flight", "1", "--acks", "jsonl", "--segment-bytes", SEGMENT_BYTES]);
    command.args(["--batch-records", &BATCH_RECORDS.to_string()]);
    command.args(["--producer", &PRODUCER.to_string(), "--flush", "records=60"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().ok_or("a process without a standard input")?;
    let output = child.stdout.take().ok_or("a process without a standard output")?;
    // The acks of so few batches fit the pipe: nobody waits for the other for ever.
    input.write_all(&written.input(records))?;
    let mut acks = BufReader::new(output).lines();
    let mut acked = written.records.len();
    while acked < records {
        let line =
            acks.next().ok_or_else(|| format!("of {records} lines {acked} were acked"))??;
        acked = usize::try_from(ack(&line).ok_or("a line that is no ack")?.end)?;
    }
    if killed {
        child.kill()?;
    }
    drop(input);
    let status = child.wait()?;
    if status.success() == killed {
        return Err(format!("append ended with {status}").into());
    }
    wait_unlocked(directory)?;
    written.records = written.lines[..records].to_vec();
    Ok(())
}

/// How far a reader came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The offset behind the last record.
    pub(crate) end: usize,
    /// There was an error on the way.
    pub(crate) failed: bool,
}

/// Compares what a reader gives with what was written.
#[derive(Clone, Debug)]
pub(crate) struct Reading<'a> {
    records: &'a [Vec<u8>],
    skips: bool,
    seen: Seen,
    /// A record was read.
    began: bool,
}

impl Reading<'_> {
    /// Lets the reader go on behind damage, once it has told of it.
    pub(crate) fn skipping(self) -> Self {
        Reading { skips: true, ..self }
    }

    /// Compares all that a reader gives.
    ///
    /// # Errors
    /// If a record is not the one that was written there.
    pub(crate) fn all(
        mut self,
        reader: impl IntoIterator<Item = highwater::Result<ReadBatch>>,
    ) -> Result<Seen, Failure> {
        for batch in reader {
            let Ok(batch) = batch else {
                self.seen.failed = true;
                continue;
            };
            for record in batch.records() {
                let record = record.map_err(|error| error.to_string())?;
                self.note(usize::try_from(record.offset.0)?, record.key, record.value)?;
            }
        }
        Ok(self.seen)
    }

    /// Notes a record that was read.
    fn note(
        &mut self,
        offset: usize,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let next = self.seen.end;
        // The first batch is the one that holds the offset asked for.
        let in_order = offset == next
            || (!self.began && offset < next)
            || (self.skips && self.seen.failed && offset > next);
        self.began = true;
        if !in_order {
            return Err(format!("offset {offset} was read where {next} comes next").into());
        }
        if key.is_some() || value.is_none() || value != self.records.get(offset).map(Vec::as_slice)
        {
            return Err(format!("offset {offset} was read, which is not what was written").into());
        }
        self.seen.end = offset + 1;
        Ok(())
    }
}
