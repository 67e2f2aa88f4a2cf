//! Single flipped bits in the files of a log that the binary wrote: nothing false is ever served,
//! and nothing that is proven to have been flushed goes without a word.
//!
//! Two states of one log are damaged: *closed*, where every byte of it was flushed, and *killed*,
//! with an end above the mark. In the closed one whatever counts must be told. In the killed one
//! damage above every mark that is still on the media cannot be told from a torn write, and is cut
//! (`T2`, `T3` of docs/durability.md).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use highwater::inspect::{DumpItem, OutsideReader, dump, verify};
use highwater::segment::HEADER_BYTES;
use highwater::segment::meta::{META_FILE_NAME, SLOT_BYTES};
use highwater::{
    Ack, Engine, ErrorKind, Isolation, Log, LogOptions, Offset, Options, ProducerId, RecordBatch,
};
use highwater_io::random::SeededRandom;

use crate::binary::Binary;
use crate::damage::ends_of;
use crate::image::wide;
use crate::scratch::{Files, Scratch, read_files, write_files};
use crate::workload::Failure;
use crate::written::{LOG, PRODUCER, Written, write_closed, write_killed};

/// What is appended to a damaged log that still takes it.
const CHECK: &[u8] = b"appended behind the damage";
/// Flips looked at beside each other, each in a directory of its own.
const WORKERS: usize = 4;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many bits to flip, one at a time.
    pub flips: usize,
    /// The records and the places of the flips follow from this; salts, ids, and what was flushed
    /// when the process was killed do not.
    pub seed: u64,
    /// The binary that writes the log.
    pub binary: Binary,
}

/// What a run did and found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Bits flipped.
    pub flips: usize,
    /// Of them those in bytes that count.
    pub hit: usize,
    /// Of those that hit: damage was reported, or a reader got an error.
    pub told: usize,
    /// Of those that hit: the log ends before it, as a torn tail, and nothing proves more.
    pub cut: usize,
    /// Of those that hit: nothing is missing, and nothing was said. Such as a slot that a crash may
    /// have torn beside a good one.
    pub unharmed: usize,
    /// Damaged logs that took an append all the same.
    pub appended: usize,
    /// Flips in `log.meta`, segments, indexes, and others (snapshots of producers, spares).
    pub kinds: [usize; 4],
    /// What was not as it must be, in words.
    pub findings: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { flips, hit, told, cut, unharmed, appended, kinds, findings } = self;
        let [meta, segments, indexes, other] = kinds;
        write!(
            f,
            "damage: flips {flips} (log.meta {meta}, segments {segments}, indexes {indexes}, \
             other {other}), hit {hit}, told {told}, cut as torn {cut}, unharmed \
             {unharmed}, appended to {appended}, wrong {}",
            findings.len()
        )
    }
}

/// Flips bits as `plan` says.
///
/// # Errors
/// If the log cannot be made, or is not right before it is damaged. What flips do stands in the
/// summary.
pub fn run(plan: &Plan) -> Result<Summary, Failure> {
    let scratch = Scratch::new("flips")?;
    let directory = scratch.path().join("data");
    let random = SeededRandom::new(plan.seed);
    let mut written = Written::new(&random);
    write_closed(&plan.binary, &directory, &mut written)?;
    let closed = Original::new(&directory, written.clone(), true)?;
    write_killed(&plan.binary, &directory, &mut written)?;
    let killed = Original::new(&directory, written, false)?;
    Ok(flip_all(scratch.path(), &random, &[closed, killed], plan.flips))
}

/// Flips `flips` bits of the logs, one at a time, in directories in `root`.
fn flip_all(root: &Path, random: &SeededRandom, logs: &[Original], flips: usize) -> Summary {
    // The disk flushes for several at once.
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (next, done) = (&next, &done);
            let _ended = scope.spawn(move || {
                let directory = root.join(format!("worker-{worker}"));
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= flips {
                        break;
                    }
                    let mut random = random.split(&format!("flip {number}"));
                    let original = &logs[random.index(logs.len())];
                    let flip = original.pick(&mut random);
                    let judged = original.check(&directory, Some(&flip), &mut random);
                    let hit = original.is_hit(&flip);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(number, (flip, hit, judged.map_err(|failure| failure.to_string())));
                }
            });
        }
    });
    let mut summary = Summary::default();
    for (number, (flip, hit, judged)) in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        summary.flips += 1;
        summary.kinds[kind_of(&flip.file)] += 1;
        summary.hit += usize::from(hit);
        match judged {
            Ok(outcome) => summary.count(outcome),
            Err(failure) => summary.findings.push(format!("flip {number}: {flip}: {failure}")),
        }
    }
    summary
}

