//! Nothing is left mounted when a run is killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use highwater_crash::mount::FileSystem;
use highwater_io::clock::monotonic_now;

use crate::possible;

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `done` says so.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = monotonic_now();
    while !done() {
        assert!(monotonic_now().since(began) < PATIENCE, "waited too long until {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_highwater-crash"))
}

/// A temporary directory of this test's own, so that no other run sweeps there.
fn temporary(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("highwater-{name}-{}", std::process::id()));
    std::fs::create_dir(&path).unwrap();
    path
}

/// A run that would take hours; killed when dropped, also when a test fails.
struct Run(Child);

impl Run {
    /// Starts a run and waits until it has come to its disk `mounts` or a later one.
    fn start(temporary: &Path, mounts: usize) -> Self {
        let mut command = program();
        command.args(["power-cut", "--fs", "ext4", "--points", "100000"]);
        command.env("TMPDIR", temporary).stdout(Stdio::null()).stderr(Stdio::null());
        let run = Run(command.spawn().unwrap());
        wait_until("the run has begun", || mounted(temporary).is_some_and(|now| now >= mounts));
        run
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It has ended, or a test has failed and has said why.
        let _killed = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Returns the highest number of a disk mounted by a run in `temporary`.
fn mounted(temporary: &Path) -> Option<usize> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let points = mounts.split_whitespace().filter(|word| Path::new(word).starts_with(temporary));
    points.filter_map(|point| point.rsplit_once("/mount")?.1.parse().ok()).max()
}

fn is_clean(temporary: &Path) -> bool {
    let inside = temporary.to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mut loops = std::fs::read_dir("/sys/block").unwrap().filter_map(|entry| {
        std::fs::read_to_string(entry.unwrap().path().join("loop/backing_file")).ok()
    });
    !mounts.contains(inside)
        && !loops.any(|file| file.starts_with(inside))
        && std::fs::read_dir(temporary).unwrap().next().is_none()
}

/// The guard is the only process whose arguments name a directory of the run.
fn kill_guard(temporary: &Path) {
    let inside = temporary.to_str().unwrap();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        if arguments.contains("highwater-crash-clean") && arguments.contains(inside) {
            let number = process.file_name().unwrap();
            assert!(Command::new("kill").arg("-KILL").arg(number).status().unwrap().success());
        }
    }
}

#[test]
fn the_guard_cleans_up_after_a_killed_run() {
    if !possible(FileSystem::Ext4) {
        return;
    }
    let temporary = temporary("guard");
    // In its first life, waiting for its own disk; and somewhere in the middle.
    for mounts in [0, 7] {
        let mut run = Run::start(&temporary, mounts);
        run.kill();
        wait_until("the killed run has ended", || run.has_ended());
        wait_until("the guard has cleaned up", || is_clean(&temporary));
    }
    std::fs::remove_dir(temporary).unwrap();
}

#[test]
fn a_sweep_cleans_up_when_the_guard_was_killed_too() {
    if !possible(FileSystem::Ext4) {
        return;
    }
    let temporary = temporary("sweep");
    for mounts in [0, 7] {
        let mut run = Run::start(&temporary, mounts);
        kill_guard(&temporary);
        run.kill();
        // The run may hang in its own disk until the sweep, even though it is killed.
        wait_until("a sweep has cleaned up", || {
            let sweep = program().arg("sweep").env("TMPDIR", &temporary).output().unwrap();
            assert!(sweep.status.success());
            is_clean(&temporary)
        });
        wait_until("the killed run has ended", || run.has_ended());
    }
    std::fs::remove_dir(temporary).unwrap();
}

#[test]
fn a_sweep_leaves_a_live_run_alone() {
    if !possible(FileSystem::Ext4) {
        return;
    }
    let temporary = temporary("live");
    let mut run = Run::start(&temporary, 1);
    let sweep = program().arg("sweep").env("TMPDIR", &temporary).output().unwrap();
    assert!(String::from_utf8_lossy(&sweep.stdout).contains("after 0 earlier runs"));
    assert!(!run.has_ended(), "it goes on");
    run.kill();
    wait_until("the killed run has ended", || run.has_ended());
    wait_until("the guard has cleaned up", || is_clean(&temporary));
    std::fs::remove_dir(temporary).unwrap();
}
