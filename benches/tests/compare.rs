//! The binary as it is used: every engine does every workload, small.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn compare(directory: &Path, flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_compare"))
        .args(flags)
        .arg("--dir")
        .arg(directory)
        .output()
        .expect("started")
}

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Of an earlier test run.
    drop(std::fs::remove_dir_all(&directory));
    directory
}

fn is_positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|figure| figure > 0.0)
}

#[test]
fn every_engine_does_what_it_can_and_leaves_nothing() {
    let directory = directory("compare-all");
    let flags = ["--rounds", "1", "--total-bytes", "1MiB", "--durable-appends", "100"];
    let output = compare(&directory, &[&flags[..], &["--format", "json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let comparison: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(comparison["failures"], Value::Array(Vec::new()));
    let rows = comparison["rows"].as_array().expect("rows");
    // Throughput: two of ours, cold and steady, and three others, twice. Durable: all six.
    assert_eq!(rows.len(), 2 * (4 + 3) + 6, "{stderr}");
    for row in rows {
        let durable = row["workload"] == "durable-1kib";
        assert!(is_positive(&row["payload_mb_per_s"]["median"]), "{row}");
        assert_eq!(is_positive(&row["append_p50_us"]["median"]), durable, "{row}");
        let bytes = &row["runs"][0]["payload_bytes"];
        assert!(bytes.as_u64().is_some_and(|b| durable == (b == 100 << 10)), "{row}");
    }
    let of_ours = comparison["ratios"].as_array().expect("ratios");
    // Two figures of each throughput row of ours, the median of each durable one.
    assert_eq!(of_ours.len(), 2 * 8 + 2);
    assert!(!directory.exists());
}

#[test]
fn the_table_has_a_line_for_each_engine() {
    let flags = ["--rounds", "2", "--total-bytes", "1MiB", "--workload", "1kib-x16"];
    let output = compare(
        &directory("compare-table"),
        &[&flags[..], &["--engine", "highwater-local,commitlog"]].concat(),
    );
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}");
    let starts = |start: &str| table.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(starts("1kib-x16      highwater-local  cold"), 1, "{table}");
    assert_eq!(starts("1kib-x16      highwater-local  steady"), 1, "{table}");
    assert_eq!(starts("1kib-x16      commitlog        cold"), 1, "{table}");
}

#[test]
fn what_an_engine_cannot_do_is_refused() {
    for (engine, phase, workload) in [
        ("okaywal", "cold", "1kib-x16"),
        ("commitlog", "steady", "1kib-x16"),
        ("highwater", "steady", "durable-1kib"),
    ] {
        let flags = ["run", "--engine", engine, "--phase", phase, "--workload", workload];
        let output = compare(&directory("compare-refused"), &flags);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{engine} {phase} {workload}");
        assert!(stderr.contains("cannot do"), "{stderr}");
    }
}
