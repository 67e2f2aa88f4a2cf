//! A log that is damaged bit by bit, and every way to look at what is left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use highwater::inspect::{DumpItem, OutsideReader, dump, verify};
use highwater::segment::HEADER_BYTES;
use highwater::segment::batch::MAGIC;
use highwater::segment::meta::{META_FILE_NAME, SLOT_BYTES};
use highwater::{
    Ack, Engine, ErrorKind, Isolation, Log, LogOptions, Offset, Options, ProducerId, RecordBatch,
};
use highwater_io::random::SeededRandom;

use super::{Flip, kind_of};
use crate::damage::ends_of;
use crate::image::wide;
use crate::scratch::{Files, read_files, write_files};
use crate::workload::Failure;
use crate::written::{LOG, PRODUCER, Written};

/// What is appended to a damaged log that still takes it.
pub(super) const CHECK: &[u8] = b"appended behind the damage";

/// What became of a damaged log; nothing of it was wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    pub(super) hit: bool,
    pub(super) told: bool,
    pub(super) cut: bool,
    pub(super) appended: bool,
}

/// Bytes that prove a flush: as long as they are whole, nothing below the mark may go silently.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) file: PathBuf,
    pub(super) bytes: std::ops::Range<usize>,
    pub(super) mark: usize,
}

/// A log without a process, and what is known of it.
pub(super) struct Original {
    pub(super) files: Files,
    pub(super) written: Written,
    closed: bool,
    /// Where what counts ends in each segment's file.
    pub(super) ends: BTreeMap<PathBuf, usize>,
    pub(super) proofs: Vec<Proof>,
    /// The timestamp of each record, in milliseconds since 1970.
    pub(super) times: Vec<i64>,
}

impl Original {
    /// Takes the log in `directory`, and looks whether it is right.
    pub(super) fn new(directory: &Path, written: Written, closed: bool) -> Result<Self, Failure> {
        let files = read_files(directory)?;
        let mut ends = ends_of(directory, LOG, &files)?;
        let Found { proofs, last, times } = Found::in_log(directory)?;
        if let Some(end) = ends.values_mut().next_back().filter(|_| !closed) {
            // The mark of log.meta is elsewhere.
            *end = last;
        }
        let original = Original { files, written, closed, ends, proofs, times };
        original.check(directory, None, &mut SeededRandom::new(0))?;
        // The check appended to it.
        write_files(directory, &original.files)?;
        Ok(original)
    }

    fn end(&self) -> usize {
        self.written.records.len()
    }

    /// Picks a bit: two in three of segments, one in six of `log.meta`, the rest of all others.
    pub(super) fn pick(&self, random: &mut SeededRandom) -> Flip {
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
    pub(super) fn is_hit(&self, flip: &Flip) -> bool {
        flip.file.ends_with(META_FILE_NAME)
            || self.ends.get(&flip.file).is_some_and(|end| flip.byte() < *end)
    }

    /// Returns whether the flip hits the magic of a batch.
    fn is_magic(&self, flip: &Flip) -> bool {
        let start = flip.byte() / 8 * 8;
        let magic = start..start + MAGIC.len();
        magic.contains(&flip.byte())
            && self.files.get(&flip.file).and_then(|bytes| bytes.get(magic)) == Some(&MAGIC)
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
    pub(super) fn check(
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
        self.check_time(directory, from, floor, &mut outcome)?;
        self.check_open(directory, from, floor, &mut outcome)?;
        Ok(outcome)
    }

    /// Returns the timestamp of the record at `offset`, and the first record below `end` that has
    /// it or a later one.
    fn first_at(&self, offset: usize, end: usize) -> (i64, Option<usize>) {
        let time = self.times[offset];
        (time, self.times[..end].iter().position(|other| *other >= time))
    }

    /// Looks a time up from outside: the index may help, and decides nothing.
    fn check_time(
        &self,
        directory: &Path,
        from: usize,
        floor: usize,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let (time, first) = self.first_at(from, self.end());
        let first = first.ok_or("a time of no record")?;
        match OutsideReader::open_at_time(directory, LOG, time, Isolation::Written) {
            Ok(reader) => {
                let seen = self.written.reading(first).all(reader.take(1))?;
                outcome.failed(seen.failed)?;
                if seen.end > first || seen.failed {
                    return Ok(());
                }
                outcome.ended(seen.end, floor, self.end())
            }
            Err(error) => outcome.refused(&error),
        }
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
        // Above all marks, bytes without the magic may as well be of an earlier use of the file.
        let floor = Offset(wide(self.floor(flip)));
        let is_plain = !self.closed
            && flip.is_some_and(|flip| self.is_magic(flip))
            && verdicts.iter().all(|verdict| verdict.log_end >= floor);
        let must_tell = outcome.hit && !may_be_torn && !is_plain;
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
        let (time, first) = self.first_at(from, end);
        match log.offset_at(time, Isolation::Written) {
            Ok(found) if found == first.map(|first| Offset(wide(first))) => {}
            Ok(found) => return Err(format!("time {time} is at {found:?}, not {first:?}").into()),
            Err(error) => outcome.refused(&error)?,
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

/// What a log holds besides its records.
#[derive(Default)]
struct Found {
    pub(super) proofs: Vec<Proof>,
    /// Where the last batch of the last segment ends.
    last: usize,
    times: Vec<i64>,
}

impl Found {
    fn in_log(directory: &Path) -> Result<Self, Failure> {
        let mut found = Found::default();
        let mut failure = None;
        dump(&directory.join(LOG), &mut |item| {
            if let Err(error) = found.note(&item) {
                failure.get_or_insert(error);
            }
        })?;
        failure.map_or(Ok(found), Err)
    }

    fn note(&mut self, item: &DumpItem<'_>) -> Result<(), Failure> {
        let log = Path::new(LOG);
        match item {
            DumpItem::Slot { slot, meta: Ok(meta) } => {
                let start = slot * SLOT_BYTES;
                let mark = usize::try_from(meta.flushed.offset.0)?;
                let bytes = start..start + SLOT_BYTES;
                self.proofs.push(Proof { file: log.join(META_FILE_NAME), bytes, mark });
            }
            DumpItem::Batch { file, batch } => {
                let header = batch.header();
                let file = log.join(file.file_name().unwrap_or_default());
                let start = usize::try_from(header.position.0)?;
                let mark = usize::try_from(header.flush_mark.0)?;
                self.proofs.push(Proof { file, bytes: start..start + HEADER_BYTES, mark });
                self.last = start + usize::try_from(header.total_bytes)?;
                for record in batch.records() {
                    self.times.push(record.map_err(|error| error.to_string())?.timestamp_ms);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
