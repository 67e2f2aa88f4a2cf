//! `read --follow` beside a writer.

use serde_json::Value;

use crate::Scratch;
use crate::bench::interrupt;

#[test]
fn a_follower_prints_what_comes_and_ends_on_ctrl_c() {
    let scratch = Scratch::new("follow");
    scratch.append(&[], b"first\n");
    let mut writer = scratch.start("append", &["--log", "demo", "--acks", "jsonl"]);
    let mut follower = scratch.start("read", &["--log", "demo", "--follow"]);
    assert_eq!(follower.line(), "first\n");
    for round in 0..5 {
        writer.write(format!("round {round}\n").as_bytes());
        assert!(serde_json::from_str::<Value>(&writer.line()).is_ok());
        assert_eq!(follower.line(), format!("round {round}\n"));
    }
    // Over the writer's end and the next one's start.
    writer.finish().exits(0);
    scratch.append(&[], b"another life\n");
    assert_eq!(follower.line(), "another life\n");
    interrupt(follower.child.id());
    let ended = follower.wait().exits(130);
    assert!(ended.out.is_empty() && ended.err.is_empty(), "{}", ended.err);
}

#[test]
fn a_follower_ends_after_as_many_records_as_it_was_told() {
    let scratch = Scratch::new("follow-max");
    scratch.append(&[], b"one\ntwo\n");
    let arguments = ["--log", "demo", "--follow", "--max", "4", "--isolation", "durable"];
    let mut follower = scratch.start("read", &arguments);
    assert_eq!(follower.line(), "one\n");
    scratch.append(&["--flush", "group"], b"three\nfour\nfive\n");
    assert_eq!(follower.wait().exits(0).out, b"two\nthree\nfour\n");
}
