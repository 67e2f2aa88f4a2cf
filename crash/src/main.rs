//! `highwater-crash`: power cuts, kills, damage, real input and full disks, from the command line.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use highwater::{BackendChoice, Mode};
use highwater_crash::binary::Binary;
use highwater_crash::damage;
use highwater_crash::error::RigError;
use highwater_crash::logs::Logs;
use highwater_crash::mount::FileSystem;
use highwater_crash::power_cut::{Plan, Summary, run};
use highwater_crash::sweep::sweep;
use highwater_crash::workload::Failure;
use highwater_crash::{confined, faults, flips, full, kill, many, real_input};

/// Findings printed one by one.
const SHOWN_MAX: usize = 10;

/// Tests what survives power cuts, on real file systems. Needs root, FUSE and loop devices.
#[derive(Debug, Parser)]
#[command(name = "highwater-crash", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// Cut the power at many points of a workload, remount, check, go on, and cut again.
    ///
    /// Ends with 0 if nothing acknowledged was lost (with --control: if the losses were caught),
    /// 1 if not, and 3 if it could not run.
    PowerCut(PowerCut),
    /// Kill the `highwater` binary at random moments while it appends, and look what is left.
    Kill(Kill),
    /// Kill a process that writes hundreds of logs at once, and open them all.
    KillMany(KillMany),
    /// What `kill-many` kills.
    #[command(hide = true)]
    WriteMany {
        /// Where.
        #[arg(long)]
        dir: PathBuf,
        /// How many logs.
        #[arg(long)]
        logs: usize,
        /// What the engine writes with.
        #[arg(long, value_enum)]
        backend: Backend,
    },
    /// Damage closed logs at random: noticed, never read, never cut silently.
    Damage(Damage),
    /// Pipe hundreds of megabytes of real text through the binary, and compare.
    RealInput(RealInput),
    /// Fill a disk: clear errors, nothing acked lost, and on again when there is space.
    Full(Full),
    /// Make the system around a node fail in every way we know, and look what it says and keeps.
    ///
    /// Ends with 0 if everything was as it must be; what this machine cannot make is skipped, and
    /// said so.
    Faults(Faults),
    /// Run a program for which every system call of io_uring ends with an error, as in a container.
    #[command(hide = true)]
    WithoutUring {
        /// The number of the error.
        errno: u32,
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        words: Vec<std::ffi::OsString>,
    },
    /// Unmount and detach what earlier runs that were killed left behind.
    Sweep,
}

