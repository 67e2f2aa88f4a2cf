//! Lookups by offset and by time, and that index files decide nothing about their answers (D8).

use std::path::{Path, PathBuf};

use highwater::inspect::{OutsideReader, summaries, verify};
use highwater::{
    Ack, BackendChoice, Engine, Isolation, Log, LogOptions, Offset, Options, RecordBatch,
};

use crate::basics::Scratch;

/// Offsets and times of what was appended.
type Model = Vec<i64>;

/// Times that rise on the whole, with steps back and plateaus.
fn time_of(number: usize) -> i64 {
    let number = i64::try_from(number).expect("small");
    1000 + number / 3 * 20 - (number % 11) * 70 + if number % 97 == 0 { 900 } else { 0 }
}

fn append(log: &Log, model: &mut Model, batches: usize) {
    let mut receipts = Vec::new();
    for round in 0..batches {
        let mut builder = RecordBatch::builder();
        for _ in 0..1 + round % 3 {
            let time = time_of(model.len());
            let value = vec![b'v'; 200 + (model.len() % 5) * 700];
            builder.push(Some(time), None, Some(&value), &[]);
            model.push(time);
        }
        receipts.push(log.append(builder.build().expect("fits"), Ack::NONE).expect("appends"));
    }
    receipts.push(log.flush().expect("asked"));
    for receipt in receipts {
        receipt.wait().expect("acked");
    }
}

fn open(scratch: &Scratch) -> (Engine, Log) {
    let engine = Engine::open(scratch.options(BackendChoice::Auto)).expect("opens");
    let options = LogOptions { segment_bytes: Some(64 << 10), ..Default::default() };
    let log = engine.log("log", options).expect("opens");
    (engine, log)
}

/// The times worth asking for: around each that is there, and beyond both ends.
fn times(model: &Model) -> Vec<i64> {
    let step = 1 + model.len() / 40;
    let mut all: Vec<_> = model.iter().step_by(step).flat_map(|t| [*t, *t + 1]).collect();
    all.extend([i64::MIN, 0, i64::MAX]);
    all.sort_unstable();
    all.dedup();
    all
}

fn linear(model: &Model, start: usize, time: i64) -> Option<Offset> {
    let found = model.iter().enumerate().skip(start).find(|(_, own)| **own >= time);
    found.map(|(number, _)| Offset(u64::try_from(number).expect("small")))
}

/// Checks every answer, inside and outside.
fn check(root: &Path, log: Option<&Log>, model: &Model, start: usize) {
    let end = u64::try_from(model.len()).expect("small");
    for time in times(model) {
        let right = linear(model, start, time);
        if let Some(log) = log {
            let found = log.offset_at(time, Isolation::Durable).expect("readable");
            assert_eq!(found, right, "time {time}");
        }
        let mut outside =
            OutsideReader::open_at_start(root, "log", Isolation::Committed).expect("opens");
        assert_eq!(outside.seek_time(time).expect("readable"), right, "outside, time {time}");
    }
    for from in (start..model.len()).step_by(1 + model.len() / 20) {
        let from = Offset(u64::try_from(from).expect("small"));
        if let Some(log) = log {
            let mut next = from;
            for batch in log.read(from, Isolation::Written).expect("readable").take(10) {
                for record in batch.expect("undamaged").records() {
                    let record = record.expect("well formed");
                    assert_eq!(record.offset, next);
                    let number = usize::try_from(next.0).expect("small");
                    assert_eq!(record.timestamp_ms, model[number]);
                    next = next.plus(1);
                }
            }
        }
        let outside = OutsideReader::open(root, "log", from, Isolation::Written).expect("opens");
        let first = outside.take(1).next().expect("there").expect("undamaged");
        let first = first.records().next().expect("there").expect("well formed");
        assert_eq!(first.offset, from);
    }
    let verdicts = verify(root, None).expect("verified");
    assert!(verdicts[0].damages.is_empty(), "{:?}", verdicts[0].damages);
    let lines = summaries(root).expect("listed");
    assert_eq!((verdicts[0].log_end, lines[0].log_end), (Offset(end), Offset(end)));
}

fn index_files(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root.join("log")).expect("listed");
    let paths = entries.map(|entry| entry.expect("listed").path());
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "index")).collect();
    files.sort();
    files
}

