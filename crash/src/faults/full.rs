//! A full file system: refused before an offset exists, and on again when there is space.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use highwater::{Ack, Engine, ErrorKind, Log, Outcome};

use super::ground::{Ground, PATIENCE, Tally, on_disk, open, says, small};
use super::{Found, Site};
use crate::command::run;
use crate::mount::FileSystem;
use crate::workload::Failure;

/// How much is taken at once, the most first.
const STEPS: [u64; 4] = [16 << 20, 1 << 20, 64 << 10, BLOCK];
const BLOCK: u64 = 4096;
/// How often a log meets the full disk; between two of them it fills a quarter of a segment.
const ROUNDS: usize = 12;
/// So many logs are made; the square of each one's number is how many blocks are left for it.
const LOGS: u64 = 24;

/// What takes all the space of a file system until it is given back.
#[derive(Debug)]
struct Ballast {
    path: PathBuf,
    length: u64,
}

impl Ballast {
    /// Takes all there is.
    fn fill(mount: &Path) -> Result<Self, Failure> {
        let path = mount.join("ballast");
        File::create(&path)?;
        let mut ballast = Ballast { path, length: 0 };
        ballast.take_all()?;
        Ok(ballast)
    }

    /// After each step that worked the largest is tried again: what was freed just before may only
    /// now be there.
    fn take_all(&mut self) -> Result<(), Failure> {
        while let Some(step) = STEPS.into_iter().find(|step| self.take(*step)) {
            self.length += step;
        }
        File::open(&self.path)?.sync_all()?;
        Ok(())
    }

    /// Takes so many bytes more; returns whether they were there.
    fn take(&self, bytes: u64) -> bool {
        let (offset, length) = (self.length.to_string(), bytes.to_string());
        let words = ["--offset", &offset, "--length", &length].map(AsRef::as_ref);
        run("fallocate", &[&words[..], &[self.path.as_os_str()]].concat()).is_ok()
    }

    /// Gives so many blocks back.
    fn leave(&mut self, blocks: u64) -> Result<(), Failure> {
        self.length = self.length.saturating_sub(blocks * BLOCK);
        let file = OpenOptions::new().write(true).open(&self.path)?;
        file.set_len(self.length)?;
        Ok(file.sync_all()?)
    }

    /// Gives everything back.
    fn free(self) -> Result<(), Failure> {
        std::fs::remove_file(&self.path)?;
        let mount = self.path.parent().ok_or("a file lies in a directory")?;
        Ok(File::open(mount)?.sync_all()?)
    }
}

pub(super) fn ext4(site: &Site) -> Result<Found, Failure> {
    on_disk(FileSystem::Ext4, |ground| full(site, ground))
}

pub(super) fn xfs(site: &Site) -> Result<Found, Failure> {
    on_disk(FileSystem::Xfs, |ground| full(site, ground))
}

fn full(site: &Site, ground: &mut Option<Ground<'_>>) -> Result<Found, Failure> {
    let Some(ground) = ground.as_ref() else { return Err("no file system".into()) };
    let mut found = Found::new();
    found.push(no_engine(site, ground)?);
    let engine = open(site.backend, &ground.data())?;
    found.push(new_logs(ground, &engine)?);
    let log = engine.log("appends", small())?;
    let mut tally = Tally::default();
    found.extend(appends(ground, &log, &mut tally)?);

    // Closing and opening need no space, nor does noting that all is flushed.
    tally.append_flushed(&log, 10)?;
    let mut ballast = Ballast::fill(ground.mount())?;
    engine.close()?;
    tally.check_outside(&ground.data(), "appends")?;
    let engine = open(site.backend, &ground.data())?;
    if let Some((name, error)) = engine.recovery().failed.first() {
        return Err(format!("on a full disk {name} does not open: {error}").into());
    }
    let log = engine.log("appends", small())?;
    let read = tally.check_inside(&log)?;
    ballast.leave(1)?;
    ballast.free()?;
    tally.append_flushed(&log, 10)?;
    engine.close()?;
    tally.check_outside(&ground.data(), "appends")?;
    found.push(format!("closed and opened while full: {read} read, {} owed, lost 0", tally.owed()));
    Ok(found)
}

