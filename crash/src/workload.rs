//! What a power-cut run drives: a program that stores things and says which are safe.

use std::error::Error;
use std::path::Path;

use crate::device::Marker;
use crate::replay::Mark;

/// What a workload's steps fail with: anything.
pub type Failure = Box<dyn Error + Send + Sync>;

/// What a check after a power cut found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many acknowledgements the cut had to respect.
    pub owed: usize,
    /// How many of them were not kept.
    pub lost: usize,
    /// The first loss, in words.
    pub first_loss: Option<String>,
}

/// A program under test: lives, loses power, lives on, loses power again.
///
/// The driver calls [`first_life`](Workload::first_life), then for each of many power cuts of that
/// life [`check_and_continue`](Workload::check_and_continue) and, for a cut of this second life,
/// [`check_again`](Workload::check_again); after some cuts it begins anew with another
/// first life.
///
/// Three rules:
///
/// 1. Whenever the program is told that something is safe, note `marker.mark()` *afterwards*.
///    A cut at that mark or later must keep the thing; before that mark it may.
/// 2. Marks of the first and of the second life count different logs: keep them apart.
/// 3. Close every file below `directory` before returning, or it cannot be unmounted. The clean
///    end that this brings is not promised to anybody: cuts fall before, within and after it.
pub trait Workload {
    /// Stores things below `directory`, an empty file system, forgetting all earlier lives.
    ///
    /// # Errors
    /// If it cannot: nothing has been cut yet, so the whole run ends.
    fn first_life(&mut self, directory: &Path, marker: &dyn Marker) -> Result<(), Failure>;

    /// Opens what a cut of the first life at `cut` left below `directory`, compares it with the
    /// acknowledgements of the first life noted at or before `cut`, and stores more (forgetting
    /// the second life after an earlier cut).
    ///
    /// # Errors
    /// If what is left cannot be opened or used. That is a finding, and the run goes on.
    fn check_and_continue(
        &mut self,
        directory: &Path,
        cut: Mark,
        marker: &dyn Marker,
    ) -> Result<Verdict, Failure>;

    /// Opens what a cut of the second life at `cut` left below `directory`. It must hold what the
    /// cut before it had to leave, and the acknowledgements of the second life noted at or before
    /// `cut`.
    ///
    /// # Errors
    /// If what is left cannot be opened or used. That is a finding, and the run goes on.
    fn check_again(&mut self, directory: &Path, cut: Mark) -> Result<Verdict, Failure>;
}
