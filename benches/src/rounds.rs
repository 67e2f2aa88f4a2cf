//! The rounds: every engine has its turn in a process of its own, then all again.

use std::process::{Command, Stdio};

use highwater_benches::Spread;
use serde::Serialize;

use crate::args::{RoundsArgs, SizeArgs, Workload};
use crate::engines::{EngineName, Failure, Phase};
use crate::run::Outcome;

/// Everything that came out.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) rounds: u32,
    pub(crate) size: SizeArgs,
    pub(crate) rows: Vec<Row>,
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) failures: Vec<String>,
}

/// One engine doing one thing, over all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: Workload,
    pub(crate) engine: EngineName,
    pub(crate) phase: Phase,
    pub(crate) payload_mb_per_s: Spread,
    pub(crate) records_per_s: Spread,
    pub(crate) cpu_s_per_gib: Spread,
    pub(crate) cpu_us_per_record: Spread,
    pub(crate) cpu_elsewhere_s: Option<Spread>,
    /// Of the rounds' percentiles, as all `append_*`.
    pub(crate) append_p50_us: Option<Spread>,
    pub(crate) append_p90_us: Option<Spread>,
    pub(crate) append_p99_us: Option<Spread>,
    pub(crate) peak_resident_bytes: Option<Spread>,
    pub(crate) runs: Vec<Outcome>,
}

/// One of ours beside the best other engine, round by round.
#[derive(Debug, Serialize)]
pub(crate) struct Ratio {
    pub(crate) workload: Workload,
    /// `payload_mb_per_s`, `cpu_s_per_gib` or `append_p50_us`.
    pub(crate) figure: &'static str,
    pub(crate) ours: EngineName,
    pub(crate) phase: Phase,
    pub(crate) best_other: EngineName,
    /// Ours divided by theirs of the same round.
    pub(crate) ratio: Spread,
}

pub(crate) fn compare(args: &RoundsArgs) -> Result<Comparison, Failure> {
    let engines = chosen(&args.engine, &EngineName::ALL);
    let workloads = chosen(&args.workload, &Workload::ALL);
    let mut turns = Vec::new();
    for workload in workloads {
        for engine in &engines {
            for phase in [Phase::Cold, Phase::Steady] {
                if engine.can(workload.goal(), phase) {
                    turns.push((workload, *engine, phase));
                }
            }
        }
    }
    let mut outcomes: Vec<(u32, Outcome)> = Vec::new();
    let mut failures = Vec::new();
    for round in 1..=args.rounds {
        for &(workload, engine, phase) in &turns {
            match turn(args, workload, engine, phase) {
                Ok(outcome) => {
                    report(args.rounds, round, &outcome);
                    outcomes.push((round, outcome));
                }
                Err(error) => {
                    let name = (workload.name(), engine.name());
                    let failure =
                        format!("round {round}: {} {} {phase:?}: {error}", name.0, name.1);
                    eprintln!("{failure}");
                    failures.push(failure);
                }
            }
        }
    }
    let mut rows = Vec::new();
    for &(workload, engine, phase) in &turns {
        let same = |o: &Outcome| (o.workload, o.engine, o.phase) == (workload, engine, phase);
        let runs: Vec<_> = outcomes.iter().map(|(_, o)| o).filter(|o| same(o)).cloned().collect();
        rows.extend(row(runs));
    }
    let ratios = ratios(&rows, &outcomes);
    Ok(Comparison { rounds: args.rounds, size: args.size, rows, ratios, failures })
}

fn chosen<T: Copy>(asked: &[T], all: &[T]) -> Vec<T> {
    if asked.is_empty() { all.to_vec() } else { asked.to_vec() }
}

