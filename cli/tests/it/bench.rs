//! The benches: conforming results, refused flags, thresholds, interruption. Nothing here judges a
//! time.

use std::process::Command;

use highwater::{Ack, Engine, FlushPolicy, LogOptions, Options, RecordBatch};
use serde_json::Value;

use crate::{Ended, Scratch, run, schema};

/// A run that takes no time: what else it is told stands behind it.
const SHORT: [&str; 4] = ["--total-bytes", "256KiB", "--format", "json"];

/// Runs `bench WHAT --dir <data>`.
fn bench(scratch: &Scratch, what: &str, arguments: &[&str]) -> Ended {
    let data = scratch.data();
    let mut all = vec!["bench", what, "--dir", data.to_str().unwrap()];
    all.extend(arguments);
    run(&all, b"")
}

/// Returns the one result on standard output, which conforms to the schema.
#[track_caller]
fn result(ended: &Ended) -> Value {
    let lines = ended.json_lines();
    assert_eq!(lines.len(), 1, "one result: {}", ended.err);
    let found = schema::complaints(&schema::published(), &lines[0]);
    assert_eq!(found, Vec::<String>::new(), "{}", lines[0]);
    lines[0].clone()
}

/// Returns what `logs` says of the one log there is.
fn only_log(scratch: &Scratch) -> Value {
    let logs = scratch.run("logs", &[], b"").exits(0).json_lines();
    assert_eq!(logs[0].as_array().unwrap().len(), 1);
    logs[0][0].clone()
}

#[test]
fn results_of_every_kind_of_run_conform_and_the_log_verifies() {
    for (index, arguments) in [
        &["--in-flight", "1", "--ack", "leader-flushed", "--batch-records", "1"][..],
        &["--rate", "max", "--in-flight", "8", "--producers", "3", "--flush", "none"],
        &["--rate", "100k", "--arrival", "poisson", "--producers", "2"],
        &["--rate", "1M/s", "--warmup", "0.01", "--ack", "none", "--flush", "bytes=64KiB"],
        &["--local", "--in-flight", "4", "--prepare", "never"],
        &["--local", "--rate", "200k", "--ack", "leader-flushed"],
        &["--backend", "threads", "--in-flight", "4"],
        &["--in-flight", "4", "--compression", "lz4"],
        &["--in-flight", "4", "--mode", "buffered", "--ack", "leader-flushed"],
        &["--local", "--in-flight", "4", "--compression", "zstd:1", "--payload", "random"],
        &["--in-flight", "8", "--segment-bytes", "64KiB", "--batch-records", "4"],
    ]
    .iter()
    .enumerate()
    {
        let scratch = Scratch::new(&format!("bench-conform-{index}"));
        let mut all = vec!["--keep"];
        all.extend(SHORT);
        all.extend(*arguments);
        let result = result(&bench(&scratch, "append", &all).exits(0));
        let number = |name: &str| result[name].as_u64().unwrap();
        assert_eq!(number("payload_bytes"), 256 << 10, "{arguments:?}");
        assert_eq!(number("records"), 256);
        // Random bytes cannot be squeezed; lines of text can.
        let squeezed = arguments.contains(&"lz4");
        assert_eq!(number("disk_bytes") < number("payload_bytes"), squeezed, "{arguments:?}");
        assert!(number("flushes") >= 1, "{arguments:?}");
        assert_eq!(result["ack_us"]["n"], result["batches"], "every ack is in the distribution");
        assert_eq!(result["flush_us"]["n"], result["batches"], "every flush, too");
        assert_eq!(result["interrupted"], false);
        let buffered = arguments.contains(&"buffered");
        assert_eq!(result["config"]["mode"], if buffered { "buffered" } else { "direct" });
        assert!(!buffered || result["io"] == "page cache");
        // Everything acked is there, flushed, and clean.
        scratch.run("verify", &[], b"").exits(0);
        let log = only_log(&scratch);
        assert_eq!(log["flushed"], log["log_end"]);
        assert!(log["log_end"].as_u64().unwrap() >= 256, "warm-up comes on top");
    }
}