#[test]
fn a_time_finds_the_first_record_that_is_not_older_across_cuts_trims_and_restarts() {
    let scratch = Scratch::new("times");
    let mut model = Model::new();
    for life in 0..4_usize {
        let (engine, log) = open(&scratch);
        append(&log, &mut model, 150);
        check(&scratch.0, Some(&log), &model, usize::try_from(log.marks().log_start.0).expect(""));
        if life == 1 {
            // Into a sealed segment, which is written on then: its index is of no use any more.
            let to = u64::try_from(model.len() / 2).expect("small");
            let kept = usize::try_from(log.truncate(Offset(to)).expect("truncates").log_end.0);
            model.truncate(kept.expect("small"));
            append(&log, &mut model, 150);
        }
        if life == 2 {
            log.trim(Offset(100)).expect("trims");
        }
        let start = usize::try_from(log.marks().log_start.0).expect("small");
        check(&scratch.0, Some(&log), &model, start);
        if life != 3 {
            engine.close().expect("closes");
        }
    }
    let start = 100;
    check(&scratch.0, None, &model, start);
}

#[test]
fn a_reader_from_a_time_that_is_still_to_come_reads_what_comes() {
    let scratch = Scratch::new("times-to-come");
    let (_engine, log) = open(&scratch);
    let mut model = Model::new();
    append(&log, &mut model, 20);
    let mut reader = log.read_from_time(i64::MAX, Isolation::Written).expect("reads");
    assert!(reader.next().is_none());
    let end = log.marks().log_end;
    append(&log, &mut model, 1);
    let batch = reader.next().expect("there").expect("undamaged");
    assert_eq!(batch.base_offset(), end);
}

type Harm = fn(&Path, &[PathBuf]);

fn harms() -> Vec<(&'static str, Harm)> {
    vec![
        ("removed", |_, files| {
            files.iter().for_each(|file| std::fs::remove_file(file).expect("done"));
        }),
        ("one removed", |_, files| std::fs::remove_file(&files[0]).expect("done")),
        ("emptied", |_, files| {
            files.iter().for_each(|file| std::fs::write(file, b"").expect("done"));
        }),
        ("cut in half", |_, files| {
            for path in files {
                let file = std::fs::OpenOptions::new().write(true).open(path).expect("done");
                file.set_len(file.metadata().expect("done").len() / 2).expect("done");
            }
        }),
        ("bits flipped", |_, files| {
            for (at, path) in files.iter().enumerate() {
                let mut bytes = std::fs::read(path).expect("done");
                bytes[8 + 8 * (at % 20)] ^= 1;
                std::fs::write(path, bytes).expect("done");
            }
        }),
        ("a time changed in place", |_, files| {
            use std::os::unix::fs::FileExt;
            for path in files {
                let file = std::fs::OpenOptions::new().write(true).open(path).expect("done");
                file.write_all_at(&i64::MIN.to_le_bytes(), 48).expect("done");
                file.write_all_at(&i64::MAX.to_le_bytes(), 64 + 8).expect("done");
            }
        }),
        ("swapped", |_, files| {
            let contents: Vec<_> =
                files.iter().map(|path| std::fs::read(path).expect("done")).collect();
            for (path, bytes) in files.iter().zip(contents.iter().cycle().skip(1)) {
                std::fs::write(path, bytes).expect("done");
            }
        }),
        ("of another log", |root, files| {
            for path in files {
                let other = root.join("other").join(path.file_name().expect("done"));
                std::fs::copy(other, path).expect("done");
            }
        }),
        ("of before a cut", |root, files| {
            for path in files {
                let older = root.join("older").join(path.file_name().expect("done"));
                std::fs::copy(older, path).expect("done");
            }
        }),
        ("directories", |_, files| {
            for path in files {
                std::fs::remove_file(path).expect("done");
                std::fs::create_dir(path).expect("done");
            }
        }),
    ]
}