/// Runs one engine once, in a process of its own.
fn turn(
    args: &RoundsArgs,
    workload: Workload,
    engine: EngineName,
    phase: Phase,
) -> Result<Outcome, Failure> {
    let phase = match phase {
        Phase::Cold => "cold",
        Phase::Steady => "steady",
    };
    let output = Command::new(std::env::current_exe()?)
        .args(["run", "--engine", engine.name(), "--workload", workload.name(), "--phase", phase])
        .arg("--dir")
        .arg(&args.dir)
        .args(["--total-bytes", &args.size.total_bytes.to_string()])
        .args(["--durable-appends", &args.size.durable_appends.to_string()])
        .args(["--in-flight", &args.size.in_flight.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(output.status.to_string().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn report(rounds: u32, round: u32, outcome: &Outcome) {
    let what = match outcome.append_us {
        Some(append) => format!("p50 {:.0} us", append.p50),
        None => format!("{:.0} MB/s", outcome.megabytes_per_s()),
    };
    let name = (outcome.workload.name(), outcome.engine.name());
    eprintln!("round {round}/{rounds}: {} {} {:?}: {what}", name.0, name.1, outcome.phase);
}

fn row(runs: Vec<Outcome>) -> Option<Row> {
    let first = runs.first()?;
    let (workload, engine, phase) = (first.workload, first.engine, first.phase);
    let spread = |figure: &dyn Fn(&Outcome) -> Option<f64>| {
        Spread::of(runs.iter().filter_map(figure).collect())
    };
    Some(Row {
        workload,
        engine,
        phase,
        payload_mb_per_s: spread(&|o| Some(o.megabytes_per_s()))?,
        records_per_s: spread(&|o| Some(o.records_per_s()))?,
        cpu_s_per_gib: spread(&|o| Some(o.cpu_s_per_gib()))?,
        cpu_us_per_record: spread(&|o| Some(o.cpu_us_per_record()))?,
        cpu_elsewhere_s: spread(&|o| o.cpu_elsewhere_s),
        append_p50_us: spread(&|o| Some(o.append_us?.p50)),
        append_p90_us: spread(&|o| o.append_us?.p90),
        append_p99_us: spread(&|o| o.append_us?.p99),
        peak_resident_bytes: spread(&|o| {
            Some(highwater_benches::numbers::to_f64(o.peak_resident_bytes?))
        }),
        runs,
    })
}

/// A figure, where to find it in a run, and whether more of it is better.
type Figure = (&'static str, fn(&Outcome) -> Option<f64>, bool);

const FIGURES: [Figure; 3] = [
    ("payload_mb_per_s", |o| o.append_us.is_none().then(|| o.megabytes_per_s()), true),
    ("cpu_s_per_gib", |o| o.append_us.is_none().then(|| o.cpu_s_per_gib()), false),
    ("append_p50_us", |o| Some(o.append_us?.p50), false),
];

fn ratios(rows: &[Row], outcomes: &[(u32, Outcome)]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for (figure, value, more_is_better) in FIGURES {
        let median =
            |row: &Row| Some(Spread::of(row.runs.iter().filter_map(value).collect())?.median);
        for ours in rows.iter().filter(|row| row.engine.is_ours()) {
            let others =
                rows.iter().filter(|row| !row.engine.is_ours() && row.workload == ours.workload);
            let others = others.filter_map(|row| Some((median(row)?, row.engine)));
            let best = if more_is_better {
                others.max_by(|a, b| a.0.total_cmp(&b.0))
            } else {
                others.min_by(|a, b| a.0.total_cmp(&b.0))
            };
            let Some((_, best_other)) = best else { continue };
            let of = |round: u32, engine: EngineName, phase: Phase| {
                let same =
                    |o: &Outcome| (o.workload, o.engine, o.phase) == (ours.workload, engine, phase);
                value(&outcomes.iter().find(|(r, o)| *r == round && same(o))?.1)
            };
            let rounds = outcomes.iter().map(|(round, _)| *round).max().unwrap_or(0);
            let each = (1..=rounds).filter_map(|round| {
                Some(of(round, ours.engine, ours.phase)? / of(round, best_other, Phase::Cold)?)
            });
            if let Some(ratio) = Spread::of(each.collect()) {
                let (workload, phase) = (ours.workload, ours.phase);
                ratios.push(Ratio {
                    workload,
                    figure,
                    ours: ours.engine,
                    phase,
                    best_other,
                    ratio,
                });
            }
        }
    }
    ratios
}
