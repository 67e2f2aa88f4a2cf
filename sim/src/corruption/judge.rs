//! Opening and reading a damaged log, and what that may come to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use highwater::{Ack, ErrorKind, Isolation, LocalEngine, LocalLog, LogOptions, Offset, Options};
use highwater_io::IoErrorKind;
use highwater_io::sim::{SimDisk, SimPlatform, Survival};
use highwater_segment::meta::{LogMeta, META_FILE_NAME, decode_slots};
use highwater_segment::recovery::decide_meta;
use highwater_segment::scan::evidence;
use highwater_segment::segment::parse_segment_file_name;
use highwater_segment::{FIRST_BATCH, Position, SegmentHeader};

use super::Outcome;
use super::images::{Image, directory};
use crate::batches::batch_of;
use crate::checks::reads;
use crate::convert::narrow;
use crate::crash_states::stage::ROOT;
use crate::failure::{Check, broken, ensure};

/// I/O boundaries of one opening with everything read, at most.
const BOUNDARIES_MAX: u64 = 100_000;
/// An attempt that no image knows.
const FRESH_ATTEMPT: u64 = 1 << 40;

/// Opens the damaged `disk`, reads everything, and says what became of the log. `hit` is the first
/// batch that the damage concerns, if that is known: nothing before it may be missing.
pub(crate) fn judge(image: &Image, disk: &SimDisk, hit: Option<u64>) -> Check<Outcome> {
    let before = files(disk);
    let proven = proven(&before);
    disk.stop_at_boundary(disk.boundaries() + BOUNDARIES_MAX);
    let mut engine = match LocalEngine::open(disk.start_process(), &Options::at(ROOT)) {
        Ok(engine) => engine,
        Err(error) => return broken("D6", format!("the engine does not open: {error}")),
    };
    let recovery = engine.recovery().clone();
    if let Some((_, error)) = recovery.failed.first() {
        let told = matches!(error.kind(), ErrorKind::Corrupt { .. } | ErrorKind::Config);
        let told = told || is_unreadable(error);
        ensure(told, "D6", || format!("it is refused for another reason: {error}"))?;
        drop(engine);
        unchanged(disk, &before)?;
        return Ok(Outcome::Refused);
    }
    let Some(report) = recovery.logs.first().cloned() else {
        let empty = image.model.end() == 0;
        ensure(empty, "D6", || "the log has vanished".to_owned())?;
        return Ok(Outcome::Unharmed);
    };
    let handle = match engine.log(&report.name, &LogOptions::default()) {
        Ok(handle) => handle,
        Err(error) => return broken("D6", format!("an opened log is not there: {error}")),
    };
    let known: Vec<_> = report.corrupt.iter().chain(&report.quarantined).cloned().collect();
    let errors = read_all(image, &engine, handle, &known)?;
    let (end, whole) = (report.log_end.0, image.model.end());
    ensure(!known.is_empty() || end >= proven.min(whole), "D6", || {
        format!("silently cut to {end}, {proven} was flushed: {report:?}")
    })?;
    let outcome = if report.corrupt.is_some() {
        Outcome::ReadOnly
    } else if !report.quarantined.is_empty() {
        Outcome::Quarantined
    } else if errors {
        Outcome::ReadError
    } else if end < whole {
        ensure(hit.is_none_or(|hit| end >= hit.min(whole)), "D4", || {
            format!("cut to {end}, the damage is at {hit:?}: {report:?}")
        })?;
        Outcome::Cut
    } else {
        Outcome::Unharmed
    };
    ensure((outcome == Outcome::ReadOnly) == engine.failure(handle).is_some(), "D6", || {
        format!("{outcome:?}, but {:?}", engine.failure(handle))
    })?;
    if outcome == Outcome::ReadOnly {
        drop(engine);
        unchanged(disk, &before)?;
    }
    Ok(outcome)
}