/// A log whose middle segments were cut off and written anew with other times at the very same
/// offsets and places; `older` holds the indexes of before, `other` those of another log.
fn prepared(scratch: &Scratch) -> Model {
    let (engine, log) = open(scratch);
    let options = LogOptions { segment_bytes: Some(64 << 10), ..Default::default() };
    let other = engine.log("other", options).expect("opens");
    let mut model = Model::new();
    append(&log, &mut model, 200);
    append(&other, &mut Model::new(), 200);
    // The index files are written beside the appends; closing waits for them.
    engine.close().expect("closes");
    let root = &scratch.0;
    std::fs::create_dir(scratch.0.with_extension("older")).expect("made");
    for path in index_files(root) {
        let kept = scratch.0.with_extension("older").join(path.file_name().expect("named"));
        std::fs::copy(&path, kept).expect("copied");
    }
    let (engine, log) = open(scratch);
    let cut = usize::try_from(log.truncate(Offset(40)).expect("truncates").log_end.0);
    let again: Model = model.split_off(cut.expect("small"));
    let mut receipts = Vec::new();
    for (number, time) in again.into_iter().enumerate() {
        let mut builder = RecordBatch::builder();
        let at = model.len();
        let value = vec![b'w'; 200 + (at % 5) * 700];
        let time = time + if number % 50 == 10 { 40_000 } else { -300 };
        builder.push(Some(time), None, Some(&value), &[]);
        model.push(time);
        receipts.push(log.append(builder.build().expect("fits"), Ack::NONE).expect("appends"));
    }
    receipts.push(log.flush().expect("asked"));
    for receipt in receipts {
        receipt.wait().expect("acked");
    }
    // Whatever began inside its segment gets its index from a reader.
    log.offset_at(i64::MAX, Isolation::Written).expect("readable");
    engine.close().expect("closes");
    std::fs::rename(scratch.0.with_extension("older"), root.join("older-indexes")).expect("moved");
    model
}

#[test]
fn whatever_becomes_of_index_files_no_answer_changes() {
    let scratch = Scratch::new("index-harm");
    let model = prepared(&scratch);
    let kept = scratch.0.with_extension("kept");
    drop(std::fs::remove_dir_all(&kept));
    std::fs::create_dir_all(kept.join("other")).expect("made");
    std::fs::rename(scratch.0.join("older-indexes"), kept.join("older")).expect("moved");
    let files = index_files(&scratch.0);
    assert!(files.len() > 4, "{files:?}");
    for path in &files {
        let name = path.file_name().expect("named");
        std::fs::copy(path, kept.join(name)).expect("copied");
        for (from, to) in [(scratch.0.join("other"), "other"), (kept.join("older"), "older")] {
            // Where the other has none of this name, this one's stands in, cut short.
            let other = std::fs::read(from.join(name)).unwrap_or_else(|_| vec![0; 64]);
            std::fs::write(kept.join(to).join(name), other).expect("written");
        }
    }
    check(&scratch.0, None, &model, 0);
    let mut saved = 0;
    for (what, harm) in harms() {
        println!("{what}");
        // Under an engine that has them mapped, and before it is opened.
        for under in [true, false] {
            let opened = under.then(|| open(&scratch));
            if let Some((_, log)) = &opened {
                check(&scratch.0, Some(log), &model, 0);
            }
            harm(&kept, &index_files(&scratch.0));
            let (engine, log) = opened.unwrap_or_else(|| open(&scratch));
            check(&scratch.0, Some(&log), &model, 0);
            saved += index_files(&scratch.0).len();
            engine.close().expect("closes");
            for path in index_files(&scratch.0) {
                if path.is_dir() {
                    std::fs::remove_dir(&path).expect("removed");
                }
            }
            for path in &files {
                std::fs::copy(kept.join(path.file_name().expect("named")), path).expect("copied");
            }
        }
    }
    assert!(saved >= files.len() * harms().len(), "what is rebuilt is saved: {saved}");
    std::fs::remove_dir_all(&kept).expect("removed");
}

#[test]
fn many_sealed_segments_are_looked_up_and_read_from_anywhere() {
    let scratch = Scratch::new("index-many");
    let engine =
        Engine::open(Options { tail_cache_bytes: 0, ..scratch.options(BackendChoice::Threads) })
            .expect("opens");
    let options = LogOptions { segment_bytes: Some(64 << 10), ..Default::default() };
    let log = engine.log("log", options).expect("opens");
    let mut model = Model::new();
    append(&log, &mut model, 800);
    check(&scratch.0, Some(&log), &model, 0);
    engine.close().expect("closes");
}