#[derive(Debug, Args)]
struct PowerCut {
    /// The file system under the workload.
    #[arg(long = "fs", value_enum)]
    file_system: Kind,
    /// How many power cuts to make; each is followed by a second life and a second cut.
    #[arg(long, default_value_t = 100)]
    points: usize,
    /// Choose the cuts by this number instead of a random one.
    #[arg(long)]
    seed: Option<u64>,
    /// Take what was never flushed to be safe: this must be caught.
    #[arg(long)]
    control: bool,
    /// What the engine writes with.
    #[arg(long, value_enum, default_value = "uring")]
    backend: Backend,
    /// Whether segments are written past the page cache or through it.
    #[arg(long, value_enum, default_value = "direct")]
    mode: ModeName,
    /// Let the logs share flushes, in segments that are prepared.
    #[arg(long, conflicts_with_all = ["control", "mode"])]
    shared_flush: bool,
    /// Keep the images of cuts that lost something, in the temporary directory.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Args)]
struct Kill {
    /// How many processes to start.
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Choose by this number instead of a random one.
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    program: Program,
}

#[derive(Debug, Args)]
struct KillMany {
    /// How many processes to start.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// How many logs each writes.
    #[arg(long, default_value_t = 500)]
    logs: usize,
    /// Choose by this number instead of a random one.
    #[arg(long)]
    seed: Option<u64>,
    /// What the engine writes with.
    #[arg(long, value_enum, default_value = "uring")]
    backend: Backend,
}

#[derive(Debug, Args)]
struct Damage {
    /// How many times to damage a log.
    #[arg(long, default_value_t = 1000)]
    rounds: usize,
    /// Instead, flip so many single bits, one at a time, in the files of a log the binary wrote.
    #[arg(long, value_name = "N", conflicts_with = "rounds")]
    flips: Option<usize>,
    /// Choose by this number instead of a random one.
    #[arg(long)]
    seed: Option<u64>,
    /// The `highwater` binary [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RealInput {
    /// How much text, at least; such as 500M.
    #[arg(long, default_value = "500M", value_parser = byte_count)]
    bytes: u64,
    /// How often.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    #[command(flatten)]
    program: Program,
}

#[derive(Debug, Args)]
struct Full {
    /// The file system that gets full.
    #[arg(long = "fs", value_enum, default_value = "ext4")]
    file_system: Kind,
    #[command(flatten)]
    program: Program,
}

#[derive(Debug, Args)]
struct Faults {
    /// Only this case.
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// What the engine writes with.
    #[arg(long, value_enum, default_value = "both")]
    backend: Backends,
    /// The `highwater` binary [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// What the engine writes with, one after the other.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Backends {
    /// `io_uring`.
    Uring,
    /// System calls on worker threads.
    Threads,
    /// The one and then the other.
    Both,
}

impl From<Backends> for Vec<BackendChoice> {
    fn from(backends: Backends) -> Self {
        match backends {
            Backends::Uring => vec![BackendChoice::Uring],
            Backends::Threads => vec![BackendChoice::Threads],
            Backends::Both => vec![BackendChoice::Uring, BackendChoice::Threads],
        }
    }
}

/// The binary under test.
#[derive(Debug, Args)]
struct Program {
    /// The `highwater` binary [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// What the engine writes with.
    #[arg(long, value_enum, default_value = "uring")]
    backend: Backend,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// ext4 with its default mount options.
    Ext4,
    /// XFS with its default mount options.
    Xfs,
}

impl From<Kind> for FileSystem {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Ext4 => FileSystem::Ext4,
            Kind::Xfs => FileSystem::Xfs,
        }
    }
}

/// What the engine writes with.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Backend {
    /// `io_uring`.
    Uring,
    /// System calls on worker threads.
    Threads,
}

impl From<Backend> for BackendChoice {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Uring => BackendChoice::Uring,
            Backend::Threads => BackendChoice::Threads,
        }
    }
}

/// How segments are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeName {
    /// Past the page cache.
    Direct,
    /// Through it.
    Buffered,
}

impl From<ModeName> for Mode {
    fn from(mode: ModeName) -> Self {
        match mode {
            ModeName::Direct => Mode::Direct,
            ModeName::Buffered => Mode::Buffered,
        }
    }
}

fn main() -> ExitCode {
    match CommandLine::parse().command {
        Subject::PowerCut(options) => power_cut(&options).unwrap_or_else(|error| {
            eprintln!("error: {error}");
            ExitCode::from(3)
        }),
        Subject::Kill(options) => told(kill(&options)),
        Subject::KillMany(options) => told(kill_many(&options)),
        Subject::WriteMany { dir, logs, backend } => told(many::write(&dir, logs, backend.into())),
        Subject::Damage(options) => told(damage(&options)),
        Subject::RealInput(options) => told(real_input(&options)),
        Subject::Full(options) => told(full(&options)),
        Subject::Faults(options) => told(faults(options)),
        Subject::WithoutUring { errno, words } => {
            told(Err(confined::become_without_uring(errno, &words)))
        }
        Subject::Sweep => told(sweep().map_err(Failure::from).map(|swept| {
            println!("sweep: cleaned up after {} earlier runs", swept.len());
        })),
    }
}

