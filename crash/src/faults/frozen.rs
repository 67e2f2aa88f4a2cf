//! A frozen file system: nothing that needs it comes to an end, everything else does.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use highwater::{Ack, ErrorKind, Outcome};

use super::ground::{Ground, PATIENCE, Tally, on_disk, open, refused, says, small};
use super::{Found, Site};
use crate::command::{find, run};
use crate::error::RigError;
use crate::mount::FileSystem;
use crate::scratch::Scratch;
use crate::workload::Failure;

/// How long an append to the frozen log is waited for.
const SHORT: Duration = Duration::from_millis(300);

/// Thaws `$1` when its standard input ends - also because the one who froze it died - and at the
/// latest after `$2` seconds; says by its exit code which it was.
const WATCHDOG: &str = "timeout \"$2\" cat; said=$?; fsfreeze --unfreeze \"$1\"; exit $said";
/// After so many seconds the watchdog does not wait any longer.
const FROZEN_SECONDS_MAX: &str = "60";

/// A frozen file system. Another process thaws it in any case: who froze it may hang in it.
#[derive(Debug)]
pub(super) struct Frozen {
    watchdog: Child,
}

impl Frozen {
    /// Freezes the file system mounted at `mount`.
    pub(super) fn freeze(mount: &Path) -> Result<Self, Failure> {
        for program in ["fsfreeze", "timeout"] {
            if find(program).is_none() {
                return Err(RigError::Missing(format!("no {program}")).into());
            }
        }
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCHDOG, "highwater-crash-thaw"]).arg(mount).arg(FROZEN_SECONDS_MAX);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let frozen = Frozen { watchdog: command.spawn()? };
        run("fsfreeze", &["--freeze".as_ref(), mount.as_os_str()])?;
        Ok(frozen)
    }

    /// Thaws it.
    ///
    /// # Errors
    /// If it was thawed already, because something here took too long.
    pub(super) fn thaw(mut self) -> Result<(), Failure> {
        drop(self.watchdog.stdin.take());
        let status = self.watchdog.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the watchdog thawed: {status}").into()) }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        // Its exit code was asked for before, or does not matter behind the first failure.
        let _status = self.watchdog.wait();
    }
}

pub(super) fn ext4(site: &Site) -> Result<Found, Failure> {
    on_disk(FileSystem::Ext4, |ground| frozen(site, ground))
}

pub(super) fn xfs(site: &Site) -> Result<Found, Failure> {
    on_disk(FileSystem::Xfs, |ground| frozen(site, ground))
}

fn frozen(site: &Site, ground: &mut Option<Ground<'_>>) -> Result<Found, Failure> {
    let Some(ground) = ground.as_ref() else { return Err("no file system".into()) };
    let mut found = Found::new();
    let elsewhere = Scratch::new("faults")?;
    let engine = open(site.backend, &ground.data())?;
    let neighbour = open(site.backend, &elsewhere.path().join("data"))?;
    let (log, other) = (engine.log("frozen", small())?, engine.log("other", small())?);
    let beside = neighbour.log("beside", small())?;
    let (mut tally, mut others, mut besides) =
        (Tally::default(), Tally::default(), Tally::default());
    tally.append_flushed(&log, 40)?;
    others.append_flushed(&other, 40)?;

    let freeze = Frozen::freeze(ground.mount())?;
    // Alone, the shard may run it by itself; the others find it there.
    let mut waiting = vec![tally.send(&log, Ack::LEADER_FLUSHED)?];
    let error = refused("a frozen append", waiting[0].1.wait_timeout(SHORT))?;
    for ack in [Ack::LEADER, Ack::LEADER_FLUSHED] {
        waiting.push(tally.send(&log, ack)?);
    }
    let also = others.send(&other, Ack::LEADER)?;
    if *error.kind() != ErrorKind::Timeout || error.outcome() != Outcome::Unknown {
        return Err(format!("an append to a frozen log: {error:?}").into());
    }
    found.push(format!("its append: {}", says(&error, &["log frozen", "wait again", "fsfreeze"])?));
    besides.append_flushed(&beside, 200)?;
    besides.check_inside(&beside)?;
    found.push("another engine: 200 appends flushed meanwhile".to_owned());
    let inside = tally.check_inside(&log)? + others.check_inside(&other)?;
    let outside = tally.check_outside(&ground.data(), "frozen")?;
    others.check_outside(&ground.data(), "other")?;
    let figures = match engine.metrics() {
        Ok(_) => "told".to_owned(),
        Err(error) if *error.kind() == ErrorKind::Timeout => says(&error, &["disk"])?,
        Err(error) => return Err(error.into()),
    };
    found.push(format!("its figures: {figures}"));
    found.push(format!(
        "readers: {inside} records inside, {outside} of the first log outside, verified, meanwhile"
    ));
    freeze.thaw()?;

    for (id, receipt) in waiting {
        tally.owe(id, &receipt.wait_timeout(PATIENCE)?);
    }
    others.owe(also.0, &also.1.wait_timeout(PATIENCE)?);
    tally.append_flushed(&log, 20)?;
    let read = tally.check_inside(&log)? + others.check_inside(&other)?;
    neighbour.close()?;
    engine.close()?;
    tally.check_outside(&ground.data(), "frozen")?;
    let owed = tally.owed() + others.owed();
    found.push(format!("thawed: every append acked, {owed} owed, {read} read, lost 0"));
    Ok(found)
}
