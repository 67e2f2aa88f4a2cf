//! Compressed batches: transparent for readers, bytes like any others for everything else.

use std::path::{Path, PathBuf};

use highwater::inspect::{DumpItem, LogVerdict, OutsideReader, dump, verify};
use highwater::segment::{BatchHeader, FIRST_BATCH, HEADER_BYTES};
use highwater::{
    Ack, Codec, Compression, Engine, Isolation, LogOptions, Offset, RecordBatch, RecordError,
};

use crate::basics::{Scratch, on_each_backend, read_all};

/// Those that this build can do.
fn compressions() -> Vec<Compression> {
    let all = [Compression::None, Compression::Lz4, Compression::ZSTD];
    all.into_iter().filter(|compression| compression.codec().is_built_in()).collect()
}

fn batch(first: u64, count: u64, compression: Compression) -> RecordBatch {
    let mut builder = RecordBatch::builder().compression(compression);
    for number in first..first + count {
        let mut value = number.to_le_bytes().to_vec();
        value.resize(300, b'x');
        builder.push(None, None, Some(&value), &[]);
    }
    builder.build().expect("it fits")
}

#[test]
fn batches_of_every_codec_mix_in_one_log_and_are_read_back_alike() {
    on_each_backend("compression", |scratch, backend| {
        let engine = Engine::open(scratch.options(backend)).expect("opens");
        let options = LogOptions { segment_bytes: Some(256 << 10), ..Default::default() };
        let log = engine.log("mixed", options).expect("opens");
        let (mut next, mut receipts) = (0, Vec::new());
        for round in 0..60 {
            for compression in compressions() {
                let batch = batch(next, 1 + round % 40, compression);
                let smaller = batch.disk_bytes() < 300 * u64::from(batch.record_count());
                assert_eq!(smaller, compression != Compression::None);
                next += u64::from(batch.record_count());
                receipts.push(log.append(batch, Ack::LEADER).expect("taken"));
            }
        }
        for receipt in receipts {
            receipt.wait().expect("acked");
        }
        assert_eq!(read_all(&log, 0, Isolation::Committed), next);
        assert_eq!(read_all(&log, next / 2, Isolation::Committed), next, "inside a batch");
        engine.close().expect("closes");
        let outside = OutsideReader::open(&scratch.0, "mixed", Offset(0), Isolation::Durable);
        let outside = outside.expect("opens").map(|batch| batch.expect("undamaged"));
        let counts = outside.map(|batch| batch.records().filter(Result::is_ok).count());
        assert_eq!(counts.sum::<usize>(), usize::try_from(next).expect("few"));
        let engine = Engine::open(scratch.options(backend)).expect("opens again");
        let log = engine.log("mixed", LogOptions::default()).expect("opens");
        assert_eq!(read_all(&log, 0, Isolation::Durable), next);
        drop(engine);
        let verdict = only_verdict(&scratch.0);
        assert!(verdict.damages.is_empty() && verdict.notes.is_empty(), "{verdict:?}");
        assert_eq!(verdict.records, next);
    });
}

fn only_verdict(root: &Path) -> LogVerdict {
    let mut verdicts = verify(root, None).expect("verified");
    assert_eq!(verdicts.len(), 1);
    verdicts.remove(0)
}

/// Makes a log of one compressed batch, gives its header other attributes and a fitting checksum,
/// and returns the errors that reading gives.
fn with_attributes(scratch: &Scratch, codec: Codec) -> Vec<RecordError> {
    let engine = Engine::open(scratch.options(highwater::BackendChoice::Auto)).expect("opens");
    let log = engine.log("forged", LogOptions::default()).expect("opens");
    let sent = log.append(batch(0, 50, Compression::Lz4), Ack::LEADER_FLUSHED).expect("taken");
    sent.wait().expect("acked");
    engine.close().expect("closes");
    let segment = segment(scratch);
    let mut bytes = std::fs::read(&segment).expect("read");
    let at = usize::try_from(FIRST_BATCH.0).expect("small");
    let mut header = BatchHeader::decode(&bytes[at..]).expect("whole");
    header.attributes = header.attributes & !7 | codec.attribute_bits();
    bytes[at..at + HEADER_BYTES].copy_from_slice(&header.encode());
    std::fs::write(&segment, bytes).expect("written");
    let outside = OutsideReader::open(&scratch.0, "forged", Offset(0), Isolation::Durable);
    let batches: Vec<_> = outside.expect("opens").map(|batch| batch.expect("verifies")).collect();
    batches.iter().flat_map(|batch| batch.records().filter_map(Result::err)).collect()
}

fn segment(scratch: &Scratch) -> PathBuf {
    scratch.0.join("forged").join(format!("{:020}.log", 0))
}

/// The checksum of the stored bytes holds: nothing was damaged, it was written so.
#[test]
fn what_cannot_be_decompressed_is_one_error_a_batch_and_a_note_of_verify() {
    if !Codec::Lz4.is_built_in() {
        return;
    }
    let cases = [
        (Codec::Zstd, !Codec::Zstd.is_built_in(), "zstd"),
        (Codec::Unknown(6), true, "does not know"),
        (Codec::None, false, ""),
    ];
    for (codec, needs_another_build, words) in cases {
        let scratch = Scratch::new(&format!("forged-{}", codec.name()));
        let errors = with_attributes(&scratch, codec);
        assert_eq!(errors.len(), 1, "{codec:?} {errors:?}");
        assert_eq!(errors[0].needs_another_build, needs_another_build);
        let named = errors[0].to_string().contains(words) || codec.is_built_in();
        assert!(named, "{}", errors[0]);
        let verdict = only_verdict(&scratch.0);
        assert!(verdict.damages.is_empty() && verdict.notes.len() == 1, "{verdict:?}");
        assert_eq!((verdict.batches, verdict.records), (1, 50), "the scan needs no codec");
        let mut shown = Vec::new();
        let mut visit = |item: DumpItem<'_>| {
            if let DumpItem::Batch { batch, .. } = item {
                shown.push((batch.codec(), batch.stored().len()));
            }
        };
        dump(&segment(&scratch), &mut visit).expect("dumped");
        assert_eq!(shown.iter().map(|(codec, _)| *codec).collect::<Vec<_>>(), [codec]);
        // Opening for writing needs it neither.
        let engine = Engine::open(scratch.options(highwater::BackendChoice::Auto)).expect("opens");
        let log = engine.log("forged", LogOptions::default()).expect("opens");
        assert!(log.failure().is_none() && log.marks().log_end == Offset(50));
    }
}
