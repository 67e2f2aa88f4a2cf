//! Replays the committed inputs: the corpora and what has failed before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use highwater_fuzz_targets::{TARGETS, run, seeds};

/// Set it to write the seeds anew: `HIGHWATER_WRITE_SEEDS=1 cargo test -p highwater-fuzz-targets`.
const WRITE_SEEDS: &str = "HIGHWATER_WRITE_SEEDS";

/// How many random programs run.
const PROGRAMS: usize = 150;

fn fuzz_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the files of a directory by name; none if it does not exist.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(directory) else { return BTreeMap::new() };
    let paths = entries.map(|entry| entry.expect("readable").path());
    let paths = paths.filter(|path| path.is_file());
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    paths.map(|path| (name(&path), std::fs::read(&path).expect("readable"))).collect()
}

fn replay(kind: &str, target: &str) -> usize {
    let files = files(&fuzz_directory().join(kind).join(target));
    for (name, bytes) in &files {
        println!("{kind}/{target}/{name}");
        run(target, bytes);
    }
    files.len()
}

#[test]
fn corpora_hold() {
    for target in TARGETS {
        assert!(replay("corpus", target.name) > 0, "{} has a corpus", target.name);
    }
}

#[test]
fn what_failed_before_holds() {
    for target in TARGETS {
        replay("regressions", target.name);
    }
}

#[test]
fn seeds_on_disk_are_those_the_program_makes() {
    let write = std::env::var_os(WRITE_SEEDS).is_some();
    for seed in seeds() {
        let directory = fuzz_directory().join("corpus").join(seed.target);
        let path = directory.join(seed.name);
        if write {
            std::fs::create_dir_all(&directory).expect("writable");
            std::fs::write(&path, &seed.bytes).expect("writable");
        }
        let found = std::fs::read(&path).unwrap_or_default();
        let (target, name) = (seed.target, seed.name);
        assert!(found == seed.bytes, "corpus/{target}/{name} differs; set {WRITE_SEEDS} and retry");
    }
}

#[test]
fn empty_and_plain_inputs_hold() {
    for target in TARGETS {
        for length in [0, 1, 2, 87, 88, 4096, 8192] {
            for byte in [0, 1, 0xff] {
                run(target.name, &vec![byte; length]);
            }
        }
    }
}

/// Lives that no fuzzer has chosen: the same ones each time.
#[test]
fn random_programs_of_recovery_hold() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(1);
        state.to_le_bytes()[7]
    };
    for number in 0..PROGRAMS {
        let bytes: Vec<u8> = (0..24 + number % 200).map(|_| next()).collect();
        run("recovery", &bytes);
    }
}
