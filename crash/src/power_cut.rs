//! The driver: a first life, many power cuts of it, and a second life and cut after each.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater_io::clock::monotonic_now;
use highwater_io::random::SeededRandom;

use crate::device::Disk;
use crate::error::RigError;
use crate::image::Image;
use crate::mount::FileSystem;
use crate::replay::{Counts, Mark, Recording, Replay, Unflushed};
use crate::rig::Rig;
use crate::workload::{Failure, Verdict, Workload};

/// Power cuts made from one first life.
const POINTS_PER_LIFE: usize = 25;

/// Findings that keep their images, when images are kept.
const KEPT_FINDINGS_MAX: usize = 10;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file system under the workload.
    pub file_system: FileSystem,
    /// How many power cuts of first lives to make; each may be followed by a second cut.
    pub points: usize,
    /// Where the cuts fall and what they do to unflushed writes follows from this.
    pub seed: u64,
    /// The directory for images of cuts with findings, at most ten of them.
    pub keep: Option<PathBuf>,
}

/// One power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where in the log it fell.
    pub at: Mark,
    /// How long the log was.
    pub of: Mark,
    /// What became of the unflushed writes.
    pub unflushed: Unflushed,
}

impl Cut {
    /// Draws a cut of a log that ends at `of`.
    fn draw(of: Mark, random: &mut SeededRandom) -> Self {
        let unflushed = match random.below(8) {
            0 => Unflushed::Dropped,
            1 => Unflushed::Kept,
            _ => Unflushed::Seeded(random.next_u64()),
        };
        Cut { at: Mark(random.index(of.0 + 1)), of, unflushed }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unflushed = match self.unflushed {
            Unflushed::Seeded(_) => "torn",
            Unflushed::SeededBlocks(_) => "torn by blocks",
            Unflushed::Dropped => "dropped",
            Unflushed::Kept => "kept",
        };
        write!(f, "at event {} of {}, unflushed writes {unflushed}", self.at.0, self.of.0)
    }
}

/// A cut after which something acknowledged was gone, or nothing could be used.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which point, counted from 0.
    pub point: usize,
    /// The cut of the first life.
    pub first: Cut,
    /// The cut of the second life, if it was found after that one.
    pub second: Option<Cut>,
    /// What was found, in words.
    pub what: String,
    /// The image of the last cut, if images are kept.
    pub image: Option<PathBuf>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "point {}: cut {}", self.point, self.first)?;
        if let Some(second) = self.second {
            write!(f, "; then cut {second}")?;
        }
        write!(f, ": {}", self.what)?;
        match &self.image {
            Some(image) => write!(f, " (image: {})", image.display()),
            None => Ok(()),
        }
    }
}

/// What a run did and found.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The file system.
    pub file_system: FileSystem,
    /// Cuts of first lives.
    pub points: usize,
    /// Cuts of second lives: fewer than `points` if first cuts had findings.
    pub second_cuts: usize,
    /// Acknowledgements that had to be kept, summed over all cuts.
    pub owed: usize,
    /// Cuts that lost something acknowledged.
    pub lost: usize,
    /// Cuts after which mounting, opening or reading failed.
    pub failed: usize,
    /// Cuts made again because the file system itself did not survive them.
    pub again: usize,
    /// First lives.
    pub lives: usize,
    /// Events of all first lives.
    pub events: Counts,
    /// The time of all points, first lives not counted.
    pub elapsed: Duration,
    /// The cuts that lost something or failed.
    pub findings: Vec<Finding>,
}

impl Summary {
    /// Returns the mean time of a point: both cuts, mounts, checks and the second life.
    #[must_use]
    pub fn per_point(&self) -> Duration {
        let points = u32::try_from(self.points).unwrap_or(u32::MAX);
        self.elapsed.checked_div(points).unwrap_or_default()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { file_system, points, second_cuts, owed, lost, failed, .. } = self;
        let Counts { writes, zeros, flushes } = self.events;
        writeln!(
            f,
            "power-cut {file_system}: first lives {}, events {} (writes {writes}, zeros {zeros}, \
             flushes {flushes}), acknowledgements checked {owed}, cuts made again with whole \
             blocks {}",
            self.lives,
            writes + zeros + flushes,
            self.again,
        )?;
        write!(
            f,
            "power-cut {file_system}: points {points}, second cuts {second_cuts}, lost {lost}, \
             failed {failed}, ms/point {:.1}",
            self.per_point().as_secs_f64() * 1e3
        )
    }
}

/// Cuts the power of `workload` as `plan` says.
///
/// # Errors
/// [`RigError::Missing`] where power cuts cannot be tested; others if the rig itself fails. A loss
/// is not an error: it stands in the summary.
pub fn run(plan: &Plan, workload: &mut dyn Workload) -> Result<Summary, RigError> {
    let rig = Rig::start(plan.file_system)?;
    let mut run = Run {
        rig: &rig,
        plan,
        random: SeededRandom::new(plan.seed).split("cuts"),
        summary: Summary {
            file_system: plan.file_system,
            points: 0,
            second_cuts: 0,
            owed: 0,
            lost: 0,
            failed: 0,
            again: 0,
            lives: 0,
            events: Counts::default(),
            elapsed: Duration::ZERO,
            findings: Vec::new(),
        },
    };
    while run.summary.points < plan.points {
        let recording = run.first_life(workload)?;
        let points = POINTS_PER_LIFE.min(plan.points - run.summary.points);
        let began = monotonic_now();
        run.cuts(recording, points, workload)?;
        run.summary.elapsed += monotonic_now().since(began);
    }
    Ok(run.summary)
}

