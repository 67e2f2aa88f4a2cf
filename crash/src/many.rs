//! `kill -9` of a process that writes hundreds of logs at once, and how long opening takes then.
//!
//! The process is this program itself ([`write()`]): no binary appends to so many logs. Record
//! `n` of log `l` is the same whichever life appends it, so a log is right if it holds records 0,
//! 1, 2 and so on, up to where it was acked at least.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use highwater::inspect::verify;
use highwater::{
    Ack, BackendChoice, Engine, FlushPolicy, Isolation, Log, LogOptions, Offset, Options, Receipt,
};
use highwater_io::clock::monotonic_now;
use highwater_io::random::SeededRandom;

use crate::records::{RECORDS_MAX, batch, id_at};
use crate::scratch::{Scratch, wait_unlocked};
use crate::timeline::RecordId;
use crate::workload::Failure;

/// Segments are small, so that many lives see many of them.
const SEGMENT_BYTES: u64 = 256 << 10;
/// Acks are told to the parent when so many have come.
const TOLD_AT_ONCE: usize = 64;
/// The longest time that a process lives once it has opened all logs, in milliseconds.
const LIFE_MILLISECONDS: u64 = 600;
/// Where a log's number stands in the name of a record.
const LOG_SHIFT: u32 = 32;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many processes to kill.
    pub rounds: usize,
    /// How many logs each writes.
    pub logs: usize,
    /// The moments of the kills follow from this, as far as the system lets them.
    pub seed: u64,
    /// What the engine writes with.
    pub backend: BackendChoice,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Processes killed.
    pub rounds: usize,
    /// Logs.
    pub logs: usize,
    /// Records whose ack promised that they survive.
    pub acked: u64,
    /// Records that were read back.
    pub read: u64,
    /// How long each opening took.
    pub opened_in: Vec<Duration>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { rounds, logs, acked, read, opened_in } = self;
        let mut sorted = opened_in.clone();
        sorted.sort_unstable();
        let middle = sorted.get(sorted.len() / 2).map_or(0, Duration::as_millis);
        let longest = sorted.last().map_or(0, Duration::as_millis);
        write!(
            f,
            "kill-many: rounds {rounds}, logs {logs}, acked records {acked}, lost 0, twice 0, out \
             of order 0, read {read}; opening all: median {middle} ms, longest {longest} ms"
        )
    }
}

/// Kills as `plan` says.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn run(plan: &Plan) -> Result<Summary, Failure> {
    let scratch = Scratch::new("many")?;
    let directory = scratch.path().join("data");
    let mut summary = Summary { logs: plan.logs, ..Summary::default() };
    let mut random = SeededRandom::new(plan.seed).split("kill many");
    let mut ends = vec![0; plan.logs];
    for round in 0..plan.rounds {
        let life = Duration::from_micros(random.below(LIFE_MILLISECONDS * 1000));
        let acked = kill(plan, &directory, life)?;
        for (log, end) in acked {
            let known = ends.get_mut(log).ok_or("an ack of no log")?;
            summary.acked += end.saturating_sub(*known);
            *known = end.max(*known);
        }
        let closes = random.chance(1, 3);
        let last = round + 1 == plan.rounds;
        check(plan, &directory, &mut ends, last, closes, &mut summary)
            .map_err(|failure| format!("round {round}: {failure}"))?;
        summary.rounds += 1;
    }
    for verdict in verify(&directory, None)? {
        if let Some(damage) = verdict.damages.first() {
            return Err(format!("verify: {damage:?}").into());
        }
    }
    Ok(summary)
}

/// Lets a process write for a while and kills it; returns up to where each log was acked.
fn kill(plan: &Plan, directory: &Path, life: Duration) -> Result<BTreeMap<usize, u64>, Failure> {
    let backend = if plan.backend == BackendChoice::Threads { "threads" } else { "uring" };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["write-many", "--backend", backend, "--logs", &plan.logs.to_string(), "--dir"]);
    command.arg(directory).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut acks = BufReader::new(child.stdout.take().ok_or("no standard output")?);
    let mut line = String::new();
    // All logs are open.
    acks.read_line(&mut line)?;
    let reader = highwater_io::thread::spawn("crash-acks", move || read_acks(acks));
    let reader = reader.map_err(|error| error.to_string())?;
    let began = monotonic_now();
    while monotonic_now().since(began) < life {
        std::thread::park_timeout(life);
    }
    end(&mut child)?;
    reader.join().map_err(|_| "the reading thread panicked")?.map_err(Failure::from)
}

fn end(child: &mut Child) -> Result<(), Failure> {
    child.kill()?;
    match child.wait()?.code() {
        None => Ok(()),
        Some(code) => Err(format!("it ended by itself with {code}").into()),
    }
}

