//! Random damage to closed logs: noticed by `verify`, never read, never cut silently.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use highwater::inspect::{DumpItem, OutsideReader, dump, verify};
use highwater::segment::meta::{META_FILE_NAME, decode_slots, slot_of};
use highwater::segment::segment::parse_segment_file_name;
use highwater::segment::{BLOCK_BYTES, LogMeta};
use highwater::{
    Ack, Engine, ErrorKind, FlushPolicy, Isolation, LogOptions, Offset, Options, ReadBatch,
};
use highwater_io::random::SeededRandom;

use crate::binary::{Binary, CORRUPTION, expect};
use crate::harm::{Harm, harm};
use crate::image::wide;
use crate::records::{RECORDS_MAX, batch, id_at};
use crate::scratch::{Files, Scratch, read_files, write_files};
use crate::timeline::RecordId;
use crate::workload::Failure;

/// The log's name.
const LOG: &str = "damaged";
/// Rounds on one log; then another one is made.
const ROUNDS_PER_LOG: usize = 50;
/// One in so many rounds asks the binary, too.
const BINARY_EVERY: usize = 20;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many times to damage a log.
    pub rounds: usize,
    /// The logs and the damage follow from this.
    pub seed: u64,
    /// The binary to ask now and then.
    pub binary: Option<Binary>,
}

/// What a run did and found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Damages done.
    pub rounds: usize,
    /// Of them those that hit a byte that counts.
    pub counting: usize,
    /// How often the binary was asked.
    pub asked: usize,
    /// What was not as it must be, in words.
    pub findings: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { rounds, counting, asked, findings } = self;
        write!(
            f,
            "damage: rounds {rounds}, hit {counting}, spared {}, binary asked {asked}, wrong {}",
            rounds - counting,
            findings.len()
        )
    }
}

/// Damages logs as `plan` says.
///
/// # Errors
/// If a log cannot be made. What damage does stands in the summary.
pub fn run(plan: &Plan) -> Result<Summary, Failure> {
    let mut summary = Summary::default();
    let scratch = Scratch::new("damage")?;
    let directory = scratch.path().join("data");
    let random = SeededRandom::new(plan.seed);
    let mut log = Original::new(&directory, random.split("log 0"))?;
    for round in 0..plan.rounds {
        if round > 0 && round.is_multiple_of(ROUNDS_PER_LOG) {
            log = Original::new(&directory, random.split(&format!("log {round}")))?;
        }
        let mut random = random.split(&format!("round {round}"));
        let mut files = log.files.clone();
        let harm = harm(&mut files, &log.stale, &mut random);
        write_files(&directory, &files)?;
        let counts = log.counts(&files);
        let ask = plan.binary.as_ref().filter(|_| round.is_multiple_of(BINARY_EVERY));
        summary.rounds += 1;
        summary.counting += usize::from(counts);
        summary.asked += usize::from(ask.is_some());
        let checked = log
            .check_verify(&directory, counts, &harm)
            .and_then(|()| log.check_read(&directory))
            .and_then(|()| ask.map_or(Ok(()), |binary| log.ask(&directory, binary, counts)))
            .and_then(|()| log.check_open(&directory, counts));
        if let Err(failure) = checked {
            summary.findings.push(format!("round {round}: {harm}: {failure}"));
        }
    }
    Ok(summary)
}

/// A closed log and what is known of it.
struct Original {
    files: Files,
    /// The same files as they once were, and others.
    stale: Vec<Vec<u8>>,
    records: Vec<RecordId>,
    /// Where what counts ends in each segment's file.
    ends: BTreeMap<PathBuf, usize>,
}

