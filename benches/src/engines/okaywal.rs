//! okaywal 0.3. `commit` writes the entry and always waits for an `fdatasync`; there is no weaker
//! append, so it has no part in the throughput runs. Its segment is filled with zeros when it is
//! opened, before the clock of the durable runs starts. Checkpoints, which would throw the data
//! away, are off.

use okaywal::{Configuration, LogVoid, WriteAheadLog};

use super::{Failure, Setting, Target};

pub(super) struct Log {
    log: WriteAheadLog,
    records: u64,
}

impl Log {
    pub(super) fn open(setting: &Setting<'_>) -> Result<Self, Failure> {
        // Room for the payload and as much again for what surrounds it: it never grows.
        let room = setting.total_bytes.saturating_mul(2).saturating_add(16 << 20);
        let configuration = Configuration::default_for(setting.directory)
            .preallocate_bytes(u32::try_from(room)?)
            .checkpoint_after_bytes(u64::MAX);
        Ok(Log { log: configuration.open(LogVoid)?, records: 0 })
    }
}

impl Target for Log {
    fn append(&mut self, records: &[&[u8]]) -> Result<(), Failure> {
        self.append_flushed(records)
    }

    fn append_flushed(&mut self, records: &[&[u8]]) -> Result<(), Failure> {
        let mut entry = self.log.begin_entry()?;
        for record in records {
            entry.write_chunk(record)?;
        }
        entry.commit()?;
        self.records += u64::try_from(records.len())?;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<u64, Failure> {
        self.log.shutdown()?;
        // It does not tell; each commit said that it was done.
        Ok(self.records)
    }
}
