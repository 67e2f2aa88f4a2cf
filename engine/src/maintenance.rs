//! Closing, truncating and repairing a log that is detached from its shard.

use std::path::Path;

use highwater_io::{Access, Io};
use highwater_segment::meta::{LogMeta, LogState, Mark, ProducersMark};
use highwater_segment::producer_snapshot::ProducerSnapshot;
use highwater_segment::scan::Chain;
use highwater_segment::segment::segment_file_name;
use highwater_segment::{Epoch, FIRST_BATCH, Generation, Offset};

use crate::control::Control;
use crate::core::DetachedLog;
use crate::error::{Error, ErrorKind, Result};
use crate::opening::{OpenedLog, segment_bases, write_meta_twice};
use crate::options::LogOptions;
use crate::producers::write_at_close;
use crate::recover::{read_header, remove_index};
use crate::shared::{LogShared, generation_rule, was_cut_off};
use crate::walker::{WalkError, Walked, Walker};

impl<I: Io> Control<I> {
    /// Marks a detached, flushed log clean in both slots. A poisoned log is never marked clean.
    pub(crate) fn close_log(&mut self, name: &str, detached: &DetachedLog) -> Result<()> {
        if let Some(failure) = &detached.failure {
            return Err(failure.clone());
        }
        let mut meta = detached.meta.clone();
        meta.state = LogState::Clean;
        meta.flushed = detached.end;
        meta.high_watermark = detached.end.offset;
        meta.durable_watermark = detached.end.offset;
        let directory = self.root.join(name);
        let (table, at) = (detached.producers.clone(), detached.end);
        let (log_time_ms, count) = (table.log_time_ms(), table.len());
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let (log_id, leader_epoch) = (meta.log_id, meta.epoch);
        let snapshot = ProducerSnapshot { log_id, at, leader_epoch, table };
        if count == 0 || write_at_close(&mut self.io, &directory, &snapshot)? {
            meta.producers = ProducersMark { offset: at.offset, count, log_time_ms };
        }
        write_meta_twice(&mut self.io, &directory, &mut meta)
    }

    /// Removes everything from `to` on (the whole batch that `to` lies in too) from a detached,
    /// flushed log, and opens it again in a new generation and epoch.
    ///
    /// The new generation goes into both slots in one write with the cut: before that write the
    /// old log stands whole, after it nothing above the cut exists, whatever is left of its bytes.
    pub(crate) fn truncate_log(
        &mut self,
        name: &str,
        detached: &DetachedLog,
        to: Offset,
        shared: &LogShared,
    ) -> Result<OpenedLog> {
        if let Some(failure) = &detached.failure {
            return Err(failure.clone());
        }
        let meta = &detached.meta;
        if to < meta.log_start {
            let kind = ErrorKind::Trimmed { log_start: meta.log_start };
            return Err(Error::new(kind, "truncate log", name)
                .detail(format!("{to} is below the log's start {}", meta.log_start)));
        }
        let mut base_meta = meta.clone();
        base_meta.flushed = detached.end;
        let cut = if to >= detached.end.offset {
            detached.end
        } else {
            self.find_cut(name, &base_meta, to)?
        };
        // Readers of this process stop serving what is above the cut before anything on disk
        // changes: what they would find there from now on is not theirs.
        shared.lock().cut_at(Generation(base_meta.generation.0 + 1), cut);
        shared.note_upheaval();
        shared.tail.clear();
        self.cut_log(name, base_meta, cut)
    }