impl Original {
    /// Makes a log of several segments in several lives.
    fn new(directory: &Path, mut random: SeededRandom) -> Result<Self, Failure> {
        write_files(directory, &Files::new())?;
        let mut records: Vec<RecordId> = Vec::new();
        let mut stale = Vec::new();
        let mut next = 1;
        let never_rewrite_flushed = Some(random.chance(1, 4));
        let segment_bytes = Some((64 << 10) << random.below(2));
        for _ in 0..1 + random.below(4) {
            let options = LogOptions {
                segment_bytes,
                never_rewrite_flushed,
                flush: FlushPolicy { bytes: Some(20_000), ..FlushPolicy::NONE },
                ..LogOptions::default()
            };
            let engine = Engine::open(Options::at(directory))?;
            let log = engine.log(LOG, options)?;
            let mut bases = vec![records.len()];
            for _ in 0..random.below(80) {
                let ids = next..next + 1 + random.below(RECORDS_MAX);
                next = ids.end;
                records.extend(ids.clone());
                let receipt = log.append(batch(ids)?, Ack::LEADER)?;
                if random.chance(1, 3) {
                    receipt.wait()?;
                }
                if random.chance(1, 8) {
                    log.flush()?.wait()?;
                }
                bases.push(records.len());
            }
            if random.chance(1, 3) {
                let to = bases[random.index(bases.len())];
                stale.extend(read_files(directory)?.into_values());
                log.truncate(Offset(wide(to)))?;
                records.truncate(to);
            }
            drop(log);
            stale.extend(read_files(directory)?.into_values());
            engine.close()?;
        }
        let files = read_files(directory)?;
        let ends = ends_of(directory, LOG, &files)?;
        let original = Original { files, stale, records, ends };
        let nothing = Harm::default();
        original.check_verify(directory, false, &nothing)?;
        original.check_read(directory)?;
        Ok(original)
    }

    /// Returns whether a byte differs that counts: of `log.meta`, or of a segment up to its end.
    fn counts(&self, files: &Files) -> bool {
        self.files.iter().any(|(path, bytes)| {
            let is_meta = path.ends_with(META_FILE_NAME);
            let Some(end) = self.ends.get(path).copied().or(is_meta.then_some(bytes.len())) else {
                return false;
            };
            let now = files.get(path);
            now.and_then(|now| now.get(..end)) != Some(&bytes[..end])
                && !(is_meta && now.is_some_and(|now| is_earlier(now)))
        })
    }

    fn check_verify(&self, directory: &Path, counts: bool, harm: &Harm) -> Result<(), Failure> {
        let verdicts = verify(directory, None)?;
        let damaged = verdicts.iter().any(|verdict| !verdict.damages.is_empty());
        let torn = verdicts.iter().any(|verdict| verdict.torn_tail.is_some());
        match (counts, damaged) {
            (true, false) => Err("verify sees no damage".into()),
            (false, true) => {
                Err(format!("verify sees damage in what does not count: {verdicts:?}").into())
            }
            (false, false) if torn && !harm.behind_end => {
                Err(format!("verify sees a torn tail: {verdicts:?}").into())
            }
            _ => Ok(()),
        }
    }

    /// Reads as another process would: right records, and an error if not all of them.
    fn check_read(&self, directory: &Path) -> Result<(), Failure> {
        match OutsideReader::open(directory, LOG, Offset(0), Isolation::Written) {
            Ok(reader) => self.compare(reader, false, false),
            Err(_) => Ok(()),
        }
    }

    /// Compares what a reader gives with what was appended. `skips`: it goes on behind damage;
    /// `told`: that it is short is known already.
    fn compare(
        &self,
        reader: impl Iterator<Item = highwater::Result<ReadBatch>>,
        skips: bool,
        told: bool,
    ) -> Result<(), Failure> {
        let mut next = 0;
        let mut failed = false;
        for batch in reader {
            let Ok(batch) = batch else {
                failed = true;
                continue;
            };
            for record in batch.records() {
                let record = record.map_err(|error| error.to_string())?;
                let offset = usize::try_from(record.offset.0)?;
                let in_order = offset == next || (skips && failed && offset > next);
                if !in_order || id_at(&record) != self.records.get(offset).copied() {
                    return Err(format!("offset {offset} was read, which is not right").into());
                }
                next = offset + 1;
            }
        }
        if next == self.records.len() || failed || told {
            return Ok(());
        }
        Err(format!("{next} of {} records were read, and no error", self.records.len()).into())
    }

    /// Asks the binary: the exit codes, and the lines of `read`.
    fn ask(&self, directory: &Path, binary: &Binary, counts: bool) -> Result<(), Failure> {
        let code = if counts { CORRUPTION } else { 0 };
        expect(&mut binary.verb("verify", directory), code)?;
        let mut read = binary.on_log("read", directory, LOG);
        let output = read.output()?;
        match output.status.code() {
            Some(0 | 1 | CORRUPTION) => {}
            _ => return Err(format!("read ended with {}", output.status).into()),
        }
        let whole: Vec<u8> = self
            .records
            .iter()
            .flat_map(|id| crate::records::value(*id).into_iter().chain([b'\n']))
            .collect();
        if !whole.starts_with(&output.stdout) {
            return Err("read printed what was not appended".into());
        }
        if output.status.success() && output.stdout.len() < whole.len() {
            return Err("read ended short, and with 0".into());
        }
        Ok(())
    }

