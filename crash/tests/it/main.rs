//! Tests of the power-cut rig. Those of real file systems need root, FUSE and loop devices, and
//! say that they were skipped where these are missing.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod device;
mod guard;
mod logs;
mod power_cut;
mod replay;

use std::io::Write;

use highwater_crash::error::RigError;
use highwater_crash::mount::{FileSystem, requirements};
use highwater_crash::rig::Rig;

/// Returns whether power cuts can be tested on `file_system` here; says so if not.
fn possible(file_system: FileSystem) -> bool {
    match requirements(file_system) {
        Ok(()) => true,
        Err(RigError::Missing(why)) => {
            // Past the capture of test output: a skipped test must be seen.
            std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// Starts a rig, if there can be one here.
fn rig(file_system: FileSystem) -> Option<Rig> {
    possible(file_system).then(|| Rig::start(file_system).unwrap())
}
