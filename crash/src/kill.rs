//! `kill -9` of the real binary at random moments, again and again.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use std::time::Duration;

use highwater::BackendChoice;
use highwater_io::clock::monotonic_now;
use highwater_io::random::SeededRandom;

use crate::binary::{Binary, Fed, expect};
use crate::image::wide;
use crate::scratch::{Scratch, prints, wait_unlocked};
use crate::workload::Failure;

/// The log's name.
const LOG: &str = "killed";
/// Rounds on one log; then another one begins.
const ROUNDS_PER_LOG: usize = 8;
/// The longest time that a process may live, in milliseconds.
const LIFE_MILLISECONDS: u64 = 250;
/// The most bytes a round feeds without pauses.
const EAGER_BYTES: u64 = 6 << 20;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many processes to kill.
    pub rounds: usize,
    /// What follows: the lines, the options, the moments (as far as the system lets it).
    pub seed: u64,
    /// The binary.
    pub binary: Binary,
    /// What it writes with.
    pub backend: BackendChoice,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Processes started.
    pub rounds: usize,
    /// Of them those that were killed; the others came to the end of their input.
    pub killed: usize,
    /// Records whose ack promised that they survive.
    pub acked: u64,
    /// Records that were read back.
    pub read: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { rounds, killed, acked, read } = self;
        write!(
            f,
            "kill: rounds {rounds}, killed {killed}, acked records {acked}, lost 0, twice 0, out \
             of order 0, read {read}"
        )
    }
}

/// Kills as `plan` says.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn run(plan: &Plan) -> Result<Summary, Failure> {
    let mut summary = Summary::default();
    let random = SeededRandom::new(plan.seed);
    let mut log = LogUnderTest::new(&random, 0)?;
    for round in 0..plan.rounds {
        if round > 0 && round.is_multiple_of(ROUNDS_PER_LOG) {
            log = LogUnderTest::new(&random, round)?;
        }
        let mut random = random.split(&format!("round {round}"));
        log.round(plan, round, &mut random, &mut summary)
            .map_err(|failure| format!("round {round}: {failure}"))?;
    }
    Ok(summary)
}

/// A log that processes append to until they are killed.
struct LogUnderTest {
    _scratch: Scratch,
    directory: PathBuf,
    segment_bytes: u64,
    /// What the last reading found, in stretches of lines of one round.
    found: Vec<Stretch>,
}

/// Lines of one round, from its first on: all that is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    round: usize,
    lines: u64,
}

/// What one process said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Acked {
    /// The offset of its first record.
    pub(crate) base: Option<u64>,
    /// The offset behind its last acked record.
    pub(crate) end: u64,
}

impl LogUnderTest {
    fn new(random: &SeededRandom, round: usize) -> Result<Self, Failure> {
        let scratch = Scratch::new("kill")?;
        let directory = scratch.path().join("data");
        let choice = random.split(&format!("log {round}")).below(4);
        let segment_bytes = (64 << 10) << choice;
        Ok(LogUnderTest { _scratch: scratch, directory, segment_bytes, found: Vec::new() })
    }

    fn round(
        &mut self,
        plan: &Plan,
        round: usize,
        random: &mut SeededRandom,
        summary: &mut Summary,
    ) -> Result<(), Failure> {
        let survives = !random.chance(1, 8);
        let (ack, flush) = (random.index(5), random.index(4));
        let ack = ["none", "leader", "leader", "leader-flushed", "leader-flushed"][ack];
        let flush = ["none", "group", "records=100", "bytes=64KiB,interval=5"][flush];
        let mut command = plan.binary.append(&self.directory, LOG, plan.backend);
        command.args(["--ack", ack, "--flush", flush, "--acks", "jsonl", "--segment-bytes"]);
        command.arg(self.segment_bytes.to_string());
        if random.chance(1, 3) {
            command.args(["--batch-records", &(1 + random.below(40)).to_string()]);
        }
        if random.chance(1, 3) {
            command.args(["--in-flight", &(1 + random.below(32)).to_string()]);
        }
        // Through the page cache, or compressed: neither changes what is promised.
        if random.chance(1, 3) {
            command.args(["--mode", "buffered"]);
        }
        if random.chance(1, 3) {
            command.args(["--compression", ["lz4", "zstd"][random.index(2)]]);
        }
        let (sent, acked) = if survives {
            let life = Duration::from_micros(random.below(LIFE_MILLISECONDS * 1000));
            let short = random.chance(1, 4);
            let life = if short { life / 16 } else { life };
            self.kill(&mut command, round, life, random)?
        } else {
            self.to_the_end(&mut command, round, random)?
        };
        summary.rounds += 1;
        summary.killed += usize::from(survives);
        if self.directory.exists() {
            let counts = ack != "none" || !survives;
            let acked = if counts { acked } else { Acked { end: 0, ..acked } };
            self.check(plan, round, sent, acked, summary)?;
        } else if acked.base.is_some() {
            return Err("acked, but there is no directory".into());
        }
        if self.found.iter().find(|stretch| stretch.round == round).map_or(0, |own| own.lines)
            < sent
            && !survives
        {
            return Err(format!("it ended by itself, but of {sent} lines some are gone").into());
        }
        Ok(())
    }