#[test]
fn durable_acks_count_a_flush_for_each_and_waiting_for_none_exposes_all() {
    let scratch = Scratch::new("bench-counts");
    let durable = ["--in-flight", "1", "--ack", "leader-flushed"];
    let one_by_one = result(&bench(&scratch, "append", &[&SHORT[..], &durable].concat()).exits(0));
    assert_eq!(one_by_one["flushes"], 16, "one for each batch");
    assert_eq!(one_by_one["records_per_flush"], 16.0);
    assert_eq!(one_by_one["exposure_max_records"], 0, "acked when flushed");
    let never = ["--in-flight", "1", "--flush", "none"];
    let exposed = result(&bench(&scratch, "append", &[&SHORT[..], &never].concat()).exits(0));
    assert_eq!(exposed["exposure_max_records"], 256, "nothing was flushed before the last ack");
    assert!(exposed["exposure_max_bytes"].as_u64().unwrap() >= 256 << 10);
    assert_eq!((&exposed["flushes"], &exposed["flush_reasons"]["waited"]), (&1.into(), &1.into()));
}

#[test]
fn an_open_loop_that_asks_for_too_much_is_called_overloaded_and_ends_on_time() {
    let scratch = Scratch::new("bench-overloaded");
    // A thousand gigabytes a second, from the warm-up on.
    let much = ["--rate", "1000M", "--warmup", "0.3", "--duration", "0.3"];
    let kept = ["--retention-bytes", "64MiB", "--segment-bytes", "16MiB", "--format", "json"];
    let result = result(&bench(&scratch, "append", &[&much[..], &kept].concat()).exits(0));
    assert_eq!(result["overloaded"], true);
    assert!(result["records"].as_u64().unwrap() > 0, "what came of it is told");
}

#[test]
fn a_run_leaves_the_directory_as_it_was() {
    let scratch = Scratch::new("bench-leaves");
    bench(&scratch, "append", &SHORT).exits(0);
    assert!(scratch.snapshot().is_empty(), "a directory it made is gone");
    std::fs::create_dir(scratch.data()).unwrap();
    bench(&scratch, "append", &SHORT).exits(0);
    assert_eq!(std::fs::read_dir(scratch.data()).unwrap().count(), 0, "an empty one is empty");
    scratch.append(&[], b"one\ntwo\n");
    bench(&scratch, "append", &SHORT).exits(0);
    assert!(!scratch.data().join("bench").exists());
    assert_eq!(scratch.read(&[]).exits(0).out, b"one\ntwo\n", "other logs are not touched");
    scratch.run("verify", &[], b"").exits(0);
}

#[test]
fn a_log_that_exists_and_a_directory_of_somebody_elses_are_left_alone() {
    let scratch = Scratch::new("bench-foreign");
    scratch.append(&[], b"mine\n");
    let before = scratch.snapshot();
    let words = ["log demo exists", "--log"];
    bench(&scratch, "append", &[&SHORT[..], &["--log", "demo"]].concat()).refuses(1, &words);
    assert_eq!(scratch.snapshot(), before);
    let scratch = Scratch::new("bench-foreign-files");
    std::fs::create_dir(scratch.data()).unwrap();
    std::fs::write(scratch.data().join("thesis.txt"), b"years of work").unwrap();
    let before = scratch.snapshot();
    bench(&scratch, "append", &SHORT).refuses(1, &["not Highwater's", "empty or a new"]);
    assert_eq!(scratch.snapshot(), before);
}

