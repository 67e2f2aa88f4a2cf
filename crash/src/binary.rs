//! Running the real `highwater` binary.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use highwater::BackendChoice;

use crate::workload::Failure;

/// The exit code of a command that found corruption.
pub const CORRUPTION: i32 = 6;

/// The `highwater` binary.
#[derive(Clone, Debug)]
pub struct Binary {
    path: PathBuf,
}

impl Binary {
    /// Takes the binary at `given`, or the one that lies beside this program.
    ///
    /// # Errors
    /// If there is none, saying how to build it.
    pub fn find(given: Option<&Path>) -> Result<Self, Failure> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => {
                let this = std::env::current_exe()?;
                let directories = this.ancestors().skip(1).take(2);
                let mut candidates = directories.map(|directory| directory.join("highwater"));
                candidates.find(|candidate| candidate.is_file()).ok_or(
                    "no highwater binary beside this program; build it with `cargo build -p \
                     highwater-cli` in the same profile, or name it with --binary",
                )?
            }
        };
        if !path.is_file() {
            return Err(format!("there is no {}", path.display()).into());
        }
        Ok(Binary { path })
    }

    /// Returns a command of a verb on the engine in `directory`.
    #[must_use]
    pub fn verb(&self, verb: &str, directory: &Path) -> Command {
        let mut command = Command::new(&self.path);
        command.arg(verb).arg("--dir").arg(directory).stdin(Stdio::null());
        command
    }

    /// Returns a command of a verb on the log `log`.
    #[must_use]
    pub fn on_log(&self, verb: &str, directory: &Path, log: &str) -> Command {
        let mut command = self.verb(verb, directory);
        command.args(["--log", log]);
        command
    }

    /// Returns `append` with this backend.
    #[must_use]
    pub fn append(&self, directory: &Path, log: &str, backend: BackendChoice) -> Command {
        let mut command = self.on_log("append", directory, log);
        let backend = match backend {
            BackendChoice::Auto => "auto",
            BackendChoice::Uring => "uring",
            BackendChoice::Threads => "threads",
        };
        command.args(["--backend", backend]);
        command
    }

    /// Returns `dump` of what is at `path`.
    #[must_use]
    pub fn dump(&self, path: &Path) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("dump").arg(path).stdin(Stdio::null());
        command
    }
}

/// Runs a command to its end.
///
/// # Errors
/// If it ends otherwise than with the exit code `code`, with what it said.
pub fn expect(command: &mut Command, code: i32) -> Result<Output, Failure> {
    let output = command.output()?;
    if output.status.code() == Some(code) {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let tail: Vec<&str> = said.lines().rev().take(4).collect();
    Err(format!("{command:?} ended with {}, not {code}: {tail:?}", output.status).into())
}

/// A process that is fed with bytes by a thread.
#[derive(Debug)]
pub(crate) struct Fed<T> {
    pub(crate) child: Child,
    feeder: JoinHandle<T>,
}

impl<T: Send + 'static> Fed<T> {
    /// Starts `command`; `feed` writes to its standard input and ends when that is refused.
    pub(crate) fn start(
        command: &mut Command,
        feed: impl FnOnce(&mut dyn Write) -> T + Send + 'static,
    ) -> Result<Self, Failure> {
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().ok_or("a process without a standard input")?;
        let feeder = highwater_io::thread::spawn("crash-feeder", move || feed(&mut input));
        let feeder = feeder.map_err(|error| error.to_string())?;
        Ok(Fed { child, feeder })
    }

    /// Waits for the end of the process and of the feeder; returns what it said.
    pub(crate) fn output(self) -> Result<(Output, T), Failure> {
        let output = self.child.wait_with_output()?;
        let fed = self.feeder.join().map_err(|_| "the feeding thread panicked")?;
        Ok((output, fed))
    }

    /// Waits for the feeder; the process must have ended or be ending.
    pub(crate) fn finish(self) -> Result<T, Failure> {
        self.feeder.join().map_err(|_| "the feeding thread panicked".into())
    }
}
