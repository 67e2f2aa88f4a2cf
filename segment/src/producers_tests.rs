use super::producers::*;
use super::types::{Epoch, Offset};

const DAY_MS: i64 = 86_400_000;

fn batch(epoch: i16, base_sequence: i32, records: u32) -> NumberedBatch {
    let (epoch, base_sequence) = (ProducerEpoch(epoch), Sequence(base_sequence));
    let stamp = ProducerStamp { id: ProducerId(7), epoch, base_sequence };
    NumberedBatch { stamp, records, records_crc: 1 }
}

/// Returns the table after batches of producer 7 with so many records each, in epoch 3, the first
/// with the number `from`; the first record of the log is 100.
fn table(from: i32, batches: &[u32]) -> ProducerTable {
    let mut table = ProducerTable::at(0);
    let (mut next, mut offset) = (Sequence(from), Offset(100));
    for records in batches {
        table.note(&batch(3, next.0, *records), offset, Epoch(1));
        next = next.plus(*records);
        offset = offset.plus(*records);
    }
    table
}

#[test]
fn table_p_tells_the_next_the_known_and_the_rest_apart() {
    use ProducerCase as Case;
    const MAX: i32 = i32::MAX;
    let append = Verdict::Append;
    let refuse = Verdict::Refuse;
    let duplicate = |(base, base_sequence, records)| {
        Verdict::Duplicate(SeenBatch {
            base_offset: Offset(base),
            base_sequence: Sequence(base_sequence),
            records,
            records_crc: 1,
            leader_epoch: Epoch(1),
        })
    };
    let differs = NumberedBatch { records_crc: 2, ..batch(3, 2, 3) };
    // What is known (first number, records of each batch), the batch, what it is, what is done.
    let rows: &[(i32, &[u32], NumberedBatch, Case, Verdict)] = &[
        (0, &[], batch(0, 0, 1), Case::P1New, append),
        (0, &[], batch(9, 0, 1), Case::P1New, append),
        (0, &[], batch(0, 1, 1), Case::P2Unknown, refuse),
        (0, &[2], batch(2, 2, 1), Case::P3Fenced, refuse),
        (0, &[2], batch(2, 0, 2), Case::P3Fenced, refuse),
        (0, &[2], batch(4, 0, 1), Case::P4NewEpoch, append),
        (0, &[2], batch(4, 2, 1), Case::P5EpochNotAtZero, refuse),
        (0, &[2], batch(3, 2, 1), Case::P6Next, append),
        (0, &[2, 3], batch(3, 5, 1), Case::P6Next, append),
        (0, &[2, 3], batch(3, 0, 2), Case::P7Duplicate, duplicate((100, 0, 2))),
        (0, &[2, 3], batch(3, 2, 3), Case::P7Duplicate, duplicate((102, 2, 3))),
        (0, &[2, 3], differs, Case::P8Differs, refuse),
        (0, &[2, 3], batch(3, 2, 2), Case::P8Differs, refuse),
        (0, &[2, 3], batch(3, 1, 1), Case::P8Differs, refuse),
        (0, &[2, 3], batch(3, 4, 7), Case::P8Differs, refuse),
        (0, &[1; 5], batch(3, 0, 1), Case::P7Duplicate, duplicate((100, 0, 1))),
        (0, &[1; 6], batch(3, 1, 1), Case::P7Duplicate, duplicate((101, 1, 1))),
        (0, &[1; 6], batch(3, 0, 1), Case::P9BehindWindow, refuse),
        (0, &[2], batch(3, 3, 1), Case::P10Gap, refuse),
        (0, &[2], batch(3, 1 << 29, 1), Case::P10Gap, refuse),
        // 0 follows the largest number, between batches and inside one.
        (MAX - 1, &[2], batch(3, 0, 1), Case::P6Next, append),
        (MAX - 1, &[4], batch(3, 2, 1), Case::P6Next, append),
        (MAX - 1, &[2, 2], batch(3, MAX - 1, 2), Case::P7Duplicate, duplicate((100, MAX - 1, 2))),
        (MAX - 1, &[2, 2], batch(3, 0, 2), Case::P7Duplicate, duplicate((102, 0, 2))),
        (MAX - 1, &[2, 2], batch(3, MAX - 2, 1), Case::P9BehindWindow, refuse),
        (MAX - 1, &[2], batch(3, 1, 1), Case::P10Gap, refuse),
        (MAX - 1, &[1], batch(3, 0, 1), Case::P10Gap, refuse),
    ];
    for (row, (from, batches, batch, case, verdict)) in rows.iter().enumerate() {
        let found = table(*from, batches).judge(batch, DAY_MS);
        assert_eq!(found, (*case, *verdict), "row {row}: {}", found.0.label());
    }
}

