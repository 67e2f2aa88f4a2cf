//! Limits of a process: descriptors, the size of files, locked memory, and no `io_uring`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use highwater::BackendChoice;

use super::{Found, Site};
use crate::binary::{Fed, expect};
use crate::command::find;
use crate::error::RigError;
use crate::scratch::Scratch;
use crate::workload::Failure;

/// The name of the log.
const LOG: &str = "log";
/// The size of its segments: small, so that it rolls.
const SEGMENT_BYTES: &str = "65536";
/// How many lines an append is given.
const LINES: usize = 2000;

/// Returns `command` behind the words `before`, as `prlimit` and its like want it.
fn behind(before: &[&str], command: &Command) -> Result<Command, Failure> {
    let program = before.first().ok_or("no program")?;
    let path = find(program).ok_or_else(|| RigError::Missing(format!("no {program}")))?;
    let mut whole = Command::new(path);
    whole.args(before.iter().skip(1)).arg(command.get_program()).args(command.get_args());
    Ok(whole)
}

/// Appends numbered lines, with `before` in front of the command.
fn append(site: &Site, before: &[&str], directory: &Path) -> Result<Output, Failure> {
    let mut command = site.binary.append(directory, LOG, site.backend);
    command.args(["--segment-bytes", SEGMENT_BYTES, "--ack", "leader-flushed"]);
    command.args(["--batch-records", "50"]);
    let mut command = if before.is_empty() { command } else { behind(before, &command)? };
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let fed = Fed::start(&mut command, |input| {
        // Who is refused reads no further.
        (0..LINES).try_for_each(|line| input.write_all(&numbered(line))).is_ok()
    })?;
    Ok(fed.output()?.0)
}

fn numbered(line: usize) -> Vec<u8> {
    format!("line {line} {}\n", "x".repeat(line % 300)).into_bytes()
}

/// Reads with the binary: lines of ours, from the first on, as often as they were sent. Returns
/// how many.
fn read(site: &Site, directory: &Path) -> Result<usize, Failure> {
    if !directory.join(LOG).join("log.meta").exists() {
        return Ok(0);
    }
    let output = expect(&mut site.binary.on_log("read", directory, LOG), 0)?.stdout;
    expect(&mut site.binary.verb("verify", directory), 0)?;
    let mut expected = 0;
    for line in output.split_inclusive(|byte| *byte == b'\n') {
        if line == numbered(0) {
            expected = 0;
        }
        if line != numbered(expected) {
            return Err(format!("line {expected} is {}", String::from_utf8_lossy(line)).into());
        }
        expected += 1;
    }
    Ok(output.split_inclusive(|byte| *byte == b'\n').count())
}

/// The end of a process under a limit: well, or with one clear error.
fn ended(output: &Output, words: &[&str]) -> Result<Option<String>, Failure> {
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    let clear = words.iter().all(|word| error.contains(word));
    if output.status.code() != Some(1) || !clear || said.contains("panicked") {
        return Err(format!("it ended with {}: {said}", output.status).into());
    }
    Ok(Some(error.to_owned()))
}

/// From hardly any descriptor to enough.
pub(super) fn descriptors(site: &Site) -> Result<Found, Failure> {
    let mut found = Found::new();
    let mut said: BTreeMap<String, usize> = BTreeMap::new();
    let mut well = 0;
    for limit in 4..40 {
        let scratch = Scratch::new("faults")?;
        let directory = scratch.path().join("data");
        let before = ["prlimit", &format!("--nofile={limit}:{limit}")];
        let words = ["open files", "ulimit -n"];
        let output = append(site, &before, &directory)?;
        match ended(&output, &words).map_err(|failure| format!("limit {limit}: {failure}"))? {
            None => well += 1,
            Some(error) => {
                let place = scratch.path().display().to_string();
                *said.entry(error.replace(&place, "...")).or_default() += 1;
            }
        }
        let there = read(site, &directory)?;
        // The same again, without the limit.
        expect_well(&append(site, &[], &directory)?)?;
        if read(site, &directory)? != there + LINES {
            return Err(format!("limit {limit}: not {there} and {LINES} lines").into());
        }
        // A reader has few, too.
        let reader = behind(&before, &site.binary.on_log("read", &directory, LOG))?.output()?;
        ended(&reader, &words).map_err(|failure| format!("reader, {limit}: {failure}"))?;
    }
    let refused: usize = said.values().sum();
    found.push(format!("limits 4 to 39: {well} went well, {refused} refused, all of them later"));
    let mut said: Vec<_> = said.into_iter().collect();
    said.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    found.extend(said.into_iter().take(4).map(|(error, count)| format!("{count} times: {error}")));
    if well == 0 || refused == 0 {
        return Err(format!("{well} well, {refused} refused: nothing was tried").into());
    }
    Ok(found)
}

fn expect_well(output: &Output) -> Result<(), Failure> {
    ended(output, &["nothing"])?.map_or(Ok(()), |error| Err(error.into()))
}

