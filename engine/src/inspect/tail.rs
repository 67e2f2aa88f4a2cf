//! Finding the end of a log from outside.

use std::path::Path;

use highwater_io::{Blocking, FileId, Io, IoErrorKind};
use highwater_segment::meta::Mark;
use highwater_segment::recovery::HeaderFact;
use highwater_segment::scan::{Chain, Evidence, Stop};
use highwater_segment::{Epoch, FIRST_BATCH, Offset};

use super::LogView;
use crate::error::{Error, ErrorKind, Result};
use crate::shared::generation_rule;
use crate::walker::{WalkError, Walked, Walker, file_evidence};

/// How often a log is looked at again because it changed meanwhile.
const ATTEMPTS: usize = 32;

/// Where a log ends for an outsider.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    pub(super) end: Mark,
    /// The highest flush mark on the media.
    pub(super) proven: Offset,
    pub(super) stop: Option<Stop>,
    pub(super) damage: Option<Error>,
}

/// What a stop in front of a walker means to an outsider.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    /// Nothing is proven to follow: the end, torn or not.
    End { proven: Offset },
    /// It is below a proven mark.
    Damage { until: Offset },
    /// The log was truncated or reopened meanwhile; look at it anew.
    Changed,
}

/// Finds the end of the log, walking from the mark in `log.meta`.
pub(super) fn find_tail<I: Io>(io: &mut Blocking<I>, root: &Path, name: &str) -> Result<Tail> {
    for _ in 0..ATTEMPTS {
        let mut view = LogView::load(io, root, name)?;
        if let Some(tail) = try_tail(io, root, &mut view)? {
            return Ok(tail);
        }
    }
    Err(Error::new(ErrorKind::Timeout, "read log", name)
        .detail("it was truncated or reopened again and again")
        .remedy("try again"))
}

