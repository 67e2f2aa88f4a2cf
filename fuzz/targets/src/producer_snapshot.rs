//! Snapshots of the producers: whatever decodes encodes to the same bytes again, is bounded, and
//! can be gone on with.

use highwater_segment::producer_snapshot::ProducerSnapshot;
use highwater_segment::producers::{MAX_PRODUCERS, NumberedBatch, Verdict, WINDOW_BATCHES};
use highwater_segment::{Epoch, ProducerStamp};

/// Where the checksum stands, and what it covers of a file with so many entries.
const CRC_AT: usize = 12;
const COUNT_AT: usize = 68;
const HEADER_BYTES: usize = 96;
const ENTRY_BYTES: usize = 144;

/// The file as it is, and with a checksum that fits.
pub(crate) fn check(bytes: &[u8]) {
    agree(bytes);
    let mut sealed = bytes.to_vec();
    seal(&mut sealed);
    agree(&sealed);
}

fn seal(file: &mut [u8]) {
    if file.len() < HEADER_BYTES {
        return;
    }
    file[..8].copy_from_slice(&highwater_segment::producer_snapshot::MAGIC);
    file[8..12].copy_from_slice(&1_u32.to_le_bytes());
    let count = u32::from_le_bytes([0, 1, 2, 3].map(|index| file[COUNT_AT + index]));
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let Some(end) = count.checked_mul(ENTRY_BYTES).and_then(|all| all.checked_add(HEADER_BYTES))
    else {
        return;
    };
    if end <= file.len() {
        file[CRC_AT..CRC_AT + 4].fill(0);
        let crc = crc32c::crc32c(&file[..end]);
        file[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

fn agree(file: &[u8]) {
    let Ok(snapshot) = ProducerSnapshot::decode(file) else { return };
    let encoded = snapshot.encode();
    assert!(file.starts_with(&encoded), "decode and encode agree");
    assert!(snapshot.table.len() <= MAX_PRODUCERS, "a table is bounded");
    let mut table = snapshot.table.clone();
    for (id, known) in snapshot.table.iter() {
        assert!((1..=WINDOW_BATCHES).contains(&known.batches.len()), "a window is bounded");
        assert!(known.end_offset() <= snapshot.at.offset, "what is known lies below");
        let stamp = ProducerStamp { id, epoch: known.epoch, base_sequence: known.next_sequence() };
        let next = NumberedBatch { stamp, records: 1, records_crc: 0 };
        assert_eq!(table.judge(&next, i64::MAX).1, Verdict::Append, "its next number comes next");
    }
    if let Some((id, known)) = snapshot.table.iter().next() {
        let stamp = ProducerStamp { id, epoch: known.epoch, base_sequence: known.next_sequence() };
        let next = NumberedBatch { stamp, records: 1, records_crc: 0 };
        table.note(&next, snapshot.at.offset, Epoch(1));
        let again = table.judge(&next, i64::MAX).1;
        assert!(matches!(again, Verdict::Duplicate(_)), "what was noted is a duplicate");
    }
    table.expire(0);
}