#[test]
fn flags_that_do_not_go_together_are_refused_with_the_reason_and_touch_nothing() {
    let scratch = Scratch::new("bench-refused");
    for (arguments, words) in [
        (&["--total-bytes", "1MiB", "--duration", "1"][..], &["--duration", "--total-bytes"][..]),
        (&["--rate", "5", "--in-flight", "5"], &["closed loop", "open one"]),
        (&["--rate", "max", "--arrival", "poisson"], &["--arrival", "open loop"]),
        (&["--in-flight", "2", "--arrival", "fixed"], &["--arrival", "open loop"]),
        (&["--in-flight", "2", "--producers", "3"], &["at least one"]),
        (&["--local", "--producers", "2"], &["--local", "own thread"]),
        (&["--duration", "0"], &["measures nothing"]),
        (&["--record-bytes", "0"], &["--record-bytes"]),
        (&["--record-bytes", "16MiB", "--batch-records", "16"], &["at most"]),
        (&["--segment-bytes", "64KiB", "--record-bytes", "64KiB"], &["does not fit a segment"]),
        (&["--total-bytes", "1KiB"], &["less than one batch"]),
        (&["--rate", "0"], &["--rate"]),
        (&["--rate", "fast"], &["--rate"]),
        (&["--warmup=-1"], &["--warmup"]),
        (&["--flush", "sometimes"], &["--flush"]),
        (&["--fail-if", "ack_us.p98>1"], &["no figure", "ack_us.p99"]),
        (&["--fail-if", "ack_us.p99"], &["--fail-if"]),
        (&["--log", "../up"], &["--log"]),
    ] {
        bench(&scratch, "append", arguments).refuses(2, words);
    }
    for (arguments, words) in [
        (&[][..], &["--flush", "--no-flush"][..]),
        (&["--flush", "--no-flush"], &["--no-flush"]),
        (&["--flush", "--depth", "8"], &["--depth", "one is in flight"]),
        (&["--flush", "--total-bytes", "1MiB"], &["--duration"]),
        (&["--no-flush", "--duration", "1"], &["--total-bytes"]),
        (&["--no-flush", "--block-bytes", "1000"], &["multiple of 4096"]),
        (&["--no-flush", "--block-bytes", "1MiB", "--total-bytes", "4KiB"], &["less than one"]),
        (&["--no-flush", "--depth", "0"], &["--depth"]),
    ] {
        bench(&scratch, "floor", arguments).refuses(2, words);
    }
    assert!(scratch.snapshot().is_empty());
}

#[test]
fn a_threshold_that_holds_fails_the_run_and_the_result_is_told_all_the_same() {
    let scratch = Scratch::new("bench-fail-if");
    let judged = |conditions: &[&str]| {
        let mut all = SHORT.to_vec();
        all.extend(["--batch-records", "1"]);
        conditions.iter().for_each(|condition| all.extend(["--fail-if", condition]));
        bench(&scratch, "append", &all)
    };
    for condition in ["records<257", "ack_us.p50>=0", "floor.latency_us.n>0"] {
        let ended = judged(&[condition]).exits(1).says(&["failed: ", condition]);
        result(&ended);
    }
    let passing = ["records>256", "ack_us.p50<0", "overloaded>1"];
    result(&judged(&passing).exits(0));
    result(&judged(&[passing[0], "records>=256"]).exits(1).says(&["records>=256"]));
    // Of 256 samples none can be called the thousandth.
    judged(&["ack_us.p999>1000000"]).exits(1).says(&["no such figure"]);
}

