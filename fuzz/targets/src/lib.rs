//! What each fuzz target checks, as a plain function from bytes to nothing: it returns, or it
//! panics because a promise is broken.
//!
//! `fuzz/` (its own workspace, nightly) wraps each in a libFuzzer target; the test here replays
//! `fuzz/corpus/<target>` and `fuzz/regressions/<target>` on every `cargo test`.
//!
//! Random bytes never get past a checksum. Where it matters the input says whether checksums are
//! made to fit again (`seal`), so that the code behind them meets impossible values too.
#![forbid(unsafe_code)]

mod batch_header;
mod damage;
mod index;
mod input;
mod log_meta;
mod producer_snapshot;
mod records;
mod recovery;
mod seal;
mod seeds;
mod segment_scan;

pub use seeds::{Seed, seeds};

/// A target: its name, as in `fuzz_targets/<name>.rs` and `corpus/<name>`, and what it checks.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// Panics if a promise is broken for these bytes.
    pub check: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 8] = [
    Target { name: "batch_header", check: batch_header::check },
    Target { name: "damage", check: damage::check },
    Target { name: "index", check: index::check },
    Target { name: "log_meta", check: log_meta::check },
    Target { name: "producer_snapshot", check: producer_snapshot::check },
    Target { name: "records", check: records::check },
    Target { name: "recovery", check: recovery::check },
    Target { name: "segment_scan", check: segment_scan::check },
];

/// Lets the allocator keep what is freed: windows of a MiB are allocated again and again, and
/// giving each back to the kernel costs more than all the rest. The GNU allocator takes its limits
/// from the largest block it saw freed; to others this does nothing.
pub fn begin() {
    drop(std::hint::black_box(vec![0_u8; 31 << 20]));
}

/// Returns what an input of the target `name` stands for, in words; hexadecimal where there is
/// nothing to say.
#[must_use]
pub fn describe(name: &str, bytes: &[u8]) -> String {
    match name {
        "recovery" => recovery::describe(bytes),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
    }
}

/// Runs the target `name` on `bytes`.
///
/// # Panics
/// If there is no such target, or if a promise is broken.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let Some(target) = target else { panic!("there is no target {name}") };
    (target.check)(bytes);
}
