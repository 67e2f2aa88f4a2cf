//! Power cuts of the self-test's workload: nothing acknowledged is lost, and a cheat is caught.

use highwater_crash::blocks::Blocks;
use highwater_crash::mount::FileSystem;
use highwater_crash::power_cut::{Plan, Summary, run};

use crate::possible;

const POINTS: usize = 20;

fn power_cut(file_system: FileSystem, control: bool) -> Option<Summary> {
    if !possible(file_system) {
        return None;
    }
    let seed = highwater_io::random::kernel_u64();
    println!("seed {seed}");
    let plan = Plan { file_system, points: POINTS, seed, keep: None };
    let summary = run(&plan, &mut Blocks::new(seed, control)).unwrap();
    println!("{summary}");
    for finding in &summary.findings {
        println!("{finding}");
    }
    Some(summary)
}

fn nothing_flushed_is_lost(file_system: FileSystem) {
    let Some(summary) = power_cut(file_system, false) else { return };
    assert_eq!((summary.points, summary.second_cuts), (POINTS, POINTS));
    assert_eq!((summary.lost, summary.failed), (0, 0));
    assert!(summary.owed > 0, "nothing was checked");
}

fn the_control_is_caught(file_system: FileSystem) {
    let Some(summary) = power_cut(file_system, true) else { return };
    assert!(summary.lost > 0, "no loss was seen without flushes");
    assert_eq!(summary.failed, 0, "the file system itself survives");
}

#[test]
fn nothing_flushed_is_lost_on_ext4() {
    nothing_flushed_is_lost(FileSystem::Ext4);
}

#[test]
fn nothing_flushed_is_lost_on_xfs() {
    nothing_flushed_is_lost(FileSystem::Xfs);
}

#[test]
fn the_control_is_caught_on_ext4() {
    the_control_is_caught(FileSystem::Ext4);
}

#[test]
fn the_control_is_caught_on_xfs() {
    the_control_is_caught(FileSystem::Xfs);
}