impl Summary {
    fn count(&mut self, outcome: Outcome) {
        self.told += usize::from(outcome.hit && outcome.told);
        self.cut += usize::from(outcome.hit && outcome.cut && !outcome.told);
        self.unharmed += usize::from(outcome.hit && !outcome.cut && !outcome.told);
        self.appended += usize::from(outcome.appended);
    }
}

/// One bit of one file.
#[derive(Clone, Debug)]
struct Flip {
    file: PathBuf,
    bit: usize,
}

impl Flip {
    fn byte(&self) -> usize {
        self.bit / 8
    }
}

/// Returns where the file is counted in [`Summary::kinds`].
fn kind_of(path: &Path) -> usize {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("meta") => 0,
        Some("log") => 1,
        Some("index") => 2,
        _ => 3,
    }
}

impl fmt::Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bit {} of byte {} of {}", self.bit % 8, self.byte(), self.file.display())
    }
}

/// What became of a damaged log; nothing of it was wrong.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    hit: bool,
    told: bool,
    cut: bool,
    appended: bool,
}

/// Bytes that prove a flush: as long as they are whole, nothing below the mark may go silently.
#[derive(Clone, Debug)]
struct Proof {
    file: PathBuf,
    bytes: std::ops::Range<usize>,
    mark: usize,
}

/// A log without a process, and what is known of it.
struct Original {
    files: Files,
    written: Written,
    closed: bool,
    /// Where what counts ends in each segment's file.
    ends: BTreeMap<PathBuf, usize>,
    proofs: Vec<Proof>,
}

impl Original {
    /// Takes the log in `directory`, and looks whether it is right.
    fn new(directory: &Path, written: Written, closed: bool) -> Result<Self, Failure> {
        let files = read_files(directory)?;
        let mut ends = ends_of(directory, LOG, &files)?;
        let (proofs, last) = proofs_of(directory)?;
        if let Some(end) = ends.values_mut().next_back().filter(|_| !closed) {
            // The mark of log.meta is elsewhere.
            *end = last;
        }
        let original = Original { files, written, closed, ends, proofs };
        original.check(directory, None, &mut SeededRandom::new(0))?;
        // The check appended to it.
        write_files(directory, &original.files)?;
        Ok(original)
    }

    fn end(&self) -> usize {
        self.written.records.len()
    }

    /// Picks a bit: two in three of segments, one in six of `log.meta`, the rest of all others.
    fn pick(&self, random: &mut SeededRandom) -> Flip {
        let kind = [1, 1, 1, 1, 0, 2][random.index(6)];
        let of_kind = |(path, _): &(&PathBuf, &Vec<u8>)| kind_of(path).min(2) == kind;
        let files: Vec<_> = self.files.iter().filter(of_kind).collect();
        let (file, bytes) = files[random.index(files.len())];
        // What lies behind the end of a segment is hit now and then.
        let end = self.ends.get(file).copied().filter(|_| random.chance(7, 8));
        let length = end.unwrap_or(bytes.len()).max(1);
        Flip { file: file.clone(), bit: random.index(length * 8) }
    }

    /// Returns whether the flip hits a byte that counts: of `log.meta`, or of a segment below its
    /// end.
    fn is_hit(&self, flip: &Flip) -> bool {
        flip.file.ends_with(META_FILE_NAME)
            || self.ends.get(&flip.file).is_some_and(|end| flip.byte() < *end)
    }

    /// Returns the highest mark that is still proven.
    fn floor(&self, flip: Option<&Flip>) -> usize {
        let harmed = |proof: &&Proof| {
            flip.is_some_and(|flip| proof.file == flip.file && proof.bytes.contains(&flip.byte()))
        };
        let whole = self.proofs.iter().filter(|proof| !harmed(proof));
        whole.map(|proof| proof.mark).max().unwrap_or(0)
    }

