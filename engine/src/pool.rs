//! The pool as opening finds it, and preparing a segment before its first use.

use std::path::{Path, PathBuf};

use highwater_io::{Access, AlignedBuffer, Blocking, FileId, Io, IoErrorKind};
use highwater_segment::segment::{SEGMENT_HEADER_BYTES, segment_file_name};
use highwater_segment::spare::{decode_spare, parse_spare_file_name};
use highwater_segment::{BLOCK_BYTES, LogId, LogMeta, Offset};

use crate::convert::to_usize;
use crate::error::Result;
use crate::opening::{POOL_DIRECTORY, flush_to_media};
use crate::options::SPARES_MAX;

/// How many zeros are written at once.
const FILL_BYTES: u64 = 1 << 20;

/// Returns the pool's directory below the engine's.
pub(crate) fn pool_directory(root: &Path) -> PathBuf {
    root.join(POOL_DIRECTORY)
}

/// Returns the spares of a log that can be used as they are, and removes its other files there.
///
/// A file without the header of a spare was on its way in or out when a crash came: half prepared;
/// below the log's start already; or a segment that was beginning and, after a power cut, has this
/// name beside the one in its log's directory. Such a file is never written to: only its name here
/// goes.
pub(crate) fn take_stock<I: Io>(
    io: &mut Blocking<I>,
    root: &Path,
    meta: &LogMeta,
) -> Result<Vec<PathBuf>> {
    let directory = pool_directory(root);
    let mut spares = Vec::new();
    let entries = io.list(&directory)?;
    let ours = |name: &str| parse_spare_file_name(name) == Some(meta.log_id);
    for entry in entries.iter().filter(|entry| ours(&entry.name)) {
        let path = directory.join(&entry.name);
        if spares.len() < SPARES_MAX && is_spare(io, &path, meta.log_id, meta.segment_bytes)? {
            spares.push(path);
        } else {
            io.remove(&path)?;
        }
    }
    Ok(spares)
}

fn is_spare<I: Io>(
    io: &mut Blocking<I>,
    path: &Path,
    log_id: LogId,
    segment_bytes: u64,
) -> Result<bool> {
    let (file, direct) = io.open(path, Access::ReadWrite, true)?;
    let looked = look(io, file, direct, log_id, segment_bytes);
    io.close(file)?;
    looked
}

fn look<I: Io>(
    io: &mut Blocking<I>,
    file: FileId,
    direct: bool,
    log_id: LogId,
    segment_bytes: u64,
) -> Result<bool> {
    // A killed process may have left the header in caches; it is a spare for good or not at all.
    flush_to_media(io, file, direct)?;
    if io.length(file)? != segment_bytes {
        return Ok(false);
    }
    let buffer = AlignedBuffer::zeroed(SEGMENT_HEADER_BYTES);
    let (buffer, count) = io.read(file, 0, buffer, SEGMENT_HEADER_BYTES);
    Ok(decode_spare(buffer.get(..count?).unwrap_or_default()) == Some(log_id))
}

/// Writes zeros over the whole space behind the header of a new segment, and flushes it. A full
/// disk is no error: the segment grows as it is filled then. Returns up to where there is space.
pub(crate) fn prepare_segment<I: Io>(
    io: &mut Blocking<I>,
    directory: &Path,
    base: Offset,
    segment_bytes: u64,
) -> Result<Option<u64>> {
    let (file, _) = io.open(&directory.join(segment_file_name(base)), Access::ReadWrite, true)?;
    let prepared = fill(io, file, segment_bytes);
    io.close(file)?;
    match prepared {
        Ok(()) => Ok(Some(segment_bytes)),
        Err(error) if error.io().is_some_and(|io| io.kind == IoErrorKind::NoSpace) => Ok(None),
        Err(error) => Err(error),
    }
}

fn fill<I: Io>(io: &mut Blocking<I>, file: FileId, segment_bytes: u64) -> Result<()> {
    match io.allocate(file, 0, segment_bytes) {
        Err(error) if error.kind != IoErrorKind::Unsupported => return Err(error.into()),
        _ => {}
    }
    let mut buffer = AlignedBuffer::zeroed(to_usize(FILL_BYTES));
    let mut at = BLOCK_BYTES;
    while at < segment_bytes {
        let length = FILL_BYTES.min(segment_bytes - at);
        let (returned, written) = io.write(file, at, buffer, to_usize(length), false);
        written?;
        buffer = returned;
        at += length;
    }
    Ok(io.flush(file)?)
}
