//! What opening for writing found, in sentences.

use highwater::{LogReport, RecoveryReport};
use highwater_segment::recovery::{MetaCase, TailCase};

/// Returns what is worth knowing of an opening in which `wanted` is the log asked for. A log that
/// was closed, or whose crash lost nothing, is not.
pub(crate) fn of_opening(report: &RecoveryReport, wanted: &str) -> Vec<String> {
    let mut found: Vec<_> = report.logs.iter().flat_map(|log| of_log(log, wanted)).collect();
    // The failure of the log asked for is the command's own.
    let others = report.failed.iter().filter(|(name, _)| name != wanted);
    found.extend(others.map(|(name, error)| format!("warning: log {name} is not opened: {error}")));
    found
}

fn of_log(report: &LogReport, wanted: &str) -> Vec<String> {
    let name = &report.name;
    let mut found = Vec::new();
    if report.meta_case == MetaCase::M6BadSlotBesideClean {
        found.push(format!(
            "warning: log {name}: one slot of log.meta was damaged (case M6); it is written anew"
        ));
    }
    match report.tail_case {
        Some(case @ (TailCase::T2TornTail | TailCase::T3HoleInOlder)) => found.push(format!(
            "note: log {name}: a torn tail was cut at offset {} (case {}: {})",
            report.log_end,
            case.label(),
            report.stopped_by
        )),
        Some(case @ TailCase::T7MoreThanClean) => found.push(format!(
            "warning: log {name}: it was marked clean, but more follows up to offset {}; kept \
             (case {})",
            report.log_end,
            case.label()
        )),
        _ => {}
    }
    if !report.removed_segments.is_empty() {
        let bases: Vec<_> = report.removed_segments.iter().map(ToString::to_string).collect();
        found.push(format!(
            "note: log {name}: segments above the cut removed: {}",
            bases.join(", ")
        ));
    }
    for range in &report.quarantined {
        found.push(format!(
            "warning: log {name}: offsets {}..{} are damaged and cannot be read; appends go on; \
             restore the segment from a copy",
            range.start, range.end
        ));
    }
    if let Some(range) = &report.corrupt
        && name != wanted
    {
        found.push(format!(
            "warning: log {name} is read-only: offsets {}..{} are damaged; run `highwater verify`",
            range.start, range.end
        ));
    }
    if report.rewritten {
        found.push(format!(
            "note: log {name}: after a failed write or flush its last bytes were written anew"
        ));
    }
    found
}
