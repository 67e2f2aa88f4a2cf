//! Damage on the disk, enumerated: every single flipped bit of small logs, and a table of coarser
//! cases (`cases`), through opening and reading.
//!
//! Verified for each: opening never panics and never refuses the engine; what is read is what was
//! appended (D7); nothing below the highest mark that is still on the media is missing without a
//! word (D6); what is refused is not changed by a byte; a log that still takes appends keeps them;
//! an index decides nothing (D8). A stated limit: damage at or above that mark cannot be told from
//! a torn tail, and is cut (`Outcome::Cut`).

mod cases;
mod images;
mod judge;
mod writes;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use highwater_io::sim::SimDisk;

use crate::convert::{narrow, wide};
use crate::failure::{Check, Failure};
use crate::report::last_panic;
pub use cases::{CASES, Case, Tally, run_case};
use images::Image;
use judge::judge;
pub use writes::run_bad_writes;

/// What became of a damaged log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Everything is read, and nothing is reported: the damage hit what does not count.
    Unharmed,
    /// The log ends before the damage, as after a torn tail; nothing proves that it was flushed.
    Cut,
    /// A reader gets an error at the damage.
    ReadError,
    /// The damaged range is kept apart; appends go on.
    Quarantined,
    /// The log is opened for reading only.
    ReadOnly,
    /// The log is not opened, with the reason.
    Refused,
}

/// How often each outcome was seen.
pub type Outcomes = BTreeMap<Outcome, u64>;

/// What came of flipping the bits of one file.
#[derive(Clone, Debug, Default)]
pub struct Flips {
    /// The log and the file, as `killed log.meta`.
    pub name: String,
    /// What was seen.
    pub outcomes: Outcomes,
    /// The broken promise, and the bit.
    pub failure: Option<(u64, Failure)>,
}

/// Returns the names of the logs that are damaged.
#[must_use]
pub fn image_names() -> Vec<&'static str> {
    images::all().iter().map(|image| image.name).collect()
}

/// Flips each bit of every file of the logs, one at a time; one in `sample` of them.
#[must_use]
pub fn flip_bits(image: Option<&str>, sample: u64) -> Vec<Flips> {
    let mut all = Vec::new();
    for own in images::all().iter().filter(|own| image.is_none_or(|name| own.name == name)) {
        all.extend(own.files().iter().map(|path| flip_file(own, path, sample.max(1))));
    }
    all
}

fn flip_file(image: &Image, path: &Path, sample: u64) -> Flips {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let mut flips = Flips { name: format!("{} {file}", image.name), ..Flips::default() };
    let bits = wide(image.bytes(path).len()) * 8;
    for bit in (0..bits).filter(|bit| is_chosen(*bit, sample)) {
        let outcome = catch_unwind(AssertUnwindSafe(|| flip(image, path, bit)));
        let failure = match outcome {
            Ok(Ok(outcome)) => {
                *flips.outcomes.entry(outcome).or_default() += 1;
                continue;
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure { invariant: "PANIC", message: last_panic() },
        };
        flips.failure = Some((bit, failure));
        break;
    }
    flips
}

/// Returns whether a number is among the one in `sample`, without any regularity.
fn is_chosen(number: u64, sample: u64) -> bool {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(sample)
}

fn flip(image: &Image, path: &Path, bit: u64) -> Check<Outcome> {
    let disk = image.disk.clone_state();
    change(&disk, path, bit / 8, |byte| byte ^ 1 << (bit % 8));
    let hit = image.hit(path, bit / 8);
    judge(image, &disk, hit)
}

/// Changes one byte wherever it is kept.
fn change(disk: &SimDisk, path: &Path, at: u64, new: impl Fn(u8) -> u8) {
    let bytes = disk.read_file(path).unwrap_or_default();
    if let Some(byte) = bytes.get(narrow(at)) {
        disk.overwrite_media(path, at, &[new(*byte)]);
    }
}
