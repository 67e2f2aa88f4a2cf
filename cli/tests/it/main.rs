//! Tests of the `highwater` binary as its users meet it: arguments, pipes, exit codes.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod append;
mod bench;
mod damage;
mod follow;
mod inspect;
mod refusals;
mod schema;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use highwater_io::random::SeededRandom;
use serde_json::Value;

/// No run of the program here takes a second; one that takes this long hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// A directory that goes away with its test.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = path.join(format!("cli-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).unwrap();
        Scratch { path }
    }

    /// The engine's directory; not made yet.
    fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Runs `verb --dir <data>` with more arguments and standard input.
    fn run(&self, verb: &str, arguments: &[&str], input: &[u8]) -> Ended {
        let data = self.data();
        let mut all = vec![verb, "--dir", data.to_str().unwrap()];
        all.extend(arguments);
        run(&all, input)
    }

    /// As [`run`](Self::run), but talks with the program while it runs.
    fn start(&self, verb: &str, arguments: &[&str]) -> Running {
        let data = self.data();
        let mut all = vec![verb, "--dir", data.to_str().unwrap()];
        all.extend(arguments);
        start(&all)
    }

    /// Appends `input` to the log `demo`.
    fn append(&self, arguments: &[&str], input: &[u8]) -> Ended {
        let mut all = vec!["--log", "demo"];
        all.extend(arguments);
        self.run("append", &all, input).exits(0)
    }

    /// Reads the log `demo`.
    fn read(&self, arguments: &[&str]) -> Ended {
        let mut all = vec!["--log", "demo"];
        all.extend(arguments);
        self.run("read", &all, b"")
    }

    /// The segments of the log `demo`, in their order.
    fn segments(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data().join("demo")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut found: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
        found.sort();
        found
    }

    /// Every file and directory below, with its bytes.
    fn snapshot(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut found = BTreeMap::new();
        let mut to_visit = vec![self.path.clone()];
        while let Some(directory) = to_visit.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let bytes = if path.is_dir() {
                    to_visit.push(path.clone());
                    None
                } else {
                    Some(std::fs::read(&path).unwrap())
                };
                found.insert(path, bytes);
            }
        }
        found
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.path));
    }
}

/// A program that came to its end.
struct Ended {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

impl Ended {
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "standard error: {}", self.err);
        self
    }

    #[track_caller]
    fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing in: {}", self.err);
        }
        self
    }

    /// Refused: one paragraph that begins as all do.
    #[track_caller]
    fn refuses(self, code: i32, words: &[&str]) -> Self {
        let last = self.err.lines().find(|line| line.starts_with("error: "));
        assert!(last.is_some(), "no error is told: {}", self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self.exits(code).says(words)
    }

    /// The lines of standard output as JSON.
    fn json_lines(&self) -> Vec<Value> {
        let lines = self.out.split_inclusive(|byte| *byte == b'\n');
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end. What it does not read of `input` is lost, as in a pipe.
fn run(arguments: &[&str], input: &[u8]) -> Ended {
    let mut running = start(arguments);
    let mut stdin = running.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = highwater_io::thread::spawn("input", move || drop(stdin.write_all(&input)));
    let ended = running.wait();
    writer.unwrap().join().unwrap();
    ended
}

/// Reads `from` to its end on a thread of its own.
fn read_all(name: &str, from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (read, all) = sync_channel(1);
    let reading = highwater_io::thread::spawn(name, move || {
        let (mut from, mut bytes) = (from, Vec::new());
        from.read_to_end(&mut bytes).unwrap();
        // Nobody waits for it any more if the test has failed.
        drop(read.send(bytes));
    });
    drop(reading.unwrap());
    all
}

/// A program that still runs; killed if the test is done with it.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
}

fn start(arguments: &[&str]) -> Running {
    let mut child = command(arguments).spawn().unwrap();
    let stdin = child.stdin.take();
    let stdout = child.stdout.take().map(BufReader::new);
    Running { child, stdin, stdout }
}

impl Running {
    fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        // A program that has ended takes nothing more; its exit code tells why.
        drop(stdin.write_all(bytes).and_then(|()| stdin.flush()));
    }

    /// Waits for a line of standard output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        line
    }

    /// Ends the input and waits for the program's end.
    fn finish(mut self) -> Ended {
        self.stdin = None;
        self.wait()
    }

    /// Waits for the program's end, the input still open; a program that does not come to one is
    /// killed and fails the test.
    fn wait(&mut self) -> Ended {
        let out = self.stdout.take().map(|stdout| read_all("output", stdout));
        let err = read_all("errors", self.child.stderr.take().unwrap());
        let err = err.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            self.child.kill().unwrap();
            panic!("the program does not end");
        });
        let out = out.map(|out| out.recv().unwrap()).unwrap_or_default();
        let status: ExitStatus = self.child.wait().unwrap();
        Ended { code: status.code(), out, err: String::from_utf8_lossy(&err).into_owned() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Lines of any bytes, of all lengths that matter: empty, short, longer than what is read at once.
fn lines_of_any_bytes(seed: u64, count: u64) -> Vec<u8> {
    let mut random = SeededRandom::new(seed);
    let mut input = Vec::new();
    for _ in 0..count {
        let length = match random.below(100) {
            0 => 200_000 + random.below(100_000),
            1..=10 => 0,
            11..=30 => random.below(5000),
            _ => random.below(80),
        };
        for _ in 0..length {
            let byte = u8::try_from(random.below(256)).unwrap();
            input.push(if byte == b'\n' { b'\r' } else { byte });
        }
        input.push(b'\n');
    }
    input
}
