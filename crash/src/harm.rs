//! Ways to harm files.

use std::fmt;
use std::path::PathBuf;

use highwater::segment::meta::META_FILE_NAME;
use highwater_io::random::SeededRandom;

use crate::image::SECTOR_BYTES;
use crate::scratch::Files;

/// The place of the version in a segment's header and in a slot, and of the checksum behind it.
const VERSION_AT: usize = 8;
const CRC_AT: usize = 12;
/// The bytes a version and its checksum speak for.
const HEADER_BYTES: usize = 4096;

/// What was done to a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Harm {
    file: PathBuf,
    what: String,
    /// It may have put something behind the log's end that looks like the start of a batch.
    pub(crate) behind_end: bool,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.what, self.file.display())
    }
}

/// Harms one file.
pub(crate) fn harm(files: &mut Files, stale: &[Vec<u8>], random: &mut SeededRandom) -> Harm {
    let file = pick(files, random);
    let (what, behind_end) = match random.below(16) {
        0..6 => (flip_bits(files, &file, random), true),
        6..8 => (zero_sector(files, &file, random), true),
        8..10 => (swap_sectors(files, &file, random), true),
        10..12 => (stale_sector(files, &file, stale, random), true),
        12..14 => (cut_file(files, &file, random), true),
        14 => (remove(files, &file), false),
        _ => (unknown_version(files, &file), false),
    };
    Harm { file, what, behind_end }
}

/// Picks `log.meta` one time in four, else any file by its length.
fn pick(files: &Files, random: &mut SeededRandom) -> PathBuf {
    let meta = files.keys().find(|path| path.ends_with(META_FILE_NAME));
    if let Some(meta) = meta.filter(|_| random.chance(1, 4)) {
        return meta.clone();
    }
    let total: usize = files.values().map(Vec::len).sum();
    let mut left = random.index(total.max(1));
    for (path, bytes) in files {
        if left < bytes.len() {
            return path.clone();
        }
        left -= bytes.len();
    }
    files.keys().next().cloned().unwrap_or_default()
}

fn flip_bits(files: &mut Files, file: &PathBuf, random: &mut SeededRandom) -> String {
    let mut what = "flipped bits at".to_owned();
    if let Some(bytes) = files.get_mut(file).filter(|bytes| !bytes.is_empty()) {
        for _ in 0..1 + random.below(3) {
            let at = random.index(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            what += &format!(" {at}");
        }
    }
    what
}

/// Returns a sector of a file.
fn sector(bytes: &[u8], random: &mut SeededRandom) -> std::ops::Range<usize> {
    let start = random.index((bytes.len() / SECTOR_BYTES).max(1)) * SECTOR_BYTES;
    start.min(bytes.len())..(start + SECTOR_BYTES).min(bytes.len())
}

fn zero_sector(files: &mut Files, file: &PathBuf, random: &mut SeededRandom) -> String {
    let Some(bytes) = files.get_mut(file) else { return String::new() };
    let range = sector(bytes, random);
    bytes[range.clone()].fill(0);
    format!("zeroed {range:?}")
}

fn swap_sectors(files: &mut Files, file: &PathBuf, random: &mut SeededRandom) -> String {
    let Some(bytes) = files.get_mut(file) else { return String::new() };
    let (one, other) = (sector(bytes, random), sector(bytes, random));
    let first = bytes[one.clone()].to_vec();
    if first.len() == other.len() {
        bytes.copy_within(other.clone(), one.start);
        bytes[other.clone()].copy_from_slice(&first);
    }
    format!("swapped {one:?} with {other:?}")
}

/// Puts there what once was there, or what stands elsewhere.
fn stale_sector(
    files: &mut Files,
    file: &PathBuf,
    stale: &[Vec<u8>],
    random: &mut SeededRandom,
) -> String {
    let Some(bytes) = files.get_mut(file) else { return String::new() };
    let to = sector(bytes, random);
    let old = &stale[random.index(stale.len())];
    let from = if random.chance(2, 3) { to.clone() } else { sector(old, random) };
    if let Some(old) = old.get(from.clone()).filter(|old| old.len() == to.len()) {
        bytes[to.clone()].copy_from_slice(old);
    }
    format!("old {from:?} put at {to:?}")
}

fn cut_file(files: &mut Files, file: &PathBuf, random: &mut SeededRandom) -> String {
    let Some(bytes) = files.get_mut(file) else { return String::new() };
    let block = if random.chance(1, 2) { 1 } else { SECTOR_BYTES };
    let length = random.index(bytes.len() + 1) / block * block;
    bytes.truncate(length);
    format!("cut to {length} bytes")
}

fn remove(files: &mut Files, file: &PathBuf) -> String {
    let _bytes = files.remove(file);
    "removal".to_owned()
}

/// A whole header of a version from the future.
fn unknown_version(files: &mut Files, file: &PathBuf) -> String {
    if let Some(bytes) = files.get_mut(file) {
        let slots = if file.ends_with(META_FILE_NAME) { usize::MAX } else { 1 };
        for header in bytes.chunks_exact_mut(HEADER_BYTES).take(slots) {
            header[VERSION_AT] = 99;
            header[CRC_AT..CRC_AT + 4].fill(0);
            let sum = crc32c::crc32c(header).to_le_bytes();
            header[CRC_AT..CRC_AT + 4].copy_from_slice(&sum);
        }
    }
    "version 99".to_owned()
}
