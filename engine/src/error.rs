//! Errors a caller can act on: a closed set of kinds, each with what was tried, where, what was
//! expected and found, and the remedy.

use std::fmt;
use std::ops::Range;

use highwater_io::{IoError, IoErrorKind};
use highwater_segment::Offset;

/// What went wrong, as far as the caller's next step depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The queue is full; try again, or use the waiting call.
    WouldBlock,
    /// A record or a batch is above a limit.
    TooLarge,
    /// The disk is full; nothing was appended. Works again once there is space.
    Full,
    /// A write or a flush of this log failed; it refuses writes until it is reopened.
    Poisoned,
    /// These offsets are damaged: they were flushed and no longer verify.
    Corrupt {
        /// From the first that cannot be served to the first that may be served again, exclusive.
        range: Range<Offset>,
    },
    /// The offset is no longer there: trimmed, or removed by a truncation.
    Trimmed {
        /// The first offset that is there.
        log_start: Offset,
    },
    /// A newer leader epoch exists, or a newer epoch of this idempotent producer.
    Fenced,
    /// The ack policy asks for more replicas than are in sync.
    NotEnoughReplicas,
    /// The sequence numbers of an idempotent producer do not fit: some are missing, or they were
    /// appended too long ago, or with other records. The detail says which.
    OutOfOrderSequence,
    /// The time given for waiting is over.
    Timeout,
    /// The log or the engine is closed.
    Closed,
    /// An option, a name or a directory is not usable as asked.
    Config,
    /// The operating system refused.
    Io,
}

impl ErrorKind {
    /// Returns the kind's name, as in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            ErrorKind::WouldBlock => "WouldBlock",
            ErrorKind::TooLarge => "TooLarge",
            ErrorKind::Full => "Full",
            ErrorKind::Poisoned => "Poisoned",
            ErrorKind::Corrupt { .. } => "Corrupt",
            ErrorKind::Trimmed { .. } => "Trimmed",
            ErrorKind::Fenced => "Fenced",
            ErrorKind::NotEnoughReplicas => "NotEnoughReplicas",
            ErrorKind::OutOfOrderSequence => "OutOfOrderSequence",
            ErrorKind::Timeout => "Timeout",
            ErrorKind::Closed => "Closed",
            ErrorKind::Config => "Config",
            ErrorKind::Io => "Io",
        }
    }
}

/// What became of an append that returned an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No offset was assigned; nothing of it will ever be read.
    NotAppended,
    /// An offset may have been assigned; it may or may not survive.
    Unknown,
}

/// An error of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    outcome: Outcome,
    context: Box<Context>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Context {
    operation: &'static str,
    subject: String,
    position: Option<u64>,
    detail: String,
    remedy: &'static str,
    source: Option<IoError>,
}

/// The result of most calls here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Returns an error that left nothing behind.
    #[must_use]
    pub(crate) fn new(kind: ErrorKind, operation: &'static str, subject: &str) -> Self {
        let context = Context { operation, subject: subject.to_owned(), ..Context::default() };
        Error { kind, outcome: Outcome::NotAppended, context: Box::new(context) }
    }

    /// Returns the engine's error for one of the operating system.
    #[must_use]
    pub(crate) fn from_io(source: IoError) -> Self {
        let (kind, remedy) = match &source.kind {
            IoErrorKind::NoSpace => (ErrorKind::Full, "free some space and try again"),
            IoErrorKind::Locked { .. } => {
                (ErrorKind::Io, "close the other process, or use another directory")
            }
            IoErrorKind::NotFound => (ErrorKind::Io, "check the path"),
            IoErrorKind::PermissionDenied => {
                (ErrorKind::Io, "check who owns the directory and its permissions")
            }
            IoErrorKind::ReadOnly => {
                (ErrorKind::Io, "remount the file system writable, or use another directory")
            }
            IoErrorKind::WrongKind => (ErrorKind::Io, "give a directory"),
            IoErrorKind::Device => (ErrorKind::Io, "check the device (dmesg), then reopen"),
            _ => (ErrorKind::Io, ""),
        };
        let remedy = Some(source.remedy()).filter(|own| !own.is_empty()).unwrap_or(remedy);
        let subject = source.path.display().to_string();
        let mut error = Error::new(kind, source.operation, &subject).remedy(remedy);
        error.context.position = source.position;
        error.context.detail = source.reason();
        error.context.source = Some(source);
        error
    }

    #[must_use]
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.context.detail = detail.into();
        self
    }

    #[must_use]
    pub(crate) fn remedy(mut self, remedy: &'static str) -> Self {
        self.context.remedy = remedy;
        self
    }

    #[must_use]
    pub(crate) fn at(mut self, position: u64) -> Self {
        self.context.position = Some(position);
        self
    }

    #[must_use]
    pub(crate) fn unknown(mut self) -> Self {
        self.outcome = Outcome::Unknown;
        self
    }

    #[must_use]
    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// Returns what went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Returns what became of the append, where one was asked for.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Returns the file, log or option concerned.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.context.subject
    }

    /// Returns the byte concerned, where there is one.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        self.context.position
    }

    /// Returns what to do about it; may be empty.
    #[must_use]
    pub fn remedy_text(&self) -> &'static str {
        self.context.remedy
    }

    /// Returns the operating system's error beneath, if there is one.
    #[must_use]
    pub fn io(&self) -> Option<&IoError> {
        self.context.source.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = &self.context;
        write!(f, "cannot {} {}", context.operation, context.subject)?;
        if let Some(position) = context.position {
            write!(f, " at byte {position}")?;
        }
        if context.detail.is_empty() {
            write!(f, ": {}", self.kind.name())?;
        } else {
            write!(f, ": {}", context.detail)?;
        }
        if context.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", context.remedy) }
    }
}

impl std::error::Error for Error {}

impl From<IoError> for Error {
    fn from(error: IoError) -> Self {
        Error::from_io(error)
    }
}
