//! A file system that becomes read-only, is shut down, or was read-only from the start.

use std::path::Path;

use highwater::{Ack, ErrorKind, Outcome};

use super::ground::{Ground, PATIENCE, Tally, on_disk, one, open, refused, says, small};
use super::{Found, Site};
use crate::binary::expect;
use crate::command::{find, run};
use crate::error::RigError;
use crate::mount::FileSystem;
use crate::workload::Failure;

/// ext4 makes itself read-only when it meets an error of its own; `abort` is one on request.
pub(super) fn ext4_abort(site: &Site) -> Result<Found, Failure> {
    on_disk(FileSystem::Ext4, |ground| {
        lost_under_way(site, ground, true, |mount| {
            run("mount", &["-o".as_ref(), "remount,abort".as_ref(), mount.as_os_str()])?;
            Ok(())
        })
    })
}

/// XFS shuts down instead: nothing can be read either until it is mounted again.
pub(super) fn xfs_shut_down(site: &Site) -> Result<Found, Failure> {
    if find("xfs_io").is_none() {
        return Err(RigError::Missing("no xfs_io (Debian package xfsprogs)".to_owned()).into());
    }
    on_disk(FileSystem::Xfs, |ground| {
        lost_under_way(site, ground, false, |mount| {
            run("xfs_io", &["-x".as_ref(), "-c".as_ref(), "shutdown".as_ref(), mount.as_os_str()])?;
            Ok(())
        })
    })
}

fn lost_under_way(
    site: &Site,
    place: &mut Option<Ground<'_>>,
    reads: bool,
    make: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<Found, Failure> {
    let Some(ground) = place.take() else { return Err("no file system".into()) };
    let mut found = Found::new();
    let engine = open(site.backend, &ground.data())?;
    let log = engine.log("log", small())?;
    let mut tally = Tally::default();
    tally.append_flushed(&log, 50)?;
    make(ground.mount())?;

    let flushed = log.marks().flushed;
    let (_, receipt) = tally.send(&log, Ack::LEADER_FLUSHED)?;
    let error = refused("an append", receipt.wait_timeout(PATIENCE))?;
    if *error.kind() != ErrorKind::Poisoned || error.outcome() != Outcome::Unknown {
        return Err(format!("an append: {error:?}").into());
    }
    found.push(format!("its append: {}", says(&error, &["write", "reopen"])?));
    let later = refused("a later append", log.append(one()?, Ack::LEADER))?;
    if *later.kind() != ErrorKind::Poisoned || later.outcome() != Outcome::NotAppended {
        return Err(format!("a later append: {later:?}").into());
    }
    if log.marks().flushed != flushed {
        return Err("the flushed mark moved".into());
    }
    if reads {
        let inside = tally.check_inside(&log)?;
        let outside = tally.check_outside(&ground.data(), "log")?;
        found.push(format!("readers: {inside} records inside, {outside} outside, verified"));
    }
    let error = refused("reopening", log.reopen())?;
    found.push(format!("reopened too early: {error}"));
    let error = refused("a close", engine.close())?;
    found.push(format!("closed: {error}"));

    let ground = ground.restart()?;
    let read = come_back(site, &ground, &mut tally)?;
    found.push(format!("mounted again: {} owed, {read} read, lost 0", tally.owed()));
    *place = Some(ground);
    Ok(found)
}

fn come_back(site: &Site, ground: &Ground<'_>, tally: &mut Tally) -> Result<usize, Failure> {
    let engine = open(site.backend, &ground.data())?;
    let log = engine.log("log", small())?;
    tally.check_inside(&log)?;
    tally.append_flushed(&log, 10)?;
    let read = tally.check_inside(&log)?;
    engine.close()?;
    tally.check_outside(&ground.data(), "log")?;
    Ok(read)
}

/// Nothing can be written from the start: opening says so, and looking works.
pub(super) fn mounted(site: &Site) -> Result<Found, Failure> {
    on_disk(FileSystem::Ext4, |ground| {
        let Some(ground) = ground.as_ref() else { return Err("no file system".into()) };
        let mut found = Found::new();
        let engine = open(site.backend, &ground.data())?;
        let mut tally = Tally::default();
        tally.append_flushed(&engine.log("closed", small())?, 20)?;
        engine.close()?;
        let engine = open(site.backend, &ground.data())?;
        let mut crashed = Tally::default();
        crashed.append_flushed(&engine.log("crashed", small())?, 20)?;
        drop(engine);
        ground.remount("ro")?;

        let error = refused("an engine", open(site.backend, &ground.data()))?;
        found.push(format!("opened: {}", says(&error, &["ead-only", "remount"])?));
        let elsewhere = refused("an engine", open(site.backend, &ground.mount().join("new")))?;
        found.push(format!("a new directory: {}", says(&elsewhere, &["ead-only", "remount"])?));
        for (log, tally) in [("closed", &tally), ("crashed", &crashed)] {
            tally.check_outside(&ground.data(), log)?;
            expect(&mut site.binary.on_log("read", &ground.data(), log), 0)?;
            expect(&mut site.binary.dump(&ground.data().join(log)), 0)?;
        }
        expect(&mut site.binary.verb("verify", &ground.data()), 0)?;
        expect(&mut site.binary.verb("logs", &ground.data()), 0)?;
        found.push("read, verify, logs and dump: all there, of both logs".to_owned());
        let output = site.binary.append(&ground.data(), "closed", site.backend).output()?;
        let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        if output.status.code() != Some(1) || !said.contains("ead-only") {
            return Err(format!("append: {}: {said}", output.status).into());
        }
        ground.remount("rw")?;
        let engine = open(site.backend, &ground.data())?;
        tally.append(&engine.log("closed", small())?, Ack::LEADER_FLUSHED)?;
        crashed.append(&engine.log("crashed", small())?, Ack::LEADER_FLUSHED)?;
        engine.close()?;
        tally.check_outside(&ground.data(), "closed")?;
        crashed.check_outside(&ground.data(), "crashed")?;
        found.push("writable again: appends go on, lost 0".to_owned());
        Ok(found)
    })
}
