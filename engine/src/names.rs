//! Names that a failed sync of their directory may have lost.
//!
//! As with pages, the kernel can report such a failure once and then pretend that all is well: the
//! name is seen, the next sync succeeds, and a power cut takes the file. A name is written anew by
//! renaming the file away and back; the next sync covers both. A power cut between the two leaves
//! the one name or the other, never none, and the next opening knows both.

use std::path::Path;

use highwater_io::{Blocking, Entry, Io, IoErrorKind};
use highwater_segment::Offset;
use highwater_segment::meta::META_FILE_NAME;
use highwater_segment::producer_snapshot::parse_snapshot_file_name;
use highwater_segment::segment::parse_segment_file_name;

use crate::error::Result;

/// Behind the name of a file that is being renamed away and back.
const AWAY: &str = ".away";
/// How many directories that a crash left between their two names are stepped over.
const LEFT_OVER_MAX: u32 = 64;

/// Writes the name of a file anew; the caller syncs the directory.
pub(crate) fn renew<I: Io>(io: &mut Blocking<I>, directory: &Path, name: &str) -> Result<()> {
    let other = directory.join(away(name));
    io.rename(directory.join(name), other.clone())?;
    Ok(io.rename(other, directory.join(name))?)
}

/// Writes the name of a log's directory anew, one that holds no log yet; the caller syncs `root`.
/// Between the two renames it has a name that no log has. What a crash leaves there holds nothing,
/// and stays; another name is taken then.
pub(crate) fn renew_directory<I: Io>(io: &mut Blocking<I>, root: &Path, name: &str) -> Result<()> {
    let mut left_over = 0;
    loop {
        let other = root.join(format!(".{name}{AWAY}-{left_over}"));
        match io.rename(root.join(name), other.clone()) {
            Err(error) if error.kind == IoErrorKind::AlreadyExists && left_over < LEFT_OVER_MAX => {
                left_over += 1;
            }
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(io.rename(other, root.join(name))?),
        }
    }
}

/// Returns the name that a file has in the middle of [`renew`].
pub(crate) fn away(name: &str) -> String {
    format!("{name}{AWAY}")
}

/// Returns the segments that stand under the name they have in the middle of [`renew`], and only
/// there.
pub(crate) fn segments_away(entries: &[Entry]) -> Vec<Offset> {
    let away = entries.iter().filter_map(|entry| entry.name.strip_suffix(AWAY));
    let alone = away.filter(|name| entries.iter().all(|entry| entry.name != *name));
    alone.filter_map(parse_segment_file_name).collect()
}

/// Gives files back the names that a crash inside [`renew`] left them without. Returns whether
/// there were any; the caller syncs the directory.
pub(crate) fn restore<I: Io>(
    io: &mut Blocking<I>,
    directory: &Path,
    entries: &[Entry],
) -> Result<bool> {
    let is_snapshot = |name: &str| parse_snapshot_file_name(name).is_some();
    let ours = |name: &&str| {
        *name == META_FILE_NAME || parse_segment_file_name(name).is_some() || is_snapshot(name)
    };
    // Both names at once are nobody's crash: a rename within a directory survives whole or not.
    let free = |name: &&str| entries.iter().all(|entry| entry.name != *name);
    let others = entries.iter().filter_map(|entry| entry.name.strip_suffix(AWAY));
    let mut any = false;
    for name in others.filter(ours).filter(free) {
        io.rename(directory.join(away(name)), directory.join(name))?;
        any = true;
    }
    Ok(any)
}
