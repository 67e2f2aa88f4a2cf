//! Power cuts, kills, damage and full disks of the real engine: bounded runs of what the
//! `highwater-crash` program does at any length.

use std::io::Write;

use highwater::BackendChoice;
use highwater_crash::binary::Binary;
use highwater_crash::logs::Logs;
use highwater_crash::mount::FileSystem;
use highwater_crash::power_cut::{self, Summary};
use highwater_crash::{damage, full, kill, real_input};

use crate::possible;

const POINTS: usize = 12;
const KILLS: usize = 10;
const DAMAGES: usize = 60;
const TEXT_BYTES: u64 = 8_000_000;

fn seed() -> u64 {
    let seed = highwater_io::random::kernel_u64();
    println!("seed {seed}");
    seed
}

/// Returns the `highwater` binary if it was built in this profile; says so if not.
fn binary() -> Option<Binary> {
    match Binary::find(None) {
        Ok(binary) => Some(binary),
        Err(why) => {
            std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
            None
        }
    }
}

fn power_cut(file_system: FileSystem, backend: BackendChoice, control: bool) -> Option<Summary> {
    if !possible(file_system) {
        return None;
    }
    let seed = seed();
    let plan = power_cut::Plan { file_system, points: POINTS, seed, keep: None };
    let summary = power_cut::run(&plan, &mut Logs::new(seed, backend, control)).unwrap();
    println!("{summary}");
    for finding in &summary.findings {
        println!("{finding}");
    }
    Some(summary)
}

fn nothing_flushed_is_lost(file_system: FileSystem, backend: BackendChoice) {
    let Some(summary) = power_cut(file_system, backend, false) else { return };
    assert_eq!((summary.points, summary.second_cuts), (POINTS, POINTS));
    assert_eq!((summary.lost, summary.failed), (0, 0));
    assert!(summary.owed > 0, "nothing was checked");
}

#[test]
fn logs_survive_power_cuts_on_ext4() {
    nothing_flushed_is_lost(FileSystem::Ext4, BackendChoice::Auto);
}

#[test]
fn logs_survive_power_cuts_on_xfs() {
    nothing_flushed_is_lost(FileSystem::Xfs, BackendChoice::Auto);
}

#[test]
fn logs_survive_power_cuts_with_threads() {
    nothing_flushed_is_lost(FileSystem::Ext4, BackendChoice::Threads);
}

#[test]
fn logs_that_are_never_flushed_are_caught() {
    let Some(summary) = power_cut(FileSystem::Ext4, BackendChoice::Auto, true) else { return };
    assert!(summary.lost > 0, "no loss was seen without flushes");
    assert_eq!(summary.failed, 0, "what is left is whole");
}

#[test]
fn kills_lose_nothing_acked() {
    let Some(binary) = binary() else { return };
    for backend in [BackendChoice::Auto, BackendChoice::Threads] {
        let plan = kill::Plan { rounds: KILLS, seed: seed(), binary: binary.clone(), backend };
        println!("{}", kill::run(&plan).unwrap());
    }
}

#[test]
fn damage_is_noticed_and_never_read() {
    let plan = damage::Plan { rounds: DAMAGES, seed: seed(), binary: binary() };
    let summary = damage::run(&plan).unwrap();
    println!("{summary}");
    assert_eq!(summary.findings, Vec::<String>::new());
    assert!(summary.counting > 0, "nothing was hit");
}

#[test]
fn real_text_comes_back() {
    let Some(binary) = binary() else { return };
    let backend = BackendChoice::Auto;
    let plan = real_input::Plan { bytes: TEXT_BYTES, runs: 1, binary, backend };
    println!("{}", real_input::run(&plan).unwrap());
}

#[test]
fn a_full_disk_loses_nothing_acked() {
    let Some(binary) = binary() else { return };
    for file_system in [FileSystem::Ext4, FileSystem::Xfs] {
        if possible(file_system) {
            let (binary, backend) = (binary.clone(), BackendChoice::Auto);
            let plan = full::Plan { file_system, binary, backend };
            println!("{}", full::run(&plan).unwrap());
        }
    }
}
