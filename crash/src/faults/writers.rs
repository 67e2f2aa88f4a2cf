//! More than one writer of a directory: the lock says who holds it, and holds as long as it must.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus, Stdio};

use highwater::{Ack, ErrorKind};

use super::frozen::Frozen;
use super::ground::{Tally, on_disk, open, refused, says, small};
use super::{Found, Site};
use crate::mount::FileSystem;
use crate::scratch::{Scratch, wait_unlocked};
use crate::workload::Failure;

/// The name of the binary as `/proc` has it.
const NAME: &str = "highwater";

/// A second writer is refused while the first goes on, in this process and from another.
pub(super) fn two(site: &Site) -> Result<Found, Failure> {
    let mut found = Found::new();
    let scratch = Scratch::new("faults")?;
    let directory = scratch.path().join("data");
    let engine = open(site.backend, &directory)?;
    let log = engine.log("one", small())?;
    let mut tally = Tally::default();
    tally.append_flushed(&log, 20)?;

    let error = refused("a second engine", open(site.backend, &directory))?;
    let this = std::process::id().to_string();
    found.push(format!("a second engine of this process: {}", says(&error, &["in use", &this])?));
    if *error.kind() != ErrorKind::Io {
        return Err(format!("a locked directory: {error:?}").into());
    }
    let output = site.binary.append(&directory, "one", site.backend).output()?;
    let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    if output.status.code() != Some(1) || !said.contains("in use") || !said.contains(&this) {
        return Err(format!("append by another process: {}: {said}", output.status).into());
    }
    found.push(format!("another process: {said}"));
    tally.append(&log, Ack::LEADER_FLUSHED)?;
    engine.close()?;
    let mut other = Fed::start(site, &directory, "two")?;
    other.append("line")?;
    let error = refused("an engine beside it", open(site.backend, &directory))?;
    let process = other.child.id().to_string();
    found.push(format!("beside another process: {}", says(&error, &["in use", &process, NAME])?));
    let ended = other.end()?;
    if !ended.success() {
        return Err(format!("the other process ended with {ended}").into());
    }
    let engine = open(site.backend, &directory)?;
    tally.append(&engine.log("one", small())?, Ack::LEADER_FLUSHED)?;
    let read = tally.check_inside(&engine.log("one", small())?)?;
    engine.close()?;
    found.push(format!("one after the other: {read} read, lost 0"));
    Ok(found)
}

/// A writer is killed while the kernel holds writes of it that have not landed: nobody else gets
/// the directory before they have, and then all that was acked is there.
pub(super) fn killed_in_flight(site: &Site) -> Result<Found, Failure> {
    let mut found = Found::new();
    on_disk(FileSystem::Ext4, |ground| {
        let Some(ground) = ground.as_ref() else { return Err("no file system".into()) };
        let data = ground.data();
        let mut writer = Fed::start(site, &data, "killed")?;
        let mut end = 0;
        for line in 0..10 {
            end = writer.append(&format!("line {line}"))?;
        }
        let freeze = Frozen::freeze(ground.mount())?;
        writer.send("in flight")?;
        wait_for_writer(writer.child.id())?;
        writer.child.kill()?;
        let error = refused("opening at once", open(site.backend, &data))?;
        found.push(format!("killed, opened at once: {}", says(&error, &["in use"])?));
        freeze.thaw()?;
        writer.child.wait()?;
        wait_unlocked(&data)?;
        let engine = open(site.backend, &data)?;
        let log = engine.log("killed", highwater::LogOptions::default())?;
        let there = log.marks().log_end.0;
        engine.close()?;
        if there < end || there > end + 1 {
            return Err(format!("acked up to {end}, but it ends at {there}").into());
        }
        found.push(format!("its write landed, opened again: acked {end}, there {there}, lost 0"));
        Ok(())
    })?;
    Ok(found)
}

/// An `append` that is given one line after the other.
#[derive(Debug)]
struct Fed {
    child: Child,
    input: Option<ChildStdin>,
    acks: BufReader<ChildStdout>,
}

impl Fed {
    fn start(site: &Site, directory: &Path, log: &str) -> Result<Self, Failure> {
        let mut command = site.binary.append(directory, log, site.backend);
        command.args(["--ack", "leader-flushed", "--acks", "jsonl", "--batch-records", "1"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        let acks = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Fed { child, input, acks })
    }

    fn send(&mut self, line: &str) -> Result<(), Failure> {
        let input = self.input.as_mut().ok_or("no standard input")?;
        Ok(writeln!(input, "{line}")?)
    }

    /// Returns the offset behind the line, once it is flushed.
    fn append(&mut self, line: &str) -> Result<u64, Failure> {
        self.send(line)?;
        let mut ack = String::new();
        self.acks.read_line(&mut ack)?;
        Ok(crate::kill::ack(&ack).ok_or_else(|| format!("not an ack: {ack}"))?.end)
    }

    fn end(mut self) -> Result<ExitStatus, Failure> {
        drop(self.input.take());
        Ok(self.child.wait()?)
    }
}

/// Waits until a thread of the process waits inside the file system.
fn wait_for_writer(process: u32) -> Result<(), Failure> {
    loop {
        for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let wchan = std::fs::read_to_string(thread?.path().join("wchan")).unwrap_or_default();
            if wchan.contains("rwsem") || wchan.contains("sb_start") || wchan.contains("freeze") {
                return Ok(());
            }
        }
    }
}
