//! What an opening does when something else fails beside it.

use highwater_io::sim::{Fault, FaultRule, SimDisk, SimIo, SimPlatform, SimProfile, Survival};
use highwater_io::{Backend, Completion, Monotonic, Operation, Output, Token, Wait, Waker};
use highwater_segment::producers::ProducerTable;
use highwater_segment::{Offset, RecordBatch};

use super::*;
use crate::{Ack, Isolation, LocalEngine, LocalLog, Options};

#[test]
fn an_opening_that_ends_early_leaves_no_thread_behind() {
    let names = (0..100).map(|number| format!("log-{number}")).collect();
    let (root, budgets) = (PathBuf::from("/data"), ReaderBudgets::default());
    let (device, next) = (Device::new(), AtomicUsize::new(0));
    let openings = Openings { root, incarnation: 1, budgets, device, names, next };
    let openings = Arc::new(openings);
    let mut running = Running { openings: Arc::clone(&openings), threads: Vec::new() };
    let ended = Arc::new(AtomicUsize::new(0));
    for _ in 1..OPENING_THREADS {
        let (openings, ended) = (Arc::clone(&openings), Arc::clone(&ended));
        let open = move || {
            while openings.next.load(Ordering::Relaxed) < openings.names.len() {
                std::thread::yield_now();
            }
            // The log that was being opened then.
            (0..100).for_each(|_| std::thread::yield_now());
            ended.fetch_add(1, Ordering::Relaxed);
        };
        running.threads.push(highwater_io::thread::spawn("test-open", open).expect("starts"));
    }
    drop(running);
    assert_eq!(ended.load(Ordering::Relaxed), OPENING_THREADS - 1);
}

/// An `Io` to which no flush says that it failed: another asked the kernel first, and was told.
struct Untold {
    io: SimIo,
    told: Option<Arc<Device>>,
    /// Another is told of a failure when so many more operations were submitted.
    fails_in: Option<u64>,
}