/// A run under way.
struct Run<'run> {
    rig: &'run Rig,
    plan: &'run Plan,
    random: SeededRandom,
    summary: Summary,
}

impl Run<'_> {
    /// Lets the workload live on an empty file system and returns what its device recorded.
    fn first_life(&mut self, workload: &mut dyn Workload) -> Result<Recording, RigError> {
        let disk = self.rig.disk(self.rig.formatted().clone());
        let mounted = self.rig.mount(&disk)?;
        workload
            .first_life(mounted.directory(), &disk)
            .map_err(|failure| RigError::Workload(failure.to_string()))?;
        mounted.unmount()?;
        let recording = disk.recording();
        let Counts { writes, zeros, flushes } = recording.counts();
        self.summary.lives += 1;
        self.summary.events.writes += writes;
        self.summary.events.zeros += zeros;
        self.summary.events.flushes += flushes;
        Ok(recording)
    }

    /// Makes `points` cuts of one first life, in the order of the log.
    fn cuts(
        &mut self,
        recording: Recording,
        points: usize,
        workload: &mut dyn Workload,
    ) -> Result<(), RigError> {
        let end = recording.end();
        let mut cuts: Vec<Cut> = (0..points).map(|_| Cut::draw(end, &mut self.random)).collect();
        cuts.sort_by_key(|cut| cut.at);
        let mut replay = self.replay(recording);
        for first in cuts {
            self.point(first, &mut replay, workload)?;
            self.summary.points += 1;
        }
        Ok(())
    }

    fn replay(&self, recording: Recording) -> Replay {
        Replay::new(recording).untorn(self.plan.file_system.untorn())
    }

    /// Checks one cut of the first life, and a cut of the second life it leads to.
    fn point(
        &mut self,
        mut first: Cut,
        replay: &mut Replay,
        workload: &mut dyn Workload,
    ) -> Result<(), RigError> {
        let at = first.at;
        let (image, recording, verdict) = self.boot(&mut first, replay, |directory, disk| {
            workload.check_and_continue(directory, at, disk)
        })?;
        if !self.judge(first, None, verdict, &image)? {
            return Ok(());
        }
        let mut second = Cut::draw(recording.end(), &mut self.random);
        let mut replay = self.replay(recording);
        let at = second.at;
        let (image, _, verdict) = self
            .boot(&mut second, &mut replay, |directory, _| workload.check_again(directory, at))?;
        self.judge(first, Some(second), verdict, &image)?;
        self.summary.second_cuts += 1;
        Ok(())
    }

    /// Mounts what `cut` leaves and lets `work` work there. Where the file system itself does not
    /// survive the torn blocks, `cut` becomes one with whole blocks.
    fn boot(
        &mut self,
        cut: &mut Cut,
        replay: &mut Replay,
        work: impl FnOnce(&Path, &Disk) -> Result<Verdict, Failure>,
    ) -> Result<(Image, Recording, Result<Verdict, Failure>), RigError> {
        loop {
            let image = replay.cut(cut.at, cut.unflushed);
            let disk = self.rig.disk(image.clone());
            let verdict = match (self.rig.mount(&disk), cut.unflushed) {
                (Ok(mounted), _) => {
                    let verdict = work(mounted.directory(), &disk);
                    mounted.unmount()?;
                    verdict
                }
                (Err(_), Unflushed::Seeded(seed)) if self.plan.file_system.needs_whole_blocks() => {
                    self.summary.again += 1;
                    cut.unflushed = Unflushed::SeededBlocks(seed);
                    continue;
                }
                (Err(error), _) => Err(error.into()),
            };
            return Ok((image, disk.recording(), verdict));
        }
    }

    /// Counts a verdict, notes a finding, and returns whether all was well.
    fn judge(
        &mut self,
        first: Cut,
        second: Option<Cut>,
        verdict: Result<Verdict, Failure>,
        image: &Image,
    ) -> Result<bool, RigError> {
        let what = match verdict {
            Ok(Verdict { owed, lost: 0, .. }) => {
                self.summary.owed += owed;
                return Ok(true);
            }
            Ok(Verdict { owed, lost, first_loss }) => {
                self.summary.owed += owed;
                self.summary.lost += 1;
                let first_loss = first_loss.unwrap_or_default();
                format!("lost {lost} of {owed} acknowledged: {first_loss}")
            }
            Err(failure) => {
                self.summary.failed += 1;
                format!("failed: {failure}")
            }
        };
        let point = self.summary.points;
        let image = self.keep(image, point, second.is_some())?;
        self.summary.findings.push(Finding { point, first, second, what, image });
        Ok(false)
    }

    /// Saves the image of a finding, if images are kept.
    fn keep(&self, image: &Image, point: usize, second: bool) -> Result<Option<PathBuf>, RigError> {
        let Some(directory) = &self.plan.keep else { return Ok(None) };
        if self.summary.findings.len() >= KEPT_FINDINGS_MAX {
            return Ok(None);
        }
        let which = if second { "second" } else { "first" };
        let Plan { file_system, seed, .. } = self.plan;
        let path = directory.join(format!("{file_system}-seed{seed}-point{point}-{which}.img"));
        let failed = |error| RigError::io(format!("saving {}", path.display()), error);
        std::fs::create_dir_all(directory).map_err(failed)?;
        image.save(&path).map_err(failed)?;
        Ok(Some(path))
    }
}
