//! raft-engine 0.4. `write(batch, false)` is one `write(2)`; `write(batch, true)` adds an
//! `fdatasync`. A full file is flushed as it is left; `sync` flushes the active one. Its messages
//! are protobuf; the one used here has the two fields a raft entry needs, an index and its data.

use protobuf::descriptor::UninterpretedOption;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use super::{Failure, Setting, Target};

const GROUP: u64 = 1;

/// A message of the protobuf crate that has a number and bytes: on disk as long as a raft entry of
/// the same index and data.
struct Entry;

impl MessageExt for Entry {
    type Entry = UninterpretedOption;

    fn index(entry: &UninterpretedOption) -> u64 {
        entry.get_positive_int_value()
    }
}

pub(super) struct Log {
    engine: Engine,
    batch: LogBatch,
    /// Used again, so that a record costs a copy but no allocation.
    entries: Vec<UninterpretedOption>,
    next_index: u64,
}

impl Log {
    pub(super) fn open(setting: &Setting<'_>) -> Result<Self, Failure> {
        let dir = setting.directory.to_str().ok_or("the path is not UTF-8")?.to_owned();
        let config = Config {
            dir,
            // The payload does not compress: trying would only cost.
            batch_compression_threshold: ReadableSize(0),
            ..Config::default()
        };
        let (batch, entries) = (LogBatch::default(), Vec::new());
        Ok(Log { engine: Engine::open(config)?, batch, entries, next_index: 1 })
    }

    fn write(&mut self, records: &[&[u8]], flushed: bool) -> Result<(), Failure> {
        self.entries.resize_with(records.len(), UninterpretedOption::new);
        for (entry, record) in self.entries.iter_mut().zip(records) {
            entry.set_positive_int_value(self.next_index);
            self.next_index += 1;
            let data = entry.mut_string_value();
            data.clear();
            data.extend_from_slice(record);
        }
        self.batch.add_entries::<Entry>(GROUP, &self.entries)?;
        self.engine.write(&mut self.batch, flushed)?;
        Ok(())
    }
}

impl Target for Log {
    fn append(&mut self, records: &[&[u8]]) -> Result<(), Failure> {
        self.write(records, false)
    }

    fn append_flushed(&mut self, records: &[&[u8]]) -> Result<(), Failure> {
        self.write(records, true)
    }

    fn finish(self: Box<Self>) -> Result<u64, Failure> {
        self.engine.sync()?;
        Ok(self.engine.last_index(GROUP).unwrap_or(0))
    }
}
