//! seglog 0.3. `append` fills a buffer of 16 KiB that goes out by `write(2)`; what has no commit
//! marker behind it is rolled back when the file is opened, and `commit` always waits for an
//! `fdatasync`. So its appends of the throughput runs do not even survive their process, in its
//! favour. It is one file of fixed size; this file makes the next one, and commits the last.

use std::path::{Path, PathBuf};

use seglog::write::Writer;

use super::{Failure, Setting, Target};

const SEGMENT_BYTES: usize = 1 << 30;
const MARKER_BYTES_MAX: usize = 4096;
const RECORD_HEAD_BYTES: usize = 8;

pub(super) struct Log {
    writer: Writer<0>,
    directory: PathBuf,
    segments: u32,
    records: u64,
}

fn create(directory: &Path, number: u32) -> Result<Writer<0>, Failure> {
    Ok(Writer::create(directory.join(format!("{number:06}.seg")), SEGMENT_BYTES, 0)?)
}

impl Log {
    pub(super) fn open(setting: &Setting<'_>) -> Result<Self, Failure> {
        let directory = setting.directory.to_owned();
        Ok(Log { writer: create(&directory, 0)?, directory, segments: 1, records: 0 })
    }
}

impl Target for Log {
    fn append(&mut self, records: &[&[u8]]) -> Result<(), Failure> {
        let bytes: usize = records.iter().map(|record| record.len() + RECORD_HEAD_BYTES).sum();
        if self.writer.remaining_bytes() < u64::try_from(bytes + MARKER_BYTES_MAX)? {
            self.writer.commit(self.records)?;
            self.writer = create(&self.directory, self.segments)?;
            self.segments += 1;
        }
        for record in records {
            self.writer.append_data(record)?;
        }
        self.records += u64::try_from(records.len())?;
        Ok(())
    }

    fn append_flushed(&mut self, records: &[&[u8]]) -> Result<(), Failure> {
        self.append(records)?;
        self.writer.commit(self.records)?;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<u64, Failure> {
        self.writer.commit(self.records)?;
        Ok(self.writer.last_committed_position().unwrap_or(0))
    }
}
