//! Damage: a log made by the engine is damaged as the input says; then it is verified, read from
//! outside, opened, read, appended to, left, and opened again.
//!
//! The oracle knows every value that was appended. Whatever is damaged: nothing panics, and no
//! value is read at an offset where another one was appended. A reader ends at the end of the log
//! or with an error, never silently short; an opened log ends at or above its mark; a log that is
//! refused or read-only is not changed; what opening did is not done again by the next opening;
//! a changed byte of a closed log is reported by `verify`. When checksums were forged only the
//! absence of panics is left.
//!
//! *Not checked*: that damage above every mark on the media is told from a torn tail - it cannot.

mod acts;
mod images;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use highwater::inspect::{OutsideReader, verify_with};
use highwater::segment::meta::{META_FILE_NAME, decode_slots};
use highwater::segment::recovery::decide_meta;
use highwater::{
    Ack, ErrorKind, Isolation, LocalEngine, LocalLog, LogOptions, Offset, Options, ReadBatch,
    RecordBatch,
};
use highwater_io::Platform;
use highwater_io::sim::{SimDisk, SimPlatform};

use self::acts::{Done, carry_out, is_like_new, log_files};
use self::images::{Image, LOG, ROOT, images, log_directory, value};
use crate::input::{Input, narrow, wide};

/// The number of the first value appended after the damage; the images use far fewer.
const FRESH_ATTEMPT: u64 = 1 << 40;

/// The first byte chooses the image, the second how the life after the damage goes; the rest is
/// what is damaged.
pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let image = &images()[usize::from(input.byte()) % images().len()];
    let course = input.byte();
    let disk = image.disk.clone_state();
    let done = carry_out(image, &disk, input);
    let trial = Trial { image, disk, done, course };
    trial.verify();
    trial.read_from_outside();
    trial.live();
}

/// One damaged disk.
#[derive(Debug)]
struct Trial<'a> {
    image: &'a Image,
    disk: SimDisk,
    done: Done,
    course: u8,
}

/// The values a log should hold, by offset.
type Values = Vec<Vec<u8>>;