    /// Feeds a process for a while, kills it, and returns how many lines were sent at most.
    fn kill(
        &self,
        command: &mut std::process::Command,
        round: usize,
        life: Duration,
        random: &mut SeededRandom,
    ) -> Result<(u64, Acked), Failure> {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let lines = Lines::new(round, self.segment_bytes, random);
        let mut fed = Fed::start(command, move |input| lines.feed(input, None))?;
        let output = fed.child.stdout.take().ok_or("no standard output")?;
        let reader = highwater_io::thread::spawn("crash-acks", move || read_acks(output));
        let reader = reader.map_err(|error| error.to_string())?;
        pause(life);
        fed.child.kill()?;
        let status = fed.child.wait()?;
        if status.code().is_some() {
            return Err(format!("it ended by itself with {status}").into());
        }
        let sent = fed.finish()?;
        let acked = reader.join().map_err(|_| "the reading thread panicked")??;
        Ok((sent, acked))
    }

    /// Feeds a process some lines and lets it come to its end.
    fn to_the_end(
        &self,
        command: &mut std::process::Command,
        round: usize,
        random: &mut SeededRandom,
    ) -> Result<(u64, Acked), Failure> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let lines = Lines::new(round, self.segment_bytes, random);
        let count = random.below(3000);
        let mut fed = Fed::start(command, move |input| lines.feed(input, Some(count)))?;
        let output = fed.child.stdout.take().ok_or("no standard output")?;
        let acked = read_acks(output)?;
        let mut said = String::new();
        fed.child.stderr.take().ok_or("no standard error")?.read_to_string(&mut said)?;
        let status = fed.child.wait()?;
        if !status.success() {
            return Err(format!("append ended with {status}: {said}").into());
        }
        Ok((fed.finish()?, acked))
    }

    /// Looks at what is there, from outside; nothing may change by that.
    fn check(
        &mut self,
        plan: &Plan,
        round: usize,
        sent: u64,
        acked: Acked,
        summary: &mut Summary,
    ) -> Result<(), Failure> {
        if !self.directory.join(LOG).join("log.meta").exists() {
            return match acked.base {
                Some(_) => Err("acked, but there is no log".into()),
                None => Ok(()),
            };
        }
        // Once while the kernel may still be writing for the dead.
        read(&plan.binary, &self.directory, self.segment_bytes)?;
        wait_unlocked(&self.directory)?;
        let before = prints(&self.directory)?;
        let found = read(&plan.binary, &self.directory, self.segment_bytes)?;
        expect(&mut plan.binary.verb("verify", &self.directory), 0)?;
        expect(&mut plan.binary.verb("logs", &self.directory), 0)?;
        if round.is_multiple_of(4) {
            expect(plan.binary.dump(&self.directory.join(LOG)).stdout(Stdio::null()), 0)?;
        }
        if prints(&self.directory)? != before {
            return Err("looking changed a file".into());
        }
        let total = self.judge(&found, round, sent, acked)?;
        self.found = found;
        summary.acked += acked.end.saturating_sub(acked.base.unwrap_or(0));
        summary.read += total;
        Ok(())
    }

    /// Compares what is there with what was there before, and with what was sent and acked.
    fn judge(
        &self,
        found: &[Stretch],
        round: usize,
        sent: u64,
        acked: Acked,
    ) -> Result<u64, Failure> {
        if !found.starts_with(&self.found) {
            return Err(format!("there was {:?}, now {found:?}", self.found.last()).into());
        }
        let total: u64 = found.iter().map(|stretch| stretch.lines).sum();
        if total < acked.end {
            return Err(format!("acked up to offset {}, but it ends at {total}", acked.end).into());
        }
        let own = found.iter().find(|stretch| stretch.round == round);
        let lines = own.map_or(0, |own| own.lines);
        if lines > sent {
            return Err(format!("{lines} lines of {sent} sent").into());
        }
        match acked.base {
            Some(base) if own.is_some() && base + lines != total => {
                Err(format!("acked from offset {base} on, but {lines} lines end at {total}").into())
            }
            _ => Ok(total),
        }
    }
}

