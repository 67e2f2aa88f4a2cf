//! What is appended, acked and read back.

use serde_json::Value;

use crate::{Scratch, lines_of_any_bytes};

fn numbered(count: u64) -> Vec<u8> {
    (0..count).flat_map(|number| format!("line {number}\n").into_bytes()).collect()
}

#[test]
fn lines_of_any_bytes_survive_append_and_read_byte_for_byte() {
    for (seed, arguments) in [
        &["--backend", "auto"][..],
        &["--backend", "threads"],
        &["--batch-records", "1", "--in-flight", "1", "--ack", "none"],
        &["--batch-records", "7", "--segment-bytes", "2MiB", "--ack", "leader-flushed"],
        &["--segment-bytes", "512KiB", "--never-rewrite-flushed", "--flush", "group"],
        &["--compression", "lz4"],
        &["--mode", "buffered"],
        &["--mode", "buffered", "--backend", "threads", "--flush", "group"],
        &["--compression", "zstd:9", "--batch-records", "50"],
    ]
    .iter()
    .enumerate()
    {
        let scratch = Scratch::new(&format!("any-bytes-{seed}"));
        let input = lines_of_any_bytes(u64::try_from(seed).unwrap(), 600);
        scratch.append(arguments, &input);
        let read = scratch.read(&[]).exits(0);
        assert!(read.out == input, "{arguments:?}: {} of {}", read.out.len(), input.len());
        // And once more behind it.
        scratch.append(&[], b"more\n");
        assert!(scratch.read(&[]).exits(0).out == [&input[..], b"more\n"].concat());
        scratch.run("verify", &[], b"").exits(0);
    }
}

#[test]
fn compressed_lines_take_less_and_are_read_back_verified_and_shown() {
    let input = numbered(2000);
    for (codec, most) in [("none", 60_000), ("lz4", 20_000), ("zstd", 10_000), ("zstd:19", 10_000)]
    {
        let scratch = Scratch::new(&format!("compressed-{}", codec.replace(':', "-")));
        scratch.append(&["--compression", codec, "--batch-records", "1000"], &input);
        assert!(scratch.read(&[]).exits(0).out == input, "{codec}");
        assert!(scratch.read(&["--from", "1999"]).exits(0).out == b"line 1999\n");
        let verified = scratch.run("verify", &["--format", "json"], b"").exits(0).json_lines();
        assert_eq!(verified[0][0]["notes"], Value::Array(vec![]), "{verified:?}");
        let segment = scratch.segments().remove(0);
        let dumped = crate::run(&["dump", segment.to_str().unwrap(), "--no-records"], b"");
        let dumped = dumped.exits(0).json_lines();
        let batches: Vec<_> = dumped.iter().filter(|item| item["type"] == "batch").collect();
        let sum = |field: &str| batches.iter().map(|b| b[field].as_u64().unwrap()).sum::<u64>();
        let name = codec.split(':').next().unwrap();
        assert!(batches.len() == 2 && batches.iter().all(|batch| batch["codec"] == name));
        assert!(sum("records_bytes") < most, "{codec}: {}", sum("records_bytes"));
        assert!(sum("uncompressed_bytes") > 20_000);
    }
}

