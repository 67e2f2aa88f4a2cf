//! Running the system's own programs: `mkfs`, `losetup`, `mount`, `umount`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::RigError;

/// Where administration programs live even when the caller's `PATH` does not say so.
const MORE_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// How often, and after which pause, an unmount is tried again when something else has just opened
/// the file system: a device manager, or another thread's child between `fork` and `exec`.
const UNMOUNT_TRIES: u32 = 40;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(25);

/// Returns the path of an installed program.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = MORE_DIRECTORIES.iter().map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Runs a program to its end and returns its standard output without the last line's end.
pub(crate) fn run(program: &str, arguments: &[&OsStr]) -> Result<String, RigError> {
    let shown = || {
        let words = arguments.iter().map(|word| word.to_string_lossy());
        std::iter::once(program.into()).chain(words).collect::<Vec<_>>().join(" ")
    };
    let failed = |failure: String| RigError::Command { command: shown(), failure };
    let path = find(program).ok_or_else(|| failed("not installed".to_owned()))?;
    let output = Command::new(path)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.lines().map(str::trim).collect();
        return Err(failed(format!("{} ({})", said.join(" "), output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Unmounts `directory`, waiting a second for others to let go of it; then, better than a mount
/// left over, it is detached and goes with its last user, and the error is returned.
pub(crate) fn unmount_patiently(directory: &Path) -> Result<(), RigError> {
    let mut result = run("umount", &[directory.as_os_str()]);
    for _ in 1..UNMOUNT_TRIES {
        if !result.as_ref().is_err_and(is_busy) {
            break;
        }
        pause(UNMOUNT_PAUSE);
        result = run("umount", &[directory.as_os_str()]);
    }
    if result.is_err() {
        let _detached = run("umount", &["--lazy".as_ref(), directory.as_os_str()]);
    }
    result.map(drop)
}

fn is_busy(error: &RigError) -> bool {
    matches!(error, RigError::Command { failure, .. } if failure.contains("busy"))
}

#[expect(clippy::disallowed_methods, reason = "nothing tells when another process lets go")]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
