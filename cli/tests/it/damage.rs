//! Damage: found, named, never passed over.

use std::path::Path;

use serde_json::Value;

use crate::Scratch;

fn flip(file: &Path, position: u64) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[usize::try_from(position).unwrap()] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

/// Where the batches of the log `demo` start.
fn positions(scratch: &Scratch) -> Vec<u64> {
    let directory = scratch.data().join("demo");
    let dumped = crate::run(&["dump", directory.to_str().unwrap()], b"").exits(0).json_lines();
    let batches = dumped.iter().filter(|item| item["type"] == "batch");
    batches.map(|batch| batch["position"].as_u64().unwrap()).collect()
}

fn three_batches(scratch: &Scratch) {
    scratch.append(&["--batch-records", "2", "--segment-bytes", "64KiB"], b"a\nb\nc\nd\ne\nf\n");
}

#[test]
fn a_damaged_record_ends_read_and_verify_with_6_and_is_named() {
    let scratch = Scratch::new("damaged-record");
    three_batches(&scratch);
    let position = positions(&scratch)[1];
    let file = scratch.segments().remove(0);
    flip(&file, position + 90);
    let before = scratch.snapshot();

    let named = [file.to_str().unwrap(), &position.to_string()];
    let read = scratch.read(&[]).refuses(6, &named);
    assert_eq!(read.out, b"a\nb\n", "what is before the damage, and nothing else");
    let verified = scratch.run("verify", &[], b"").refuses(6, &["1 damage found"]);
    let told = String::from_utf8(verified.out).unwrap();
    for word in [named[0], named[1], "offsets 2..", "case T4"] {
        assert!(told.contains(word), "{word} is missing in: {told}");
    }
    let verified = scratch.run("verify", &["--format", "json", "--log", "demo"], b"").exits(6);
    let verdict = &verified.json_lines()[0][0];
    let damage = &verdict["damages"][0];
    assert_eq!((&verdict["name"], &damage["first_offset"]), (&"demo".into(), &2.into()));
    assert_eq!((&damage["file"], &damage["position"]), (&named[0].into(), &position.into()));
    assert_eq!(damage["case"], "T4");
    assert!(scratch.snapshot() == before, "looking changes nothing");
}

#[test]
fn an_append_to_a_log_with_an_unprovable_end_exits_6_and_takes_nothing() {
    let scratch = Scratch::new("read-only-log");
    three_batches(&scratch);
    // Cut inside the last batch, below the mark of the close.
    let file = std::fs::File::options().write(true).open(&scratch.segments()[0]).unwrap();
    file.set_len(positions(&scratch)[2] + 40).unwrap();
    let refused = scratch.run("append", &["--log", "demo"], b"g\n").refuses(6, &["demo"]);
    assert!(refused.out.is_empty());
    assert_eq!(scratch.read(&[]).refuses(6, &[]).out, b"a\nb\nc\nd\n");
    // Another log of the same directory is not concerned.
    let other = scratch.run("append", &["--log", "other"], b"x\n").exits(0);
    other.says(&["warning: log demo is read-only", "acked 1 record"]);
}

#[test]
fn a_damaged_log_meta_ends_verify_with_6() {
    let scratch = Scratch::new("damaged-meta");
    three_batches(&scratch);
    let file = scratch.data().join("demo/log.meta");
    for slot in [0, 4096] {
        flip(&file, slot + 100);
        scratch.run("verify", &[], b"").refuses(6, &["damage"]);
        if slot == 0 {
            // One slot is enough to read by.
            assert_eq!(scratch.read(&[]).exits(0).out, b"a\nb\nc\nd\ne\nf\n");
        }
    }
    scratch.read(&[]).refuses(6, &["log.meta"]);
    scratch.run("append", &["--log", "demo"], b"g\n").refuses(6, &["log.meta"]);
    let listed = scratch.run("logs", &[], b"").refuses(6, &["log.meta"]);
    assert!(listed.json_lines()[0][0]["error"].as_str().unwrap().contains("log.meta"));
}

#[test]
fn a_torn_tail_is_named_exits_0_and_the_next_append_tells_of_the_cut() {
    let scratch = Scratch::new("torn-tail");
    let arguments = ["--log", "demo", "--acks", "jsonl", "--flush", "none", "--batch-records", "1"];
    let mut writer = scratch.start("append", &arguments);
    for line in ["one\n", "two\n", "three\n"] {
        writer.write(line.as_bytes());
        writer.line();
    }
    drop(writer);
    let last = positions(&scratch)[2];
    flip(&scratch.segments()[0], last + 90);

    let verified = scratch.run("verify", &[], b"").exits(0);
    let told = String::from_utf8(verified.out).unwrap();
    for word in ["torn tail", "case T2", &last.to_string(), "no damage"] {
        assert!(told.contains(word), "{word} is missing in: {told}");
    }
    let verified = scratch.run("verify", &["--format", "json"], b"").exits(0);
    assert_eq!(verified.json_lines()[0][0]["torn_tail"]["case"], "T2");
    assert_eq!(scratch.read(&[]).exits(0).out, b"one\ntwo\n");
    let ended = scratch.append(&[], b"again\n");
    ended.says(&["torn tail was cut at offset 2", "case T2", "offsets 2..3"]);
    assert_eq!(scratch.read(&[]).exits(0).out, b"one\ntwo\nagain\n");
    let verified = scratch.run("verify", &["--format", "json"], b"").exits(0);
    assert_eq!(verified.json_lines()[0][0]["torn_tail"], Value::Null);
}

#[test]
fn repair_changes_nothing_without_yes_and_mends_with_it() {
    let scratch = Scratch::new("repair");
    three_batches(&scratch);
    flip(&scratch.segments()[0], positions(&scratch)[1] + 90);
    let cut = ["--log", "demo", "--to-offset", "2"];
    let before = scratch.snapshot();
    scratch.run("repair", &cut, b"").refuses(2, &["--yes", "offset 2"]);
    assert!(scratch.snapshot() == before);
    let above = ["--log", "demo", "--to-offset", "5", "--yes"];
    scratch.run("repair", &above, b"").refuses(6, &["demo"]);
    assert_eq!(scratch.read(&[]).refuses(6, &[]).out, b"a\nb\n");

    let with_yes = [&cut[..], &["--yes", "--format", "json"]].concat();
    let repaired = scratch.run("repair", &with_yes, b"").exits(0).json_lines();
    assert_eq!(repaired[0]["log_end"], 2);
    scratch.run("verify", &[], b"").exits(0);
    assert_eq!(scratch.read(&[]).exits(0).out, b"a\nb\n");
    scratch.append(&[], b"c again\n");
    assert_eq!(scratch.read(&[]).exits(0).out, b"a\nb\nc again\n");
}

#[test]
fn a_version_of_the_future_is_refused_and_left_alone() {
    let scratch = Scratch::new("future");
    three_batches(&scratch);
    let file = scratch.segments().remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[8] = 2;
    bytes[12..16].fill(0);
    let sum = crc32c::crc32c(&bytes[..4096]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
    assert_ne!(scratch.read(&[]).code, Some(0));
    assert_ne!(scratch.run("verify", &[], b"").code, Some(0));
    let ended = scratch.run("append", &["--log", "demo"], b"g\n");
    assert!(matches!(ended.code, Some(1 | 6)), "{}", ended.err);
    ended.says(&["version"]);
}
