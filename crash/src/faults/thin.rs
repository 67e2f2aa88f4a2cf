//! A thin disk that is full before the file system on it knows: writes fail below it, as an error
//! of the device or as one of space, at the write or only at the flush.
//!
//! Each append is one block here. The loop driver (Linux 6.18) says of a write of several that it
//! is whole when the file below took only the first of them: it loses the others, and a flush says
//! nothing either. That is a disk that lies, and no file system or log can do more than notice it.

use std::path::Path;

use highwater::{Ack, ErrorKind, Log, LogOptions};

use super::ground::{PATIENCE, Tally, open, small};
use super::{Found, Site};
use crate::mount::FileSystem;
use crate::rig::Rig;
use crate::workload::Failure;

/// What the disk has at first, and later.
const BEGIN_BYTES: [(FileSystem, u64); 2] =
    [(FileSystem::Ext4, 12 << 20), (FileSystem::Xfs, 80 << 20)];
const LATER_BYTES: u64 = 400 << 20;
/// So many records do not fit.
const RECORDS_MAX: usize = 200_000;

pub(super) fn disk(site: &Site) -> Result<Found, Failure> {
    let mut found = Found::new();
    for (file_system, bytes) in BEGIN_BYTES {
        let rig = Rig::start(file_system)?;
        let mut thin = rig.mount_thin(bytes)?;
        let data = thin.directory().join("data");
        let mut tally = Tally::default();
        let said = fill(site, &data, &mut tally)?;
        found.push(format!("{file_system}: after {} records: {said}", tally.owed()));
        thin.resize(LATER_BYTES)?;
        thin.restart()?;
        let engine = open(site.backend, &data)?;
        let log = engine.log("log", small())?;
        tally.check_inside(&log)?;
        for _ in 0..20 {
            tally.only_short()?;
            tally.append(&log, Ack::LEADER_FLUSHED)?;
        }
        let read = tally.check_inside(&log)?;
        engine.close()?;
        tally.check_outside(&data, "log")?;
        let owed = tally.owed();
        found.push(format!("{file_system}: space again: {owed} owed, {read} read, lost 0"));
    }
    Ok(found)
}

/// Appends until the log is poisoned: then its mark stands still.
fn fill(site: &Site, data: &Path, tally: &mut Tally) -> Result<String, Failure> {
    let engine = open(site.backend, data)?;
    let log = engine.log("log", LogOptions { never_rewrite_flushed: Some(true), ..small() })?;
    for _ in 0..RECORDS_MAX {
        tally.only_short()?;
        let (id, receipt) = tally.send(&log, Ack::LEADER_FLUSHED)?;
        match receipt.wait_timeout(PATIENCE) {
            Ok(appended) => tally.owe(id, &appended),
            Err(error) if *error.kind() == ErrorKind::Poisoned => {
                stands_still(&log, tally)?;
                return Ok(error.to_string());
            }
            // What the file system needs for itself may meet the end first.
            Err(error) if *error.kind() == ErrorKind::Full => return Ok(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    Err("the disk never got full".into())
}

fn stands_still(log: &Log, tally: &mut Tally) -> Result<(), Failure> {
    let before = log.marks();
    let owed = u64::try_from(tally.owed())?;
    if before.flushed.0 != owed {
        return Err(format!("{owed} were acked as flushed, the mark is {before:?}").into());
    }
    let error = log.append(super::ground::one()?, Ack::LEADER).map(drop);
    match error {
        Err(error) if *error.kind() == ErrorKind::Poisoned && log.marks() == before => Ok(()),
        other => Err(format!("a later append: {other:?}, {:?}", log.marks()).into()),
    }
}
