//! Damage coarser than a bit, as a table: what is done, and what it may come to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use highwater_io::sim::{SimDisk, SimPlatform, Survival};
use highwater_io::{Access, AlignedBuffer, Blocking, Platform};
use highwater_segment::meta::META_FILE_NAME;

use super::Outcome::{Cut, Quarantined, ReadError, ReadOnly, Refused, Unharmed};
use super::images::{Image, all};
use super::judge::{goes_on, judge};
use super::{Outcome, Outcomes, is_chosen};
use crate::convert::{narrow, wide};
use crate::failure::{Check, Failure, ensure};
use crate::report::last_panic;

const BLOCK: u64 = 4096;
const SECTOR: u64 = 512;

/// A kind of damage.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name, for `--case`.
    pub name: &'static str,
    /// What it may come to.
    pub allowed: &'static [Outcome],
    /// Returns every damage of this kind to a log.
    list: fn(&Image) -> Vec<Damage>,
}

/// What came of a case.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many damages were done.
    pub damages: u64,
    /// What was seen.
    pub outcomes: Outcomes,
    /// The broken promise, the log, and the damage.
    pub failure: Option<(String, Failure)>,
}

/// One damage to one file.
#[derive(Clone, Debug)]
enum Damage {
    /// These bytes stand there instead.
    Bytes { path: PathBuf, at: u64, bytes: Vec<u8> },
    /// Two blocks of one file change places.
    Swap { path: PathBuf, first: u64, second: u64 },
    /// The file ends there.
    Length { path: PathBuf, length: u64 },
    /// The whole file is this.
    File { path: PathBuf, bytes: Vec<u8> },
    /// The file is gone.
    Gone { path: PathBuf },
    /// A block cannot be read.
    Unreadable { path: PathBuf, at: u64 },
}

/// Everything but going on as if nothing were.
const SEGMENT: &[Outcome] = &[Unharmed, Cut, ReadError, Quarantined, ReadOnly, Refused];

/// The table.
pub const CASES: [Case; 15] = [
    Case { name: "unreadable-block", allowed: &[Unharmed, ReadError, Refused], list: unreadable },
    Case { name: "zeroed-sector", allowed: SEGMENT, list: |image| zeroed(image, SECTOR) },
    Case { name: "zeroed-block", allowed: SEGMENT, list: |image| zeroed(image, BLOCK) },
    Case { name: "swapped-blocks", allowed: SEGMENT, list: swapped },
    Case { name: "stale-block", allowed: SEGMENT, list: stale_blocks },
    Case { name: "block-of-another-log", allowed: SEGMENT, list: foreign_blocks },
    Case { name: "segment-cut-short", allowed: SEGMENT, list: |image| lengths(image, false) },
    Case {
        name: "log-meta-cut-short",
        allowed: &[Unharmed, Cut, Refused],
        list: |image| lengths(image, true),
    },
    Case {
        name: "segment-of-another-log",
        allowed: &[ReadOnly, Refused, ReadError, Quarantined],
        list: foreign_segments,
    },
    Case {
        name: "segments-swapped",
        allowed: &[ReadOnly, Refused, ReadError, Quarantined],
        list: swapped_segments,
    },
    Case {
        name: "segment-gone",
        allowed: &[ReadOnly, Refused, ReadError, Quarantined],
        list: |image| gone(image, is_segment),
    },
    Case { name: "log-meta-gone", allowed: &[Refused], list: |image| gone(image, is_meta) },
    Case { name: "old-segment-back", allowed: SEGMENT, list: |image| old(image, is_segment) },
    // One put back from before an opening is noticed by the first batch behind it (T6); one of the
    // same generation only marks less.
    Case {
        name: "old-log-meta-back",
        allowed: &[Unharmed, Cut, ReadOnly, Refused],
        list: |image| old(image, is_meta),
    },
    Case { name: "index-gone-old-or-foreign", allowed: &[Unharmed], list: indexes },
];