/// No file may grow beyond a size: an error, not the signal that ends a process.
pub(super) fn file_size(site: &Site) -> Result<Found, Failure> {
    let mut found = Found::new();
    for limit in [0, 4096, 8192, 12_288, 65_536, 1 << 20] {
        let scratch = Scratch::new("faults")?;
        let directory = scratch.path().join("data");
        let mut command = site.binary.append(&directory, LOG, site.backend);
        command.args(["--ack", "leader-flushed", "--batch-records", "50"]);
        let before = ["prlimit", &format!("--fsize={limit}:{limit}")];
        let mut command = behind(&before, &command)?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let fed = Fed::start(&mut command, |input| {
            (0..LINES * 10).try_for_each(|line| input.write_all(&numbered(line % LINES))).is_ok()
        })?;
        let output = fed.output()?.0;
        let error = ended(&output, &["too large", "ulimit -f"])
            .map_err(|failure| format!("limit {limit}: {failure}"))?
            .ok_or_else(|| format!("limit {limit}: not refused"))?;
        let there = read(site, &directory)?;
        let mut again = site.binary.append(&directory, LOG, site.backend);
        let fed = Fed::start(again.stdout(Stdio::null()).stderr(Stdio::piped()), |input| {
            (0..LINES).try_for_each(|line| input.write_all(&numbered(line))).is_ok()
        })?;
        expect_well(&fed.output()?.0)?;
        if read(site, &directory)? != there + LINES {
            return Err(format!("limit {limit}: not {there} and {LINES} lines").into());
        }
        let error = error.replace(&scratch.path().display().to_string(), "...");
        found.push(format!("{limit} bytes: {there} lines in; {error}"));
    }
    Ok(found)
}

/// Hardly any memory may be locked, and no right to lock more: kernels before 5.12 count rings.
pub(super) fn locked_memory(site: &Site) -> Result<Found, Failure> {
    let mut found = Found::new();
    for limit in ["0", "65536"] {
        for backend in [site.backend, BackendChoice::Auto] {
            let site = Site { backend, ..site.clone() };
            let scratch = Scratch::new("faults")?;
            let directory = scratch.path().join("data");
            let limit = format!("--memlock={limit}:{limit}");
            let before = ["prlimit", &limit, "setpriv", "--bounding-set", "-ipc_lock"];
            let output = append(&site, &before, &directory)?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let name = super::name_of(backend);
            let line = match ended(&output, &["memory", "ulimit -l"])? {
                Some(error) if backend == BackendChoice::Uring => error,
                Some(error) => return Err(error.into()),
                None if read(&site, &directory)? == LINES => summary(&said),
                None => return Err("lines are gone".into()),
            };
            found.push(format!("{limit} {name}: {line}"));
        }
    }
    Ok(found)
}

/// What `append` says of its backend.
fn summary(said: &str) -> String {
    let note = said.lines().find(|line| line.starts_with("note: io_uring"));
    let backend = said.rsplit_once("backend ").map_or("?", |(_, rest)| rest);
    let backend = backend.split_whitespace().next().unwrap_or("?");
    format!(
        "{LINES} lines in and out, backend {backend}{}",
        note.map_or_else(String::new, |note| format!("; {note}"))
    )
}

/// `io_uring` is forbidden, as by the seccomp filter of a container.
pub(super) fn no_uring(site: &Site) -> Result<Found, Failure> {
    let mut found = Found::new();
    let this = std::env::current_exe()?;
    for (name, errno) in [("EPERM", "1"), ("ENOSYS", "38")] {
        for backend in [BackendChoice::Auto, BackendChoice::Uring] {
            let site = Site { backend, ..site.clone() };
            let scratch = Scratch::new("faults")?;
            let directory = scratch.path().join("data");
            let mut command = site.binary.append(&directory, LOG, site.backend);
            command.args(["--segment-bytes", SEGMENT_BYTES]);
            let words = [OsString::from("without-uring"), errno.into()];
            let mut whole = Command::new(&this);
            whole.args(words).arg(command.get_program()).args(command.get_args());
            whole.stdout(Stdio::piped()).stderr(Stdio::piped());
            let fed = Fed::start(&mut whole, |input| {
                (0..LINES).try_for_each(|line| input.write_all(&numbered(line))).is_ok()
            })?;
            let output = fed.output()?.0;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let line = match (backend, ended(&output, &["io_uring"])?) {
                (BackendChoice::Auto, None) => {
                    let told = said.contains("note: io_uring is not used")
                        && said.contains("backend threads");
                    if !told || read(&site, &directory)? != LINES {
                        return Err(format!("not told, or lines are gone: {said}").into());
                    }
                    summary(&said)
                }
                (BackendChoice::Uring, Some(error)) => error,
                other => return Err(format!("{other:?}: {said}").into()),
            };
            found.push(format!("{name} {}: {line}", super::name_of(backend)));
        }
    }
    Ok(found)
}
