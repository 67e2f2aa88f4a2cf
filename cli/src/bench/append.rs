//! `highwater bench append`: one run, from looking at the directory to the result.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use highwater::{Error, Mode, Options};
use highwater_io::clock::monotonic_now;
use serde_json::Value;

use super::environment::Environment;
use super::fail_if::Verdict;
use super::flags::{Arguments, Pace, Plan};
use super::floor::{Durable, FloorFile, Streamed, Variant};
use super::floor_command::measure_durable;
use super::floor_result::FloorResult;
use super::measured::{Facts, Measured};
use super::pace::Arrivals;
use super::payload::Payload;
use super::place::Place;
use super::producer::{Producer, Sent, Task, Turn, is_consequence};
use super::progress::Progress;
use super::report;
use super::result::AppendResult;
use super::stats::{Shared, Snapshot, Stats};
use super::wake;
use super::way::{self, Opened, Queued, Way, is_full};
use crate::args::Format;
use crate::interrupt::Interrupt;
use crate::output::{Exit, Failure, Output, tell};
use crate::text;

/// The floor is measured for so long before the run, and again after it.
const FLOOR_FLUSH_TIME: Duration = Duration::from_secs(3);
const FLOOR_STREAM_TIME: Duration = Duration::from_secs(4);
/// The bytes of one round of the floor's stream; two rounds before the run, two after.
const FLOOR_STREAM_BYTES: u64 = 512 << 20;
const FLOOR_FLUSH_FILE_BYTES: u64 = 64 << 20;

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let plan = arguments.plan()?;
    let interrupt = Interrupt::listen()?;
    let mut place = Place::look(&arguments.dir, &plan.wishes.names, arguments.keep)?;
    let progress = Progress::start();
    let measured = measure(arguments, plan, &interrupt, &mut place, &progress);
    progress.end();
    let left = place.leave();
    let result = measured?.result();
    left?;
    tell_result(arguments, &result)
}

/// Runs everything; the engine is closed and the log still there when it returns.
fn measure(
    arguments: &Arguments,
    mut plan: Plan,
    interrupt: &Interrupt,
    place: &mut Place,
    progress: &Progress,
) -> Result<Measured, Failure> {
    let options = Options {
        backend: arguments.backend.into(),
        shards: plan.shards.and_then(|shards| usize::try_from(shards).ok()),
        pin_shards: plan.pinned,
        shared_flush: plan.shared_flush,
        ..Options::at(&arguments.dir)
    };
    let engine = Opened::open(options, plan.local, &plan.wishes)?;
    place.enter();
    let env = Environment::of(&arguments.dir);
    let mut warnings = env.warnings();
    if let Some(reason) = engine.fallback(arguments.backend.into()) {
        warnings.push(format!("io_uring is not used: {reason}"));
    }
    let backend = engine.backend_name();
    let wake_round_trip = wake::round_trip()?;
    let mut floor = Floor::prepare(arguments, &plan, progress)?;
    let room = plan.room(&arguments.dir)?;
    floor.measure(interrupt)?;
    plan.choose_rate(&floor);
    let ran = run_producers(arguments, &plan, room, engine, interrupt, progress);
    let Ran { stats, begin, end, final_flush, ran_out } =
        ran.map_err(|error| explain(error, place, arguments))?;
    if !interrupt.is_asked() {
        progress.say("floor: after the run");
        floor.measure(interrupt)?;
    }
    if ran_out {
        warnings.push("the run ended early: more would have filled the disk".to_owned());
    }
    let facts = Facts {
        env,
        warnings,
        backend,
        wake_round_trip,
        io: super::floor_result::io_name(
            floor.file.is_direct() && plan.wishes.mode == Mode::Direct,
        ),
        floor: floor.result(),
        interrupted: interrupt.is_asked(),
        bytes_per_record: bytes_per_record(arguments, &plan)?,
    };
    Ok(Measured { plan, stats, begin, end, final_flush, facts })
}

