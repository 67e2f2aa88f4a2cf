//! `log.meta`: whatever decodes encodes to the same bytes again, and the table answers for every
//! pair of slots.

use highwater_segment::meta::{MAGIC, SLOT_BYTES, VERSION, decode_slots};
use highwater_segment::recovery::{MetaCase, Slot, decide_meta};
use highwater_segment::{LogMeta, LogState};

use crate::seal::seal_block;

/// Checks the bytes as a file as they are; then, for short inputs too, as a file of two slots with
/// magic, version and checksums that fit.
pub(crate) fn check(bytes: &[u8]) {
    agree(bytes);
    let mut sealed = bytes.to_vec();
    sealed.resize(2 * SLOT_BYTES, 0);
    for slot in sealed.chunks_exact_mut(SLOT_BYTES) {
        slot[..MAGIC.len()].copy_from_slice(&MAGIC);
        slot[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&VERSION.to_le_bytes());
        seal_block(slot);
    }
    agree(&sealed);
    // A short input reaches only one slot: take it for both, with and without the difference.
    let (first, second) = sealed.split_at_mut(SLOT_BYTES);
    second.copy_from_slice(first);
    agree(&sealed);
}

fn agree(bytes: &[u8]) {
    let slots = decode_slots(bytes);
    for (slot, encoded) in slots.iter().zip(bytes.chunks(SLOT_BYTES)) {
        if let Ok(meta) = slot {
            assert!(meta.encode() == encoded, "decode and encode agree: {meta:?}");
            assert!(meta.log_start <= meta.flushed.offset, "what is trimmed was flushed");
            assert!(meta.flushed.segment <= meta.flushed.offset);
        }
    }
    for segments_exist in [false, true] {
        decide(&slots, segments_exist);
    }
}

fn decide(slots: &[Slot; 2], segments_exist: bool) {
    let (case, chosen) = decide_meta(slots, segments_exist);
    let good: Vec<&LogMeta> = slots.iter().flatten().collect();
    match &chosen {
        Some(meta) => {
            assert!(good.contains(&meta), "{case:?}: only a good slot counts");
            let newest = good.iter().map(|meta| meta.sequence).max();
            assert_eq!(Some(meta.sequence), newest, "{case:?}: the newest counts");
        }
        None => {
            let refused = [MetaCase::M2Lost, MetaCase::M7TwoLogs, MetaCase::M8UnknownVersion];
            let new = case == MetaCase::M1NeverCreated && good.is_empty() && !segments_exist;
            assert!(new || refused.contains(&case), "{case:?}: never a new log over an old one");
        }
    }
    if case == MetaCase::M3Clean {
        let clean = |meta: &&LogMeta| meta.state == LogState::Clean;
        assert!(good.len() == 2 && good.iter().all(clean) && good[0].agrees_with(good[1]));
    }
}
