//! What the cases share: a file system of their own, logs on it, and an account of what they owe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::inspect::{OutsideReader, verify};
use highwater::{
    Ack, Appended, BackendChoice, Engine, Isolation, Log, LogOptions, Offset, Options, Preparation,
    Receipt, RecordBatch,
};

use crate::command::run;
use crate::device::{Disk, Marker};
use crate::mount::FileSystem;
use crate::records::{batch, read_all};
use crate::replay::{Replay, Unflushed};
use crate::rig::{Mounted, Rig};
use crate::timeline::RecordId;
use crate::workload::Failure;

/// How long something that must happen is waited for; it takes milliseconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The size of the segments of most logs here.
pub(super) const SEGMENT_BYTES: u64 = 1 << 20;

/// A file system of a case's own.
#[derive(Debug)]
pub(super) struct Ground<'rig> {
    rig: &'rig Rig,
    pub(super) disk: &'rig Disk,
    mounted: Mounted<'rig>,
}

impl Ground<'_> {
    /// Returns where the file system is mounted.
    pub(super) fn mount(&self) -> &Path {
        self.mounted.directory()
    }

    /// Returns the directory for an engine: beside what the file system itself puts there.
    pub(super) fn data(&self) -> PathBuf {
        self.mount().join("data")
    }

    /// Unmounts the file system and mounts it again, as after a restart of the machine.
    pub(super) fn restart(self) -> Result<Self, Failure> {
        let Ground { rig, disk, mounted } = self;
        mounted.unmount()?;
        Ok(Ground { rig, disk, mounted: rig.mount(disk)? })
    }

    /// Cuts the power now, on a copy: what was not flushed is dropped. Opens what is left, and
    /// compares.
    pub(super) fn check_cut(
        &self,
        backend: BackendChoice,
        log: &str,
        tally: &Tally,
    ) -> Result<usize, Failure> {
        let now = self.disk.mark();
        let image = Replay::new(self.disk.recording()).cut(now, Unflushed::Dropped);
        let disk = self.rig.disk(image);
        let mounted = self.rig.mount(&disk)?;
        let directory = mounted.directory().join("data");
        let checked = open(backend, &directory).map_err(Failure::from).and_then(|engine| {
            let read = tally.check_inside(&engine.log(log, LogOptions::default())?)?;
            engine.close()?;
            Ok(read)
        });
        mounted.unmount()?;
        checked
    }

    /// Mounts with other options.
    pub(super) fn remount(&self, options: &str) -> Result<(), Failure> {
        let options = format!("remount,{options}");
        run("mount", &["-o".as_ref(), options.as_ref(), self.mount().as_os_str()])?;
        Ok(())
    }
}

/// Makes a file system and lets `work` work on it; it gives the file system back.
pub(super) fn on_disk<T>(
    file_system: FileSystem,
    work: impl FnOnce(&mut Option<Ground<'_>>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let rig = Rig::start(file_system)?;
    let disk = rig.disk(rig.formatted().clone());
    let mut ground = Some(Ground { rig: &rig, disk: &disk, mounted: rig.mount(&disk)? });
    let result = work(&mut ground);
    if let Some(ground) = ground.take() {
        ground.mounted.unmount()?;
    }
    result
}

/// Opens an engine.
pub(super) fn open(backend: BackendChoice, directory: &Path) -> highwater::Result<Engine> {
    Engine::open(Options { backend, ..Options::at(directory) })
}

/// The options of most logs here: small segments, and nothing prepared beside them.
pub(super) fn small() -> LogOptions {
    LogOptions {
        segment_bytes: Some(SEGMENT_BYTES),
        prepare: Preparation::Never,
        ..LogOptions::default()
    }
}

/// The longest batch that fits a block, whatever stands before it there.
const SHORT_BYTES: u64 = 2048;

/// What was appended to one log, and what must be there.
#[derive(Debug, Default)]
pub(super) struct Tally {
    next: RecordId,
    /// By its offset, every record whose ack promised that it survives what is done to it here.
    owed: BTreeMap<u64, RecordId>,
}

impl Tally {
    /// Returns how many records must be there.
    pub(super) fn owed(&self) -> usize {
        self.owed.len()
    }

    /// Passes over records that make a batch longer than a block.
    pub(super) fn only_short(&mut self) -> Result<(), Failure> {
        while batch([self.next])?.disk_bytes() > SHORT_BYTES {
            self.next += 1;
        }
        Ok(())
    }

    /// Asks for one more record.
    pub(super) fn send(&mut self, log: &Log, ack: Ack) -> Result<(RecordId, Receipt), Failure> {
        let id = self.next;
        self.next += 1;
        Ok((id, log.append(batch([id])?, ack)?))
    }

    /// Appends one record and waits for its ack.
    pub(super) fn append(&mut self, log: &Log, ack: Ack) -> Result<Appended, Failure> {
        let (id, receipt) = self.send(log, ack)?;
        let appended = receipt.wait_timeout(PATIENCE)?;
        self.owe(id, &appended);
        Ok(appended)
    }

    /// Appends so many records, each flushed.
    pub(super) fn append_flushed(&mut self, log: &Log, count: usize) -> Result<(), Failure> {
        for _ in 0..count {
            self.append(log, Ack::LEADER_FLUSHED)?;
        }
        Ok(())
    }

    /// From now on this record must be there.
    pub(super) fn owe(&mut self, id: RecordId, appended: &Appended) {
        self.owed.insert(appended.base_offset.0, id);
    }

    /// Compares with what was read: everything owed is in its place, nothing twice, nothing out
    /// of order, nothing that was never appended. Returns how many records there are.
    pub(super) fn check(&self, found: &[RecordId]) -> Result<usize, Failure> {
        for (offset, id) in &self.owed {
            let there = found.get(usize::try_from(*offset)?);
            if there != Some(id) {
                return Err(format!("LOST: offset {offset} holds {there:?}, not {id}").into());
            }
        }
        let rising = found.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        if !rising || found.last().is_some_and(|last| *last >= self.next) {
            return Err(format!("records twice, out of order or foreign: {found:?}").into());
        }
        Ok(found.len())
    }

    /// Reads the log from inside its process and compares.
    pub(super) fn check_inside(&self, log: &Log) -> Result<usize, Failure> {
        self.check(&read_all(log.read(Offset(0), Isolation::Written)?)?)
    }

    /// Reads and verifies the log from outside, and compares.
    pub(super) fn check_outside(&self, directory: &Path, log: &str) -> Result<usize, Failure> {
        for verdict in verify(directory, Some(log))? {
            if let Some(damage) = verdict.damages.first() {
                return Err(format!("verify: {damage:?}").into());
            }
        }
        let reader = OutsideReader::open(directory, log, Offset(0), Isolation::Written)?;
        self.check(&read_all(reader)?)
    }
}

/// Returns a batch that is refused, so that nobody asks what is in it.
pub(super) fn one() -> Result<RecordBatch, Failure> {
    batch([RecordId::MAX])
}

/// Expects an error that says all of `words`; returns it as it is shown.
pub(super) fn says(error: &highwater::Error, words: &[&str]) -> Result<String, Failure> {
    let said = error.to_string();
    match words.iter().find(|word| !said.contains(**word)) {
        Some(word) => Err(format!("the error does not say {word:?}: {said}").into()),
        None => Ok(said),
    }
}

/// Returns the error of something that must fail.
pub(super) fn refused<T>(
    what: &str,
    result: highwater::Result<T>,
) -> Result<highwater::Error, Failure> {
    match result {
        Ok(_) => Err(format!("{what} was not refused").into()),
        Err(error) => Ok(error),
    }
}
