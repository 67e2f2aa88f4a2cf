//! A device that fails below the file system: the log is poisoned, its marks stand still, nothing
//! is tried again, and reopening tells the truth.

use highwater::{Ack, ErrorKind, Isolation, Log, Outcome};

use super::ground::{Ground, PATIENCE, Tally, on_disk, one, open, refused, small};
use super::{Found, Site};
use crate::device::Failing;
use crate::mount::FileSystem;
use crate::workload::Failure;

pub(super) fn ext4(site: &Site) -> Result<Found, Failure> {
    each(site, FileSystem::Ext4)
}

pub(super) fn xfs(site: &Site) -> Result<Found, Failure> {
    each(site, FileSystem::Xfs)
}

fn each(site: &Site, file_system: FileSystem) -> Result<Found, Failure> {
    let mut found = Found::new();
    for failing in [Failing::Device, Failing::NoSpace, Failing::Flushes] {
        let said = on_disk(file_system, |ground| fails(site, ground, failing))
            .map_err(|failure| format!("{failing:?}: {failure}"))?;
        found.extend(said.into_iter().map(|line| format!("{failing:?}: {line}")));
    }
    Ok(found)
}

fn fails(site: &Site, place: &mut Option<Ground<'_>>, failing: Failing) -> Result<Found, Failure> {
    let Some(ground) = place.take() else { return Err("no file system".into()) };
    let mut found = Found::new();
    let engine = open(site.backend, &ground.data())?;
    let log = engine.log("log", small())?;
    let mut tally = Tally::default();
    tally.append_flushed(&log, 50)?;

    ground.disk.fail(Some(failing));
    let said = poisoned(&log, &mut tally)?;
    found.push(format!("its append: {said}"));
    let flushed = log.marks().flushed;
    ground.disk.fail(None);
    // The device works again, and yet nothing is tried.
    stays_poisoned(&log, &tally)?;
    let reopened = log.reopen();
    let marks = log.marks();
    if marks.flushed < flushed {
        return Err(format!("the flushed mark went back from {flushed}: {marks:?}").into());
    }
    let reopened = match reopened {
        Ok(_) => {
            tally.append_flushed(&log, 20)?;
            tally.check_inside(&log)?;
            let left = ground.check_cut(site.backend, "log", &tally)?;
            format!("reopened in place, appends go on; a power cut then leaves {left}, lost 0")
        }
        Err(error) => format!("not reopened in place: {error}"),
    };
    found.push(reopened);
    drop(log);
    // Whatever became of its log, a crash is as good an end as any.
    drop(engine);

    let ground = ground.restart()?;
    let engine = open(site.backend, &ground.data())?;
    let log = engine.log("log", small())?;
    tally.check_inside(&log)?;
    tally.append_flushed(&log, 10)?;
    let read = tally.check_inside(&log)?;
    engine.close()?;
    tally.check_outside(&ground.data(), "log")?;
    found.push(format!("mounted again: {} owed, {read} read, lost 0", tally.owed()));
    *place = Some(ground);
    Ok(found)
}

/// Appends until the log is poisoned: at once, or when a flush of the file system's own fails.
fn poisoned(log: &Log, tally: &mut Tally) -> Result<String, Failure> {
    let before = log.marks().flushed;
    let written = tally.send(log, Ack::LEADER)?.1;
    let (_, flushed) = tally.send(log, Ack::LEADER_FLUSHED)?;
    let error = refused("an append that waits for a flush", flushed.wait_timeout(PATIENCE))?;
    if *error.kind() != ErrorKind::Poisoned {
        return Err(format!("an append: {error:?}").into());
    }
    // Written before the flush failed, or failed with it; never said to be flushed.
    if let Err(error) = written.wait_timeout(PATIENCE)
        && *error.kind() != ErrorKind::Poisoned
    {
        return Err(format!("an append for a write: {error:?}").into());
    }
    if written.wait_flushed().is_ok() || log.marks().flushed != before {
        return Err(format!("flushed: {:?}", log.marks()).into());
    }
    Ok(error.to_string())
}

fn stays_poisoned(log: &Log, tally: &Tally) -> Result<(), Failure> {
    let before = log.marks();
    for ack in [Ack::NONE, Ack::LEADER, Ack::LEADER_FLUSHED] {
        let error = refused("a later append", log.append(one()?, ack))?;
        if *error.kind() != ErrorKind::Poisoned || error.outcome() != Outcome::NotAppended {
            return Err(format!("a later append: {error:?}").into());
        }
    }
    let flush = log.flush()?.wait_timeout(PATIENCE);
    refused("a later flush", flush)?;
    if log.marks() != before {
        return Err(format!("marks moved from {before:?} to {:?}", log.marks()).into());
    }
    let durable = crate::records::read_all(log.read(highwater::Offset(0), Isolation::Durable)?)?;
    tally.check(&durable)?;
    Ok(())
}
