//! The result as a table for people.

use std::fmt::Write;

use highwater_benches::Spread;
use highwater_benches::numbers::to_f64;

use crate::engines::{Goal, Phase};
use crate::rounds::{Comparison, Row};

/// Returns the table: medians of the rounds, with the smallest and the largest in brackets.
pub(crate) fn text(comparison: &Comparison) -> String {
    let mut text = String::new();
    let gib = to_f64(comparison.size.total_bytes) / f64::from(1u32 << 30);
    let appends = comparison.size.durable_appends;
    put(
        &mut text,
        &format!(
            "medians (min..max) of {} interleaved rounds; {gib:.2} GiB each, {appends} durable \
             appends each; the final flush is inside every clock",
            comparison.rounds
        ),
    );
    put(&mut text, "");
    throughput(&mut text, comparison);
    durable(&mut text, comparison);
    put(&mut text, "ours / best other, round by round:");
    for ratio in &comparison.ratios {
        put(
            &mut text,
            &format!(
                "  {:<13} {:<17} {:<16} {:<7} / {:<12} {}",
                ratio.workload.name(),
                ratio.figure,
                ratio.ours.name(),
                phase_name(ratio.phase),
                ratio.best_other.name(),
                spread(Some(ratio.ratio), 2)
            ),
        );
    }
    for failure in &comparison.failures {
        put(&mut text, &format!("failed: {failure}"));
    }
    text
}

fn throughput(text: &mut String, comparison: &Comparison) {
    let of_goal = |row: &&Row| row.workload.goal() == Goal::Throughput;
    let mut rows = comparison.rows.iter().filter(of_goal).peekable();
    if rows.peek().is_none() {
        return;
    }
    put(
        text,
        &format!(
            "{:<13} {:<16} {:<7} {:>20} {:>10} {:>18} {:>15} {:>9} {:>9}",
            "workload",
            "engine",
            "phase",
            "MB/s",
            "Mrecords/s",
            "CPU s/GiB",
            "elsewhere CPU s",
            "disk/load",
            "peak MiB"
        ),
    );
    for row in rows {
        let disk = row.runs.last().map_or(0.0, |o| to_f64(o.disk_bytes) / to_f64(o.payload_bytes));
        let peak = row.peak_resident_bytes.map_or(0.0, |peak| peak.median / 1048576.0);
        put(
            text,
            &format!(
                "{:<13} {:<16} {:<7} {:>20} {:>10.2} {:>18} {:>15} {disk:>9.2} {peak:>9.0}",
                row.workload.name(),
                row.engine.name(),
                phase_name(row.phase),
                spread(Some(row.payload_mb_per_s), 0),
                row.records_per_s.median / 1e6,
                spread(Some(row.cpu_s_per_gib), 2),
                spread(row.cpu_elsewhere_s, 1),
            ),
        );
    }
    put(text, "");
}

fn durable(text: &mut String, comparison: &Comparison) {
    let of_goal = |row: &&Row| row.workload.goal() == Goal::Durable;
    let mut rows = comparison.rows.iter().filter(of_goal).peekable();
    if rows.peek().is_none() {
        return;
    }
    put(
        text,
        &format!(
            "{:<13} {:<16} {:<7} {:>20} {:>20} {:>22} {:>16}",
            "workload", "engine", "phase", "p50 us", "p90 us", "p99 us", "CPU us/append"
        ),
    );
    for row in rows {
        put(
            text,
            &format!(
                "{:<13} {:<16} {:<7} {:>20} {:>20} {:>22} {:>16}",
                row.workload.name(),
                row.engine.name(),
                phase_name(row.phase),
                spread(row.append_p50_us, 0),
                spread(row.append_p90_us, 0),
                spread(row.append_p99_us, 0),
                spread(Some(row.cpu_us_per_record), 1),
            ),
        );
    }
    put(text, "");
}

fn put(text: &mut String, line: &str) {
    // Writing to a string does not fail.
    writeln!(text, "{}", line.trim_end()).unwrap_or_default();
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Cold => "cold",
        Phase::Steady => "steady",
    }
}

fn spread(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or("-".to_owned(), |s| {
        format!("{:.digits$} ({:.digits$}..{:.digits$})", s.median, s.min, s.max)
    })
}