/// What the producers and the clock gave.
struct Ran {
    stats: Stats,
    begin: Option<Snapshot>,
    end: Snapshot,
    final_flush: Duration,
    ran_out: bool,
}

/// Runs the producers to their end, flushes, ends the clock, and closes the engine.
fn run_producers(
    arguments: &Arguments,
    plan: &Plan,
    room: u64,
    engine: Opened,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Ran, Trouble> {
    let payload = Payload::new(plan.record_bytes, plan.payload);
    let times = [Some(plan.warmup), plan.duration];
    let start = monotonic_now();
    let counted = &progress.counted;
    let shared = Arc::new(Shared::new(start, times, [plan.batches_max, room], interrupt, counted));
    progress.say("measuring");
    let task = |index| Task {
        payload: payload.share(index),
        batch_records: plan.batch_records,
        compression: plan.compression,
        ack: plan.ack,
        turn: plan.turn(start, index),
        producers: plan.producers,
        in_order: plan.wishes.names.len() == 1,
    };
    let dir = &arguments.dir;
    match engine {
        Opened::Local(local) => {
            let sent = Producer::new(*local, task(0), &shared, dir).run()?;
            let (way, ended) = end_clock(vec![sent], dir)?;
            let [local] = <[_; 1]>::try_from(way).unwrap_or_else(|_| panic!("one producer"));
            Opened::Local(Box::new(local)).close()?;
            Ok(ended.with(&shared))
        }
        Opened::Queued(engine, queued) => {
            let make = |index| Producer::new(queued.share(index), task(index), &shared, dir);
            let sent = join_all((0..plan.producers).map(make).collect())?;
            let (ways, ended) = end_clock(sent, dir)?;
            drop((ways, queued));
            way::close(engine)?;
            Ok(ended.with(&shared))
        }
    }
}

/// Runs producers on threads of their own.
fn join_all(producers: Vec<Producer<Queued>>) -> Result<Vec<Sent<Queued>>, Trouble> {
    let mut threads = Vec::new();
    for producer in producers {
        let spawned = highwater_io::thread::spawn("bench-producer", move || producer.run());
        threads.push(spawned.map_err(Error::from)?);
    }
    let (mut sent, mut failed) = (Vec::new(), None::<Error>);
    for thread in threads {
        match thread.join() {
            Ok(Ok(one)) => sent.push(one),
            Ok(Err(error)) => {
                // The first that is a cause is the one to tell.
                let better = failed.as_ref().is_none_or(is_consequence);
                failed = if better { Some(error) } else { failed };
            }
            Err(_) => return Err(Trouble::Failure(Failure::new(Exit::Error, "a producer died"))),
        }
    }
    failed.map_or(Ok(sent), |error| Err(Trouble::Engine(error)))
}

/// What the clock and the producers gave.
struct Ended {
    stats: Stats,
    end: Snapshot,
    final_flush: Duration,
}

impl Ended {
    fn with(self, shared: &Shared) -> Ran {
        let begin = shared.begin.get().copied();
        let Ended { stats, end, final_flush } = self;
        Ran { stats, begin, end, final_flush, ran_out: shared.ran_out_of_room() }
    }
}

/// Flushes what is not flushed, ends the clock behind it, and gathers what producers recorded.
fn end_clock<W: Way>(mut sent: Vec<Sent<W>>, directory: &Path) -> Result<(Vec<W>, Ended), Trouble> {
    let before = monotonic_now();
    let Some(one) = sent.first_mut() else { panic!("there is at least one producer") };
    one.way.flush()?;
    let mut end = Snapshot::end(directory);
    let final_flush = end.at.since(before);
    end.log = one.way.counters();
    for marks in one.way.marks() {
        assert_eq!(marks.flushed, marks.log_end, "a flush behind everything covers everything");
    }
    let (mut stats, mut ways) = (Stats::new(), Vec::new());
    for one in sent {
        let (way, own) = one.finish()?;
        stats.merge(&own);
        ways.push(way);
    }
    Ok((ways, Ended { stats, end, final_flush }))
}

/// What can go wrong while producers run.
enum Trouble {
    Engine(Error),
    Failure(Failure),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Engine(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Failure(failure)
    }
}

/// Says what to do about it.
fn explain(trouble: Trouble, place: &Place, arguments: &Arguments) -> Failure {
    let error = match trouble {
        Trouble::Failure(failure) => return failure,
        Trouble::Engine(error) => error,
    };
    let dir = arguments.dir.display();
    if place.has_vanished() {
        return Failure::new(
            Exit::Error,
            format!(
                "the log vanished while it was written: {error}; {dir} was removed or unmounted \
                 under the run - run it again in a directory that stays"
            ),
        );
    }
    if is_full(&error) {
        return Failure::new(
            Exit::Error,
            format!(
                "the disk of {dir} is full: {error}, or append less (--total-bytes), or keep less \
                 (--retention-bytes)"
            ),
        );
    }
    error.into()
}

/// Returns the bytes of log for each record: of what is there, extents of segments included.
fn bytes_per_record(arguments: &Arguments, plan: &Plan) -> Result<f64, Failure> {
    let summaries = highwater::inspect::summaries(&arguments.dir)?;
    let (mut bytes, mut records) = (0, 0);
    for summary in summaries.iter().filter(|log| plan.wishes.names.contains(&log.name)) {
        records += summary.log_end.0 - summary.log_start.0;
        bytes += summary.bytes;
    }
    let (bytes, records) = (super::numbers::real(bytes), super::numbers::real(records));
    Ok(super::numbers::ratio(bytes, records).unwrap_or_default())
}

/// The floor beside the run: what is measured before and after it.
pub(crate) struct Floor {
    file: FloorFile,
    block_bytes: usize,
    depth: usize,
    flush: bool,
    durable: BTreeMap<Variant, Durable>,
    rounds: Vec<Streamed>,
}

impl Floor {
    fn prepare(arguments: &Arguments, plan: &Plan, progress: &Progress) -> Result<Self, Failure> {
        progress.say("floor: before the run");
        let flush = plan.is_compared_by_flush();
        let (block_bytes, depth) = plan.group(flush);
        let block = super::numbers::count(block_bytes);
        let wanted = if flush { FLOOR_FLUSH_FILE_BYTES } else { FLOOR_STREAM_BYTES };
        // A small run does not need a large floor.
        let all = plan.batches_max.saturating_mul(plan.batch_bytes);
        let bytes = wanted.min(all.max(8 << 20)).max(block);
        let file = FloorFile::prepare(&arguments.dir, arguments.backend.into(), [block, bytes])?;
        let (durable, rounds) = (BTreeMap::new(), Vec::new());
        Ok(Floor { file, block_bytes, depth, flush, durable, rounds })
    }

    fn measure(&mut self, interrupt: &Interrupt) -> Result<(), Failure> {
        let small = self.file.bytes() < FLOOR_FLUSH_FILE_BYTES;
        if self.flush {
            let time = if small { FLOOR_FLUSH_TIME / 8 } else { FLOOR_FLUSH_TIME };
            let (file, sums) = (&mut self.file, &mut self.durable);
            return measure_durable(file, self.block_bytes, time, interrupt, sums);
        }
        for _ in 0..2 {
            let bytes = self.file.bytes();
            let time = FLOOR_STREAM_TIME / 2;
            self.rounds.push(self.file.stream(self.block_bytes, self.depth, bytes, time)?);
        }
        Ok(())
    }

    pub(crate) fn result(&self) -> FloorResult {
        if self.flush {
            return FloorResult::of_durable(&self.file, self.block_bytes, &self.durable);
        }
        FloorResult::of_streams(&self.file, self.block_bytes, self.depth, &self.rounds)
    }
}

impl Plan {
    /// Keeps the run within the free space of the disk, and nine tenths of it at the most; refuses
    /// one that is told to append more. Returns how many batches there is room for.
    fn room(&self, directory: &Path) -> Result<u64, Failure> {
        if self.wishes.retention_bytes.is_some() {
            return Ok(u64::MAX);
        }
        let free = highwater_io::space::free_bytes(directory).map_err(Error::from)?;
        // Segments are made whole, and the next one beside the one that is written to.
        let segment_bytes = self.wishes.segment_bytes.unwrap_or(highwater::DEFAULT_SEGMENT_BYTES);
        let logs = super::numbers::count(self.wishes.names.len());
        let segments =
            (free / 10 * 9).saturating_sub(2 * segment_bytes.min(free / 4 / logs) * logs);
        let room = (segments / self.batch_disk_bytes()).max(1);
        if self.is_told_total && self.batches_max > room {
            let total = text::bytes(self.batches_max.saturating_mul(self.batch_bytes));
            return Err(Failure::new(
                Exit::Error,
                format!(
                    "{total} would fill the disk of {}, which has {} free: free some space, append \
                     less (--total-bytes), or keep less (--retention-bytes)",
                    directory.display(),
                    text::bytes(free)
                ),
            ));
        }
        Ok(room)
    }

    /// Returns whether a flush for each group is what bounds the run, and not the bytes.
    pub(crate) fn is_compared_by_flush(&self) -> bool {
        self.ack.waits_for_flush() || matches!(self.pace, Pace::Open { .. })
    }

    /// Gives an open loop without a rate one that the disk keeps up with.
    fn choose_rate(&mut self, floor: &Floor) {
        if let Pace::Open { records_per_s: None, arrival } = self.pace {
            let records_per_s = Some(self.rate_below(floor.result().writes_per_s));
            self.pace = Pace::Open { records_per_s, arrival };
        }
    }

    fn turn(&self, start: highwater_io::Monotonic, index: u32) -> Turn {
        match self.pace {
            Pace::Closed { in_flight } => {
                let more = u32::from(index < in_flight % self.producers);
                let window = in_flight / self.producers + more;
                Turn::Closed { window: usize::try_from(window).unwrap_or(1) }
            }
            Pace::Open { records_per_s, arrival } => {
                let records_per_s = records_per_s.unwrap_or(1.0);
                let batches_per_s = records_per_s / f64::from(self.batch_records);
                let of = [index, self.producers];
                Turn::Open(Arrivals::new(start, batches_per_s, arrival, of))
            }
        }
    }
}

/// Writes the result and judges it.
fn tell_result(arguments: &Arguments, result: &AppendResult) -> Result<Exit, Failure> {
    let mut output = Output::new();
    if arguments.format == Format::Json {
        output.json(result)?;
    } else {
        report::lines(result).iter().try_for_each(|line| output.line(line))?;
    }
    output.flush()?;
    if arguments.format == Format::Text {
        result.warnings.iter().for_each(|warning| tell(&format!("warning: {warning}")));
        if arguments.keep {
            let dir = text::shell_word(&arguments.dir);
            tell(&format!("next: {} verify --dir {dir}", text::program()));
        }
    }
    let value = serde_json::to_value(result).unwrap_or(Value::Null);
    let mut exit = if result.interrupted { Exit::Interrupted } else { Exit::Ok };
    for condition in &arguments.fail_if {
        match condition.judge(&value) {
            Verdict::Passed => continue,
            Verdict::Failed(figure) => tell(&format!("failed: {condition}: it is {figure}")),
            Verdict::Unknown => {
                tell(&format!("failed: {condition}: the run gave no such figure (too short?)"));
            }
        }
        exit = Exit::Error;
    }
    Ok(exit)
}
