//! Every combination of facts meets exactly one case, and the cases keep their promises.

use std::collections::BTreeSet;

use super::*;
use crate::meta::tests::sample;
use crate::types::LogId;

/// Calls `visit` with every combination of facts about a tail; offsets need only their order.
fn all_tails(mut visit: impl FnMut(TailFacts)) {
    for bits in 0..16_u32 {
        let bit = |index: u32| bits & (1 << index) != 0;
        for mark in 0..3 {
            for stop in 0..3 {
                for proven in 0..3 {
                    visit(TailFacts {
                        mark: Offset(mark),
                        stop: Offset(stop),
                        proven: Offset(proven),
                        clean: bit(0),
                        newer_generation: bit(1),
                        successor: bit(2),
                        plain: bit(3),
                    });
                }
            }
        }
    }
}

#[test]
fn a_tail_is_cut_exactly_where_nothing_proves_a_flush_above_it() {
    let mut seen = BTreeSet::new();
    all_tails(|facts| {
        let case = decide_tail(&facts);
        seen.insert(case);
        let proven = facts.mark.max(facts.proven) > facts.stop || facts.newer_generation;
        assert_eq!(case.is_corruption(), proven, "{facts:?}");
        let cuts = matches!(case, TailCase::T2TornTail | TailCase::T3HoleInOlder);
        assert!(!cuts || facts.stop >= facts.mark.max(facts.proven), "{facts:?}");
        let plain = facts.plain || facts.clean;
        assert!(case != TailCase::T1PlainEnd || plain && !facts.successor, "{facts:?}");
    });
    assert_eq!(seen.len(), TailCase::ALL.len(), "every case is reachable");
}

#[test]
fn a_segment_is_removed_only_if_nothing_in_it_is_proven() {
    let mut seen = BTreeSet::new();
    for header in
        [HeaderFact::Good, HeaderFact::Bad, HeaderFact::Foreign, HeaderFact::UnknownVersion]
    {
        for (base, end, proven, holds) in (0..3).flat_map(|b| {
            (0..3).flat_map(move |e| (0..3).flat_map(move |p| [false, true].map(|h| (b, e, p, h))))
        }) {
            let facts = SegmentFacts {
                header,
                base: Offset(base),
                chain_end: Offset(end),
                proven: Offset(proven),
                holds_mark: holds,
            };
            let case = decide_segment(&facts);
            seen.insert(case);
            let removed = matches!(case, SegmentCase::S2AboveCut | SegmentCase::S3TornRoll);
            assert!(!removed || facts.proven <= facts.base, "{facts:?}");
            let scanned = case == SegmentCase::S1Follows;
            assert!(!scanned || header == HeaderFact::Good, "{facts:?}");
        }
    }
    assert_eq!(seen.len(), SegmentCase::ALL.len(), "every case is reachable");
}

#[test]
fn every_pair_of_slots_meets_its_case() {
    let open = sample();
    let clean = |sequence| LogMeta { state: LogState::Clean, sequence, ..sample() };
    let foreign = LogMeta { log_id: LogId(3), ..sample() };
    let newer = LogMeta { sequence: 9, ..sample() };
    let bad = || Err(SlotFault::Checksum { stored: 1, computed: 2 });
    let blank = || Err(SlotFault::Blank);
    let table: Vec<([Slot; 2], bool, MetaCase, Option<u64>)> = vec![
        ([blank(), blank()], false, MetaCase::M1NeverCreated, None),
        ([bad(), blank()], false, MetaCase::M1NeverCreated, None),
        ([bad(), blank()], true, MetaCase::M2Lost, None),
        ([Ok(clean(8)), Ok(clean(7))], true, MetaCase::M3Clean, Some(8)),
        ([Ok(clean(8)), Ok(newer.clone())], true, MetaCase::M4Open, Some(9)),
        ([Ok(open.clone()), Ok(clean(9))], true, MetaCase::M4Open, Some(9)),
        ([Ok(open.clone()), Ok(newer)], true, MetaCase::M4Open, Some(9)),
        ([Ok(open.clone()), bad()], true, MetaCase::M5TornSlot, Some(8)),
        ([blank(), Ok(open.clone())], false, MetaCase::M5TornSlot, Some(8)),
        ([bad(), Ok(clean(8))], true, MetaCase::M6BadSlotBesideClean, Some(8)),
        ([Ok(open), Ok(foreign)], true, MetaCase::M7TwoLogs, None),
        ([Err(SlotFault::Version(2)), blank()], true, MetaCase::M8UnknownVersion, None),
    ];
    let mut seen = BTreeSet::new();
    for (slots, segments_exist, case, sequence) in table {
        let (decided, meta) = decide_meta(&slots, segments_exist);
        assert_eq!((decided, meta.map(|m| m.sequence)), (case, sequence), "{slots:?}");
        seen.insert(decided);
    }
    assert_eq!(seen.len(), MetaCase::ALL.len(), "every case is reachable");
}

#[test]
fn clean_slots_that_differ_in_the_mark_do_not_count_as_clean() {
    let a = LogMeta { state: LogState::Clean, sequence: 8, ..sample() };
    let mut b = LogMeta { sequence: 9, ..a.clone() };
    b.flushed.offset = Offset(11);
    assert_eq!(decide_meta(&[Ok(a), Ok(b)], true).0, MetaCase::M4Open);
}
