//! Showing every header field of a file.

use std::path::{Path, PathBuf};

use highwater_io::threads::InlineIo;
use highwater_io::{Access, AlignedBuffer, Blocking, Io, IoErrorKind};
use highwater_segment::meta::{META_FILE_NAME, SlotFault, decode_slots};
use highwater_segment::producer_snapshot::{
    ProducerSnapshot, SnapshotFault, parse_snapshot_file_name, snapshot_file_name,
};
use highwater_segment::recovery::decide_meta;
use highwater_segment::scan::{Chain, GenerationRule};
use highwater_segment::segment::{
    SEGMENT_HEADER_BYTES, SegmentFault, SegmentHeader, parse_segment_file_name, segment_file_name,
};
use highwater_segment::{BatchHeader, Epoch, FIRST_BATCH, Generation, LogMeta, Offset, Position};

use super::read_slots;
use crate::error::{Error, ErrorKind, Result};
use crate::opening::segment_bases;
use crate::producers::{read_file, snapshot_offsets};
use crate::reader::ReadBatch;
use crate::shared::generation_rule;
use crate::walker::{WalkError, Walked, Walker};

/// One thing in a file.
#[derive(Clone, Debug)]
pub enum DumpItem<'a> {
    /// A slot of `log.meta`.
    Slot {
        /// 0 or 1.
        slot: usize,
        /// What it holds.
        meta: std::result::Result<LogMeta, SlotFault>,
    },
    /// A segment's header block.
    Segment {
        /// The file.
        file: &'a Path,
        /// Its length in bytes.
        length: u64,
        /// What the header holds.
        header: std::result::Result<SegmentHeader, SegmentFault>,
    },
    /// A snapshot of the producers.
    Producers {
        /// The file.
        file: &'a Path,
        /// What it holds.
        snapshot: std::result::Result<ProducerSnapshot, SnapshotFault>,
    },
    /// A batch that verifies.
    Batch {
        /// The file.
        file: &'a Path,
        /// The batch.
        batch: &'a ReadBatch,
    },
    /// A filler, or the zeros that stand for one.
    Filler {
        /// The file.
        file: &'a Path,
        /// The byte behind it.
        end_position: u64,
    },
    /// Where the walk ended and why.
    Stop {
        /// The file.
        file: &'a Path,
        /// The byte.
        position: u64,
        /// What was found.
        what: String,
    },
}

/// Shows what `path` - a segment, a `log.meta`, a snapshot of the producers or a log's directory -
/// holds, in its order.
///
/// # Errors
/// [`ErrorKind::Io`] if it cannot be read, [`ErrorKind::Config`] if it is none of these.
pub fn dump(path: &Path, visit: &mut dyn FnMut(DumpItem<'_>)) -> Result<()> {
    let mut io = Blocking::new(InlineIo::new());
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    if name == META_FILE_NAME {
        return dump_meta(&mut io, path, visit);
    }
    if let Some(base) = parse_segment_file_name(&name) {
        let directory = path.parent().map_or_else(PathBuf::new, Path::to_owned);
        return dump_segment(&mut io, &directory, base, visit);
    }
    if parse_snapshot_file_name(&name).is_some() {
        return dump_producers(&mut io, path, visit);
    }
    let entries = match io.list(path) {
        Ok(entries) if entries.iter().any(|entry| entry.name == META_FILE_NAME) => entries,
        Ok(entries) if !segment_bases(&entries).is_empty() => entries,
        Err(error) if error.kind == IoErrorKind::NotFound => return Err(error.into()),
        _ => {
            return Err(Error::new(ErrorKind::Config, "dump", &path.display().to_string())
                .detail("it is neither a segment, a log.meta, a snapshot of producers nor a log's directory")
                .remedy("give one of those, such as DIR/LOG"));
        }
    };
    dump_meta(&mut io, &path.join(META_FILE_NAME), visit)?;
    for offset in snapshot_offsets(&entries) {
        dump_producers(&mut io, &path.join(snapshot_file_name(offset)), visit)?;
    }
    for base in segment_bases(&entries) {
        dump_segment(&mut io, path, base, visit)?;
    }
    Ok(())
}

fn dump_meta<I: Io>(
    io: &mut Blocking<I>,
    path: &Path,
    visit: &mut dyn FnMut(DumpItem<'_>),
) -> Result<()> {
    for (slot, meta) in read_slots(io, path)?.into_iter().enumerate() {
        visit(DumpItem::Slot { slot, meta });
    }
    Ok(())
}

fn dump_producers<I: Io>(
    io: &mut Blocking<I>,
    path: &Path,
    visit: &mut dyn FnMut(DumpItem<'_>),
) -> Result<()> {
    let (file, _) = io.open(path, Access::Read, true)?;
    let bytes = read_file(io, file);
    io.close(file)?;
    visit(DumpItem::Producers { file: path, snapshot: ProducerSnapshot::decode(&bytes?) });
    Ok(())
}

fn dump_segment<I: Io>(
    io: &mut Blocking<I>,
    directory: &Path,
    base: Offset,
    visit: &mut dyn FnMut(DumpItem<'_>),
) -> Result<()> {
    let path = directory.join(segment_file_name(base));
    let file_path = path.as_path();
    let (file, _) = io.open(file_path, Access::Read, true)?;
    let length = io.length(file)?;
    let buffer = AlignedBuffer::zeroed(SEGMENT_HEADER_BYTES);
    let (buffer, count) = io.read(file, 0, buffer, SEGMENT_HEADER_BYTES);
    let header = SegmentHeader::decode(buffer.get(..count?).unwrap_or_default());
    visit(DumpItem::Segment { file: file_path, length, header });
    if let Ok(header) = header {
        // Without its log.meta a segment is shown as far as its chain goes, of any generation.
        let slots = read_slots(io, &directory.join(META_FILE_NAME)).unwrap_or(decode_slots(&[]));
        let rule = match decide_meta(&slots, true).1 {
            Some(meta) => generation_rule(meta.generation, &meta.flushed, base),
            None => {
                GenerationRule { current: Generation(u32::MAX), exact_from: Position(u64::MAX) }
            }
        };
        let chain = Chain::new(header.salt, FIRST_BATCH, header.base_offset, Epoch(0), rule);
        dump_batches(io, &mut Walker::new(file, chain), file_path, visit)?;
    }
    Ok(io.close(file)?)
}

fn dump_batches<I: Io>(
    io: &mut Blocking<I>,
    walker: &mut Walker,
    file: &Path,
    visit: &mut dyn FnMut(DumpItem<'_>),
) -> Result<()> {
    loop {
        match walker.step(io) {
            Ok(Walked::Batch { header, records }) => {
                let header: BatchHeader = header;
                let batch = ReadBatch::new(header, walker.take(&records), Offset(0));
                visit(DumpItem::Batch { file, batch: &batch });
            }
            Ok(Walked::Padding) => {
                visit(DumpItem::Filler { file, end_position: walker.chain().position().0 });
            }
            Err(WalkError::Io(error)) => return Err(error.into()),
            Err(WalkError::Stop(stop)) => {
                let position = walker.chain().position().0;
                visit(DumpItem::Stop { file, position, what: stop.describe() });
                return Ok(());
            }
        }
    }
}