/// Appends to what was opened, loses the power and opens again: what was taken is there. With
/// `below` there is damage below the mark, in the segment that is appended to: nobody walks over
/// it, so that what follows is told of instead.
pub(crate) fn goes_on(disk: &SimDisk, outcome: Outcome, below: bool) -> Check {
    disk.kill();
    disk.stop_at_boundary(disk.boundaries() + BOUNDARIES_MAX);
    let Ok(mut engine) = LocalEngine::open(disk.start_process(), &Options::at(ROOT)) else {
        return broken("D5", "the engine does not open again");
    };
    let handle = match engine.log("log-0", &LogOptions::default()) {
        Ok(handle) => handle,
        Err(_) if outcome == Outcome::Refused => return Ok(()),
        Err(error) => return broken("D5", format!("the log does not open again: {error}")),
    };
    let end = engine.marks(handle).log_end;
    let batch = batch_of(FRESH_ATTEMPT, &[700, 30]);
    let ticket = engine.append(handle, batch, Ack::LEADER_FLUSHED);
    let result = ticket.and_then(|ticket| engine.run_until(&ticket));
    if outcome == Outcome::ReadOnly {
        return ensure(result.is_err(), "D6", || "a corrupt log was appended to".to_owned());
    }
    let Ok(appended) = result else {
        return broken("D14", format!("no append is taken: {result:?}"));
    };
    ensure(appended.base_offset == end, "A1", || format!("{appended:?}, the end was {end}"))?;
    disk.power_cut(Survival::Nothing);
    drop(engine);
    let Ok(mut engine) = LocalEngine::open(disk.start_process(), &Options::at(ROOT)) else {
        return broken("D5", "the engine does not open a third time");
    };
    let Ok(handle) = engine.log("log-0", &LogOptions::default()) else {
        return broken("D5", "the log does not open a third time");
    };
    let read = engine.read(handle, end, Isolation::Durable);
    let found = read.ok().and_then(|mut reader| reader.next());
    match found {
        Some(Ok(batch)) if batch.base_offset() == end => Ok(()),
        Some(Err(error)) if below => match error.kind() {
            ErrorKind::Corrupt { range } if range.contains(&end) => Ok(()),
            _ if is_unreadable(&error) => Ok(()),
            _ => broken("D7", format!("damage is reported as something else: {error}")),
        },
        other => broken("D2", format!("{end} was appended behind the damage: {other:?}")),
    }
}

/// Reads everything; returns whether there was an error.
fn read_all(
    image: &Image,
    engine: &LocalEngine<SimPlatform>,
    handle: LocalLog,
    known: &[Range<Offset>],
) -> Check<bool> {
    let marks = engine.marks(handle);
    let (mut next, limit) = (marks.log_start.0, marks.written.0);
    let mut errors = false;
    while next < limit {
        let Ok(mut reader) = engine.read(handle, Offset(next), Isolation::Written) else {
            return Ok(true);
        };
        let error = loop {
            match reader.next() {
                None => break None,
                Some(Err(error)) => break Some(error),
                Some(Ok(batch)) => {
                    let base = batch.base_offset().0;
                    let gap = |range: &Range<Offset>| range.start.0 <= next && range.end.0 >= base;
                    ensure(base <= next || known.iter().any(gap), "D7", || {
                        format!("offsets {next}..{base} were skipped without a word")
                    })?;
                    let entry = image.model.entries.get(image.model.index_of(base));
                    let Some(entry) = entry.filter(|entry| entry.base == base) else {
                        return broken("D7", format!("offset {base} was never appended"));
                    };
                    reads::same(entry, &batch, next.max(base))?;
                    next = entry.end();
                }
            }
        };
        let Some(error) = error else {
            ensure(next >= limit, "D7", || format!("the read ended at {next}, below {limit}"))?;
            break;
        };
        errors = true;
        if is_unreadable(&error) {
            return Ok(true);
        }
        let ErrorKind::Corrupt { range } = error.kind() else {
            return broken("D7", format!("damage is reported as something else: {error}"));
        };
        ensure(range.end.0 > next, "D7", || format!("reading does not go on behind {error}"))?;
        next = range.end.0;
    }
    Ok(errors)
}

/// Whether the device could not read: never a torn tail, and nothing is cut or written.
fn is_unreadable(error: &highwater::Error) -> bool {
    error.io().is_some_and(|io| io.kind == IoErrorKind::Device)
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(disk: &SimDisk) -> Files {
    let directory = directory();
    let files = disk.files().into_iter().filter(|path| path.starts_with(&directory));
    files.map(|path| (path.clone(), disk.read_file(&path).unwrap_or_default())).collect()
}

fn unchanged(disk: &SimDisk, before: &Files) -> Check {
    let same = files(disk) == *before;
    ensure(same, "D6", || "a log that is refused, or read-only, was changed".to_owned())
}

/// Returns the highest flushed mark that is on the media after the damage: in the slot that counts,
/// or in a good batch header at or above it. What is above cannot be told from a torn tail.
fn proven(files: &Files) -> u64 {
    let Some(meta) = counting(files) else { return 0 };
    let mut proven = meta.flushed.offset.0;
    for (path, bytes) in files {
        let Some(base) = base_of(path).filter(|base| *base >= meta.flushed.segment.0) else {
            continue;
        };
        let header = SegmentHeader::decode(bytes).ok().filter(|own| own.base_offset.0 == base);
        let (Some(header), Some(body)) = (header, bytes.get(narrow(FIRST_BATCH.0)..)) else {
            continue;
        };
        if header.log_id == meta.log_id {
            let salt = Some(header.salt);
            let found = evidence(body, Position(FIRST_BATCH.0), salt, meta.generation);
            proven = proven.max(found.proven.0);
        }
    }
    proven
}

fn counting(files: &Files) -> Option<LogMeta> {
    let bytes = files.get(&directory().join(META_FILE_NAME))?;
    decide_meta(&decode_slots(bytes), true).1
}

fn base_of(path: &Path) -> Option<u64> {
    parse_segment_file_name(path.file_name()?.to_str()?).map(|base| base.0)
}
