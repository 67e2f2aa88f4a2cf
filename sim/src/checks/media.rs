//! D9 and "flushed before use, in both slots": what stands in `log.meta` on the media.
//!
//! Verified: no good slot claims more flushed than the engine knows, or a lower start of the log
//! than the engine shows, and none says clean while the log is open; after an opening or a
//! truncation both slots hold its generation and epoch; recovery scans two segments at most. Not
//! verified: the names on the media (power cuts on copies do that).

use std::path::Path;

use highwater::LogReport;
use highwater_io::sim::SimDisk;
use highwater_segment::meta::{LogMeta, LogState, META_FILE_NAME, decode_slots};
use highwater_segment::recovery::SegmentCase;

use crate::failure::{Check, broken, ensure};
use crate::oracle::LogModel;

/// Returns the good slots of a log's `log.meta` on the media.
pub(crate) fn slots(disk: &SimDisk, root: &Path, name: &str) -> Vec<LogMeta> {
    let path = root.join(name).join(META_FILE_NAME);
    let bytes = disk.media_file(&path).unwrap_or_default();
    decode_slots(&bytes).into_iter().flatten().collect()
}

/// Returns epoch and generation of an opened log, from both slots.
pub(crate) fn current(disk: &SimDisk, root: &Path, name: &str) -> Check<(u32, u32)> {
    let slots = slots(disk, root, name);
    let [a, b] = slots.as_slice() else {
        return broken("flushed before use", format!("log.meta of {name} has a bad slot"));
    };
    let same = a.generation == b.generation && a.epoch == b.epoch && a.truncations == b.truncations;
    ensure(same, "flushed before use", || format!("the slots of {name} differ: {a:?} and {b:?}"))?;
    Ok((a.epoch.0, a.generation.0))
}

/// Checks that what `log.meta` says is not newer than the flushed mark.
pub(crate) fn not_ahead(disk: &SimDisk, root: &Path, model: &LogModel) -> Check {
    for slot in slots(disk, root, &model.name) {
        ensure(slot.state != LogState::Clean, "flushed before use", || {
            format!("a slot of {} says clean while the log is open", model.name)
        })?;
        ensure(slot.log_start.0 >= model.start_floor, "flushed before use", || {
            format!(
                "a slot of {} starts the log at {}, the engine shows {}",
                model.name, slot.log_start, model.start_floor
            )
        })?;
        let ahead =
            slot.generation.0 == model.generation && slot.flushed.offset.0 > model.durable_floor;
        ensure(!ahead, "D9", || {
            format!(
                "log.meta of {} says {} is flushed, the engine {}",
                model.name, slot.flushed.offset, model.durable_floor
            )
        })?;
    }
    Ok(())
}

/// Checks that at most two segments hold anything above the mark that opening found: so much is
/// what a roll may leave unflushed, and what recovery has to scan.
pub(crate) fn scan_is_bounded(report: &LogReport) -> Check {
    let walked = report.segment_cases.iter().filter(|(_, case)| *case == SegmentCase::S1Follows);
    let bases: Vec<_> = walked.map(|(base, _)| *base).collect();
    let ends = bases.iter().skip(1).copied().chain([report.log_end]);
    let above = ends.filter(|end| *end > report.mark).count();
    ensure(above <= 2, "two segments", || {
        format!("{above} segments of {} were scanned: {report:?}", report.name)
    })
}