fn try_tail<I: Io>(io: &mut Blocking<I>, root: &Path, view: &mut LogView) -> Result<Option<Tail>> {
    let mark = view.meta()?.flushed;
    // A writer that is faster than this walk would lead it on for ever: what it begins from here
    // on was not there when the walk began.
    let newest = view.bases.last().copied();
    let mut tail = Tail { end: mark, proven: mark.offset, stop: None, damage: None };
    let mut base = mark.segment;
    if !view.bases.contains(&base) {
        if mark.offset > mark.segment {
            let range = mark.segment..mark.offset;
            let path = view.path(base).display().to_string();
            tail.damage = Some(
                Error::new(ErrorKind::Corrupt { range }, "read segment", &path)
                    .detail("the file is missing (case T4)"),
            );
            tail.end.offset = mark.segment;
        }
        return Ok(Some(tail));
    }
    loop {
        let (file, fact, salt) = match view.open_segment(io, base) {
            Ok(opened) => opened,
            // Trimmed or cut off since the look at the directory.
            Err(error) if is_not_found(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let (Some(salt), HeaderFact::Good) = (salt, fact) else {
            let found = file_evidence(io, file, FIRST_BATCH, None, view.meta()?.generation);
            io.close(file)?;
            if view.was_being_made(io, base)? {
                return Ok(None);
            }
            // A flush mark in what is behind the header proves that it had been durable.
            tail.proven = tail.proven.max(found?.proven);
            return bad_header(view, base, tail).map(Some);
        };
        let from = if base == mark.segment {
            mark
        } else {
            Mark { offset: base, segment: base, position: FIRST_BATCH }
        };
        let rule = generation_rule(view.meta()?.generation, &mark, base);
        let mut walker =
            Walker::new(file, Chain::new(salt, from.position, from.offset, Epoch(0), rule));
        let outcome = walk_to_stop(io, root, view, &mut walker, base);
        io.close(file)?;
        let chain = walker.chain();
        tail.end = Mark { offset: chain.next_offset(), segment: base, position: chain.position() };
        tail.proven = tail.proven.max(chain.proven());
        match outcome? {
            None => {}
            Some((_, Meaning::Changed)) => return Ok(None),
            Some((stop, Meaning::End { proven })) => {
                tail.proven = tail.proven.max(proven);
                tail.stop = Some(stop);
                return Ok(Some(tail));
            }
            Some((stop, Meaning::Damage { until })) => {
                // Something behind proves that what is damaged, and all before it, was flushed.
                tail.proven = tail.proven.max(until);
                let error = damage_error(view, &tail.end, until, &stop);
                tail.stop = Some(stop);
                tail.damage = Some(error);
                return Ok(Some(tail));
            }
        }
        match view.successor(base) {
            Some(next) if newest.is_some_and(|newest| base < newest) => base = next,
            Some(_) | None => return Ok(Some(tail)),
        }
    }
}

/// A bad header ends the log, unless something in or behind it is proven.
fn bad_header(view: &LogView, base: Offset, mut tail: Tail) -> Result<Tail> {
    if tail.proven > base || view.was_closed_in(base) {
        let range = base..tail.proven.max(base.plus(1));
        let path = view.path(base).display().to_string();
        tail.damage = Some(
            Error::new(ErrorKind::Corrupt { range }, "read segment", &path)
                .at(0)
                .detail("its header block is damaged (case S5)")
                .remedy("restore the segment from a copy"),
        );
    }
    Ok(tail)
}

/// Walks to the successor's base (`None`) or to a stop and what it means.
fn walk_to_stop<I: Io>(
    io: &mut Blocking<I>,
    root: &Path,
    view: &mut LogView,
    walker: &mut Walker,
    base: Offset,
) -> Result<Option<(Stop, Meaning)>> {
    loop {
        if view.successor(base).is_some_and(|next| walker.chain().next_offset() >= next) {
            return Ok(None);
        }
        match walker.step(io) {
            Ok(_) => {}
            Err(WalkError::Io(error)) => return Err(error.into()),
            Err(WalkError::Stop(stop)) => {
                let meaning = meaning_of(io, root, view, walker, base, stop)?;
                match meaning {
                    Some(meaning) => return Ok(Some((stop, meaning))),
                    None => continue,
                }
            }
        }
    }
}

/// Says what a stop means; `None`: it is gone, walk on.
///
/// The order matters beside a running writer: first what follows, then the log's marks, and only
/// then the place itself once more. A batch that proves what is before it was written after that
/// was, so what still does not verify then is damaged.
pub(super) fn meaning_of<I: Io>(
    io: &mut Blocking<I>,
    root: &Path,
    view: &mut LogView,
    walker: &mut Walker,
    base: Offset,
    stop: Stop,
) -> Result<Option<Meaning>> {
    let generation = view.meta()?.generation;
    let at = walker.chain().position();
    let salt = Some(walker.chain().salt());
    let mut evidence = file_evidence(io, walker.file(), at, salt, generation)?;
    for later in view.bases.iter().copied().filter(|other| *other > base) {
        let (file, _, salt) = match view.open_segment(io, later) {
            Ok(opened) => opened,
            // Removed by a truncation meanwhile, which the look at log.meta below sees.
            Err(error) if is_not_found(&error) => continue,
            Err(error) => return Err(error),
        };
        let found = file_evidence(io, file, FIRST_BATCH, salt, generation);
        io.close(file)?;
        evidence = evidence.and_then(found?);
    }
    let now = LogView::load(io, root, &view.name)?;
    let same = now.meta.as_ref().is_some_and(|meta| meta.generation == generation);
    // What is trimmed below meanwhile changes nothing here.
    let from_here = |bases: &[Offset]| -> Vec<Offset> {
        bases.iter().copied().filter(|other| *other >= base).collect()
    };
    let (known, there) = (from_here(&view.bases), from_here(&now.bases));
    if !same || !known.iter().all(|base| there.contains(base)) {
        return Ok(Some(Meaning::Changed));
    }
    if there.len() > known.len() {
        // The writer rolled meanwhile: what stopped the walk is the end of a segment.
        view.bases = now.bases;
        walker.forget();
        return Ok(None);
    }
    let next = walker.chain().next_offset();
    let mark = now.meta()?.flushed;
    match look_again(io, walker)? {
        Some((copy, same)) if same == stop && copy.chain().position() == at => *walker = copy,
        // The writer got on while this looked: the log ended here a moment ago. To walk on would
        // be to run after it.
        None if view.successor(base).is_none() => {
            return Ok(Some(Meaning::End { proven: proven_by(&evidence, walker, mark) }));
        }
        _ => {
            walker.forget();
            return Ok(None);
        }
    }
    Ok(Some(judge(&evidence, walker, mark, base, next, stop)))
}

/// Reads the place of a stop once more; returns a walker that stopped, and why. `None`: a batch is
/// there now.
fn look_again<I: Io>(io: &mut Blocking<I>, walker: &Walker) -> Result<Option<(Walker, Stop)>> {
    let mut copy = walker.fresh();
    loop {
        match copy.step(io) {
            Ok(Walked::Padding) => {}
            Ok(Walked::Batch { .. }) => return Ok(None),
            Err(WalkError::Stop(stop)) => return Ok(Some((copy, stop))),
            Err(WalkError::Io(error)) => return Err(error.into()),
        }
    }
}

/// Returns the highest flush mark that was seen.
fn proven_by(evidence: &Evidence, walker: &Walker, mark: Mark) -> Offset {
    evidence.proven.max(walker.chain().proven()).max(mark.offset)
}

fn judge(
    evidence: &Evidence,
    walker: &Walker,
    mark: Mark,
    base: Offset,
    next: Offset,
    stop: Stop,
) -> Meaning {
    let proven = proven_by(evidence, walker, mark);
    let newer = evidence.newer_generation.is_some() || matches!(stop, Stop::NewerGeneration(_));
    let short = mark.segment == base && walker.chain().position() < mark.position;
    if next < proven || newer || short {
        let resumes = evidence.resumes.map_or(proven, |(_, offset)| offset);
        return Meaning::Damage { until: resumes.max(next.plus(1)) };
    }
    Meaning::End { proven }
}

/// Returns the error for damage in front of `end`.
pub(super) fn damage_error(view: &LogView, end: &Mark, until: Offset, stop: &Stop) -> Error {
    let path = view.path(end.segment).display().to_string();
    let detail = format!(
        "offsets {}..{until} were flushed and do not verify: {}",
        end.offset,
        stop.describe()
    );
    Error::new(ErrorKind::Corrupt { range: end.offset..until }, "read segment", &path)
        .at(end.position.0)
        .detail(detail)
        .remedy("run `highwater verify`; restore the segment from a copy, or use `repair`")
}

/// Whether the file is not there (any more).
pub(super) fn is_not_found(error: &Error) -> bool {
    error.io().is_some_and(|io| io.kind == IoErrorKind::NotFound)
}

/// Closes a file whose error, if any, no longer matters: it was only read.
pub(super) fn close_read<I: Io>(io: &mut Blocking<I>, file: FileId) -> Result<()> {
    Ok(io.close(file)?)
}