fn told(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the seed that was asked for, or a new one; prints it in any case, and first.
fn printed_seed(seed: Option<u64>) -> u64 {
    let seed = seed.unwrap_or_else(highwater_io::random::kernel_u64);
    println!("seed {seed}");
    seed
}

fn kill(options: &Kill) -> Result<(), Failure> {
    let binary = Binary::find(options.program.binary.as_deref())?;
    let backend = options.program.backend.into();
    let seed = printed_seed(options.seed);
    let plan = kill::Plan { rounds: options.rounds, seed, binary, backend };
    println!("{}", kill::run(&plan)?);
    Ok(())
}

fn kill_many(options: &KillMany) -> Result<(), Failure> {
    let seed = printed_seed(options.seed);
    let KillMany { rounds, logs, backend, .. } = *options;
    println!("{}", many::run(&many::Plan { rounds, logs, seed, backend: backend.into() })?);
    Ok(())
}

fn damage(options: &Damage) -> Result<(), Failure> {
    let binary = Binary::find(options.binary.as_deref())?;
    let seed = printed_seed(options.seed);
    let (summary, findings) = if let Some(flips) = options.flips {
        let summary = flips::run(&flips::Plan { flips, seed, binary })?;
        (summary.to_string(), summary.findings)
    } else {
        let binary = Some(binary);
        let summary = damage::run(&damage::Plan { rounds: options.rounds, seed, binary })?;
        (summary.to_string(), summary.findings)
    };
    for finding in findings.iter().take(SHOWN_MAX) {
        println!("{finding}");
    }
    println!("{summary}");
    if findings.is_empty() { Ok(()) } else { Err("not as it must be".into()) }
}

/// Reads a number of bytes: digits, and K, M or G behind them (thousands) if wanted.
fn byte_count(text: &str) -> Result<u64, String> {
    let units = [("K", 1000), ("M", 1_000_000), ("G", 1_000_000_000)];
    let unit = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
    let (digits, unit) = unit.unwrap_or((text, 1_u64));
    let count: u64 = digits.parse().map_err(|_| format!("{text:?} is not a number of bytes"))?;
    count.checked_mul(unit).ok_or_else(|| "the number is too large".to_owned())
}

fn real_input(options: &RealInput) -> Result<(), Failure> {
    let binary = Binary::find(options.program.binary.as_deref())?;
    let backend = options.program.backend.into();
    let runs = usize::try_from(options.runs)?;
    println!(
        "{}",
        real_input::run(&real_input::Plan { bytes: options.bytes, runs, binary, backend })?
    );
    Ok(())
}

fn full(options: &Full) -> Result<(), Failure> {
    let binary = Binary::find(options.program.binary.as_deref())?;
    let backend = options.program.backend.into();
    let file_system = options.file_system.into();
    println!("{}", full::run(&full::Plan { file_system, binary, backend })?);
    Ok(())
}

fn faults(options: Faults) -> Result<(), Failure> {
    let binary = Binary::find(options.binary.as_deref())?;
    let plan = faults::Plan { case: options.case, backends: options.backend.into(), binary };
    let summary = faults::run(&plan, |line| println!("{line}"))?;
    println!("{summary}");
    if summary.failed == 0 { Ok(()) } else { Err("not as it must be".into()) }
}

fn power_cut(options: &PowerCut) -> Result<ExitCode, RigError> {
    let seed = printed_seed(options.seed);
    let file_system = options.file_system.into();
    let keep = options.keep.then(|| std::env::temp_dir().join("highwater-crash-kept"));
    let plan = Plan { file_system, points: options.points, seed, keep };
    let logs = Logs::new(seed, options.backend.into(), options.control);
    let mut logs = logs.with_mode(options.mode.into());
    if options.shared_flush {
        logs = logs.with_shared_flushes();
    }
    let summary = run(&plan, &mut logs)?;
    print(&summary);
    if let Some(spared) = logs.shared_flushes() {
        println!("power-cut {file_system}: flushes spared in all lives {spared}");
    }
    let caught = summary.lost > 0;
    let sound = summary.lost == 0 && summary.failed == 0;
    if options.control {
        println!("control {file_system}: {}", if caught { "caught" } else { "NOT CAUGHT" });
    }
    let well = if options.control { caught } else { sound };
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(summary: &Summary) {
    for finding in summary.findings.iter().take(SHOWN_MAX) {
        println!("{finding}");
    }
    if summary.findings.len() > SHOWN_MAX {
        println!("... and {} more", summary.findings.len() - SHOWN_MAX);
    }
    println!("{summary}");
}