#[test]
fn the_same_input_of_a_producer_goes_on_where_the_log_is() {
    let scratch = Scratch::new("producer");
    let seven = &["--producer", "7", "--batch-records", "3"][..];
    // As if it had been interrupted behind the fifth line.
    scratch.append(seven, &numbered(5));
    scratch.append(seven, &numbered(12)).says(&["5 lines of the input in the log already"]);
    scratch.append(seven, &numbered(12)).says(&["12 lines of the input"]);
    scratch.append(&["--producer", "8"], b"of another\n");
    assert_eq!(scratch.read(&[]).exits(0).out, [&numbered(12)[..], b"of another\n"].concat());
    // A higher epoch begins anew, and the older one is over.
    scratch.append(&["--producer", "7", "--producer-epoch", "1"], b"anew\n");
    let old = &["--log", "demo", "--producer", "7", "--producer-epoch", "0"];
    scratch.run("append", old, b"late\n").refuses(1, &["producer 7", "epoch 1"]);
    let directory = scratch.data().join("demo");
    let dump = ["dump", directory.to_str().unwrap(), "--no-records"];
    let dumped = crate::run(&dump, b"").exits(0).json_lines();
    let numbers: Vec<_> = dumped
        .iter()
        .filter(|item| item["type"] == "batch")
        .map(|b| [&b["producer_id"], &b["producer_epoch"], &b["base_sequence"]].map(Value::as_i64))
        .collect();
    let expected = [[7, 0, 0], [7, 0, 3], [7, 0, 5], [7, 0, 8], [7, 0, 11], [8, 0, 0], [7, 1, 0]];
    assert_eq!(numbers, expected.map(|numbers| numbers.map(Some)));
    let snapshots = dumped.iter().filter(|item| item["type"] == "producers");
    let newest = snapshots.max_by_key(|snapshot| snapshot["at"]["offset"].as_u64());
    let newest = newest.expect("a close leaves one");
    assert_eq!((&newest["at"]["offset"], &newest["producers"][1]["id"]), (&14.into(), &7.into()));
    scratch.run("verify", &[], b"").exits(0);
}

#[test]
fn a_last_line_without_a_newline_counts_and_no_line_is_invented() {
    let scratch = Scratch::new("last-line");
    scratch.append(&[], b"one\ntwo");
    scratch.append(&[], b"");
    scratch.append(&[], b"\n");
    scratch.append(&[], b"\r");
    assert_eq!(scratch.read(&[]).exits(0).out, b"one\ntwo\n\n\r\n");
}

#[test]
fn read_starts_and_ends_where_it_is_told() {
    let scratch = Scratch::new("from-max");
    scratch.append(&["--batch-records", "4"], &numbered(10));
    for (arguments, first, end) in [
        (&["--from", "0"][..], 0, 10),
        (&["--from", "5"], 5, 10),
        (&["--from", "5", "--max", "2"], 5, 7),
        (&["--max", "0"], 0, 0),
        (&["--max", "9"], 0, 9),
        (&["--from", "10"], 10, 10),
        (&["--isolation", "durable"], 0, 10),
        (&["--isolation", "written", "--from", "9", "--max", "9"], 9, 10),
    ] {
        let expected: Vec<u8> =
            (first..end).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
        assert_eq!(scratch.read(arguments).exits(0).out, expected, "{arguments:?}");
    }
}

#[test]
fn read_begins_at_a_time_and_times_are_refused_before_anything_is_opened() {
    let scratch = Scratch::new("from-time");
    scratch.append(&[], b"one\n");
    let first = scratch.read(&["--format", "jsonl"]).exits(0).json_lines();
    let time = first[0]["timestamp_ms"].as_i64().unwrap();
    while scratch.append(&["--acks", "jsonl"], b"two\n").json_lines().is_empty() {}
    let at = |time: &str| scratch.read(&["--from-time", time]).exits(0).out;
    assert_eq!(at(&time.to_string()), b"one\ntwo\n");
    assert_eq!(at("-1"), b"one\ntwo\n");
    assert_eq!(at("1970-01-01T01:00:00+01:00"), b"one\ntwo\n");
    assert_eq!(at("2999-12-31T23:59:59.9999Z"), b"");
    assert_eq!(at(&i64::MAX.to_string()), b"");
    for bad in ["", "yesterday", "1.5", "2026-01-31", "99999999999999999999"] {
        scratch.read(&["--from-time", bad]).refuses(2, &["1970"]);
    }
    scratch.read(&["--from-time", "5", "--from", "5"]).refuses(2, &["--from"]);
}

