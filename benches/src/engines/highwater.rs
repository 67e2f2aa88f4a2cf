//! Highwater. `Ack::LEADER`: acked when written, survives the death of the process;
//! `Ack::LEADER_FLUSHED`: acked when on stable media. `close` flushes everything.

use std::collections::VecDeque;

use highwater::{
    Ack, BatchBuilder, Engine, FlushPolicy, LocalEngine, LocalLog, LogOptions, Options,
    Preparation, Receipt, RecordBatch, Ticket,
};
use highwater_io::system::SystemPlatform;

use super::{Failure, Goal, Phase, Setting, Target};

/// What a steady run appends before its clock starts: enough for every segment to be a used one.
pub(super) const WARM_UP_BYTES: u64 = 1 << 30;
/// What a steady run keeps: two segments and the one being written.
const STEADY_RETENTION_BYTES: u64 = 256 << 20;

/// Everything that depends on how segments are made ready and kept.
fn log_options(setting: &Setting<'_>) -> LogOptions {
    LogOptions {
        // The others flush only at the end, too; a roll flushes the sealed segment all the same.
        flush: FlushPolicy::NONE,
        retention_bytes: match setting.phase {
            Phase::Cold => None,
            Phase::Steady => Some(STEADY_RETENTION_BYTES),
        },
        prepare: match setting.goal {
            Goal::Throughput => Preparation::Ahead,
            // Before the clock starts.
            Goal::Durable => Preparation::AtOpen,
        },
        ..LogOptions::default()
    }
}

/// What surrounds a value of up to 1 MiB.
const RECORD_OVERHEAD_BYTES: usize = 12;

fn batch_of(records: &[&[u8]]) -> Result<RecordBatch, Failure> {
    let bytes = records.iter().map(|record| record.len() + RECORD_OVERHEAD_BYTES).sum();
    let mut builder = BatchBuilder::with_capacity(bytes);
    for record in records {
        builder.push(None, None, Some(record), &[]);
    }
    Ok(builder.build()?)
}

/// Through the queue to the shard's thread.
pub(super) struct Queued {
    engine: Engine,
    log: highwater::Log,
    waiting: VecDeque<Receipt>,
    in_flight: usize,
}

impl Queued {
    pub(super) fn open(setting: &Setting<'_>) -> Result<Self, Failure> {
        let engine = Engine::open(Options::at(setting.directory))?;
        let log = engine.log("compare", log_options(setting))?;
        Ok(Queued { engine, log, waiting: VecDeque::new(), in_flight: setting.in_flight })
    }
}

impl Target for Queued {
    fn append(&mut self, records: &[&[u8]]) -> Result<(), Failure> {
        if self.waiting.len() >= self.in_flight
            && let Some(oldest) = self.waiting.pop_front()
        {
            oldest.wait()?;
        }
        self.waiting.push_back(self.log.append(batch_of(records)?, Ack::LEADER)?);
        Ok(())
    }

    fn append_flushed(&mut self, records: &[&[u8]]) -> Result<(), Failure> {
        self.log.append(batch_of(records)?, Ack::LEADER_FLUSHED)?.wait()?;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<u64, Failure> {
        for receipt in self.waiting.drain(..) {
            receipt.wait()?;
        }
        self.log.flush()?.wait()?;
        let flushed = self.log.marks().flushed.0;
        self.engine.close()?;
        Ok(flushed)
    }
}

/// On the caller's thread.
pub(super) struct Local {
    engine: LocalEngine<SystemPlatform>,
    log: LocalLog,
    waiting: VecDeque<Ticket>,
    in_flight: usize,
}

impl Local {
    pub(super) fn open(setting: &Setting<'_>) -> Result<Self, Failure> {
        let options = Options::at(setting.directory);
        let mut engine = LocalEngine::open(SystemPlatform::new(options.backend), &options)?;
        let log = engine.log("compare", &log_options(setting))?;
        Ok(Local { engine, log, waiting: VecDeque::new(), in_flight: setting.in_flight })
    }
}

impl Target for Local {
    fn append(&mut self, records: &[&[u8]]) -> Result<(), Failure> {
        if self.waiting.len() >= self.in_flight
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.engine.run_until(&oldest)?;
        }
        let ticket = self.engine.append(self.log, batch_of(records)?, Ack::LEADER)?;
        self.waiting.push_back(ticket);
        Ok(())
    }

    fn append_flushed(&mut self, records: &[&[u8]]) -> Result<(), Failure> {
        let ticket = self.engine.append(self.log, batch_of(records)?, Ack::LEADER_FLUSHED)?;
        self.engine.run_until(&ticket)?;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<u64, Failure> {
        for ticket in self.waiting.drain(..) {
            self.engine.run_until(&ticket)?;
        }
        let flush = self.engine.flush(self.log);
        self.engine.run_until(&flush)?;
        let flushed = self.engine.marks(self.log).flushed.0;
        self.engine.close()?;
        Ok(flushed)
    }
}
