//! The oracle finds what is planted, and nothing else.

use highwater::{
    Ack, Engine, FlushPolicy, LogOptions, Options, Preparation, ProducerId, RecordBatch,
};

use super::original::{CHECK, Proof};
use super::*;
use crate::scratch::{Files, read_files, write_files};
use crate::written::{LOG, PRODUCER};

const SEED: u64 = 26;
const BATCHES: usize = 60;
const BATCH_RECORDS: usize = 5;

/// Writes a log of several segments, without the binary; killed, it ends above its mark.
fn original(scratch: &Scratch, closed: bool) -> Result<Original, Failure> {
    let directory = scratch.path().join("data");
    write_files(&directory, &Files::new())?;
    let mut written = Written::new(&SeededRandom::new(SEED));
    let engine = Engine::open(Options::at(&directory))?;
    let options = LogOptions {
        segment_bytes: Some(64 << 10),
        flush: FlushPolicy::NONE,
        prepare: Preparation::Never,
        ..LogOptions::default()
    };
    let log = engine.log(LOG, options)?;
    let mut producer = log.producer(ProducerId(PRODUCER))?;
    for lines in written.lines.chunks(BATCH_RECORDS).take(BATCHES) {
        let builder =
            lines.iter().fold(RecordBatch::builder(), |builder, line| builder.value(line));
        log.append(producer.number(builder.build()?), Ack::LEADER)?.wait()?;
        written.records.extend(lines.iter().cloned());
    }
    drop(log);
    // Nothing is in flight: what a kill would leave.
    let killed = read_files(&directory)?;
    engine.close()?;
    if !closed {
        write_files(&directory, &killed)?;
    }
    Original::new(&directory, written, closed)
}

/// Returns a flip in the records of the last batch.
fn in_last_batch(original: &Original) -> Option<Flip> {
    let (file, end) = original.ends.iter().next_back()?;
    Some(Flip { file: file.clone(), bit: (end - 9) * 8 })
}

#[test]
fn a_record_that_is_not_the_one_written_is_found() -> Result<(), Failure> {
    let scratch = Scratch::new("flips-wrong")?;
    let mut original = original(&scratch, true)?;
    let directory = scratch.path().join("data");
    let check = |original: &Original| {
        let judged = original.check(&directory, None, &mut SeededRandom::new(SEED));
        judged.err().map(|failure| failure.to_string())
    };
    assert_eq!(check(&original), None);
    let good = original.written.clone();
    original.written.records[123][0] ^= 1;
    let found = check(&original).unwrap_or_default();
    assert!(found.contains("offset 123 was read, which is not what was written"), "{found}");
    // One record more than there is: the log ends short of it.
    original.written = good.continued(good.records.len(), CHECK);
    let found = check(&original).unwrap_or_default();
    assert!(found.contains("it ends at 300 of 301"), "{found}");
    original.written = good.continued(good.records.len() - 2, good.records.last().ok_or("some")?);
    let found = check(&original).unwrap_or_default();
    assert!(found.contains("offset 298 was read"), "{found}");
    original.written = good;
    original.times.iter_mut().for_each(|time| *time += 1_000_000);
    let found = check(&original).unwrap_or_default();
    assert!(found.contains("silently; 300 is proven"), "{found}");
    Ok(())
}

#[test]
fn what_is_cut_below_a_mark_is_found_and_above_all_marks_is_a_torn_tail() -> Result<(), Failure> {
    let scratch = Scratch::new("flips-cut")?;
    let mut original = original(&scratch, false)?;
    let directory = scratch.path().join("data");
    let flip = in_last_batch(&original).ok_or("a segment")?;
    let mut random = SeededRandom::new(SEED);
    let outcome = original.check(&directory, Some(&flip), &mut random)?;
    assert!(outcome.hit && outcome.cut && !outcome.told && outcome.appended, "{outcome:?}");
    // Without its magic it is not even torn: other bytes may be of an earlier use of the file.
    let last = original.proofs.iter().rfind(|proof| proof.file == flip.file).ok_or("a batch")?;
    let magic = Flip { bit: last.bytes.start * 8 + 27, ..flip.clone() };
    let outcome = original.check(&directory, Some(&magic), &mut random)?;
    assert!(outcome.hit && outcome.cut && !outcome.told && outcome.appended, "{outcome:?}");
    let mark = original.written.records.len();
    original.proofs.push(Proof { file: PathBuf::new(), bytes: 0..0, mark });
    let judged = original.check(&directory, Some(&flip), &mut random);
    let found = judged.err().map(|failure| failure.to_string()).unwrap_or_default();
    assert!(found.contains("it ends at 295 silently; 300 is proven"), "{found}");
    Ok(())
}

#[test]
fn damage_that_nobody_tells_of_is_found() -> Result<(), Failure> {
    let scratch = Scratch::new("flips-untold")?;
    let mut original = original(&scratch, true)?;
    let directory = scratch.path().join("data");
    // Behind the end of the log; the oracle is made to believe that it counts.
    let (file, end) = original.ends.iter().next_back().ok_or("a segment")?;
    let flip = Flip { file: file.clone(), bit: (end + 5000) * 8 };
    original.files.get_mut(&flip.file).ok_or("there")?.resize(flip.byte() + 4096, 0);
    let judged = original.check(&directory, Some(&flip), &mut SeededRandom::new(SEED));
    assert!(judged.is_ok_and(|outcome| !outcome.hit && !outcome.told));
    original.ends.insert(flip.file.clone(), flip.byte() + 1);
    let judged = original.check(&directory, Some(&flip), &mut SeededRandom::new(SEED));
    let found = judged.err().map(|failure| failure.to_string()).unwrap_or_default();
    assert!(found.contains("verify sees no damage"), "{found}");
    Ok(())
}

#[test]
fn no_flipped_bit_is_served_or_cuts_what_is_proven() -> Result<(), Failure> {
    println!("seed {SEED}");
    let scratch = Scratch::new("flips-some")?;
    let logs = [original(&scratch, true)?, original(&scratch, false)?];
    let summary = flip_all(scratch.path(), &SeededRandom::new(SEED), &logs, 40);
    assert_eq!((summary.flips, summary.findings.as_slice()), (40, &[][..]), "{summary}");
    assert!(summary.told > 0, "{summary}");
    Ok(())
}
