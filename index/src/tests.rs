use super::*;

const SALT: u64 = 0x1234_5678_9abc_def0;
/// Every so manieth case: all of them, but few where Miri walks them. Odd, so that entries are hit
/// at all their bytes.
const OFFSET_STEP: usize = if cfg!(miri) { 13 } else { 1 };
const TIME_STEP: usize = if cfg!(miri) { 61 } else { 1 };
const BYTE_STEP: usize = if cfg!(miri) { 29 } else { 1 };

/// 200 batches of three records and 1000 bytes, from offset 1000 on; (offset, position, time).
fn batches() -> Vec<(u64, u64, i64)> {
    (0..200).map(|n| (1000 + n * 3, 4096 + n * 1000, wave(n))).collect()
}

/// Times that rise on the whole but not always.
fn wave(n: u64) -> i64 {
    let n = i64::try_from(n).expect("small");
    n * 10 - (n % 7) * 35
}

fn sample() -> SparseIndex {
    let mut index = SparseIndex::new(1000);
    for (offset, position, time) in batches() {
        index.note(offset, position, 4, time);
    }
    index
}

fn file() -> Vec<u8> {
    sample().encode(SALT, 1600).expect("whole")
}

#[test]
fn lookups_by_offset_agree_with_a_linear_search() {
    let (index, bytes) = (sample(), file());
    let view = IndexView::decode(&bytes, 1000).expect("good");
    for offset in (990..1700_u64).step_by(OFFSET_STEP) {
        let naive = index
            .entries()
            .iter()
            .rev()
            .map(|e| (1000 + u64::from(e.relative_offset), u64::from(e.position)))
            .find(|(base, _)| *base <= offset);
        assert_eq!(index.lookup(offset), naive, "{offset}");
        assert_eq!(view.lookup(offset), naive, "{offset}");
    }
}

#[test]
fn a_lookup_by_time_never_skips_the_first_batch_that_fits() {
    let (index, bytes, all) = (sample(), file(), batches());
    let view = IndexView::decode(&bytes, 1000).expect("good");
    for time in (-300..2100).step_by(TIME_STEP) {
        let hint = index.lookup_time(time);
        assert_eq!(view.lookup_time(time), hint, "{time}");
        let Some((offset, position)) = hint else { continue };
        assert!(all.iter().any(|(o, p, _)| (*o, *p) == (offset, position)), "{time}: a batch");
        let first = all.iter().find(|(.., t)| *t >= time);
        assert!(first.is_none_or(|(first, ..)| *first > offset), "{time}: {first:?}, {offset}");
        // Not needlessly early either: at most one interval before it.
        let end = first.map_or(u64::MAX, |(first, ..)| *first);
        let behind = all.iter().filter(|(o, ..)| *o > offset && *o < end).count();
        assert!(behind <= 5, "{time}: {behind} batches to walk");
    }
    let newest = all.iter().map(|(.., time)| *time).max();
    assert_eq!(Some(view.max_timestamp_ms()), newest);
}

#[test]
fn any_changed_byte_of_an_index_is_noticed() {
    let bytes = file();
    let view = IndexView::decode(&bytes, 1000).expect("good");
    assert_eq!((view.seal().salt, view.seal().end_offset), (SALT, 1600));
    assert_eq!((view.seal().last_position, view.seal().last_generation), (4096 + 199_000, 4));
    let mut longer = bytes.clone();
    longer.resize(bytes.len().next_multiple_of(4096), 0);
    assert_eq!(IndexView::decode(&longer, 1000).expect("good").len(), view.len());
    for at in (0..bytes.len()).step_by(BYTE_STEP) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        assert!(IndexView::decode(&damaged, 1000).is_err(), "byte {at}");
        assert!(IndexView::decode(&bytes[..at], 1000).is_err(), "length {at}");
    }
    assert_eq!(IndexView::decode(&bytes, 0).err(), Some(IndexFault::BaseOffset(1000)));
}

#[test]
fn an_index_that_begins_inside_its_segment_says_nothing_of_time_until_it_is_made_whole() {
    let (mut before, mut after) = (SparseIndex::new(1000), SparseIndex::new(1000));
    for (n, (offset, position, time)) in batches().into_iter().enumerate() {
        let half = if n < 90 { &mut before } else { &mut after };
        half.note(offset, position, 4, time + if n == 20 { 5000 } else { 0 });
    }
    assert!(!after.is_whole() && after.encode(SALT, 1600).is_none());
    assert_eq!(after.first_offset(), Some(1270));
    assert_eq!(after.lookup_time(i64::MAX), None);
    assert!(after.lookup(1500).is_some());
    let mut empty = SparseIndex::new(1000);
    empty.prepend(&before, 1270);
    assert_eq!(empty.entries(), before.entries());
    let (offset, position, time) = batches()[90];
    empty.note(offset, position, 5, time);
    assert_eq!(empty.lookup(offset), Some((offset, position)), "a new life gets its entry");
    after.prepend(&before, 1267);
    assert!(!after.is_whole(), "there is a gap");
    after.prepend(&before, 1270);
    assert!(after.is_whole());
    let bytes = after.encode(SALT, 1600).expect("whole");
    let view = IndexView::decode(&bytes, 1000).expect("in order");
    assert_eq!(view.max_timestamp_ms(), wave(20) + 5000);
    // The largest time is in the front part: nothing behind it is in front of it.
    assert!(view.lookup_time(4000).is_none_or(|(offset, _)| offset <= 1060));
    // Twice in front is once too often.
    let entries = after.entries().len();
    after.prepend(&before, 1270);
    assert_eq!(after.entries().len(), entries);
}

#[test]
fn a_count_beyond_the_bytes_reserves_nothing() {
    let mut bytes = file();
    for count in [u32::MAX, 1 << 19, 100_000] {
        bytes[12..16].copy_from_slice(&count.to_le_bytes());
        assert_eq!(IndexView::decode(&bytes, 1000).err(), Some(IndexFault::Count));
    }
}