/// Returns what a line of `--acks jsonl` says.
pub(crate) fn ack(line: &str) -> Option<Acked> {
    let number = |name: &str| {
        let value = line.split_once(&format!("\"{name}\":"))?.1;
        value.split([',', '}']).next()?.parse::<u64>().ok()
    };
    let (base, records) = (number("base_offset")?, number("records")?);
    Some(Acked { base: Some(base), end: base + records })
}

/// Reads the acks a process prints; a last line without an end was not printed.
fn read_acks(output: ChildStdout) -> Result<Acked, String> {
    let mut acked = Acked::default();
    let mut output = BufReader::new(output);
    let mut line = String::new();
    loop {
        line.clear();
        output.read_line(&mut line).map_err(|error| error.to_string())?;
        let Some(whole) = line.strip_suffix('\n') else { return Ok(acked) };
        let Some(ack) = ack(whole) else { return Err(format!("not an ack: {whole}")) };
        let base = ack.base.unwrap_or_default();
        if acked.base.is_some() && base != acked.end {
            return Err(format!("an ack of offset {base} follows one up to {}", acked.end));
        }
        acked.base.get_or_insert(base);
        acked.end = ack.end;
    }
}

/// Reads the log with the binary and returns the stretches it consists of: every line right,
/// every round in order, from its first line on and without a gap.
fn read(binary: &Binary, directory: &Path, segment_bytes: u64) -> Result<Vec<Stretch>, Failure> {
    let output = expect(&mut binary.on_log("read", directory, LOG), 0)?.stdout;
    let mut stretches: Vec<Stretch> = Vec::new();
    for (offset, line) in output.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\n").ok_or("the last line has no end")?;
        let name = line.splitn(3, |byte| *byte == b':').take(2);
        let mut name = name.map(|word| std::str::from_utf8(word).ok()?.parse::<u64>().ok());
        let (Some(Some(round)), Some(Some(number))) = (name.next(), name.next()) else {
            return Err(format!("offset {offset} holds no line of ours").into());
        };
        let round = usize::try_from(round)?;
        match stretches.last_mut() {
            Some(last) if last.round == round && last.lines == number => last.lines += 1,
            last if number == 0 && last.as_ref().is_none_or(|last| last.round < round) => {
                stretches.push(Stretch { round, lines: 1 });
            }
            last => {
                let last = last.copied();
                return Err(format!("offset {offset}: {round}:{number} follows {last:?}").into());
            }
        }
        if line != self::line(round, number, segment_bytes) {
            return Err(format!("offset {offset}: line {round}:{number} has other bytes").into());
        }
    }
    Ok(stretches)
}

/// Returns a line: its round, its number, and bytes that follow from them.
fn line(round: usize, number: u64, segment_bytes: u64) -> Vec<u8> {
    let mut random = SeededRandom::new(wide(round) << 40 | number).split("line");
    let limit = match random.below(256) {
        0 => segment_bytes / 4,
        1..16 => 3000,
        16..32 => 1,
        _ => 160,
    };
    let length = random.below(limit);
    let words = std::iter::repeat_with(|| random.next_u64().to_le_bytes()).flatten();
    let bytes = words.map(|byte| if byte == b'\n' { 0 } else { byte });
    let mut line = format!("{round}:{number}:").into_bytes();
    line.extend(bytes.take(usize::try_from(length).unwrap_or(0)));
    line
}

/// Lines to send.
struct Lines {
    round: usize,
    segment_bytes: u64,
    random: SeededRandom,
    eager_bytes: u64,
}

impl Lines {
    fn new(round: usize, segment_bytes: u64, random: &mut SeededRandom) -> Self {
        let eager_bytes = if random.chance(1, 4) { 0 } else { random.below(EAGER_BYTES) };
        Lines { round, segment_bytes, random: random.split("feed"), eager_bytes }
    }

    /// Sends lines until nobody takes them, or `count`; returns how many were begun.
    fn feed(mut self, input: &mut dyn Write, count: Option<u64>) -> u64 {
        let mut sent = 0;
        let mut bytes = 0;
        while count.is_none_or(|count| sent < count) {
            let mut chunk = Vec::new();
            for _ in 0..=self.random.below(20) {
                if count.is_none_or(|count| sent < count) {
                    chunk.extend(line(self.round, sent, self.segment_bytes));
                    chunk.push(b'\n');
                    sent += 1;
                }
            }
            bytes += wide(chunk.len());
            if input.write_all(&chunk).is_err() {
                break;
            }
            if bytes > self.eager_bytes && count.is_none() {
                pause(Duration::from_micros(self.random.below(1500)));
            }
        }
        sent
    }
}

/// Lets time pass; who waits for a random moment waits for nothing else.
fn pause(duration: Duration) {
    let began = monotonic_now();
    loop {
        let left = duration.saturating_sub(monotonic_now().since(began));
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}