#[test]
fn a_window_is_of_one_epoch_and_bounded() {
    let mut table = table(0, &[1; 9]);
    let known = |table: &ProducerTable| table.get(ProducerId(7), DAY_MS).cloned().expect("known");
    assert_eq!(known(&table).batches.len(), WINDOW_BATCHES);
    assert_eq!(known(&table).end_offset(), Offset(109));
    table.note(&batch(4, 0, 2), Offset(109), Epoch(1));
    assert_eq!((known(&table).batches.len(), known(&table).next_sequence()), (1, Sequence(2)));
    // A replay that passed over damage: what does not follow begins anew.
    table.note(&batch(4, 9, 1), Offset(200), Epoch(1));
    assert_eq!((known(&table).batches.len(), known(&table).next_sequence()), (1, Sequence(10)));
}

#[test]
fn producers_expire_by_log_time_and_by_nothing_else() {
    let mut table = table(0, &[1]);
    table.note_time(50);
    let id = ProducerId(7);
    assert!(table.get(id, 50).is_some(), "50 ms is within 50 ms");
    assert!(table.get(id, 49).is_none());
    assert_eq!(table.judge(&batch(3, 1, 1), 49).0, ProducerCase::P2Unknown);
    // An old timestamp is no going back, and who appends with one is not old by that.
    table.note_time(-1000);
    table.note(&batch(3, 1, 1), Offset(101), Epoch(1));
    assert_eq!(table.log_time_ms(), 50);
    assert!(table.get(id, 0).is_some());
    table.note_time(51);
    table.expire(1);
    assert_eq!(table.len(), 1);
    table.expire(0);
    assert!(table.is_empty() && table.iter().next().is_none());
    table.note_time(i64::MAX);
    table.note(&batch(3, 0, 1), Offset(102), Epoch(1));
    assert!(table.get(id, 0).is_some(), "the end of time is no overflow");
}

#[test]
#[cfg_attr(miri, ignore = "fills the largest table, ten thousand producers: minutes")]
fn the_one_that_appended_longest_ago_makes_room() {
    let mut table = ProducerTable::at(0);
    let of = |id: i64, sequence: i32| {
        let (id, epoch) = (ProducerId(id), ProducerEpoch(0));
        let stamp = ProducerStamp { id, epoch, base_sequence: Sequence(sequence) };
        NumberedBatch { stamp, records: 1, records_crc: 0 }
    };
    let most = i64::try_from(MAX_PRODUCERS).expect("fits");
    let mut offset = Offset(0);
    let mut note = |table: &mut ProducerTable, batch: NumberedBatch| {
        table.note(&batch, offset, Epoch(1));
        offset = offset.plus(1);
    };
    for id in 0..most {
        note(&mut table, of(id, 0));
    }
    note(&mut table, of(0, 1));
    note(&mut table, of(most, 0));
    let known = |id| table.get(ProducerId(id), DAY_MS).is_some();
    assert_eq!(table.len(), MAX_PRODUCERS);
    assert!(known(0) && !known(1) && known(2) && known(most));
    assert_eq!(table.iter().count(), MAX_PRODUCERS);
}
