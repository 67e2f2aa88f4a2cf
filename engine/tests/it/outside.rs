//! Looking at a directory from outside.

use highwater::inspect::{OutsideReader, summaries, verify};
use highwater::{Isolation, Offset};

#[test]
fn a_log_whose_making_was_cut_short_is_empty_and_not_damaged() {
    let root = std::env::temp_dir().join(format!("highwater-cut-short-{}", std::process::id()));
    std::fs::create_dir_all(root.join(".pool")).expect("made");
    std::fs::create_dir_all(root.join("early")).expect("made");
    for meta in [None, Some(vec![]), Some(vec![0; 8192])] {
        if let Some(bytes) = meta {
            std::fs::write(root.join("early/log.meta"), bytes).expect("written");
        }
        for isolation in [Isolation::Committed, Isolation::Durable] {
            let reader = OutsideReader::open(&root, "early", Offset(0), isolation);
            assert_eq!(reader.expect("opens").count(), 0);
        }
        let lines = summaries(&root).expect("listed");
        assert!(lines.len() == 1 && lines[0].error.is_none(), "{lines:?}");
        assert!(verify(&root, None).expect("verified")[0].damages.is_empty());
    }
    std::fs::remove_dir_all(&root).expect("removed");
}