    /// Puts the log back, flips, and looks at it in every way there is.
    fn check(
        &self,
        directory: &Path,
        flip: Option<&Flip>,
        random: &mut SeededRandom,
    ) -> Result<Outcome, Failure> {
        let mut files = self.files.clone();
        if let Some(flip) = flip {
            let bytes = files.get_mut(&flip.file).ok_or("no such file")?;
            bytes[flip.byte()] ^= 1 << (flip.bit % 8);
        }
        write_files(directory, &files)?;
        let hit = flip.is_some_and(|flip| self.is_hit(flip));
        let mut outcome = Outcome { hit, ..Outcome::default() };
        let floor = self.floor(flip);
        self.check_verify(directory, flip, &mut outcome)?;
        let from = random.index(self.end());
        for (from, isolation) in
            [(0, Isolation::Written), (from, Isolation::Written), (0, Isolation::Durable)]
        {
            match OutsideReader::open(directory, LOG, Offset(wide(from)), isolation) {
                Ok(reader) => {
                    let seen = self.written.reading(from).all(reader)?;
                    outcome.failed(seen.failed)?;
                    let all = if isolation == Isolation::Durable { floor } else { self.end() };
                    if !seen.failed {
                        outcome
                            .ended(seen.end, floor, all)
                            .map_err(|why| format!("{isolation:?} from {from}: {why}"))?;
                    }
                }
                Err(error) => outcome.refused(&error)?,
            }
        }
        self.check_open(directory, from, floor, &mut outcome)?;
        Ok(outcome)
    }

    fn check_verify(
        &self,
        directory: &Path,
        flip: Option<&Flip>,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let verdicts = verify(directory, None)?;
        let damaged = verdicts.iter().any(|verdict| !verdict.damages.is_empty());
        let torn = verdicts.iter().any(|verdict| verdict.torn_tail.is_some());
        // A slot of an open log may be torn by a crash: that is no damage.
        let may_be_torn = !self.closed && flip.is_some_and(|flip| kind_of(&flip.file) == 0);
        let must_tell = outcome.hit && !may_be_torn;
        outcome.told |= damaged;
        outcome.cut |= torn;
        if must_tell && !damaged && (self.closed || !torn) {
            return Err(format!("verify sees no damage: {verdicts:?}").into());
        }
        if !outcome.hit && damaged || flip.is_none() && torn {
            return Err(format!("verify sees damage in what does not count: {verdicts:?}").into());
        }
        Ok(())
    }

    /// Opens for writing: what is gone must be told, or be above all marks; and appends behind it.
    fn check_open(
        &self,
        directory: &Path,
        from: usize,
        floor: usize,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let engine = Engine::open(Options::at(directory))?;
        let refused = engine.recovery().failed.iter().find(|(name, _)| name == LOG);
        if let Some((_, error)) = refused {
            return outcome.refused(error);
        }
        if !engine.log_names().iter().any(|name| name == LOG) {
            return Err("the log is silently gone".into());
        }
        let log = engine.log(LOG, LogOptions::default())?;
        let report = log.recovery();
        let told =
            report.corrupt.is_some() || !report.quarantined.is_empty() || log.failure().is_some();
        let end = usize::try_from(log.marks().log_end.0)?;
        if told && !outcome.hit {
            return Err(format!("opening tells of damage where there is none: {report:?}").into());
        }
        outcome.told |= told;
        if end > self.end() {
            return Err(format!("the log ends at {end}, but less was written").into());
        }
        if !told {
            outcome.ended(end, floor, self.end())?;
        }
        for from in [0, from.min(end)] {
            match log.read(Offset(wide(from)), Isolation::Written) {
                Ok(reader) => {
                    let seen = self.written.reading(from).skipping().all(reader)?;
                    if seen.end < end && !seen.failed && !told {
                        return Err(format!("the log ends at {end}, but {seen:?}").into());
                    }
                    outcome.failed(seen.failed)?;
                }
                Err(error) => outcome.refused(&error)?,
            }
        }
        self.check_append(&log, end, told, outcome)?;
        drop(log);
        // A log that can only be read says so once more.
        if let Err(error) = engine.close() {
            return outcome.refused(&error);
        }
        if outcome.appended {
            self.check_again(directory, end)?;
        }
        Ok(())
    }

