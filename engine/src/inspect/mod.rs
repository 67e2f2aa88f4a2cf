//! Looking at an engine's directory from outside, also beside a running writer: nothing is ever
//! written, no lock is taken, every byte is read from the media as far as the kernel allows.
//!
//! What an outsider knows of a log's end is what verifies: its `written` is the verified prefix,
//! its `flushed` the highest mark on the media - in `log.meta` or in a batch header. When
//! something does not verify it is looked at again before it is called damage: the writer may
//! just have been writing it.

mod dump;
mod outside;
mod repair;
mod tail;
mod verify;

use std::path::{Path, PathBuf};

use highwater_io::threads::InlineIo;
use highwater_io::{Access, AlignedBuffer, Blocking, Entry, FileId, Io, IoErrorKind};
use highwater_segment::meta::{LogMeta, META_BYTES, META_FILE_NAME, decode_slots};
use highwater_segment::recovery::{HeaderFact, MetaCase, Slot, decide_meta};
use highwater_segment::segment::segment_file_name;
use highwater_segment::{Epoch, Offset, Salt};

use crate::control::{RootKind, log_names, look_at_root};
use crate::error::{Error, ErrorKind, Result};
use crate::names;
use crate::opening::{below_start, segment_bases};
use crate::options::validate_name;
use crate::recover::read_header;

pub use dump::{DumpItem, dump};
pub use outside::OutsideReader;
pub use repair::{RepairReport, repair};
pub use verify::{Damage, LogVerdict, verify, verify_with};

/// How often a slot that does not verify is read again: a writer may be writing it.
const SLOT_ATTEMPTS: usize = 16;

/// One line about a log.
#[derive(Clone, Debug)]
pub struct LogSummary {
    /// The log's name.
    pub name: String,
    /// The first offset that can be read.
    pub log_start: Offset,
    /// The highest flushed mark on the media.
    pub flushed: Offset,
    /// The end of the verified prefix.
    pub written: Offset,
    /// The same: an outsider cannot see what is not written.
    pub log_end: Offset,
    /// The highest epoch that was accepted.
    pub epoch: Epoch,
    /// How many segment files there are.
    pub segments: usize,
    /// The bytes of the segment files, the last one up to the log's end.
    pub bytes: u64,
    /// Why nothing, or not everything, could be found out.
    pub error: Option<Error>,
}

/// A log's files as an outsider finds them.
#[derive(Clone, Debug)]
pub(crate) struct LogView {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) slots: [Slot; 2],
    pub(crate) case: MetaCase,
    pub(crate) meta: Option<LogMeta>,
    pub(crate) bases: Vec<Offset>,
    /// Those of them that a crash inside an opening left under another name.
    away: Vec<Offset>,
    pub(crate) entries: Vec<Entry>,
}

impl LogView {
    /// Looks at the log's directory.
    pub(crate) fn load<I: Io>(io: &mut Blocking<I>, root: &Path, name: &str) -> Result<Self> {
        validate_name(name)?;
        let directory = root.join(name);
        let entries = match io.list(&directory) {
            Err(error) if error.kind == IoErrorKind::NotFound => {
                return Err(Error::from_io(error)
                    .remedy("there is no such log; `highwater logs` lists those there are"));
            }
            other => other?,
        };
        let path = directory.join(META_FILE_NAME);
        let mut slots = read_slots(io, &path)?;
        // Behind the slots: a roll adds names, so a later look sees at least what the mark needs.
        let mut listed = io.list(&directory)?;
        // And before them: a trim takes names away, but only once the slots say so.
        let mut again = read_slots(io, &path)?;
        for _ in 0..SLOT_ATTEMPTS {
            if starts(&slots) == starts(&again) {
                break;
            }
            slots = again;
            listed = io.list(&directory)?;
            again = read_slots(io, &path)?;
        }
        let away = names::segments_away(&listed);
        let mut bases = segment_bases(&listed);
        bases.extend(&away);
        bases.sort_unstable();
        let (case, meta) = decide_meta(&slots, !bases.is_empty());
        let unused = meta.as_ref().map_or(0, |meta| below_start(&bases, meta).len());
        let bases = bases.into_iter().skip(unused).collect();
        Ok(LogView { name: name.to_owned(), directory, slots, case, meta, bases, away, entries })
    }

    /// Returns the snapshot that counts, or why there is none.
    pub(crate) fn meta(&self) -> Result<&LogMeta> {
        self.meta.as_ref().ok_or_else(|| {
            let path = self.directory.join(META_FILE_NAME).display().to_string();
            match self.case {
                MetaCase::M1NeverCreated => Error::new(ErrorKind::Io, "read log", &self.name)
                    .detail("it was never finished: it holds neither log.meta nor a segment")
                    .remedy("open it for writing to make it"),
                MetaCase::M8UnknownVersion => Error::new(ErrorKind::Config, "read", &path)
                    .detail("it has a version this build does not know (case M8)")
                    .remedy("use a newer build"),
                case => {
                    let range = Offset(0)..Offset(u64::MAX);
                    Error::new(ErrorKind::Corrupt { range }, "read", &path)
                        .detail(format!("no slot can be trusted (case {})", case.label()))
                        .remedy("restore it from a copy, or use `highwater repair`")
                }
            }
        })
    }

    pub(crate) fn path(&self, base: Offset) -> PathBuf {
        let name = segment_file_name(base);
        self.directory.join(if self.away.contains(&base) { names::away(&name) } else { name })
    }

    pub(crate) fn successor(&self, base: Offset) -> Option<Offset> {
        self.bases.iter().copied().find(|other| *other > base)
    }