impl Io for Untold {
    fn submit(&mut self, token: Token, operation: Operation) {
        if let (Some(told), Some(left)) = (&self.told, &mut self.fails_in) {
            if *left == 0 {
                told.note_failure(&IoError::from_errno(5, "flush", ROOT.into(), None));
                self.fails_in = None;
            } else {
                *left -= 1;
            }
        }
        self.io.submit(token, operation);
    }

    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        self.io.poll(wait, completions);
        for completion in completions {
            if let (Some(told), Err(error)) = (&self.told, &completion.result)
                && error.operation == "flush"
            {
                told.note_failure(error);
                completion.result = Ok(Output::Done);
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.io.in_flight()
    }

    fn capacity(&self) -> usize {
        self.io.capacity()
    }

    fn backend(&self) -> Backend {
        self.io.backend()
    }

    fn waker(&self) -> Waker {
        self.io.waker()
    }

    fn now(&self) -> Monotonic {
        self.io.now()
    }

    fn wall_clock_ms(&self) -> i64 {
        self.io.wall_clock_ms()
    }

    fn random_u64(&mut self) -> u64 {
        self.io.random_u64()
    }
}

const ROOT: &str = "/data";

fn append(engine: &mut LocalEngine<SimPlatform>, log: LocalLog, ack: Ack) {
    let batch = RecordBatch::builder().value(b"value").build().expect("it fits");
    let ticket = engine.append(log, batch, ack).expect("taken");
    engine.run_until(&ticket).expect("acked");
}

/// Leaves a log as a killed process does: one record flushed, one written.
fn killed(disk: &SimDisk) {
    let mut engine = LocalEngine::open(disk.start_process(), &Options::at(ROOT)).expect("opens");
    let log = engine.log("orders", &LogOptions::default()).expect("made");
    append(&mut engine, log, Ack::LEADER_FLUSHED);
    append(&mut engine, log, Ack::LEADER);
    disk.kill();
    drop(engine);
    disk.advance(std::time::Duration::from_secs(1));
}

/// Opens the log while its `nth` flush fails, untold. Returns whether there were so many.
fn opens_untold(seed: u64, nth: u64) -> bool {
    let disk = SimDisk::new(seed, SimProfile::default());
    killed(&disk);
    let io = disk.start_process().control_io().expect("there");
    let mut control =
        Control::new(Untold { io, told: None, fails_in: None }, Path::new(ROOT)).expect("ours");
    control.lock_root().expect("free");
    control.io.io().told = Some(control.device());
    disk.inject(FaultRule::new("flush", "orders", Fault::FlushError).nth(nth));
    let opened = control.open("orders", &LogOptions::default(), None).expect("opens");
    if disk.rules_left() > 0 {
        return false;
    }
    assert!(opened.report.rewritten, "seed {seed}, flush {nth}: {:?}", opened.report);
    drop(control);
    disk.power_cut(Survival::Nothing);
    let mut engine = LocalEngine::open(disk.start_process(), &Options::at(ROOT)).expect("opens");
    let log = engine.log("orders", &LogOptions::default()).expect("there");
    let case = format!("seed {seed}, flush {nth}");
    assert_eq!(engine.marks(log).log_end, opened.end.offset, "{case}: D2");
    // Who reads on to this one crosses what the opening wrote.
    append(&mut engine, log, Ack::LEADER_FLUSHED);
    let read = engine.read(log, Offset(0), Isolation::Durable).expect("readable");
    let batches = read.collect::<Result<Vec<_>>>();
    let batches = batches.unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(batches.len(), usize::try_from(opened.end.offset.0 + 1).expect("few"), "{case}");
    true
}

#[test]
fn an_opening_does_not_believe_its_flushes_when_the_device_failed_meanwhile() {
    for seed in 1..=20 {
        let flushes = (0..).take_while(|nth| opens_untold(seed, *nth)).count();
        assert!(flushes > 2, "an opening flushes, more than {flushes} times");
    }
}

/// To those who have unflushed bytes, a failed sync of any directory is a failed device.
#[test]
fn a_directory_that_could_not_be_opened_is_no_failed_device() {
    let missing = Blocking::new(InlineIo::new()).sync_directory(Path::new("/proc/no/directory"));
    assert!(!is_failed_write(&missing.expect_err("it is not there")));
    let sync = |errno| IoError::from_errno(errno, "sync directory", PathBuf::from(ROOT), None);
    // EMFILE, ENFILE, ENOENT, ENOSPC; EIO, ENOMEM, EROFS, which the sync itself may give.
    assert!([24, 23, 2, 28].map(sync).iter().all(|error| !is_failed_write(error)));
    assert!([5, 12, 30].map(sync).iter().all(is_failed_write));
}

/// Truncates while the device fails, for another, at every operation in turn.
#[test]
fn a_truncation_is_not_believed_either_when_the_device_failed_meanwhile() {
    let mut told = 0;
    for fails_in in 0.. {
        let disk = SimDisk::new(1, SimProfile::default());
        killed(&disk);
        let io = disk.start_process().control_io().expect("there");
        let io = Untold { io, told: None, fails_in: None };
        let mut control = Control::new(io, Path::new(ROOT)).expect("ours");
        control.lock_root().expect("free");
        let opened = control.open("orders", &LogOptions::default(), None).expect("opens");
        let OpenedLog { meta, end, shared, .. } = opened;
        let producers = ProducerTable::default();
        let detached = DetachedLog { meta, end, flushed: end, producers, failure: None };
        control.io.io().told = Some(control.device());
        control.io.io().fails_in = Some(fails_in);
        let truncated = control.truncate_log("orders", &detached, Offset(1), &shared);
        if control.io.io().fails_in.is_some() {
            break;
        }
        // Either it says so, or the opening behind it has written all anew; but for the first few
        // operations, which look for the place of the cut.
        match truncated {
            Ok(opened) => assert!(opened.report.rewritten || told == 0, "{fails_in}"),
            Err(error) => {
                assert_eq!(error.kind(), &ErrorKind::Io, "{error}");
                told += 1;
            }
        }
        let opened = control.open("orders", &LogOptions::default(), None).expect("opens");
        assert_eq!(opened.end.offset, Offset(1), "{fails_in}");
    }
    assert!(told >= 5, "{told} operations of the cut itself");
}

/// Found by the simulator (seed 1027541): the second attempt wrote the log anew from the mark of
/// `log.meta` on, below what had long been flushed, and a cut tore what was being rewritten.
#[test]
fn what_was_flushed_is_not_rewritten_when_an_opening_fails() {
    for (seed, nth) in (0..100).flat_map(|seed| (0..4).map(move |nth| (seed, nth))) {
        let torn = SimProfile { tear_sectors: true, direct_io: false, ..Default::default() };
        let disk = SimDisk::new(seed, torn);
        let mut engine =
            LocalEngine::open(disk.start_process(), &Options::at(ROOT)).expect("opens");
        let careful = LogOptions { never_rewrite_flushed: Some(true), ..Default::default() };
        let log = engine.log("orders", &careful).expect("made");
        for _ in 0..8 {
            append(&mut engine, log, Ack::LEADER_FLUSHED);
        }
        let flushed = engine.marks(log).flushed;
        // One of the first attempt, and one of the second, which it makes by itself.
        disk.inject(FaultRule::new("flush", "orders/0", Fault::FlushError));
        disk.inject(FaultRule::new("flush", "orders/0", Fault::FlushError).nth(nth));
        engine.reopen(log).expect_err("a flush failed");
        disk.kill();
        drop(engine);
        disk.power_cut(Survival::Random(seed));
        let mut engine =
            LocalEngine::open(disk.start_process(), &Options::at(ROOT)).expect("opens");
        let log = engine.log("orders", &careful).expect("there");
        assert!(engine.marks(log).log_end >= flushed, "seed {seed}, flush {nth}: D2");
    }
}
