//! How a command ends and how it talks: exit codes, standard output, standard error.

use std::io::{BufWriter, ErrorKind as OsErrorKind, StdoutLock, Write};
use std::process::ExitCode;

use serde::Serialize;

/// How many bytes of output are gathered before they are written.
const OUTPUT_BUFFER_BYTES: usize = 256 << 10;

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok,
    Error,
    Usage,
    Corruption,
    /// By Ctrl-C; what there was is told all the same.
    Interrupted,
}

impl Exit {
    pub(crate) fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Exit::Ok => 0,
            Exit::Error => 1,
            Exit::Usage => 2,
            Exit::Corruption => 6,
            Exit::Interrupted => 130,
        })
    }

    /// Returns the graver of the two: corruption before any other error.
    pub(crate) fn worst(self, other: Exit) -> Exit {
        match (self, other) {
            (Exit::Corruption, _) | (_, Exit::Corruption) => Exit::Corruption,
            (Exit::Ok, other) => other,
            (own, _) => own,
        }
    }

    /// Returns the exit code that an error of the engine ends with.
    pub(crate) fn of(error: &highwater::Error) -> Exit {
        match error.kind() {
            highwater::ErrorKind::Corrupt { .. } => Exit::Corruption,
            _ => Exit::Error,
        }
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody reads standard output any more; not an error of ours.
    OutputClosed,
    /// What to tell the user.
    Told { exit: Exit, message: String },
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure::Told { exit, message: message.into() }
    }

    fn of_output(error: &std::io::Error) -> Self {
        if error.kind() == OsErrorKind::BrokenPipe {
            return Failure::OutputClosed;
        }
        let remedy = "check where it goes (a full disk?)";
        Failure::new(Exit::Error, format!("cannot write to standard output: {error}; {remedy}"))
    }
}

impl From<highwater::Error> for Failure {
    fn from(error: highwater::Error) -> Self {
        Failure::new(Exit::of(&error), error.to_string())
    }
}

/// Writes a line to standard error; there is nobody to tell if that fails.
pub(crate) fn tell(line: &str) {
    let mut bytes = line.as_bytes().to_vec();
    bytes.push(b'\n');
    drop(std::io::stderr().lock().write_all(&bytes));
}

/// Standard output, buffered.
#[derive(Debug)]
pub(crate) struct Output {
    writer: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub(crate) fn new() -> Self {
        Output { writer: BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, std::io::stdout().lock()) }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.writer.write_all(bytes).map_err(|error| Failure::of_output(&error))
    }

    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.bytes(line.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Writes `value` as JSON on one line.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.writer, value)
            .map_err(|error| Failure::of_output(&error.into()))?;
        self.bytes(b"\n")
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|error| Failure::of_output(&error))
    }
}
