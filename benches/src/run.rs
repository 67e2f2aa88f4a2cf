//! One run of one engine: this process does nothing else.

use std::time::Duration;

use highwater_benches::numbers::to_f64;
use highwater_benches::{FreshDirectory, Payload, Percentiles, process};
use highwater_io::clock::monotonic_now;
use serde::{Deserialize, Serialize};

use crate::args::{RunArgs, Workload};
use crate::engines::{EngineName, Failure, Goal, Phase, Setting, Target};

/// What came out of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) engine: EngineName,
    pub(crate) workload: Workload,
    pub(crate) phase: Phase,
    /// Inside the clock.
    pub(crate) records: u64,
    /// Inside the clock.
    pub(crate) payload_bytes: u64,
    /// From the opening (cold) or the first append (steady, durable) to the end of the final flush.
    pub(crate) elapsed_s: f64,
    /// Of that, until the last append had returned.
    pub(crate) appending_s: f64,
    /// User and system time of all threads of the process, inside the clock.
    pub(crate) cpu_s: f64,
    /// What else kept the machine busy inside the clock: the kernel writing pages back, and
    /// whoever was not invited.
    pub(crate) cpu_elsewhere_s: Option<f64>,
    /// Of each append by itself; durable runs only.
    pub(crate) append_us: Option<Percentiles>,
    /// Of the closed log, prepared space included.
    pub(crate) disk_bytes: u64,
    pub(crate) peak_resident_bytes: Option<u64>,
}

/// Points in time, wall and processors.
struct Stamp {
    wall: highwater_io::Monotonic,
    cpu: Duration,
    machine: Option<Duration>,
}

impl Stamp {
    fn now() -> Self {
        let machine = process::machine_busy_time();
        Stamp { wall: monotonic_now(), cpu: process::cpu_time(), machine }
    }
}

/// How much is appended, before the clock and inside it.
struct Plan {
    warm_up: u64,
    appends: u64,
    record_bytes: usize,
    batch_records: usize,
}

impl Plan {
    fn new(args: &RunArgs) -> Result<Self, Failure> {
        let (record_bytes, batch_records) = args.workload.shape();
        let batch_bytes = u64::try_from(record_bytes * batch_records)?;
        let appends = match args.workload.goal() {
            Goal::Throughput => args.size.total_bytes.div_ceil(batch_bytes),
            Goal::Durable => u64::from(args.size.durable_appends),
        };
        let warm_up = match (args.workload.goal(), args.phase) {
            (Goal::Durable, _) => appends.div_ceil(20),
            (Goal::Throughput, Phase::Cold) => 0,
            (Goal::Throughput, Phase::Steady) => args.engine.warm_up_bytes().div_ceil(batch_bytes),
        };
        Ok(Plan { warm_up, appends, record_bytes, batch_records })
    }

    fn records_of(&self, appends: u64) -> Result<u64, Failure> {
        Ok(appends * u64::try_from(self.batch_records)?)
    }

    fn bytes_of(&self, appends: u64) -> Result<u64, Failure> {
        Ok(self.records_of(appends)? * u64::try_from(self.record_bytes)?)
    }
}

/// What the clocks said.
struct Measured {
    started: Stamp,
    appended: highwater_io::Monotonic,
    ended: Stamp,
    /// Of each append, in durable runs.
    durations: Vec<Duration>,
}

/// Does the work.
///
/// # Errors
/// Whatever the engine says, and if its log has not all records at the end.
fn measure(args: &RunArgs, plan: &Plan, setting: &Setting<'_>) -> Result<Measured, Failure> {
    let goal = setting.goal;
    let payload = Payload::new(1);
    let mut batches = payload.batches(plan.record_bytes, plan.batch_records);
    let kept = if goal == Goal::Durable { usize::try_from(plan.appends)? } else { 0 };
    let mut durations = Vec::with_capacity(kept);

    let mut started = Stamp::now();
    let mut target = args.engine.open(setting)?;
    for _ in 0..plan.warm_up {
        append(&mut *target, goal, batches.next_batch())?;
    }
    if goal == Goal::Durable || setting.phase == Phase::Steady {
        started = Stamp::now();
    }
    for _ in 0..plan.appends {
        let batch = batches.next_batch();
        if goal == Goal::Durable {
            let before = monotonic_now();
            append(&mut *target, goal, batch)?;
            durations.push(monotonic_now().since(before));
        } else {
            append(&mut *target, goal, batch)?;
        }
    }
    let appended = monotonic_now();
    let in_log = target.finish()?;
    let ended = Stamp::now();

    let expected = plan.records_of(plan.warm_up + plan.appends)?;
    if in_log != expected {
        return Err(format!("{} has {in_log} records of {expected}", args.engine.name()).into());
    }
    Ok(Measured { started, appended, ended, durations })
}

pub(crate) fn run(args: &RunArgs) -> Result<Outcome, Failure> {
    let (engine, workload, phase) = (args.engine, args.workload, args.phase);
    let goal = workload.goal();
    if !engine.can(goal, phase) {
        return Err(format!("{} cannot do {} {phase:?}", engine.name(), workload.name()).into());
    }
    let plan = Plan::new(args)?;
    let directory = FreshDirectory::new(&args.dir, engine.name())?;
    let setting = Setting {
        directory: directory.path(),
        phase,
        goal,
        in_flight: usize::try_from(args.size.in_flight)?,
        total_bytes: plan.bytes_of(plan.warm_up + plan.appends)?,
    };
    let Measured { started, appended, ended, durations } = measure(args, &plan, &setting)?;

    let cpu = ended.cpu.saturating_sub(started.cpu);
    let machine = ended.machine.zip(started.machine);
    let elsewhere = machine.map(|(end, start)| end.saturating_sub(start).saturating_sub(cpu));
    let outcome = Outcome {
        engine,
        workload,
        phase,
        records: plan.records_of(plan.appends)?,
        payload_bytes: plan.bytes_of(plan.appends)?,
        elapsed_s: ended.wall.since(started.wall).as_secs_f64(),
        appending_s: appended.since(started.wall).as_secs_f64(),
        cpu_s: cpu.as_secs_f64(),
        cpu_elsewhere_s: elsewhere.map(|time| time.as_secs_f64()),
        append_us: Percentiles::of(durations),
        disk_bytes: directory.disk_bytes()?,
        peak_resident_bytes: process::peak_resident_bytes(),
    };
    directory.remove()?;
    Ok(outcome)
}

fn append(target: &mut dyn Target, goal: Goal, batch: &[&[u8]]) -> Result<(), Failure> {
    match goal {
        Goal::Throughput => target.append(batch),
        Goal::Durable => target.append_flushed(batch),
    }
}

impl Outcome {
    pub(crate) fn megabytes_per_s(&self) -> f64 {
        to_f64(self.payload_bytes) / 1e6 / self.elapsed_s
    }

    pub(crate) fn records_per_s(&self) -> f64 {
        to_f64(self.records) / self.elapsed_s
    }

    pub(crate) fn cpu_s_per_gib(&self) -> f64 {
        self.cpu_s / (to_f64(self.payload_bytes) / f64::from(1u32 << 30))
    }

    pub(crate) fn cpu_us_per_record(&self) -> f64 {
        self.cpu_s * 1e6 / to_f64(self.records)
    }
}