impl Trial<'_> {
    /// Whether nothing at all was damaged.
    fn is_untouched(&self) -> bool {
        let files = log_files(&self.disk);
        let same = |path: &PathBuf| self.image.disk.read_file(path) == self.disk.read_file(path);
        !self.done.unreadable && files == log_files(&self.image.disk) && files.iter().all(same)
    }

    /// Whether every damage of a closed log can be noticed.
    fn must_be_noticed(&self) -> bool {
        let Done { forged, planted, unreadable, changed } = self.done;
        changed && !forged && !planted && !unreadable
    }

    fn verify(&self) {
        let untouched = self.is_untouched();
        let io = self.disk.start_process().control_io().expect("the process lives");
        let verdicts = verify_with(io, Path::new(ROOT), None);
        if self.must_be_noticed() {
            let noticed = match &verdicts {
                Ok(verdicts) => verdicts.iter().any(|verdict| !verdict.damages.is_empty()),
                Err(_) => true,
            };
            assert!(noticed, "a changed byte of a closed log is reported: {verdicts:?}");
        }
        if untouched {
            let verdicts = verdicts.expect("an undamaged log can be verified");
            let [verdict] = &verdicts[..] else { panic!("there is one log") };
            assert!(verdict.damages.is_empty(), "nothing is wrong: {verdict:?}");
            assert!(verdict.log_end.0 >= self.image.promised, "nothing is missing: {verdict:?}");
        }
    }

    fn read_from_outside(&self) {
        let io = self.disk.start_process().control_io().expect("the process lives");
        let root = Path::new(ROOT);
        let reader = OutsideReader::open_with(io, root, LOG, Offset(0), Isolation::Committed);
        let Ok(reader) = reader else { return };
        let mut next = 0;
        for batch in reader {
            let Ok(batch) = batch else { return };
            next = self.check_batch(&batch, next, &self.image.values);
        }
        let Done { planted, forged, .. } = self.done;
        let whole = self.image.clean && !planted && !forged && !is_like_new(&self.disk);
        assert!(!whole || next >= self.image.promised, "never silently short: ended at {next}");
    }

    /// Checks a batch that was read at `next` or behind it; returns where it ends.
    fn check_batch(&self, batch: &ReadBatch, mut next: u64, values: &Values) -> u64 {
        for record in batch.records() {
            if self.done.forged {
                continue;
            }
            let record = record.expect("only whole records were written");
            assert_eq!(record.offset, Offset(next), "A1: offsets are dense");
            let appended = values.get(narrow(next)).map(Vec::as_slice);
            assert!(record.value == appended, "D7: the value read at {next} was appended there");
            next += 1;
        }
        next
    }

    /// Opens the log, uses it, leaves it, and opens it again.
    fn live(&self) {
        let before = self.log_bytes();
        let mark = self.mark();
        let (mut engine, platform) = self.open();
        let Some(log) = attach(&mut engine) else {
            self.refused(&before);
            drop(engine);
            return;
        };
        let read_only = engine.failure(log).is_some();
        let end = engine.marks(log).log_end.0;
        let mut values = self.image.values.clone();
        if !self.done.forged {
            assert!(end <= wide(values.len()), "nothing comes from nowhere");
            values.truncate(narrow(end));
            let mark = mark.unwrap_or(0);
            assert!(read_only || end >= mark, "D2: a log that goes on keeps all below its mark");
            let owed = if self.is_whole(&before) { self.image.promised } else { 0 };
            assert!(end >= owed, "what was acked survives: {end} < {owed}");
        }
        self.read_all(&engine, log, &values);
        let went_on = !read_only && self.append(&mut engine, log, &mut values);
        if read_only {
            self.refused(&before);
        }
        self.leave(engine, &platform, read_only);
        if read_only {
            self.refused(&before);
        }
        self.live_again(went_on, &values);
    }

    /// Whether the log's files are those of the image.
    fn is_whole(&self, files: &BTreeMap<PathBuf, Option<Vec<u8>>>) -> bool {
        !self.done.unreadable
            && files.len() == log_files(&self.image.disk).len()
            && files.iter().all(|(path, bytes)| self.image.disk.read_file(path) == *bytes)
    }

    fn log_bytes(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let files = log_files(&self.disk).into_iter();
        files.map(|path| (path.clone(), self.disk.read_file(&path))).collect()
    }

    /// Returns the mark that a good slot on the damaged disk names.
    fn mark(&self) -> Option<u64> {
        let bytes = self.disk.read_file(&log_directory().join(META_FILE_NAME))?;
        let (_, meta) = decide_meta(&decode_slots(&bytes), true);
        meta.map(|meta| meta.flushed.offset.0)
    }

    fn open(&self) -> (LocalEngine<SimPlatform>, SimPlatform) {
        let platform = self.disk.start_process();
        let engine = LocalEngine::open(platform.clone(), &Options::at(ROOT));
        (engine.expect("a damaged log does not keep the engine from opening"), platform)
    }

    /// Nothing was changed by whoever was refused. Late writes of a killed process may land.
    fn refused(&self, before: &BTreeMap<PathBuf, Option<Vec<u8>>>) {
        if self.image.clean {
            let after = self.log_bytes();
            let changed = before.iter().find(|(path, bytes)| after.get(*path) != Some(*bytes));
            let changed = changed.map(|(path, _)| path);
            assert!(changed.is_none(), "a refused log is not changed, but {changed:?} was");
            assert_eq!(before.len(), after.len(), "a refused log gets no new file");
        }
    }

    /// Reads everything; an error must say where to go on.
    fn read_all(&self, engine: &LocalEngine<SimPlatform>, log: LocalLog, values: &Values) {
        let marks = engine.marks(log);
        let mut next = marks.log_start.0;
        while next < marks.written.0 {
            let reader = engine.read(log, Offset(next), Isolation::Written);
            let mut reader = reader.expect("inside the log");
            let error = loop {
                match reader.next() {
                    None => break None,
                    Some(Ok(batch)) => next = self.check_batch(&batch, next, values),
                    Some(Err(error)) => break Some(error),
                }
            };
            let Some(error) = error else {
                let whole = self.done.forged || next == marks.written.0;
                assert!(whole, "never silently short: ended at {next}, not {}", marks.written);
                return;
            };
            match error.kind() {
                ErrorKind::Corrupt { range } if !self.done.forged => {
                    assert!(range.end.0 > next, "reading goes on behind the damage: {error}");
                    next = range.end.0;
                }
                _ => return,
            }
        }
    }

    /// Appends one record and reads it back; returns whether the log took it.
    fn append(
        &self,
        engine: &mut LocalEngine<SimPlatform>,
        log: LocalLog,
        values: &mut Values,
    ) -> bool {
        let end = engine.marks(log).log_end;
        let fresh = value(FRESH_ATTEMPT, 100 + 40 * usize::from(self.course));
        let batch = RecordBatch::builder().value(&fresh).build().expect("it fits");
        let ticket = engine.append(log, batch, Ack::LEADER_FLUSHED);
        let appended = ticket.and_then(|ticket| engine.run_until(&ticket));
        let may_fail = self.done.forged || self.done.planted || self.done.unreadable;
        match appended {
            Ok(appended) => {
                assert!(
                    self.done.forged || appended.base_offset == end,
                    "appends go on at the end"
                );
                values.push(fresh);
                if !self.done.forged {
                    let reader = engine.read(log, end, Isolation::Durable);
                    let mut reader = reader.expect("inside the log");
                    let batch = reader.next().expect("it was flushed").expect("it is good");
                    assert_eq!(self.check_batch(&batch, end.0, values), end.0 + 1);
                }
                true
            }
            Err(error) => {
                assert!(may_fail, "a log that is not read-only takes an append: {error}");
                false
            }
        }
    }

    fn leave(&self, engine: LocalEngine<SimPlatform>, platform: &SimPlatform, read_only: bool) {
        if self.course.is_multiple_of(2) {
            platform.kill();
            drop(engine);
        } else {
            let closed = engine.close();
            let may_fail = read_only || self.done.forged || self.done.planted;
            assert!(may_fail || self.done.unreadable || closed.is_ok(), "{closed:?}");
        }
    }

    /// The second opening finds what the first one left.
    fn live_again(&self, went_on: bool, values: &Values) {
        let (mut engine, platform) = self.open();
        let log = attach(&mut engine);
        if let Some(log) = log {
            self.read_all(&engine, log, values);
        }
        if went_on && !self.done.forged {
            let log = log.expect("a log that took an append opens again");
            assert!(engine.failure(log).is_none(), "D5: {:?}", engine.failure(log));
            assert_eq!(engine.marks(log).log_end.0, wide(values.len()), "D5: recovery settles");
        }
        drop(platform);
        drop(engine);
    }
}

/// Returns the log, unless it is refused.
fn attach(engine: &mut LocalEngine<SimPlatform>) -> Option<LocalLog> {
    let known = engine.recovery().logs.iter().any(|report| report.name == LOG);
    let failed = engine.recovery().failed.iter().any(|(name, _)| name == LOG);
    let log = engine.log(LOG, &LogOptions::default());
    assert!(!known || log.is_ok(), "a log that was opened is there");
    // A failure of the first attempt can be a read error, which can be tried again.
    assert!(known || failed || log.is_err() || engine.recovery().logs.is_empty());
    log.ok()
}