/// Does one in `sample` of the damages of a case to every log.
#[must_use]
pub fn run_case(case: &Case, sample: u64) -> Tally {
    let mut tally = Tally::default();
    for image in all().iter() {
        for (number, damage) in (0..).zip((case.list)(image)) {
            if !is_chosen(number, sample.max(1)) {
                continue;
            }
            tally.damages += 1;
            let outcome = catch_unwind(AssertUnwindSafe(|| try_damage(case, image, &damage)));
            let failure = match outcome {
                Ok(Ok(outcome)) => {
                    *tally.outcomes.entry(outcome).or_default() += 1;
                    continue;
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure { invariant: "PANIC", message: last_panic() },
            };
            let what = format!("{} number {number} {}", image.name, damage.describe());
            tally.failure.get_or_insert((what, failure));
        }
    }
    tally
}

fn try_damage(case: &Case, image: &Image, damage: &Damage) -> Check<Outcome> {
    let disk = image.disk.clone_state();
    damage.apply(&disk);
    let outcome = judge(image, &disk, None)?;
    ensure(case.allowed.contains(&outcome), "outcome", || {
        format!("{} came to {outcome:?}, not to one of {:?}", case.name, case.allowed)
    })?;
    // What of an old file lies right below the mark is met by the first reader behind it.
    let hidden = outcome == Cut && matches!(damage, Damage::File { .. });
    goes_on(&disk, outcome, hidden || outcome == ReadError)?;
    Ok(outcome)
}

impl Damage {
    fn describe(&self) -> String {
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match self {
            Damage::Bytes { path, at, bytes } => {
                format!("{}: {} bytes at {at}", name(path), bytes.len())
            }
            Damage::Swap { path, first, second } => format!("{}: {first} and {second}", name(path)),
            Damage::Length { path, length } => format!("{}: {length} bytes long", name(path)),
            Damage::File { path, bytes } => format!("{}: {} other bytes", name(path), bytes.len()),
            Damage::Gone { path } => format!("{}: gone", name(path)),
            Damage::Unreadable { path, at } => format!("{}: unreadable at {at}", name(path)),
        }
    }

    fn apply(&self, disk: &SimDisk) {
        match self {
            Damage::Bytes { path, at, bytes } => disk.overwrite_media(path, *at, bytes),
            Damage::Swap { path, first, second } => {
                let file = disk.read_file(path).unwrap_or_default();
                let block = |at: u64| file[narrow(at)..narrow(at + BLOCK)].to_vec();
                disk.overwrite_media(path, *first, &block(*second));
                disk.overwrite_media(path, *second, &block(*first));
            }
            Damage::Length { path, length } => operate(disk, |io| {
                let (file, _) = io.open(path, Access::ReadWrite, true)?;
                io.set_length(file, *length)?;
                io.flush(file)?;
                io.close(file)
            }),
            Damage::File { path, bytes } => operate(disk, |io| {
                io.remove(path)?;
                let (file, _) = io.open(path, Access::CreateNew, true)?;
                let whole = bytes.len().next_multiple_of(narrow(BLOCK));
                let mut buffer = AlignedBuffer::zeroed(whole);
                buffer[..bytes.len()].copy_from_slice(bytes);
                io.write(file, 0, buffer, whole, true).1?;
                io.close(file)
            }),
            Damage::Gone { path } => operate(disk, |io| io.remove(path)),
            Damage::Unreadable { path, at } => disk.break_blocks(path, *at, BLOCK),
        }
    }
}

fn operate(
    disk: &SimDisk,
    work: impl FnOnce(
        &mut Blocking<<SimPlatform as Platform>::ControlIo>,
    ) -> Result<(), highwater_io::IoError>,
) {
    let io = disk.start_process().control_io();
    let done = io.and_then(|io| work(&mut Blocking::new(io)));
    if let Err(error) = done {
        panic!("the damage is possible: {error}");
    }
    disk.power_cut(Survival::Everything);
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "log")
}

fn is_meta(path: &Path) -> bool {
    path.ends_with(META_FILE_NAME)
}

fn is_index(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "index")
}

fn length_of(image: &Image, path: &Path) -> u64 {
    wide(image.bytes(path).len())
}

/// Pieces of the files, those of `log.meta` too.
fn pieces(image: &Image, size: u64) -> Vec<(PathBuf, u64)> {
    let files = image.files().into_iter().filter(|path| !is_index(path));
    let pieces = files.flat_map(|path| {
        let count = length_of(image, &path) / size;
        (0..count).map(move |number| (path.clone(), number * size))
    });
    pieces.collect()
}

