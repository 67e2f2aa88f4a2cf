//! What is refused: with the right exit code, in words, and without a trace on disk.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::{Scratch, run};

/// Runs and checks that nothing on disk has changed.
#[track_caller]
fn refused(scratch: &Scratch, code: i32, words: &[&str], verb: &str, arguments: &[&str]) {
    let before = scratch.snapshot();
    scratch.run(verb, arguments, b"a line\n").refuses(code, words);
    assert!(scratch.snapshot() == before, "{verb} {arguments:?} left something behind");
}

#[test]
fn wrong_arguments_exit_2_name_the_flag_and_leave_nothing_behind() {
    let scratch = Scratch::new("usage");
    for (flag, value) in [
        ("--ack", "isr"),
        ("--flush", "sometimes"),
        ("--flush", "none,group"),
        ("--flush", "records=0"),
        ("--batch-records", "0"),
        ("--batch-records", "4194305"),
        ("--in-flight", "0"),
        ("--in-flight", "65537"),
        ("--acks", "xml"),
        ("--backend", "carrier-pigeon"),
        ("--segment-bytes", "65537"),
        ("--segment-bytes", "4GiB"),
        ("--format", "xml"),
    ] {
        refused(&scratch, 2, &[flag, value], "append", &["--log", "demo", flag, value]);
    }
    for (flag, value) in [("--from", "-1"), ("--from", "x"), ("--max", "-1"), ("--isolation", "no")]
    {
        let given = format!("{flag}={value}");
        refused(&scratch, 2, &[flag, value], "read", &["--log", "demo", &given]);
    }
    refused(&scratch, 2, &["--to-offset"], "repair", &["--log", "demo"]);
    refused(&scratch, 2, &["--unheard-of"], "verify", &["--unheard-of"]);
    refused(&scratch, 2, &["--log"], "append", &[]);
    run(&["append", "--log", "demo"], b"").refuses(2, &["--dir"]);
    run(&["dump"], b"").refuses(2, &["PATH"]);
    run(&["frobnicate"], b"").refuses(2, &["frobnicate"]);
    assert_eq!(run(&[], b"").code, Some(2));
}

#[test]
fn bad_log_names_exit_2_and_make_no_directory() {
    let scratch = Scratch::new("names");
    let long = "x".repeat(250);
    for name in ["", ".", "..", ".pool", "a/b", "../up", "a b", "\u{fc}", long.as_str()] {
        for verb in ["append", "read", "verify"] {
            refused(&scratch, 2, &["--log", "a-z A-Z 0-9"], verb, &["--log", name]);
        }
        refused(&scratch, 2, &["--log"], "repair", &["--to-offset", "0", "--log", name]);
    }
}

#[test]
fn a_missing_directory_is_named_and_not_made() {
    let scratch = Scratch::new("missing");
    let words = ["data", "error: cannot "];
    refused(&scratch, 1, &words, "read", &["--log", "demo"]);
    refused(&scratch, 1, &words, "verify", &[]);
    refused(&scratch, 1, &words, "logs", &[]);
    refused(&scratch, 1, &words, "repair", &["--log", "demo", "--to-offset", "0", "--yes"]);
    refused(&scratch, 1, &words, "repair", &["--log", "demo", "--to-offset", "0"]);
    let below = scratch.data().join("below");
    let below = below.to_str().unwrap();
    run(&["append", "--dir", below, "--log", "demo"], b"a\n").refuses(1, &["parent directory"]);
    run(&["dump", below], b"").refuses(1, &["cannot "]);
    assert!(scratch.snapshot().is_empty());
}

#[test]
fn a_directory_of_somebody_elses_is_left_alone() {
    let scratch = Scratch::new("foreign");
    std::fs::create_dir(scratch.data()).unwrap();
    std::fs::write(scratch.data().join("thesis.tex"), "chapter 1").unwrap();
    let words = ["not Highwater's", "data"];
    refused(&scratch, 1, &words, "append", &["--log", "demo"]);
    refused(&scratch, 1, &words, "read", &["--log", "demo"]);
    refused(&scratch, 1, &words, "verify", &[]);
    refused(&scratch, 1, &words, "logs", &[]);
    let file = scratch.data().join("thesis.tex");
    let file = file.to_str().unwrap();
    run(&["append", "--dir", file, "--log", "demo"], b"a\n").refuses(1, &["thesis.tex"]);
    run(&["dump", file], b"").refuses(1, &["thesis.tex"]);
}

