//! Hundreds of megabytes of real text through the real binary, and back.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use highwater::BackendChoice;
use highwater_io::clock::monotonic_now;

use crate::binary::{Binary, Fed, expect};
use crate::image::wide;
use crate::scratch::Scratch;
use crate::workload::Failure;

/// The log's name.
const LOG: &str = "text";
/// What real text is called.
const ENDINGS: [&str; 16] = [
    "rs", "txt", "md", "toml", "html", "json", "c", "h", "py", "js", "css", "svg", "yml", "S",
    "lock", "sh",
];
/// How much is read and written at once.
const CHUNK_BYTES: usize = 256 << 10;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// At least so many bytes.
    pub bytes: u64,
    /// How often.
    pub runs: usize,
    /// The binary.
    pub binary: Binary,
    /// What it writes with.
    pub backend: BackendChoice,
}

/// What the text was and how fast it went.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Bytes of the text.
    pub bytes: u64,
    /// Lines, which are records.
    pub lines: u64,
    /// Files it was made of.
    pub files: usize,
    /// From the start of `append` to its end, the last flush included.
    pub append: Vec<Duration>,
    /// From the start of `read` to its end.
    pub read: Vec<Duration>,
    /// Of `verify`.
    pub verify: Vec<Duration>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { bytes, lines, files, append, read, verify } = self;
        write!(
            f,
            "real-input: bytes {bytes}, lines {lines}, files {files}, runs {}, equal, verify \
             clean; MB/s (medians) append {}, read {}, verify {}",
            append.len(),
            rate(*bytes, append),
            rate(*bytes, read),
            rate(*bytes, verify)
        )
    }
}

/// Returns how many megabytes pass in a second, in the median.
fn rate(bytes: u64, times: &[Duration]) -> u128 {
    let mut times = times.to_vec();
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    u128::from(bytes) / median.as_micros().max(1)
}

/// Sends the text through, as `plan` says.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn run(plan: &Plan) -> Result<Summary, Failure> {
    let scratch = Scratch::new("real-input")?;
    let text = scratch.path().join("text");
    let mut summary = Summary { files: gather(&text, plan.bytes)?, ..Summary::default() };
    for number in 0..plan.runs {
        let directory = scratch.path().join(format!("run{number}"));
        let mut append = plan.binary.append(&directory, LOG, plan.backend);
        append.stdout(Stdio::null()).stderr(Stdio::null());
        let (took, bytes) = append_text(&mut append, &text)?;
        summary.append.push(took);
        summary.bytes = bytes;
        let began = monotonic_now();
        summary.lines = compare(&mut plan.binary.on_log("read", &directory, LOG), &text)?;
        summary.read.push(monotonic_now().since(began));
        let began = monotonic_now();
        expect(&mut plan.binary.verb("verify", &directory), 0)?;
        summary.verify.push(monotonic_now().since(began));
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(summary)
}

/// Pipes the text into the process and waits for its end.
fn append_text(append: &mut Command, text: &Path) -> Result<(Duration, u64), Failure> {
    let mut text = File::open(text)?;
    let began = monotonic_now();
    let mut fed = Fed::start(append, move |input| std::io::copy(&mut text, &mut &mut *input))?;
    let status = fed.child.wait()?;
    let took = monotonic_now().since(began);
    if !status.success() {
        return Err(format!("append ended with {status}").into());
    }
    Ok((took, fed.finish()??))
}

/// Compares what the process prints with the text, byte for byte; returns the number of lines.
fn compare(read: &mut Command, text: &Path) -> Result<u64, Failure> {
    let mut child = read.stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().ok_or("no standard output")?;
    let mut text = File::open(text)?;
    let (mut printed, mut expected) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let (mut at, mut lines) = (0, 0);
    loop {
        let count = output.read(&mut printed)?;
        let printed = &printed[..count];
        let expected = &mut expected[..count];
        if text.read_exact(expected).is_err() || printed != expected {
            // It would wait for ever to be read.
            let _killed = child.kill();
            return Err(format!(
                "read differs from the text between byte {at} and the next \
                                {count}"
            )
            .into());
        }
        at += wide(count);
        lines += wide(printed.iter().filter(|byte| **byte == b'\n').count());
        if count == 0 {
            break;
        }
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("read ended with {status}").into());
    }
    match text.metadata()?.len() {
        length if length == at => Ok(lines),
        length => Err(format!("read gave {at} of {length} bytes").into()),
    }
}

/// Writes at least `bytes` of real text to `path`; returns how many files it is made of.
fn gather(path: &Path, bytes: u64) -> Result<usize, Failure> {
    let sources = sources()?;
    let mut text = BufWriter::with_capacity(CHUNK_BYTES, File::create_new(path)?);
    let (mut written, mut files) = (0, 0);
    for turn in 0_u64.. {
        let before = written;
        for source in &sources {
            if written >= bytes {
                text.flush()?;
                return Ok(files);
            }
            let content = std::fs::read(source)?;
            // When they come round again they are not quite the same.
            let title = format!("{turn} {}\n", source.display());
            let end: &[u8] = if content.ends_with(b"\n") { b"" } else { b"\n" };
            for part in [title.as_bytes(), &content, end] {
                text.write_all(part)?;
                written += wide(part.len());
            }
            files += 1;
        }
        if written == before {
            break;
        }
    }
    Err("no text was found under the toolchain or the registry".into())
}

/// Returns all texts under the toolchain and the registry, in order.
fn sources() -> Result<Vec<PathBuf>, Failure> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cargo"))
    });
    let mut directories: Vec<PathBuf> =
        home.map(|home| home.join("registry/src")).into_iter().collect();
    directories.extend(sysroot.ok().filter(|path| !path.is_empty()).map(PathBuf::from));
    let mut sources = Vec::new();
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() && ENDINGS.contains(&ending) {
                sources.push(path);
            }
        }
    }
    sources.sort();
    Ok(sources)
}
