//! Files and directories taken from under a running engine: nothing false while it runs, and a
//! clear word at the next opening.

use std::path::Path;

use highwater::inspect::verify;
use highwater::{Ack, Engine, Error, ErrorKind, Isolation, Log, Offset};

use super::ground::{PATIENCE, SEGMENT_BYTES, Tally, open, small};
use super::{Found, Site};
use crate::scratch::Scratch;
use crate::workload::Failure;

/// Enough records for three segments.
const RECORDS: usize = 6000;

/// The whole directory goes. What it held is gone, whoever asks; nothing panics, and the next
/// segment cannot be made.
pub(super) fn directory(site: &Site) -> Result<Found, Failure> {
    let mut found = Found::new();
    let scratch = Scratch::new("faults")?;
    let data = scratch.path().join("data");
    let engine = open(site.backend, &data)?;
    let log = engine.log("log", small())?;
    let mut tally = Tally::default();
    tally.append_flushed(&log, 20)?;
    std::fs::remove_dir_all(&data)?;

    let error = until_refused(&log, &mut tally)?;
    found.push(format!("its append, when the next segment is due: {error}"));
    let error = first_error(&log)?.ok_or("everything was read from a removed directory")?;
    found.push(format!("a reader inside: {error}"));
    let error = match verify(&data, None) {
        Ok(_) => return Err("verified a removed directory".into()),
        Err(error) => error,
    };
    found.push(format!("verify: {error}"));
    match engine.close() {
        Ok(()) => return Err("closed as if all were well".into()),
        Err(error) => found.push(format!("closed: {error}")),
    }
    let engine = open(site.backend, &data)?;
    let left = engine.log_names().len();
    engine.close()?;
    found.push(format!("opened again: a new directory with {left} logs"));
    Ok(found)
}

/// One sealed segment goes, and then the active one.
pub(super) fn segment(site: &Site) -> Result<Found, Failure> {
    let mut found = Found::new();
    for which in [Which::Oldest, Which::Middle, Which::Active] {
        let scratch = Scratch::new("faults")?;
        let data = scratch.path().join("data");
        let engine = open(site.backend, &data)?;
        let log = engine.log("log", small())?;
        let mut tally = Tally::default();
        tally.append_flushed(&log, RECORDS)?;
        let range = remove(&data.join("log"), which)?;
        if which == Which::Active {
            // It is open here and goes on until the next one: what is in it has lost its name.
            let error = until_sealed(&log, &mut tally)?;
            found.push(format!("{which:?}: appends go on to the end of the segment{error}"));
        } else {
            tally.append_flushed(&log, 10)?;
            found.push(format!("{which:?}: appends go on"));
        }
        let error = first_error(&log)?.ok_or("everything was read, also what is gone")?;
        found.push(format!("{which:?}: a reader inside: {error}"));
        drop((log, engine));
        found.push(format!("{which:?}: {}", opened_again(site, &data, range)?));
    }
    Ok(found)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Oldest,
    Middle,
    Active,
}

/// Removes a segment; returns its first offset.
fn remove(directory: &Path, which: Which) -> Result<u64, Failure> {
    let mut bases = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        bases.extend(name.strip_suffix(".log").and_then(|base| base.parse::<u64>().ok()));
    }
    bases.sort_unstable();
    let base = match (which, bases.as_slice()) {
        (Which::Oldest, [base, _, ..])
        | (Which::Middle, [_, base, _, ..])
        | (Which::Active, [_, .., base]) => *base,
        _ => return Err(format!("too few segments: {bases:?}").into()),
    };
    std::fs::remove_file(directory.join(format!("{base:020}.log")))?;
    Ok(base)
}

/// Appends until the log refuses; the reason must be a clear one.
fn until_refused(log: &Log, tally: &mut Tally) -> Result<Error, Failure> {
    for _ in 0..SEGMENT_BYTES / 100 {
        let (_, receipt) = tally.send(log, Ack::LEADER)?;
        if let Err(error) = receipt.wait_timeout(PATIENCE) {
            let told = *error.kind() == ErrorKind::Poisoned && error.to_string().contains("such");
            return if told { Ok(error) } else { Err(format!("not clear: {error:?}").into()) };
        }
    }
    Err("never refused".into())
}

/// Appends so much that the active segment is sealed; returns what it said, if it refused.
fn until_sealed(log: &Log, tally: &mut Tally) -> Result<String, Failure> {
    for _ in 0..RECORDS / 2 {
        let (_, receipt) = tally.send(log, Ack::LEADER)?;
        if let Err(error) = receipt.wait_timeout(PATIENCE) {
            return Ok(format!(", then: {error}"));
        }
    }
    Ok(String::new())
}

/// Reads from inside; returns the first error. What is read before it is checked as ever.
fn first_error(log: &Log) -> Result<Option<Error>, Failure> {
    let reader = log.read(Offset(0), Isolation::Written)?;
    Ok(reader.take(RECORDS * 2).find_map(Result::err))
}

/// Opens what is left: the log is refused or the range is told, `verify` reports damage, and
/// nothing is read in the place of what is gone.
fn opened_again(site: &Site, data: &Path, missing: u64) -> Result<String, Failure> {
    let damages: usize = verify(data, None)?.iter().map(|verdict| verdict.damages.len()).sum();
    if damages == 0 {
        return Err(format!("verify does not miss the segment of offset {missing}").into());
    }
    let engine = open(site.backend, data)?;
    let said = told(&engine, missing)?;
    // A log that is not whole cannot be closed as one that is.
    let closed = engine.close().map_or_else(|error| error.to_string(), |()| "well".to_owned());
    Ok(format!("opened again: {said}; verify: {damages} damages; closed: {closed}"))
}

fn told(engine: &Engine, missing: u64) -> Result<String, Failure> {
    if let Some((_, error)) = engine.recovery().failed.first() {
        return Ok(format!("refused: {error}"));
    }
    let log = engine.log("log", highwater::LogOptions::default())?;
    let read = first_error(&log)?;
    match (log.failure(), read) {
        (Some(error), _) => Ok(format!("read-only: {error}")),
        (None, Some(error)) if matches!(error.kind(), ErrorKind::Corrupt { .. }) => {
            Ok(format!("appends go on; a reader: {error}"))
        }
        (None, read) => {
            Err(format!("offset {missing} is gone, but nobody says so: {read:?}").into())
        }
    }
}