#[test]
fn records_as_json_give_back_their_bytes() {
    let scratch = Scratch::new("json-records");
    scratch.append(&[], b"text \"quoted\"\n\xff\x00\n\n");
    let records = scratch.read(&["--format", "jsonl"]).exits(0).json_lines();
    let offsets: Vec<_> = records.iter().map(|record| record["offset"].as_u64()).collect();
    assert_eq!(offsets, [Some(0), Some(1), Some(2)]);
    assert_eq!(records[0]["value"], "text \"quoted\"");
    assert_eq!((&records[1]["value"], &records[1]["value_base64"]), (&Value::Null, &"/wA=".into()));
    assert_eq!(records[2]["value"], "");
    for record in records {
        assert_eq!(record["key"], Value::Null);
        assert!(record["timestamp_ms"].as_i64().unwrap() > 1_600_000_000_000);
    }
}

/// Checks acks of `count` records from `first` on: in order, without a gap, honest.
fn check_acks(acks: &[Value], first: u64, count: u64, flushed: bool) {
    let mut next = first;
    for ack in acks {
        let number = |name: &str| ack[name].as_u64().unwrap();
        let names: Vec<_> = ack.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(number("base_offset"), next, "in order and without a gap");
        next += number("records");
        assert!(number("flushed") <= number("written"), "{ack}");
        assert!(number("written") >= next, "acked before it was written: {ack}");
        assert!(!flushed || number("flushed") >= next, "acked before it was flushed: {ack}");
    }
    assert_eq!(next, first + count, "every record is acked");
}

#[test]
fn acks_are_honest_in_order_and_cover_every_record() {
    let scratch = Scratch::new("acks");
    let mut first = 0;
    for (arguments, flushed) in [
        (&["--ack", "leader"][..], false),
        (&["--ack", "leader-flushed", "--batch-records", "9"], true),
        (
            &["--ack", "leader", "--batch-records", "5", "--in-flight", "1", "--flush", "none"],
            false,
        ),
        (&["--ack", "leader-flushed", "--in-flight", "3", "--backend", "threads"], true),
    ] {
        let mut all = vec!["--acks", "jsonl", "--format", "json"];
        all.extend(arguments);
        let ended = scratch.append(&all, &numbered(1001));
        check_acks(&ended.json_lines(), first, 1001, flushed);
        first += 1001;
        let summary: Value = serde_json::from_str(ended.err.trim()).unwrap();
        assert_eq!(summary["records"], 1001);
        assert_eq!(summary["first_offset"], first - 1001);
        assert_eq!(summary["end_offset"], first);
        assert_eq!(summary["flushed"], first, "everything is flushed at the end");
    }
}

#[test]
fn batch_records_fixes_the_size_of_all_batches_but_the_last() {
    let scratch = Scratch::new("batch-records");
    let ended = scratch.append(&["--acks", "jsonl", "--batch-records", "300"], &numbered(1000));
    let sizes: Vec<_> = ended.json_lines().iter().map(|ack| ack["records"].as_u64()).collect();
    assert_eq!(sizes, [Some(300), Some(300), Some(300), Some(100)]);
}

#[test]
fn every_flush_policy_is_taken() {
    let scratch = Scratch::new("policies");
    for policy in [
        "group",
        "none",
        "records=10",
        "bytes=1000",
        "interval=1",
        "group,records=1,bytes=1KiB,interval=5",
    ] {
        scratch.append(&["--flush", policy], &numbered(100));
    }
    assert_eq!(scratch.read(&["--isolation", "durable"]).exits(0).out, numbered(100).repeat(6));
}

