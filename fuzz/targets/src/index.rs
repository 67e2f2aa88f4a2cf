//! The sparse index: whatever decodes encodes to the same bytes again, and a hint is never above
//! what was asked for.

use highwater_index::SparseIndex;

use crate::input::{Input, wide};
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
        let count = wide((file.len() - INDEX_HEADER_BYTES) / INDEX_ENTRY_BYTES);
        file[..8].copy_from_slice(&highwater_index::MAGIC);
        file[8..16].copy_from_slice(&base.to_le_bytes());
        file[16..24].copy_from_slice(&count.to_le_bytes());
        seal_index(file);
    }
}

fn agree(file: &[u8], base: u64, asked: &[u64]) {
    let Ok(index) = SparseIndex::decode(file, base) else { return };
    let encoded = index.encode();
    assert!(encoded == file[..encoded.len()], "decode and encode agree");
    assert!(index.entries().len() <= file.len() / INDEX_ENTRY_BYTES, "no entry comes from nowhere");
    for offset in asked {
        if let Some((found, _)) = index.lookup(*offset) {
            assert!((base..=*offset).contains(&found), "a hint lies at or below {offset}: {found}");
        }
    }
    let mut cut = index.clone();
    cut.truncate(asked[0]);
    let kept = cut.entries().iter().all(|entry| {
        base.checked_add(u64::from(entry.relative_offset)).is_some_and(|at| at < asked[0])
    });
    assert!(kept, "nothing above a truncation is kept");
}