/// Sends the signal of Ctrl-C.
pub(crate) fn interrupt(process: u32) {
    let sent = Command::new("kill").args(["-INT", &process.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits until something was appended: the floor is measured, the run goes on.
fn wait_for_records(scratch: &Scratch) {
    loop {
        let logs = scratch.run("logs", &[], b"");
        let lines = if logs.code == Some(0) { logs.json_lines() } else { Vec::new() };
        if lines.first().is_some_and(|logs| logs[0]["log_end"].as_u64() > Some(0)) {
            return;
        }
    }
}

#[test]
fn ctrl_c_tells_what_was_measured_and_leaves_a_clean_log() {
    for (index, arguments) in
        [&["--rate", "2k"][..], &["--in-flight", "4"], &["--local", "--in-flight", "2"]]
            .iter()
            .enumerate()
    {
        let scratch = Scratch::new(&format!("bench-interrupted-{index}"));
        let data = scratch.data();
        let mut all = vec!["bench", "append", "--dir", data.to_str().unwrap(), "--keep"];
        all.extend(["--format", "json", "--duration", "3600", "--warmup", "0"]);
        all.extend(*arguments);
        let mut running = crate::start(&all);
        wait_for_records(&scratch);
        interrupt(running.child.id());
        let result = result(&running.wait().exits(130));
        assert_eq!(result["interrupted"], true, "{arguments:?}");
        scratch.run("verify", &[], b"").exits(0);
        let log = only_log(&scratch);
        assert_eq!(log["flushed"], log["log_end"]);
        assert_eq!(log["log_end"], result["records"], "what was told is what is there");
        // Clean: opening it again has nothing to recover, and says so.
        let ended = scratch.run("append", &["--log", "bench"], b"").exits(0);
        assert!(!ended.err.contains("torn"), "{}", ended.err);
    }
}

#[test]
fn floors_conform_and_leave_nothing_behind() {
    let scratch = Scratch::new("bench-floor");
    bench(&scratch, "floor", &["--flush"]).refuses(1, &["cannot ", "check the path"]);
    std::fs::create_dir(scratch.data()).unwrap();
    for arguments in [
        &["--flush", "--duration", "0.1"][..],
        &["--flush", "--duration", "0.1", "--backend", "threads", "--block-bytes", "64KiB"],
        &["--no-flush", "--total-bytes", "4MiB", "--depth", "4"],
        &["--no-flush", "--total-bytes", "4MiB", "--block-bytes", "1MiB", "--backend", "threads"],
    ] {
        let ended = bench(&scratch, "floor", &[arguments, &["--format", "json"]].concat());
        let result = result(&ended.exits(0));
        let floor = &result["floor"];
        assert_eq!(floor["flush"], arguments[0] == "--flush");
        assert!(floor["writes_per_s"].as_f64().unwrap() > 0.0, "{arguments:?}");
        let variants = floor["variants"].as_object().unwrap().len();
        let linked = floor["backend"] == "uring";
        let expected = if arguments[0] == "--flush" { 3 + usize::from(linked) } else { 0 };
        assert_eq!(variants, expected, "{arguments:?}");
    }
    assert_eq!(std::fs::read_dir(scratch.data()).unwrap().count(), 0);
}

#[test]
fn reading_counts_every_record_of_the_sealed_segments() {
    let scratch = Scratch::new("bench-read");
    bench(&scratch, "read", &[]).refuses(1, &["cannot "]);
    let sized = ["--keep", "--in-flight", "4", "--segment-bytes", "64KiB"];
    bench(&scratch, "append", &[&SHORT[..], &sized].concat()).exits(0);
    let before = scratch.snapshot();
    let result = result(&bench(&scratch, "read", &["--format", "json"]).exits(0));
    assert_eq!(scratch.snapshot(), before, "a read writes nothing");
    let segments = std::fs::read_dir(scratch.data().join("bench")).unwrap();
    let names = segments.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let bases = names.filter_map(|name| name.strip_suffix(".log")?.parse::<u64>().ok());
    let last = bases.max().unwrap();
    assert!(last > 0, "some segments are sealed");
    assert_eq!(result["records"], last, "all below the last segment");
    assert!(result["ratio_to_floor"].as_f64().unwrap() > 0.0);
}

#[test]
fn opening_after_a_crash_says_what_was_scanned_and_leaves_clean_logs() {
    let scratch = Scratch::new("bench-open");
    bench(&scratch, "open", &[]).refuses(1, &["does not exist"]);
    assert!(!scratch.data().exists(), "nothing is made");
    let engine = Engine::open(Options::at(scratch.data())).unwrap();
    for name in ["one", "two"] {
        let options = LogOptions { flush: FlushPolicy::NONE, ..LogOptions::default() };
        let log = engine.log(name, options).unwrap();
        let batch = RecordBatch::builder().record(b"", &[7; 10_000]).build().unwrap();
        log.append(batch, Ack::LEADER).unwrap().wait().unwrap();
    }
    // Without a close: as a kill leaves it.
    drop(engine);
    let opened = result(&bench(&scratch, "open", &["--format", "json"]).exits(0));
    assert_eq!((&opened["logs"], &opened["logs_failed"]), (&2.into(), &0.into()));
    assert!(opened["bytes_scanned"].as_u64().unwrap() >= 20_000, "{opened}");
    let again = result(&bench(&scratch, "open", &["--format", "json"]).exits(0));
    let warnings = again["warnings"].to_string();
    assert!(warnings.contains("nothing was left behind"), "{warnings}");
    scratch.run("verify", &[], b"").exits(0);
    bench(&scratch, "open", &[]).exits(0);
}

#[test]
fn following_is_measured_in_pairs_and_leaves_nothing() {
    let scratch = Scratch::new("bench-follow");
    let arguments = ["--pairs", "2", "--seconds", "1", "--readers", "2", "--format", "json"];
    let result = result(&bench(&scratch, "follow", &arguments).exits(0));
    assert_eq!(result["pairs"].as_array().unwrap().len(), 2);
    for pair in result["pairs"].as_array().unwrap() {
        let figure = |name: &str| pair[name].as_f64().unwrap();
        assert!(figure("alone_bytes_per_s") > 0.0 && figure("followed_bytes_per_s") > 0.0);
        assert!(figure("read") > 0.0, "the readers read");
    }
    assert!(!scratch.data().exists(), "the log of the bench is gone");
}

#[test]
fn a_directory_that_vanishes_under_the_run_is_named() {
    let scratch = Scratch::new("bench-vanished");
    let data = scratch.data();
    let mut all = vec!["bench", "append", "--dir", data.to_str().unwrap(), "--duration", "3600"];
    all.extend(["--warmup", "0", "--in-flight", "2", "--segment-bytes", "64KiB"]);
    all.extend(["--retention-bytes", "64KiB"]);
    let mut running = crate::start(&all);
    wait_for_records(&scratch);
    std::fs::rename(&data, scratch.path.join("elsewhere")).unwrap();
    running.wait().refuses(1, &["vanished", "removed or unmounted"]);
}

/// A file system of its own, small; gone with its test.
struct SmallDisk<'a>(&'a Scratch);

impl<'a> SmallDisk<'a> {
    /// Needs the right to mount; `None` without.
    fn mount(scratch: &'a Scratch, size: &str) -> Option<Self> {
        let place = scratch.path.to_str().unwrap();
        let size = format!("size={size}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none", place]).output();
        mount.is_ok_and(|mounted| mounted.status.success()).then_some(SmallDisk(scratch))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Lazily: the kernel lets go of an ended program's ring a moment after the program.
        drop(Command::new("umount").arg("--lazy").arg(&self.0.path).output());
    }
}

#[test]
fn a_disk_that_fills_is_named_with_the_remedy_and_the_space_is_given_back() {
    let scratch = Scratch::new("bench-full");
    let Some(_mounted) = SmallDisk::mount(&scratch, "32m") else {
        return println!("skipped: no right to mount");
    };
    let much = ["--total-bytes", "1GiB", "--in-flight", "8", "--segment-bytes", "1MiB"];
    let words = ["would fill the disk", "free some space", "--retention-bytes"];
    bench(&scratch, "append", &much).refuses(1, &words);
    assert!(scratch.snapshot().is_empty());
    // What the log keeps at least does not fit: nobody can tell before.
    let kept = [&much[..], &["--retention-bytes", "64MiB"]].concat();
    let words = ["disk", "is full", "free some space", "--retention-bytes"];
    bench(&scratch, "append", &kept).refuses(1, &words);
    assert!(scratch.snapshot().is_empty());
    // For so long as there is room.
    let long = ["--duration", "3600", "--in-flight", "8", "--segment-bytes", "1MiB"];
    let ended = bench(&scratch, "append", &[&long[..], &["--format", "json"]].concat()).exits(0);
    assert!(result(&ended)["warnings"].to_string().contains("ended early"));
    // With a retention the same amount goes through the same disk.
    let kept = [&much[2..], &["--total-bytes", "40MiB", "--retention-bytes", "2MiB"]].concat();
    bench(&scratch, "append", &kept).exits(0);
}