    /// Returns whether the log was closed with its end in the segment that `base` begins. Only
    /// then is that segment known to be whole although nothing in it is flushed: `log.meta` names
    /// it before it is made, and a kill can fall between the two.
    pub(crate) fn was_closed_in(&self, base: Offset) -> bool {
        let mark = self.meta.as_ref().map(|meta| meta.flushed);
        self.case == MetaCase::M3Clean && mark.is_some_and(|mark| mark.segment == base)
    }

    /// Opens a segment for reading; returns its file and what its header is.
    pub(crate) fn open_segment<I: Io>(
        &self,
        io: &mut Blocking<I>,
        base: Offset,
    ) -> Result<(FileId, HeaderFact, Option<Salt>)> {
        let meta = self.meta()?;
        let (file, direct) = io.open(&self.path(base), Access::Read, true)?;
        if !direct {
            io.drop_cache(file)?;
        }
        match read_header(io, file, meta.log_id, base) {
            Ok((fact, salt)) => Ok((file, fact, salt)),
            Err(error) => {
                io.close(file)?;
                Err(error)
            }
        }
    }

    /// Looks once more at a segment that had no header, after it was searched for what proves it:
    /// the writer beside may have been making it. Returns whether it has one now, or is gone.
    pub(crate) fn was_being_made<I: Io>(&self, io: &mut Blocking<I>, base: Offset) -> Result<bool> {
        match self.open_segment(io, base) {
            Ok((file, fact, _)) => {
                io.close(file)?;
                Ok(fact == HeaderFact::Good)
            }
            Err(error) if tail::is_not_found(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Returns where the log starts, by each slot.
fn starts(slots: &[Slot; 2]) -> [Option<Offset>; 2] {
    slots.each_ref().map(|slot| slot.as_ref().ok().map(|meta| meta.log_start))
}

/// Reads the slots of a `log.meta`; a bad one is read again, as a writer may be writing it.
fn read_slots<I: Io>(io: &mut Blocking<I>, path: &Path) -> Result<[Slot; 2]> {
    let (file, direct) = match io.open(path, Access::Read, true) {
        Err(error) if error.kind == IoErrorKind::NotFound => return Ok(decode_slots(&[])),
        other => other?,
    };
    let mut slots = decode_slots(&[]);
    let mut result = Ok(());
    for _ in 0..SLOT_ATTEMPTS {
        if !direct {
            io.drop_cache(file)?;
        }
        let (buffer, count) = io.read(file, 0, AlignedBuffer::zeroed(META_BYTES), META_BYTES);
        match count {
            Ok(count) => slots = decode_slots(buffer.get(..count).unwrap_or_default()),
            Err(error) => result = Err(error),
        }
        if result.is_err() || slots.iter().all(std::result::Result::is_ok) {
            break;
        }
    }
    io.close(file)?;
    result?;
    Ok(slots)
}

/// Checks that `root` is an engine's directory.
pub(crate) fn check_root<I: Io>(io: &mut Blocking<I>, root: &Path) -> Result<()> {
    let missing = || {
        Error::new(ErrorKind::Io, "read directory", &root.display().to_string())
            .detail("it does not exist")
            .remedy("check the path; `highwater append` makes a directory")
    };
    match look_at_root(io, root)? {
        RootKind::Missing => Err(missing()),
        RootKind::Empty | RootKind::Ours => Ok(()),
    }
}

/// Returns a line about every log in `dir`, sorted by name.
///
/// # Errors
/// [`ErrorKind::Io`] or [`ErrorKind::Config`] if `dir` is not an engine's directory. Errors of one
/// log stand in its line.
pub fn summaries(dir: &Path) -> Result<Vec<LogSummary>> {
    summaries_with(InlineIo::new(), dir)
}

/// As [`summaries`], on a given [`Io`].
///
/// # Errors
/// As there.
pub fn summaries_with<I: Io>(io: I, dir: &Path) -> Result<Vec<LogSummary>> {
    let mut io = Blocking::new(io);
    check_root(&mut io, dir)?;
    let names = log_names(&mut io, dir)?;
    Ok(names.iter().map(|name| summary(&mut io, dir, name)).collect())
}

fn summary<I: Io>(io: &mut Blocking<I>, root: &Path, name: &str) -> LogSummary {
    let mut summary = LogSummary {
        name: name.to_owned(),
        log_start: Offset(0),
        flushed: Offset(0),
        written: Offset(0),
        log_end: Offset(0),
        epoch: Epoch(0),
        segments: 0,
        bytes: 0,
        error: None,
    };
    if let Err(error) = fill_summary(io, root, name, &mut summary) {
        summary.error = Some(error);
    }
    summary
}

fn fill_summary<I: Io>(
    io: &mut Blocking<I>,
    root: &Path,
    name: &str,
    summary: &mut LogSummary,
) -> Result<()> {
    let view = LogView::load(io, root, name)?;
    summary.segments = view.bases.len();
    if view.case == MetaCase::M1NeverCreated {
        return Ok(());
    }
    let meta = view.meta()?;
    summary.log_start = meta.log_start;
    summary.flushed = meta.flushed.offset;
    summary.epoch = meta.epoch;
    let mut bytes = 0;
    let tail = tail::find_tail(io, root, name)?;
    for base in view.bases.iter().filter(|base| **base != tail.end.segment) {
        let file = match view.open_segment(io, *base) {
            Ok((file, ..)) => file,
            // Trimmed since the look at the directory.
            Err(error) if tail::is_not_found(&error) => {
                summary.segments -= 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        bytes += io.length(file)?;
        io.close(file)?;
    }
    summary.bytes = bytes + tail.end.position.0;
    summary.flushed = summary.flushed.max(tail.proven).min(tail.end.offset);
    summary.written = tail.end.offset;
    summary.log_end = tail.end.offset;
    summary.error = tail.damage;
    Ok(())
}