    /// Returns the mark at the start of the batch that holds `to`.
    pub(crate) fn find_cut(&mut self, name: &str, meta: &LogMeta, to: Offset) -> Result<Mark> {
        let directory = self.root.join(name);
        let bases = segment_bases(&self.io.list(&directory)?);
        let Some(base) = bases.iter().copied().rfind(|base| *base <= to) else {
            return Err(Error::new(
                ErrorKind::Trimmed { log_start: meta.log_start },
                "truncate log",
                name,
            )
            .detail(format!("no segment holds offset {to}")));
        };
        let path = directory.join(segment_file_name(base));
        let (file, _) = self.io.open(&path, Access::Read, true)?;
        let header = read_header(&mut self.io, file, meta.log_id, base);
        let salt = match header {
            Ok((_, salt)) => salt,
            Err(error) => {
                self.io.close(file)?;
                return Err(error);
            }
        };
        let corrupt = |next: Offset, what: String| {
            Error::new(ErrorKind::Corrupt { range: next..to }, "truncate log", name).detail(what)
        };
        let Some(salt) = salt else {
            self.io.close(file)?;
            return Err(corrupt(base, format!("the header of {} is damaged", path.display())));
        };
        let rule = generation_rule(meta.generation, &meta.flushed, base);
        let chain = Chain::new(salt, FIRST_BATCH, base, Epoch(0), rule);
        let mut walker = Walker::new(file, chain);
        let mut cut = Mark { offset: base, segment: base, position: FIRST_BATCH };
        let result = loop {
            let chain = walker.chain();
            if chain.next_offset() > to {
                break Ok(cut);
            }
            cut = Mark { offset: chain.next_offset(), segment: base, position: chain.position() };
            if cut.offset == to {
                break Ok(cut);
            }
            match walker.step(&mut self.io) {
                Ok(Walked::Batch { header, .. }) if was_cut_off(&meta.epochs, &header) => {
                    break Err(corrupt(cut.offset, "the next segment is missing".to_owned()));
                }
                Ok(_) => {}
                Err(WalkError::Io(error)) => break Err(Error::from_io(error)),
                Err(WalkError::Stop(stop)) => break Err(corrupt(cut.offset, stop.describe())),
            }
        };
        self.io.close(walker.file())?;
        result
    }

    /// Writes the new generation with `cut` as its mark, removes the segments above, and opens the
    /// log again.
    pub(crate) fn cut_log(
        &mut self,
        name: &str,
        mut meta: LogMeta,
        cut: Mark,
    ) -> Result<OpenedLog> {
        let directory = self.root.join(name);
        meta.state = LogState::Open;
        meta.incarnation = self.incarnation();
        meta.generation = Generation(meta.generation.0 + 1);
        meta.push_truncation(meta.generation, cut.offset);
        meta.push_epoch(Epoch(meta.epoch.0 + 1), cut.offset);
        meta.flushed = cut;
        // A start inside the batch that goes whole goes back to where that batch began: the log
        // is empty then.
        meta.log_start = meta.log_start.min(cut.offset);
        meta.high_watermark = cut.offset;
        meta.durable_watermark = cut.offset;
        // That there were no producers below a place is true of any lower one; what a snapshot
        // above the cut says is not. The opening replays from an older one.
        if meta.producers.offset > cut.offset {
            meta.producers = match meta.producers.count {
                0 => ProducersMark { offset: cut.offset, ..meta.producers },
                _ => ProducersMark::default(),
            };
        }
        let device = self.device();
        let failures_before = device.failures();
        if let Err(error) = write_meta_twice(&mut self.io, &directory, &mut meta) {
            self.note_failure(name, &error);
            return Err(error);
        }
        // A crash from here on: the next opening finds the segments above the cut (S2) and removes
        // them before it appends.
        if let Err(error) = self.remove_above(&directory, cut.segment) {
            self.note_failure(name, &error);
            return Err(error);
        }
        if let Err(error) = device.check_since(failures_before, "truncate log", name) {
            self.note_doubt(name);
            return Err(error);
        }
        self.open(name, &LogOptions::default(), None)
    }

    /// Removes the segments above the one that a cut lies in, and the indexes that no longer fit.
    fn remove_above(&mut self, directory: &Path, last: Offset) -> Result<()> {
        for base in segment_bases(&self.io.list(directory)?) {
            if base > last {
                self.io.remove(&directory.join(segment_file_name(base)))?;
                remove_index(&mut self.io, directory, base)?;
            }
        }
        remove_index(&mut self.io, directory, last)?;
        Ok(self.io.sync_directory(directory)?)
    }
}