    /// Appends a record where the log ends, if it takes it, and reads it back.
    fn check_append(
        &self,
        log: &Log,
        end: usize,
        told: bool,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let report = log.recovery();
        let whole = !told && report.quarantined.is_empty() && !report.producers.incomplete;
        let known = log.producer(ProducerId(PRODUCER)).map(|known| known.next_sequence().0);
        // Every record is one of the producer's, so that its next number is the log's end.
        if whole && known.as_ref().ok().copied() != Some(i32::try_from(end)?) {
            return Err(format!("at offset {end} the producer is known as {known:?}").into());
        }
        let batch = RecordBatch::builder().value(CHECK).build()?;
        let appended = log.append(batch, Ack::LEADER_FLUSHED).and_then(|receipt| receipt.wait());
        match appended {
            Ok(appended) if appended.base_offset == Offset(wide(end)) => {
                outcome.appended = true;
                let expected = self.written.continued(end, CHECK);
                let seen =
                    expected.reading(end).all(log.read(Offset(wide(end)), Isolation::Written)?)?;
                if seen.end != end + 1 {
                    return Err(format!("what was appended at {end} is not read: {seen:?}").into());
                }
                Ok(())
            }
            Ok(appended) => Err(format!("the log ends at {end}, appended at {appended:?}").into()),
            Err(_) if told => Ok(()),
            Err(error) => {
                Err(format!("nothing was told, but an append is refused: {error}").into())
            }
        }
    }

    /// Reads from outside what the append left: all that was there, and the record behind it.
    fn check_again(&self, directory: &Path, end: usize) -> Result<(), Failure> {
        let expected = self.written.continued(end, CHECK);
        let reader = OutsideReader::open(directory, LOG, Offset(0), Isolation::Written)?;
        let seen = expected.reading(0).all(reader)?;
        if seen.end == end + 1 || seen.failed {
            return Ok(());
        }
        Err(format!("appended at {end} and closed, but {seen:?}").into())
    }
}

impl Outcome {
    /// Takes a refusal for telling of damage.
    fn refused(&mut self, error: &highwater::Error) -> Result<(), Failure> {
        match error.kind() {
            ErrorKind::Corrupt { .. } => self.failed(true),
            _ => Err(format!("this does not tell of damage: {error}").into()),
        }
    }

    /// Notes whether a reader got an error.
    fn failed(&mut self, failed: bool) -> Result<(), Failure> {
        if failed && !self.hit {
            return Err("a reader got an error, but what was hit does not count".into());
        }
        self.told |= failed;
        Ok(())
    }

    /// Judges a log that ends at `end` without a word, where `all` was written.
    fn ended(&mut self, end: usize, floor: usize, all: usize) -> Result<(), Failure> {
        if end < floor {
            return Err(format!("it ends at {end} silently; {floor} is proven").into());
        }
        if end < all && !self.hit {
            return Err(
                format!("it ends at {end} of {all}, but what was hit does not count").into()
            );
        }
        self.cut |= end < all;
        Ok(())
    }
}

/// Returns what proves flushes in the log, and where the last batch of its last segment ends.
fn proofs_of(directory: &Path) -> Result<(Vec<Proof>, usize), Failure> {
    let mut found = Vec::new();
    let mut last = (Offset(0), 0);
    let log = Path::new(LOG);
    dump(&directory.join(LOG), &mut |item| match item {
        DumpItem::Slot { slot, meta: Ok(meta) } => {
            found.push((
                log.join(META_FILE_NAME),
                wide(slot * SLOT_BYTES),
                SLOT_BYTES,
                meta.flushed.offset,
            ));
        }
        DumpItem::Batch { file, batch } => {
            let header = batch.header();
            let file = log.join(file.file_name().unwrap_or_default());
            found.push((file, header.position.0, HEADER_BYTES, header.flush_mark));
            last =
                last.max((header.base_offset, header.position.0 + u64::from(header.total_bytes)));
        }
        _ => {}
    })?;
    let proofs = found.into_iter().map(|(file, position, length, mark)| {
        let position = usize::try_from(position)?;
        let mark = usize::try_from(mark.0)?;
        Ok(Proof { file, bytes: position..position + length, mark })
    });
    Ok((proofs.collect::<Result<_, Failure>>()?, usize::try_from(last.1)?))
}

#[cfg(test)]
#[path = "flips_tests.rs"]
mod tests;