    /// Opens for writing: what is gone must be told.
    fn check_open(&self, directory: &Path, counts: bool) -> Result<(), Failure> {
        let engine = match Engine::open(Options::at(directory)) {
            Ok(engine) => engine,
            Err(error) => return Err(format!("the engine does not open: {error}").into()),
        };
        let told = !engine.recovery().failed.is_empty();
        if !engine.log_names().iter().any(|name| name == LOG) {
            return if told { Ok(()) } else { Err("the log is silently gone".into()) };
        }
        let log = engine.log(LOG, LogOptions::default())?;
        let report = log.recovery();
        let told = told
            || report.corrupt.is_some()
            || !report.quarantined.is_empty()
            || log.failure().is_some();
        let end = usize::try_from(log.marks().log_end.0)?;
        if !told && end != self.records.len() {
            let length = self.records.len();
            return Err(format!("opening cut {length} records to {end} silently").into());
        }
        if told && !counts {
            return Err(format!("opening tells of damage where there is none: {report:?}").into());
        }
        match log.read(Offset(0), Isolation::Written) {
            // Read-only or quarantined at the end: it told so, and ends there.
            Ok(reader) => self.compare(reader, true, told),
            Err(error) => match error.kind() {
                ErrorKind::Corrupt { .. } => Ok(()),
                _ => Err(error.into()),
            },
        }
    }
}

/// Returns whether both slots are whole and in their places: one of them then is what once stood
/// there, and the two are what a power cut before its last write would have left.
fn is_earlier(meta: &[u8]) -> bool {
    let slots = decode_slots(meta).into_iter().enumerate();
    slots.into_iter().all(|(slot, meta)| meta.is_ok_and(|meta| slot_of(meta.sequence) == slot))
}

/// Returns where what counts ends in each segment: in the last one where the log does, in the
/// others with the block of their last batch, or with that batch if an opening or a truncation
/// began the next segment. What a file has beyond was never written, or was cut off.
pub(crate) fn ends_of(
    directory: &Path,
    log: &str,
    files: &Files,
) -> Result<BTreeMap<PathBuf, usize>, Failure> {
    let mut batches = BTreeMap::new();
    let mut newest: Option<LogMeta> = None;
    dump(&directory.join(log), &mut |item| match item {
        DumpItem::Slot { meta: Ok(meta), .. }
            if newest.as_ref().is_none_or(|newest| newest.sequence < meta.sequence) =>
        {
            newest = Some(meta);
        }
        DumpItem::Batch { file, batch } => {
            let header = batch.header();
            let end = header.position.0 + u64::from(header.total_bytes);
            let batches: &mut Vec<_> = batches.entry(file.to_owned()).or_default();
            batches.push((header.base_offset, end));
        }
        _ => {}
    })?;
    let newest = newest.ok_or("no slot")?;
    let names = files.keys().map(|path| (path, path.file_name().and_then(|name| name.to_str())));
    let bases = names.filter_map(|(path, name)| Some((parse_segment_file_name(name?)?, path)));
    let bases: BTreeMap<Offset, &PathBuf> = bases.collect();
    let mut found = BTreeMap::new();
    for (base, path) in &bases {
        let next = bases.range(base.plus(1)..).next().map(|(next, _)| *next);
        // A truncation that began the next segment left batches behind.
        let batches = batches.get(&directory.join(path)).into_iter().flatten();
        let batches = batches.filter(|(base, _)| next.is_none_or(|next| *base < next));
        let end = batches.map(|(_, end)| *end).max().unwrap_or(BLOCK_BYTES);
        let end = match next {
            None => newest.flushed.position.0,
            Some(next) if newest.epochs.iter().any(|epoch| epoch.start == next) => end,
            Some(_) => end.next_multiple_of(BLOCK_BYTES),
        };
        found.insert(path.to_path_buf(), usize::try_from(end)?);
    }
    Ok(found)
}