/// Opens an engine where not even its directory can be made.
fn no_engine(site: &Site, ground: &Ground<'_>) -> Result<String, Failure> {
    let ballast = Ballast::fill(ground.mount())?;
    let result = open(site.backend, &ground.data());
    let said = match result {
        Ok(engine) => engine.close().map(|()| "there was room for its directories".to_owned())?,
        Err(error) if *error.kind() == ErrorKind::Full => says(&error, &["space"])?,
        Err(error) => return Err(error.into()),
    };
    ballast.free()?;
    Ok(format!("the engine's directory: {said}"))
}

/// Makes logs where everything but a few blocks is taken: each is made, or cleanly is not and can
/// be made later.
fn new_logs(ground: &Ground<'_>, engine: &Engine) -> Result<String, Failure> {
    let (mut made, mut refused) = (0, 0);
    for number in 0..LOGS {
        let blocks = number * number;
        let mut ballast = Ballast::fill(ground.mount())?;
        ballast.leave(blocks)?;
        match engine.log(&format!("new{number}"), small()) {
            Ok(_) => made += 1,
            Err(error) if *error.kind() == ErrorKind::Full => refused += 1,
            Err(error) => return Err(format!("with {blocks} blocks left: {error}").into()),
        }
        ballast.free()?;
    }
    for number in 0..LOGS {
        let log = engine.log(&format!("new{number}"), small())?;
        let mut tally = Tally::default();
        tally.append_flushed(&log, 3)?;
        tally.check_inside(&log)?;
        tally.check_outside(&ground.data(), log.name())?;
    }
    if made == 0 || refused == 0 {
        return Err(format!("{made} made, {refused} refused: nothing was tried").into());
    }
    Ok(format!("new logs, 0 to {} blocks left: {refused} refused, all made later", LOGS * LOGS))
}

/// Appends to a disk that is full, again and again, through segments: in the middle of one and at
/// its end.
fn appends(ground: &Ground<'_>, log: &Log, tally: &mut Tally) -> Result<Found, Failure> {
    // What was tried and refused, how often, and in which words first.
    let mut said: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for round in 0..ROUNDS {
        let ballast = Ballast::fill(ground.mount())?;
        let error = loop {
            let (id, receipt) = tally.send(log, Ack::LEADER_FLUSHED)?;
            match receipt.wait_timeout(PATIENCE) {
                Ok(appended) => tally.owe(id, &appended),
                Err(error) => break error,
            }
        };
        let clean = *error.kind() == ErrorKind::Full && error.outcome() == Outcome::NotAppended;
        if !clean || log.failure().is_some() {
            return Err(format!("round {round}: {error:?}, then {:?}", log.failure()).into());
        }
        let words = says(&error, &["space", "try again"])?;
        let verb: Vec<&str> = words.split_whitespace().take(2).collect();
        said.entry(verb.join(" ")).or_insert((0, words)).0 += 1;
        // Again at once: refused, or small enough for what is reserved. All the rest is there.
        let (id, receipt) = tally.send(log, Ack::LEADER_FLUSHED)?;
        match receipt.wait_timeout(PATIENCE) {
            Ok(appended) => tally.owe(id, &appended),
            Err(again) if *again.kind() == ErrorKind::Full => {}
            Err(again) => return Err(format!("once more: {again:?}").into()),
        }
        tally.check_inside(log)?;
        ballast.free()?;
        tally.append_flushed(log, 300)?;
    }
    tally.check_outside(&ground.data(), "appends")?;
    let lines = said.into_values();
    Ok(lines.map(|(count, words)| format!("appends, {count} of {ROUNDS} times: {words}")).collect())
}
