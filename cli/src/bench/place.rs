//! The bench's place in a directory: made for a run, and taken away after it.

use std::path::{Path, PathBuf};

use crate::output::{Exit, Failure, tell};

/// Where an engine keeps its spare segments.
const POOL: &str = ".pool";

/// Where a run works, and what was there before.
#[derive(Debug)]
pub(crate) struct Place {
    directory: PathBuf,
    logs: Vec<String>,
    /// Nothing was in the directory, or it did not exist: what the engine made there is ours.
    was_empty: bool,
    was_missing: bool,
    keep: bool,
    entered: bool,
}

impl Place {
    /// Looks at the directory; refuses a log that exists. Touches nothing.
    pub(crate) fn look(directory: &Path, logs: &[String], keep: bool) -> Result<Self, Failure> {
        let entries = std::fs::read_dir(directory);
        let was_missing =
            entries.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        let was_empty = entries.is_ok_and(|mut entries| entries.next().is_none());
        if let Some(log) = logs.iter().find(|log| directory.join(log).exists()) {
            return Err(Failure::new(
                Exit::Error,
                format!(
                    "log {log} exists in {}: a bench makes its own and never appends to another; \
                     remove it, or name another with --log",
                    directory.display()
                ),
            ));
        }
        Ok(Place {
            directory: directory.to_owned(),
            logs: logs.to_vec(),
            was_empty: was_empty || was_missing,
            was_missing,
            keep,
            entered: false,
        })
    }

    /// Says that the engine is open: what is left from now on is for us to take away.
    pub(crate) fn enter(&mut self) {
        self.entered = true;
    }

    /// Returns whether the directory of a log is gone: removed or unmounted under the run.
    pub(crate) fn has_vanished(&self) -> bool {
        self.logs.iter().any(|log| !self.directory.join(log).exists())
    }

    /// Takes the log away - unless it is to be kept -, and what else the run has made.
    pub(crate) fn leave(&mut self) -> Result<(), Failure> {
        if !std::mem::take(&mut self.entered) || self.keep || !self.directory.exists() {
            return Ok(());
        }
        self.remove().map_err(|error| {
            let (first, directory) = (&self.logs[0], self.directory.display());
            Failure::new(
                Exit::Error,
                format!("cannot remove {first} in {directory}: {error}; remove it, and its like"),
            )
        })
    }

    fn remove(&self) -> std::io::Result<()> {
        // First out of the engine's sight in one step: a kill in between leaves no half a log.
        for (index, log) in self.logs.iter().enumerate() {
            let hidden = format!(".bench-removed-{}-{index}", std::process::id());
            let hidden = self.directory.join(hidden);
            match std::fs::rename(self.directory.join(log), &hidden) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                renamed => renamed.and_then(|()| std::fs::remove_dir_all(&hidden))?,
            }
        }
        if self.was_empty {
            std::fs::remove_dir_all(self.directory.join(POOL))?;
        }
        if self.was_missing {
            // Not if somebody has put something there meanwhile.
            match std::fs::remove_dir(&self.directory) {
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
                removed => removed?,
            }
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // On the way out of an error; that one is told already.
        if let Err(Failure::Told { message, .. }) = self.leave() {
            tell(&format!("warning: {message}"));
        }
    }
}
