//! One flush for all due logs of a shard: a *flush round*.
//!
//! A flush of any file makes the device write its cache, and with it everything of other files
//! that had reached the device before. That is all those files need if their bytes went over
//! blocks that were written and flushed before: no new block, no length, no name. It is so on
//! ext4 and XFS (see docs/decisions/0014-one-flush-for-many-logs.md), so a round is used only
//! there, only for segments that were prepared, and only if it was asked for.

use std::path::Path;

use highwater_io::{FileId, Platform};

use crate::error::{Error, ErrorKind, Result};
use crate::number::LogNumber;
use crate::options::Options;

/// Returns the device that rounds flush, if they were asked for.
pub(crate) fn shared_device<P: Platform>(platform: &P, options: &Options) -> Result<Option<u64>> {
    if !options.shared_flush {
        return Ok(None);
    }
    let device = platform.device_written_in_place(&options.directory);
    device.map(Some).map_err(|error| {
        Error::from_io(error)
            .with_kind(ErrorKind::Config)
            .remedy("leave shared_flush out: it needs ext4 (not data=journal) or XFS")
    })
}

/// Returns whether a log's files lie on that device.
pub(crate) fn lies_on<P: Platform>(platform: &P, device: Option<u64>, directory: &Path) -> bool {
    // Asked of each log: its directory can be a mount, or a link to another disk.
    let its = device.and_then(|_| platform.device_written_in_place(directory).ok());
    its.is_some() && its == device
}

/// The rounds of one shard; one is in flight at a time.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    is_enabled: bool,
    /// Those of the round that goes next, and a file of one of them.
    joining: Vec<LogNumber>,
    file: Option<FileId>,
    in_flight: Vec<LogNumber>,
    /// Those that became due while a round was in flight.
    late: Vec<LogNumber>,
    /// How many flushes of logs were spared so far.
    spared: u64,
}

impl Rounds {
    pub(crate) fn new(is_enabled: bool) -> Self {
        Rounds { is_enabled, ..Rounds::default() }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Takes a log into the round that is about to go. If one is in flight the log is too late for
    /// it, and is pumped again when that has ended.
    pub(crate) fn join(&mut self, log: LogNumber, file: FileId) -> bool {
        assert!(self.is_enabled, "only who may flush together asks");
        if self.in_flight.is_empty() {
            self.file.get_or_insert(file);
            self.joining.push(log);
        } else {
            self.late.push(log);
        }
        self.in_flight.is_empty()
    }

    /// Begins the round that logs have joined: returns the file to flush.
    pub(crate) fn begin(&mut self) -> Option<FileId> {
        let file = self.file.take()?;
        assert!(self.in_flight.is_empty(), "one round at a time");
        std::mem::swap(&mut self.in_flight, &mut self.joining);
        self.spared += crate::convert::to_u64(self.in_flight.len()) - 1;
        Some(file)
    }

    /// Returns how many flushes of logs were spared so far: made by that of another log's file.
    pub(crate) fn spared(&self) -> u64 {
        self.spared
    }

    /// Ends the round in flight: returns whose flush it was, and who came too late for it.
    pub(crate) fn end(&mut self) -> (Vec<LogNumber>, Vec<LogNumber>) {
        assert!(!self.in_flight.is_empty(), "a round ends once");
        (std::mem::take(&mut self.in_flight), std::mem::take(&mut self.late))
    }
}
