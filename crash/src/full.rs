//! A full disk: refused clearly, nothing acked lost, and on again when there is space.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use highwater::BackendChoice;

use crate::binary::{Binary, Fed, expect};
use crate::image::wide;
use crate::mount::FileSystem;
use crate::rig::Rig;
use crate::scratch::prints;
use crate::workload::Failure;

/// The log's name.
const LOG: &str = "full";
/// The size of a segment, small against the disk.
const SEGMENT_BYTES: &str = "1048576";
/// What is taken from the disk first and given back later.
const BALLAST_BYTES: u64 = 6 << 20;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file system that gets full.
    pub file_system: FileSystem,
    /// The binary.
    pub binary: Binary,
    /// What it writes with.
    pub backend: BackendChoice,
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The file system.
    pub file_system: FileSystem,
    /// How often appending was refused for want of space.
    pub refused: usize,
    /// Records acked until the disk was full.
    pub acked: u64,
    /// Records read at the end.
    pub read: u64,
    /// What the first refusal said.
    pub said: String,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { file_system, refused, acked, read, said } = self;
        write!(
            f,
            "full {file_system}: refused {refused}, acked records {acked}, lost 0, read {read}\n\
             full {file_system}: it said: {said}"
        )
    }
}

/// Fills a file system as `plan` says.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn run(plan: &Plan) -> Result<Summary, Failure> {
    let rig = Rig::start(plan.file_system)?;
    let disk = rig.disk(rig.formatted().clone());
    let mounted = rig.mount(&disk)?;
    let result = fill(plan, mounted.directory());
    mounted.unmount()?;
    result
}

fn fill(plan: &Plan, mount: &Path) -> Result<Summary, Failure> {
    let ballast = mount.join("ballast");
    let block = vec![1; 1 << 20];
    let mut file = File::create_new(&ballast)?;
    for _ in 0..BALLAST_BYTES >> 20 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    drop(file);
    let directory = mount.join("data");
    let mut found = 0;
    let mut summary = Summary {
        file_system: plan.file_system,
        refused: 0,
        acked: 0,
        read: 0,
        said: String::new(),
    };
    // Full for the first time; then full from the start, twice.
    for attempt in 0..3 {
        let (output, sent) = append(plan, &directory, found, None)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        if output.status.code() != Some(1) || !error.contains("space") {
            return Err(format!("append to a full disk: {}, {said}", output.status).into());
        }
        if attempt == 0 {
            summary.said = error.to_owned();
        }
        summary.refused += 1;
        let acked = acked_end(&output.stdout)?;
        summary.acked = summary.acked.max(acked);
        found = look(plan, &directory, found.max(acked), found + sent)?;
    }
    std::fs::remove_file(&ballast)?;
    let more = 2000;
    let (output, _) = append(plan, &directory, found, Some(more))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("append after space was freed: {said}").into());
    }
    summary.read = look(plan, &directory, found + more, found + more)?;
    Ok(summary)
}

/// Feeds lines until they are refused, or `count`; returns what it said and how many were sent.
fn append(
    plan: &Plan,
    directory: &Path,
    from: u64,
    count: Option<u64>,
) -> Result<(Output, u64), Failure> {
    let mut command = plan.binary.append(directory, LOG, plan.backend);
    command.args(["--acks", "jsonl", "--segment-bytes", SEGMENT_BYTES]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let fed = Fed::start(&mut command, move |input| {
        let mut sent = 0;
        while count.is_none_or(|count| sent < count) {
            if input.write_all(&line(from + sent)).is_err() {
                break;
            }
            sent += 1;
        }
        sent
    })?;
    fed.output()
}

/// Returns a line: its offset, and something that makes it longer.
fn line(offset: u64) -> Vec<u8> {
    let filling = usize::try_from(offset % 1000).unwrap_or(0);
    format!("{offset} {}\n", "x".repeat(filling)).into_bytes()
}

/// Returns the offset behind the last record acked.
fn acked_end(acks: &[u8]) -> Result<u64, Failure> {
    let acks = String::from_utf8_lossy(acks);
    let Some(last) = acks.lines().last() else { return Ok(0) };
    let acked = crate::kill::ack(last).ok_or_else(|| format!("not an ack: {last}"))?;
    Ok(acked.end)
}

/// Reads everything, from outside: between `least` and `most` records, none wrong, and no file
/// changed by it. Returns how many there are.
fn look(plan: &Plan, directory: &Path, least: u64, most: u64) -> Result<u64, Failure> {
    let before = prints(directory)?;
    let output = expect(&mut plan.binary.on_log("read", directory, LOG), 0)?.stdout;
    let mut count = 0;
    for printed in output.split_inclusive(|byte| *byte == b'\n') {
        if printed != line(count) {
            return Err(format!("offset {count} of {} bytes is wrong", wide(output.len())).into());
        }
        count += 1;
    }
    if count < least || count > most {
        return Err(format!("{count} records, not {least} to {most}").into());
    }
    expect(&mut plan.binary.verb("verify", directory), 0)?;
    expect(&mut plan.binary.verb("logs", directory), 0)?;
    if prints(directory)? != before {
        return Err("looking changed a file".into());
    }
    Ok(count)
}
