//! The verbs that look: help, logs, dump, and output that nobody reads.

use serde_json::Value;

use crate::{Scratch, lines_of_any_bytes, run};

#[test]
fn every_verb_has_help_with_an_example() {
    for verb in ["append", "read", "dump", "verify", "logs", "repair"] {
        let help = run(&[verb, "--help"], b"").exits(0);
        let told = String::from_utf8(help.out).unwrap();
        assert!(told.contains("Example"), "{told}");
        assert!(told.contains(&format!("highwater {verb} ")), "{told}");
        let short = run(&[verb, "-h"], b"").exits(0);
        assert!(String::from_utf8(short.out).unwrap().contains("Usage"));
    }
    let help = run(&["--help"], b"").exits(0);
    let told = String::from_utf8(help.out).unwrap();
    for word in ["append", "read", "dump", "verify", "logs", "repair", "Exit codes"] {
        assert!(told.contains(word), "{told}");
    }
    assert!(run(&["--version"], b"").exits(0).out.starts_with(b"highwater "));
}

#[test]
fn logs_lists_every_log_with_its_marks() {
    let scratch = Scratch::new("logs");
    scratch.append(&["--segment-bytes", "64KiB"], &b"some text in a line\n".repeat(9000));
    scratch.run("append", &["--log", "a.second"], b"x\n").exits(0);
    let listed = scratch.run("logs", &[], b"").exits(0).json_lines();
    let rows = listed[0].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a.second", "demo"]);
    let demo = rows[1].as_object().unwrap();
    let mut keys: Vec<_> = demo.keys().map(String::as_str).collect();
    keys.sort_unstable();
    let expected =
        ["bytes", "epoch", "flushed", "log_end", "log_start", "name", "segments", "written"];
    assert_eq!(keys, expected);
    assert_eq!(demo["log_start"], 0);
    for mark in ["flushed", "written", "log_end"] {
        assert_eq!(demo[mark], 9000, "{mark}");
    }
    assert_eq!(demo["segments"], scratch.segments().len());
    assert!(scratch.segments().len() > 2);
    assert!(demo["bytes"].as_u64().unwrap() > 9000 * 20);
    let table = scratch.run("logs", &["--format", "text"], b"").exits(0);
    let table = String::from_utf8(table.out).unwrap();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains("a.second") && table.contains("9000"), "{table}");
}

#[test]
fn an_empty_directory_holds_no_logs_and_no_damage() {
    let scratch = Scratch::new("empty");
    std::fs::create_dir(scratch.data()).unwrap();
    assert_eq!(scratch.run("logs", &[], b"").exits(0).out, b"[]\n");
    scratch.run("verify", &[], b"").exits(0);
    assert!(scratch.snapshot().len() == 1, "looking makes nothing");
}

#[test]
fn dump_shows_every_batch_with_its_records() {
    let scratch = Scratch::new("dump");
    scratch.append(&["--batch-records", "2"], b"one\ntwo\n\xff\n");
    let directory = scratch.data().join("demo");
    let items = run(&["dump", directory.to_str().unwrap()], b"").exits(0).json_lines();
    let types: Vec<_> = items.iter().map(|item| item["type"].as_str().unwrap()).collect();
    assert_eq!(types[..3], ["slot", "slot", "segment"]);
    assert_eq!(types.last(), Some(&"stop"));
    let batches: Vec<_> = items.iter().filter(|item| item["type"] == "batch").collect();
    assert_eq!(batches.len(), 2);
    assert_eq!((&batches[0]["base_offset"], &batches[1]["base_offset"]), (&0.into(), &2.into()));
    assert_eq!(batches[0]["records"][1]["value"], "two");
    assert_eq!(batches[1]["records"][0]["value_base64"], "/w==");
    for field in [
        "position",
        "total_bytes",
        "record_count",
        "generation",
        "leader_epoch",
        "flush_mark",
        "salt",
        "records_crc",
        "attributes",
        "base_timestamp_ms",
        "max_timestamp_ms",
        "producer_id",
        "producer_epoch",
        "base_sequence",
    ] {
        assert_ne!(batches[0][field], Value::Null, "{field}");
    }
    let segment = scratch.segments().remove(0);
    let segment = segment.to_str().unwrap();
    let without = run(&["dump", segment, "--no-records"], b"").exits(0).json_lines();
    assert!(without.iter().all(|item| item.get("records").is_none()));
    assert_eq!(without.len(), items.len() - 2, "the same without the slots");
    let meta = directory.join("log.meta");
    let slots = run(&["dump", meta.to_str().unwrap()], b"").exits(0).json_lines();
    assert_eq!(slots.len(), 2);
    assert!(slots.iter().all(|slot| slot["state"] == "clean" && slot["flushed"]["offset"] == 3));
    let text = run(&["dump", directory.to_str().unwrap(), "--format", "text"], b"").exits(0);
    let text = String::from_utf8(text.out).unwrap();
    for word in ["slot 0", "batch at byte 4096", "0: \"one\"", "2: \"\\xff\""] {
        assert!(text.contains(word), "{word} is missing in: {text}");
    }
}

#[test]
fn output_that_is_cut_short_ends_quietly() {
    let scratch = Scratch::new("cut-short");
    scratch.append(&[], &lines_of_any_bytes(1, 2000));
    for arguments in [&["--log", "demo"][..], &["--log", "demo", "--format", "jsonl"]] {
        let mut reader = scratch.start("read", arguments);
        reader.stdout = None;
        let ended = reader.wait().exits(0);
        assert_eq!(ended.err, "");
    }
    let directory = scratch.data().join("demo");
    let mut dump = crate::start(&["dump", directory.to_str().unwrap()]);
    dump.stdout = None;
    assert_eq!(dump.wait().exits(0).err, "");
}

#[test]
fn a_segment_that_an_opening_died_renaming_is_read_verified_and_gets_its_name_back() {
    let scratch = Scratch::new("away");
    scratch.append(&[], b"one\ntwo\n");
    let segment = scratch.segments().remove(0);
    std::fs::rename(&segment, segment.with_extension("log.away")).unwrap();
    let before = scratch.snapshot();
    scratch.run("verify", &[], b"").exits(0);
    assert_eq!(scratch.read(&[]).exits(0).out, b"one\ntwo\n");
    assert!(scratch.snapshot() == before, "looking changes nothing");
    scratch.append(&[], b"three\n");
    assert!(segment.exists());
    assert_eq!(scratch.read(&[]).exits(0).out, b"one\ntwo\nthree\n");
    scratch.run("verify", &[], b"").exits(0);
}
