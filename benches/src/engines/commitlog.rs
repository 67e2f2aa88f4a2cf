//! commitlog 0.2. `append` is one `write(2)`, and an entry for each message in a mapped index. Its
//! `flush` writes the index's whole pages back and never asks for the data, and a full segment is
//! never flushed at all. So this file flushes for it: the segment through a second descriptor
//! (`fdatasync`) for a durable append - its index, which the crate cannot rebuild, is left out, in
//! its favour - and every file at the end.

use std::fs::File;
use std::path::{Path, PathBuf};

use commitlog::message::MessageBuf;
use commitlog::{CommitLog, LogOptions};
use highwater_benches::directory::flush_all;

use super::{Failure, Setting, Target};

pub(super) struct Log {
    log: CommitLog,
    batch: MessageBuf,
    directory: PathBuf,
    /// Of the active segment.
    second: File,
}

impl Log {
    pub(super) fn open(setting: &Setting<'_>) -> Result<Self, Failure> {
        let mut options = LogOptions::new(setting.directory);
        // So that a batch is never too long; all else is its default: segments of 1 GB.
        options.message_max_bytes(16 << 20);
        let log = CommitLog::new(options)?;
        Ok(Log {
            log,
            batch: MessageBuf::default(),
            directory: setting.directory.to_owned(),
            second: File::open(segment_path(setting.directory, 0))?,
        })
    }
}

fn segment_path(directory: &Path, base_offset: u64) -> PathBuf {
    directory.join(format!("{base_offset:020}.log"))
}

impl Target for Log {
    fn append(&mut self, records: &[&[u8]]) -> Result<(), Failure> {
        self.batch.clear();
        for record in records {
            self.batch.push(record).map_err(|error| format!("{error:?}"))?;
        }
        self.log.append(&mut self.batch)?;
        Ok(())
    }

    fn append_flushed(&mut self, records: &[&[u8]]) -> Result<(), Failure> {
        let first = self.log.next_offset();
        self.append(records)?;
        // A segment that was begun for this batch has its offset as its name.
        let begun = segment_path(&self.directory, first);
        if first > 0 && begun.exists() {
            self.second.sync_data()?;
            self.second = File::open(begun)?;
        }
        self.second.sync_data()?;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<u64, Failure> {
        self.log.flush()?;
        let records = self.log.next_offset();
        drop(self.log);
        flush_all(&self.directory)?;
        Ok(records)
    }
}
