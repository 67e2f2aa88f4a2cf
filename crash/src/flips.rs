//! Single flipped bits in the files of a log that the binary wrote: nothing false is ever served,
//! and nothing that is proven to have been flushed goes without a word.
//!
//! Two states of one log are damaged: *closed*, where every byte of it was flushed, and *killed*,
//! with an end above the mark. In the closed one whatever counts must be told. In the killed one
//! damage above every mark that is still on the media cannot be told from a torn write, and is cut
//! (`T2`, `T3` of docs/durability.md); in the magic of a batch not even from the end (`T1`).

mod original;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use highwater_io::random::SeededRandom;

use self::original::{Original, Outcome};
use crate::binary::Binary;
use crate::scratch::Scratch;
use crate::workload::Failure;
use crate::written::{Written, write_closed, write_killed};

/// Flips looked at beside each other, each in a directory of its own.
const WORKERS: usize = 4;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many bits to flip, one at a time.
    pub flips: usize,
    /// The records and the places of the flips follow from this; salts, ids, and what was flushed
    /// when the process was killed do not.
    pub seed: u64,
    /// The binary that writes the log.
    pub binary: Binary,
}

/// What a run did and found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Bits flipped.
    pub flips: usize,
    /// Of them those in bytes that count.
    pub hit: usize,
    /// Of those that hit: damage was reported, or a reader got an error.
    pub told: usize,
    /// Of those that hit: the log ends before it, as a torn tail, and nothing proves more.
    pub cut: usize,
    /// Of those that hit: nothing is missing, and nothing was said. Such as a slot that a crash may
    /// have torn beside a good one.
    pub unharmed: usize,
    /// Damaged logs that took an append all the same.
    pub appended: usize,
    /// Flips in `log.meta`, segments, indexes, and others (snapshots of producers, spares).
    pub kinds: [usize; 4],
    /// What was not as it must be, in words.
    pub findings: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { flips, hit, told, cut, unharmed, appended, kinds, findings } = self;
        let [meta, segments, indexes, other] = kinds;
        write!(
            f,
            "damage: flips {flips} (log.meta {meta}, segments {segments}, indexes {indexes}, \
             other {other}), hit {hit}, told {told}, cut as torn {cut}, unharmed \
             {unharmed}, appended to {appended}, wrong {}",
            findings.len()
        )
    }
}

/// Flips bits as `plan` says.
///
/// # Errors
/// If the log cannot be made, or is not right before it is damaged. What flips do stands in the
/// summary.
pub fn run(plan: &Plan) -> Result<Summary, Failure> {
    let scratch = Scratch::new("flips")?;
    let directory = scratch.path().join("data");
    let random = SeededRandom::new(plan.seed);
    let mut written = Written::new(&random);
    write_closed(&plan.binary, &directory, &mut written)?;
    let closed = Original::new(&directory, written.clone(), true)?;
    write_killed(&plan.binary, &directory, &mut written)?;
    let killed = Original::new(&directory, written, false)?;
    Ok(flip_all(scratch.path(), &random, &[closed, killed], plan.flips))
}

/// Flips `flips` bits of the logs, one at a time, in directories in `root`.
fn flip_all(root: &Path, random: &SeededRandom, logs: &[Original], flips: usize) -> Summary {
    // The disk flushes for several at once.
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (next, done) = (&next, &done);
            let _ended = scope.spawn(move || {
                let directory = root.join(format!("worker-{worker}"));
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= flips {
                        break;
                    }
                    let mut random = random.split(&format!("flip {number}"));
                    let original = &logs[random.index(logs.len())];
                    let flip = original.pick(&mut random);
                    let judged = original.check(&directory, Some(&flip), &mut random);
                    let hit = original.is_hit(&flip);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(number, (flip, hit, judged.map_err(|failure| failure.to_string())));
                }
            });
        }
    });
    let mut summary = Summary::default();
    for (number, (flip, hit, judged)) in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        summary.flips += 1;
        summary.kinds[kind_of(&flip.file)] += 1;
        summary.hit += usize::from(hit);
        match judged {
            Ok(outcome) => summary.count(outcome),
            Err(failure) => summary.findings.push(format!("flip {number}: {flip}: {failure}")),
        }
    }
    summary
}

impl Summary {
    fn count(&mut self, outcome: Outcome) {
        self.told += usize::from(outcome.hit && outcome.told);
        self.cut += usize::from(outcome.hit && outcome.cut && !outcome.told);
        self.unharmed += usize::from(outcome.hit && !outcome.cut && !outcome.told);
        self.appended += usize::from(outcome.appended);
    }
}

/// One bit of one file.
#[derive(Clone, Debug)]
struct Flip {
    file: PathBuf,
    bit: usize,
}

impl Flip {
    fn byte(&self) -> usize {
        self.bit / 8
    }
}

/// Returns where the file is counted in [`Summary::kinds`].
fn kind_of(path: &Path) -> usize {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("meta") => 0,
        Some("log") => 1,
        Some("index") => 2,
        _ => 3,
    }
}

impl fmt::Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bit {} of byte {} of {}", self.bit % 8, self.byte(), self.file.display())
    }
}

#[cfg(test)]
mod tests;