/// Reads what was told of acks; a last line without an end was not told.
fn read_acks(mut lines: impl BufRead) -> Result<BTreeMap<usize, u64>, String> {
    let mut acked = BTreeMap::new();
    let mut line = String::new();
    loop {
        line.clear();
        lines.read_line(&mut line).map_err(|error| error.to_string())?;
        let Some(whole) = line.strip_suffix('\n') else { return Ok(acked) };
        let ack = whole
            .split_once(' ')
            .and_then(|(log, end)| Some((log.parse::<usize>().ok()?, end.parse::<u64>().ok()?)));
        let (log, end) = ack.ok_or_else(|| format!("not an ack: {whole}"))?;
        acked.insert(log, end);
    }
}

/// Opens all logs; each must go on from where it was acked, and hold what was appended. `ends` is
/// where each of them is known to end.
fn check(
    plan: &Plan,
    directory: &Path,
    ends: &mut [u64],
    whole: bool,
    closes: bool,
    summary: &mut Summary,
) -> Result<(), Failure> {
    wait_unlocked(directory)?;
    let began = monotonic_now();
    let engine = open(directory, plan.backend)?;
    summary.opened_in.push(monotonic_now().since(began));
    if let Some((name, error)) = engine.recovery().failed.first() {
        return Err(format!("log {name} does not open: {error}").into());
    }
    for (number, known) in ends.iter_mut().enumerate() {
        let log = log(&engine, number)?;
        let end = log.marks().log_end.0;
        if end < *known {
            return Err(format!("log {number} was acked up to {known}, but ends at {end}").into());
        }
        let from = if whole { 0 } else { known.saturating_sub(RECORDS_MAX) };
        summary.read += read(&log, number, from)?;
        *known = end;
    }
    if closes { Ok(engine.close()?) } else { Ok(()) }
}

/// Reads a log from `from` on; returns how many records there are.
fn read(log: &Log, number: usize, from: u64) -> Result<u64, Failure> {
    let mut next = from;
    for batch in log.read(Offset(from), Isolation::Written)? {
        for record in batch?.records() {
            let record = record.map_err(|error| error.to_string())?;
            if record.offset.0 != next || id_at(&record) != Some(id(number, next)) {
                return Err(format!("log {number}, offset {next}: not what was appended").into());
            }
            next += 1;
        }
    }
    if next == log.marks().log_end.0 {
        Ok(next - from)
    } else {
        Err(format!("log {number}: read up to {next} of {:?}", log.marks()).into())
    }
}

fn id(log: usize, offset: u64) -> RecordId {
    crate::image::wide(log) << LOG_SHIFT | offset
}

fn open(directory: &Path, backend: BackendChoice) -> highwater::Result<Engine> {
    Engine::open(Options { backend, ..Options::at(directory) })
}

fn log(engine: &Engine, number: usize) -> highwater::Result<Log> {
    let flush = FlushPolicy { bytes: Some(64 << 10), ..FlushPolicy::NONE };
    let segment_bytes = Some(SEGMENT_BYTES);
    engine.log(&format!("log{number}"), LogOptions { segment_bytes, flush, ..Default::default() })
}

/// Writes so many logs until it is killed, and tells of every ack: the process under test.
///
/// # Errors
/// Whatever it cannot do.
pub fn write(directory: &Path, logs: usize, backend: BackendChoice) -> Result<(), Failure> {
    let engine = open(directory, backend)?;
    let mut handles = Vec::new();
    for number in 0..logs {
        let log = log(&engine, number)?;
        let next = log.marks().log_end.0;
        handles.push((log, next));
    }
    let mut output = BufWriter::new(std::io::stdout().lock());
    writeln!(output, "open")?;
    output.flush()?;
    let mut random = SeededRandom::new(highwater_io::random::kernel_u64());
    let mut waiting: Vec<(usize, Receipt)> = Vec::new();
    loop {
        for (number, (log, next)) in handles.iter_mut().enumerate() {
            let end = *next + 1 + random.below(RECORDS_MAX - 1);
            let ids = (*next..end).map(|offset| id(number, offset));
            let ack = if random.chance(1, 4) { Ack::LEADER_FLUSHED } else { Ack::LEADER };
            waiting.push((number, log.append(batch(ids)?, ack)?));
            *next = end;
            if waiting.len() >= TOLD_AT_ONCE {
                for (number, receipt) in waiting.drain(..) {
                    writeln!(output, "{number} {}", receipt.wait()?.end_offset())?;
                }
                output.flush()?;
            }
        }
    }
}
