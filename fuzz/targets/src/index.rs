//! The sparse index: whatever decodes gives hints inside its segment, and never one above what was
//! asked for.

use highwater_index::IndexView;

use crate::input::Input;
use crate::seal::{INDEX_ENTRY_BYTES, INDEX_HEADER_BYTES, seal_index};

/// The base offset, some offsets to look up, and the file; as it is and with a checksum that fits.
pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let base = input.long();
    let asked: Vec<u64> = (0..4).map(|_| input.long()).collect();
    let file = input.rest();
    agree(file, base, &asked);
    let mut sealed = file.to_vec();
    seal(&mut sealed, base);
    agree(&sealed, base, &asked);
}

/// Gives the file a magic, the base offset, the count of the entries that are there and a checksum
/// that fits.
fn seal(file: &mut [u8], base: u64) {
    if file.len() >= INDEX_HEADER_BYTES {
        let count = (file.len() - INDEX_HEADER_BYTES) / INDEX_ENTRY_BYTES;
        file[..8].copy_from_slice(&highwater_index::MAGIC);
        file[12..16].copy_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        file[16..24].copy_from_slice(&base.to_le_bytes());
        seal_index(file);
    }
}

fn agree(file: &[u8], base: u64, asked: &[u64]) {
    let Ok(index) = IndexView::decode(file, base) else { return };
    assert!(index.len() <= file.len() / INDEX_ENTRY_BYTES, "no entry comes from nowhere");
    let last = index.seal().last_position.into();
    for offset in asked {
        if let Some((found, position)) = index.lookup(*offset) {
            assert!((base..=*offset).contains(&found), "a hint lies at or below {offset}: {found}");
            assert!(position <= last, "a hint lies in the segment: {position}");
        }
        let time = i64::from_le_bytes(offset.to_le_bytes());
        if let Some((found, position)) = index.lookup_time(time) {
            assert!((base..index.seal().end_offset).contains(&found), "a hint lies inside");
            assert!(position <= last, "a hint lies in the segment: {position}");
            // Whatever is older lies before it: so does the hint for an older time.
            let earlier = index.lookup_time(time.saturating_sub(1));
            assert!(earlier.is_none_or(|(earlier, _)| earlier <= found), "hints rise with time");
        }
    }
}