fn zeroed(image: &Image, size: u64) -> Vec<Damage> {
    let pieces = pieces(image, size).into_iter();
    let zeros = |(path, at)| Damage::Bytes { path, at, bytes: vec![0; narrow(size)] };
    pieces.map(zeros).collect()
}

fn unreadable(image: &Image) -> Vec<Damage> {
    let pieces = pieces(image, BLOCK).into_iter();
    pieces.map(|(path, at)| Damage::Unreadable { path, at }).collect()
}

fn swapped(image: &Image) -> Vec<Damage> {
    let mut swaps = Vec::new();
    for path in image.segments() {
        let blocks = length_of(image, &path) / BLOCK;
        for first in 0..blocks {
            for second in first + 1..blocks {
                let (first, second) = (first * BLOCK, second * BLOCK);
                swaps.push(Damage::Swap { path: path.clone(), first, second });
            }
        }
    }
    swaps
}

/// Each block of the disk `from` that differs in its place.
fn blocks_of(image: &Image, from: &SimDisk) -> Vec<Damage> {
    let mut found = Vec::new();
    for (path, at) in pieces(image, BLOCK) {
        let old = from.read_file(&path).unwrap_or_default();
        let Some(bytes) = old.get(narrow(at)..narrow(at + BLOCK)) else { continue };
        if image.bytes(&path)[narrow(at)..narrow(at + BLOCK)] != *bytes {
            found.push(Damage::Bytes { path, at, bytes: bytes.to_vec() });
        }
    }
    found
}

fn stale_blocks(image: &Image) -> Vec<Damage> {
    image.earlier.iter().flat_map(|earlier| blocks_of(image, earlier)).collect()
}

fn foreign_blocks(image: &Image) -> Vec<Damage> {
    blocks_of(image, &image.other)
}

fn lengths(image: &Image, meta: bool) -> Vec<Damage> {
    let files = image.files().into_iter();
    let files = files.filter(|path| if meta { is_meta(path) } else { is_segment(path) });
    let all = files.flat_map(|path| {
        let length = length_of(image, &path);
        (0..length).map(move |length| Damage::Length { path: path.clone(), length })
    });
    all.collect()
}

fn foreign_segments(image: &Image) -> Vec<Damage> {
    let files = image.segments().into_iter().filter_map(|path| {
        let bytes = image.other.read_file(&path)?;
        Some(Damage::File { path, bytes })
    });
    files.collect()
}

fn swapped_segments(image: &Image) -> Vec<Damage> {
    let segments = image.segments();
    let mut found = Vec::new();
    for path in &segments {
        for other in segments.iter().filter(|other| *other != path) {
            found.push(Damage::File { path: path.clone(), bytes: image.bytes(other) });
        }
    }
    found
}

fn gone(image: &Image, which: impl Fn(&Path) -> bool) -> Vec<Damage> {
    let files = image.files().into_iter().filter(|path| which(path));
    files.map(|path| Damage::Gone { path }).collect()
}

fn old(image: &Image, which: impl Fn(&Path) -> bool) -> Vec<Damage> {
    let mut found = Vec::new();
    for path in image.files().into_iter().filter(|path| which(path)) {
        let earlier = image.earlier.iter().filter_map(|earlier| earlier.read_file(&path));
        for bytes in earlier.filter(|bytes| *bytes != image.bytes(&path)) {
            found.push(Damage::File { path: path.clone(), bytes });
        }
    }
    found
}

fn indexes(image: &Image) -> Vec<Damage> {
    let mut found = gone(image, is_index);
    found.extend(old(image, is_index));
    for path in image.files().into_iter().filter(|path| is_index(path)) {
        if let Some(bytes) = image.other.read_file(&path) {
            found.push(Damage::File { path: path.clone(), bytes });
        }
        let length = length_of(image, &path);
        found.extend((0..length).map(|length| Damage::Length { path: path.clone(), length }));
        for at in 0..length {
            let bytes = vec![!image.bytes(&path)[narrow(at)]];
            found.push(Damage::Bytes { path: path.clone(), at, bytes });
        }
        found.push(Damage::Unreadable { path, at: 0 });
    }
    found
}
