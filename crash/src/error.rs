//! What can go wrong in the rig itself (a loss it finds is not an error but a [`Verdict`]).
//!
//! [`Verdict`]: crate::workload::Verdict

use std::fmt;
use std::io;

/// Why the rig could not do its work.
#[derive(Debug)]
pub enum RigError {
    /// This machine lacks something the rig needs; a test skips, the command-line tool fails.
    Missing(String),
    /// A program such as `mount` ended with an error.
    Command {
        /// The program and its arguments.
        command: String,
        /// Its exit status and what it wrote to standard error.
        failure: String,
    },
    /// A system call of the rig failed.
    Io {
        /// What the rig was doing.
        doing: String,
        /// What the system said.
        error: io::Error,
    },
    /// The workload could not do its first life, where nothing has been cut yet.
    Workload(String),
}

impl RigError {
    /// Returns an error of a system call made for the purpose `doing`.
    pub(crate) fn io(doing: impl Into<String>, error: io::Error) -> Self {
        RigError::Io { doing: doing.into(), error }
    }
}

impl fmt::Display for RigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RigError::Missing(what) => write!(f, "the power-cut rig cannot run here: {what}"),
            RigError::Command { command, failure } => write!(f, "`{command}` failed: {failure}"),
            RigError::Io { doing, error } => write!(f, "{doing}: {error}"),
            RigError::Workload(why) => write!(f, "the workload's first life failed: {why}"),
        }
    }
}

impl std::error::Error for RigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RigError::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}