#[test]
fn a_directory_that_may_not_be_written_is_named() {
    let scratch = Scratch::new("read-only");
    if std::fs::metadata(&scratch.path).unwrap().uid() == 0 {
        eprintln!("skipped: root may write anywhere");
        return;
    }
    let set_mode = |mode| {
        std::fs::set_permissions(&scratch.path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(0o555);
    let ended = scratch.run("append", &["--log", "demo"], b"a line\n");
    let left = scratch.snapshot();
    set_mode(0o755);
    ended.refuses(1, &["data", "Permission denied", "check who owns"]);
    assert!(left.is_empty());
}

#[test]
fn a_second_writer_is_refused_and_told_who_holds_the_directory() {
    let scratch = Scratch::new("locked");
    let mut first = scratch.start("append", &["--log", "demo", "--acks", "jsonl"]);
    first.write(b"mine\n");
    first.line();
    let holder = first.child.id().to_string();
    scratch.run("append", &["--log", "other"], b"theirs\n").refuses(1, &["in use", &holder]);
    let cut = ["--log", "demo", "--to-offset", "0", "--yes"];
    scratch.run("repair", &cut, b"").refuses(1, &["in use", &holder]);
    first.write(b"still mine\n");
    first.finish().exits(0);
    assert_eq!(scratch.read(&[]).exits(0).out, b"mine\nstill mine\n");
    assert!(!scratch.data().join("other").exists());
}

#[test]
fn an_unknown_log_is_named_and_not_made() {
    let scratch = Scratch::new("unknown-log");
    scratch.append(&[], b"one\n");
    refused(&scratch, 1, &["nope", "highwater logs"], "read", &["--log", "nope"]);
    refused(&scratch, 1, &["nope"], "verify", &["--log", "nope"]);
    for yes in [&[][..], &["--yes"]] {
        let arguments = [&["--log", "nope", "--to-offset", "0"], yes].concat();
        refused(&scratch, 1, &["nope"], "repair", &arguments);
    }
}

#[test]
fn a_record_above_the_maximum_is_named_and_what_is_before_it_is_appended() {
    let scratch = Scratch::new("too-large");
    let mut writer = scratch.start("append", &["--log", "demo", "--acks", "jsonl"]);
    writer.write(b"one\ntwo\n");
    // It ends by itself: the line has no end, the input neither.
    writer.write(&vec![b'x'; (16 << 20) + 1]);
    let ended = writer.wait().refuses(1, &["line 3", "16777216 bytes", "split it"]);
    let records: u64 = ended.json_lines().iter().filter_map(|ack| ack["records"].as_u64()).sum();
    assert_eq!(records, 2, "what is before it is acked");
    assert_eq!(scratch.read(&[]).exits(0).out, b"one\ntwo\n");
    scratch.run("verify", &[], b"").exits(0);
}

#[test]
fn a_record_at_the_maximum_is_taken() {
    let scratch = Scratch::new("at-maximum");
    let mut input = vec![b'x'; 16 << 20];
    input.push(b'\n');
    scratch.append(&[], &input);
    assert!(scratch.read(&[]).exits(0).out == input);
}

#[test]
fn a_batch_larger_than_a_segment_is_refused_with_its_lines() {
    let scratch = Scratch::new("large-batch");
    let sizes = ["--log", "demo", "--segment-bytes", "64KiB"];
    let line = [&[b'x'; 70_000][..], b"\n"].concat();
    let input = [b"small\n", &line[..], b"not reached\n"].concat();
    scratch.run("append", &sizes, &input).refuses(1, &["line 2", "segment"]);
    assert_eq!(scratch.read(&[]).exits(0).out, b"small\n");
    let fixed = ["--log", "demo", "--batch-records", "2000"];
    let many = b"some forty bytes of text stand in this line\n".repeat(4000);
    scratch.run("append", &fixed, &many).refuses(1, &["lines 1 to 2000", "smaller batches"]);
    let largest = ["--log", "demo", "--batch-records", "40"];
    let megabytes = [&vec![b'y'; 1 << 20][..], b"\n"].concat().repeat(40);
    scratch.run("append", &largest, &megabytes).refuses(1, &["--batch-records", "33554432"]);
    assert_eq!(scratch.read(&[]).exits(0).out, b"small\n");
}

#[test]
fn options_a_log_was_not_made_with_are_refused() {
    let scratch = Scratch::new("options-differ");
    scratch.append(&["--segment-bytes", "1MiB"], b"one\n");
    let other = ["--log", "demo", "--segment-bytes", "2MiB"];
    scratch.run("append", &other, b"two\n").refuses(1, &["segment_bytes", "1048576"]);
    let mode = ["--log", "demo", "--never-rewrite-flushed"];
    scratch.run("append", &mode, b"two\n").refuses(1, &["never_rewrite_flushed"]);
    scratch.append(&["--segment-bytes", "1MiB"], b"three\n");
    assert_eq!(scratch.read(&[]).exits(0).out, b"one\nthree\n");
}

#[test]
fn input_that_cannot_be_read_is_an_error() {
    let scratch = Scratch::new("input");
    let data = scratch.data();
    let mut command = crate::command(&["append", "--dir", data.to_str().unwrap(), "--log", "demo"]);
    command.stdin(std::fs::File::open(&scratch.path).unwrap());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read standard input"));
}

/// Runs a script where it may mount; `None` where a user may not.
fn with_mounts(scratch: &Scratch, script: &str) -> Option<crate::Ended> {
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_highwater")).current_dir(&scratch.path);
    let output = command.output().ok()?;
    let ended = crate::Ended {
        code: output.status.code(),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    (ended.code != Some(77) && !ended.err.contains("unshare")).then_some(ended)
}

#[test]
fn a_full_disk_leaves_a_prefix_of_the_input_and_the_rest_can_follow() {
    let scratch = Scratch::new("full-disk");
    std::fs::create_dir(scratch.path.join("small")).unwrap();
    let input: String = (0..200_000).map(|number| format!("line {number}\n")).collect();
    std::fs::write(scratch.path.join("input"), &input).unwrap();
    // 3 MiB are too few for it; 30 MiB suffice.
    let script = r#"
        mount -t tmpfs -o size=3M tmpfs small || exit 77
        "$1" append --dir small/data --log demo --segment-bytes 1MiB --batch-records 700 --acks jsonl \
            < input > acks 2> first; echo "exit $?" >> first
        "$1" read --dir small/data --log demo > prefix || exit 1
        "$1" verify --dir small/data || exit 1
        mount -o remount,size=30M small || exit 77
        tail -n "+$(($(wc -l < prefix) + 1))" input | "$1" append --dir small/data --log demo || exit 1
        "$1" read --dir small/data --log demo > whole
    "#;
    let Some(ended) = with_mounts(&scratch, script) else {
        eprintln!("skipped: this user may not mount");
        return;
    };
    ended.exits(0);
    let file = |name: &str| std::fs::read_to_string(scratch.path.join(name)).unwrap();
    let (first, prefix) = (file("first"), file("prefix"));
    for word in ["No space left", "free some space", "exit 1", "on are not appended"] {
        assert!(first.contains(word), "{word} is missing in: {first}");
    }
    assert!(!prefix.is_empty() && prefix.len() < input.len() && input.starts_with(&prefix));
    let acked: u64 = file("acks")
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|ack| ack["records"].as_u64().unwrap())
        .sum();
    assert_eq!(acked, u64::try_from(prefix.lines().count()).unwrap(), "acked, all of it");
    assert!(file("whole") == input, "nothing twice, nothing lost, nothing out of order");
}