#[test]
fn lines_of_a_slow_pipe_are_acked_at_once_and_read_beside_the_writer() {
    let scratch = Scratch::new("slow-pipe");
    let mut writer = scratch.start("append", &["--log", "demo", "--acks", "jsonl"]);
    for round in 0..5_u64 {
        writer.write(format!("round {round}\n").as_bytes());
        // Arrives although the input stays open; nothing waits for a batch to fill.
        let ack: Value = serde_json::from_str(&writer.line()).unwrap();
        assert_eq!((&ack["base_offset"], &ack["records"]), (&round.into(), &1.into()));
        let read = scratch.read(&["--from", &round.to_string()]).exits(0);
        assert_eq!(read.out, format!("round {round}\n").into_bytes());
        scratch.run("verify", &[], b"").exits(0);
    }
    // A line that has no end yet is no line.
    writer.write(b"half a ");
    writer.write(b"line");
    let ended = writer.finish().exits(0);
    assert_eq!(ended.json_lines().len(), 1);
    assert_eq!(scratch.read(&["--from", "5"]).exits(0).out, b"half a line\n");
    let beyond = scratch.read(&["--from", "7"]).exits(0).says(&["ends at offset 6"]);
    assert!(beyond.out.is_empty());
}

#[test]
fn a_killed_append_loses_nothing_that_was_acked_and_appends_go_on() {
    let scratch = Scratch::new("killed");
    let mut expected = 0;
    for life in 0..3_u64 {
        let mut writer =
            scratch.start("append", &["--log", "demo", "--acks", "jsonl", "--batch-records", "3"]);
        writer.write(&numbered(3000));
        let mut acked = expected;
        for _ in 0..100 * (life + 1) {
            let ack: Value = serde_json::from_str(&writer.line()).unwrap();
            acked = ack["base_offset"].as_u64().unwrap() + 3;
        }
        drop(writer);
        let read = scratch.read(&["--format", "jsonl", "--from", &expected.to_string()]).exits(0);
        let records = read.json_lines();
        for (number, record) in records.iter().enumerate() {
            assert_eq!(record["value"], format!("line {number}"), "in order, once");
        }
        let found = expected + u64::try_from(records.len()).unwrap();
        assert!(found >= acked, "{acked} were acked, {found} are there");
        expected = found;
    }
    let ended = scratch.append(&["--acks", "jsonl"], b"and on\n");
    assert_eq!(ended.json_lines()[0]["base_offset"], expected);
}

#[test]
fn a_successful_append_says_what_to_do_next() {
    let scratch = Scratch::new("next");
    let ended = scratch.append(&[], b"one\n").says(&["acked 1 record", "offsets 0..1", "backend "]);
    let next = ended.err.lines().last().unwrap();
    let proposed = next.strip_prefix("next: ").unwrap();
    let words: Vec<_> = proposed.split(' ').skip(1).collect();
    assert_eq!(crate::run(&words, b"").exits(0).out, b"one\n");
}

#[test]
fn acks_nobody_reads_do_not_stop_the_append_but_are_told() {
    let scratch = Scratch::new("acks-closed");
    let mut writer = scratch.start("append", &["--log", "demo", "--acks", "jsonl"]);
    writer.stdout = None;
    writer.write(&numbered(10));
    writer.finish().refuses(1, &["cannot print the acks", "every line was appended"]);
    assert_eq!(scratch.read(&[]).exits(0).out, numbered(10));
}

#[test]
fn where_direct_io_is_refused_append_says_so_and_keeps_everything() {
    // A file system in memory; most of them refuse it. Where there is none, nothing is to be told.
    let shared_memory = std::path::Path::new("/dev/shm");
    if !shared_memory.is_dir() {
        return;
    }
    let path = shared_memory.join(format!("highwater-cli-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    let scratch = Scratch { path };
    for expected in [b"one\n".to_vec(), b"one\none\n".to_vec()] {
        let text = scratch.append(&[], b"one\n").err;
        let json = scratch.append(&["--format", "json"], b"").err;
        let summary: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
        let says = text.matches("refuses direct I/O").count();
        let refused = summary["direct_io"] == Value::Bool(false);
        assert_eq!(says, usize::from(refused), "{text} {json}");
        assert_eq!(summary["notes"].to_string().contains("refuses direct I/O"), refused, "{json}");
        assert_eq!(scratch.read(&[]).exits(0).out, expected);
    }
}
