//! Readers that follow the tail, through memory and through files.

use highwater::{Ack, BackendChoice, Engine, Isolation, LogOptions, Offset, Options};

use crate::basics::{Scratch, batch, on_each_backend};

/// A reader is kept open over appends of all sizes, rolls, a truncation and a reopening, and reads
/// every number right, whatever part of it comes from memory.
#[test]
fn a_reader_at_the_tail_reads_what_was_appended_however_much_memory_there_is() {
    on_each_backend("tail", |scratch, backend| {
        for tail_cache_bytes in [0, 300 << 10, 64 << 20] {
            let name = format!("log-{tail_cache_bytes}");
            let options = Options { tail_cache_bytes, ..scratch.options(backend) };
            let engine = Engine::open(options).expect("opens");
            let options = LogOptions { segment_bytes: Some(256 << 10), ..Default::default() };
            let log = engine.log(&name, options).expect("opens");
            let mut reader = log.read(Offset(0), Isolation::Written).expect("reads");
            let (mut next, mut read) = (0, 0);
            for round in 0..200_u64 {
                let size = [10, 900, 5000, 60_000][usize::try_from(round % 4).expect("small")];
                let receipts: Vec<_> = (0..1 + round % 3)
                    .map(|_| {
                        let receipt = log.append(batch(next, 2, size), Ack::LEADER);
                        next += 2;
                        receipt.expect("appends")
                    })
                    .collect();
                for receipt in receipts {
                    receipt.wait().expect("acked");
                }
                if round == 120 {
                    // What the reader has not seen yet goes.
                    next = log.truncate(Offset(read)).expect("truncates").log_end.0;
                    log.reopen().expect("reopens");
                }
                // Behind at first, then up with the writer.
                if round > 20 {
                    for batch in reader.by_ref() {
                        for record in batch.expect("undamaged").records() {
                            let value = record.expect("well formed").value.unwrap_or_default();
                            let bytes = value.first_chunk().copied().unwrap_or_default();
                            assert_eq!(u64::from_le_bytes(bytes), read);
                            read += 1;
                        }
                    }
                    assert_eq!(read, next, "round {round}");
                }
            }
            drop(reader);
            engine.close().expect("closes");
        }
    });
}

/// The zeros at the end of an open log's last block are no gap: the next group begins there. Found
/// by the simulator as a false report of damage.
#[test]
fn zeros_at_the_end_of_the_tail_block_are_not_passed_for_good() {
    on_each_backend("tail-zeros", |scratch, backend| {
        for tail_cache_bytes in [0, 64 << 20] {
            let name = format!("log-{tail_cache_bytes}");
            let options = Options { tail_cache_bytes, ..scratch.options(backend) };
            let engine = Engine::open(options).expect("opens");
            let log = engine.log(&name, LogOptions::default()).expect("opens");
            let mut reader = log.read(Offset(0), Isolation::Written).expect("reads");
            // Batches of all sizes around a block: some leave less than a header to its end.
            for (next, size) in (0..).zip((3900..4010).chain(7990..8090)) {
                log.append(batch(next, 1, size), Ack::LEADER)
                    .expect("appends")
                    .wait()
                    .expect("acked");
                let read: Vec<_> = reader.by_ref().map(|batch| batch.expect("undamaged")).collect();
                assert_eq!(read.len(), 1, "{size} bytes");
            }
            engine.close().expect("closes");
        }
    });
}

#[test]
fn too_much_memory_for_the_tail_is_refused() {
    let scratch = Scratch::new("tail-options");
    let base = scratch.options(BackendChoice::Auto);
    let error = Engine::open(Options { tail_cache_bytes: (4 << 30) + 1, ..base });
    assert_eq!(error.expect_err("too much").kind(), &highwater::ErrorKind::Config);
}
