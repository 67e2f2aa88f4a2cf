//! Cutting a damaged log on purpose.

use highwater_io::threads::InlineIo;
use highwater_io::{Access, Io};
use highwater_segment::meta::{EpochStart, LogMeta, LogState, Mark, ProducersMark};
use highwater_segment::recovery::MetaCase;
use highwater_segment::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use highwater_segment::{Epoch, FIRST_BATCH, Generation, LogId, Offset};

use super::{LogView, check_root};
use crate::control::Control;
use crate::core::DetachedLog;
use crate::error::{Error, ErrorKind, Result};
use crate::opening::{ensure_meta_file, flush_to_media};
use crate::options::{DEFAULT_SEGMENT_BYTES, Options};
use crate::recover::rewrite;
use crate::walker::file_evidence;

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairReport {
    /// Where the log ends now.
    pub log_end: Offset,
    /// Segments that lay above and are gone.
    pub removed_segments: Vec<Offset>,
    /// The new leader epoch.
    pub epoch: Epoch,
    /// The new generation.
    pub generation: Generation,
}

/// Cuts a log at `to`, whatever its end looks like, and closes it: everything at or above `to` (the
/// whole batch that `to` lies in) is removed for good. With a lost `log.meta` it is made anew
/// from the segments.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if something below `to` does not verify: its range starts at the highest
/// offset that can be kept. [`ErrorKind::Io`] if the directory is locked.
pub fn repair(options: &Options, log: &str, to: Offset) -> Result<RepairReport> {
    let mut control = Control::new(InlineIo::new(), &options.directory)?;
    check_root(&mut control.io, &options.directory)?;
    control.io.lock(&options.directory)?;
    let view = LogView::load(&mut control.io, &options.directory, log)?;
    flush_all(&mut control, &view)?;
    let meta = match (&view.meta, view.case) {
        (Some(meta), _) => meta.clone(),
        (None, MetaCase::M2Lost | MetaCase::M7TwoLogs) => {
            let meta = rebuild_meta(&mut control, &view)?;
            ensure_meta_file(&mut control.io, &view.directory)?;
            meta
        }
        (None, _) => return Err(view.meta().err().unwrap_or_else(|| lost(&view))),
    };
    if to < meta.log_start {
        let kind = ErrorKind::Trimmed { log_start: meta.log_start };
        return Err(Error::new(kind, "repair log", log)
            .detail(format!("{to} is below the log's start {}", meta.log_start)));
    }
    let cut = control.find_cut(log, &meta, to)?;
    if meta.state == LogState::Poisoned {
        rewrite_kept(&mut control, &view, &meta.flushed, &cut)?;
    }
    let above = view.bases.iter().copied().filter(|base| *base > cut.segment).collect();
    let opened = control.cut_log(log, meta, cut)?;
    let report = RepairReport {
        log_end: opened.end.offset,
        removed_segments: above,
        epoch: opened.meta.epoch,
        generation: opened.meta.generation,
    };
    let (end, failure) = (opened.end, opened.read_only);
    let producers = opened.producers.table;
    let detached = DetachedLog { meta: opened.meta, end, flushed: end, producers, failure };
    control.close_log(log, &detached)?;
    Ok(report)
}

fn lost(view: &LogView) -> Error {
    Error::new(ErrorKind::Io, "repair log", &view.name).detail("no segment header verifies")
}

/// A flush of this log failed once: what is behind the mark is written anew before it counts as
/// flushed.
fn rewrite_kept<I: Io>(
    control: &mut Control<I>,
    view: &LogView,
    from: &Mark,
    cut: &Mark,
) -> Result<()> {
    let kept = from.segment..=cut.segment;
    for base in view.bases.iter().copied().filter(|base| kept.contains(base)) {
        let (file, _) = control.io.open(&view.path(base), Access::ReadWrite, true)?;
        let rewritten = control.io.length(file).map_err(Error::from_io).and_then(|length| {
            rewrite(&mut control.io, from, cut, (base, file, length))?;
            Ok(control.io.flush(file)?)
        });
        control.io.close(file)?;
        rewritten?;
    }
    Ok(())
}

/// Nothing is believed before it is on stable media.
fn flush_all<I: Io>(control: &mut Control<I>, view: &LogView) -> Result<()> {
    for base in &view.bases {
        let (file, direct) = control.io.open(&view.path(*base), Access::ReadWrite, true)?;
        let flushed = flush_to_media(&mut control.io, file, direct);
        control.io.close(file)?;
        flushed?;
    }
    Ok(control.io.sync_directory(&view.directory)?)
}

/// Makes a snapshot from what the segments say: their log's id, and a generation and an epoch
/// above all that was written.
fn rebuild_meta<I: Io>(control: &mut Control<I>, view: &LogView) -> Result<LogMeta> {
    let mut log_id: Option<LogId> = None;
    let (mut generation, mut longest) = (Generation(0), 0);
    for base in &view.bases {
        let (file, _) = control.io.open(&view.path(*base), Access::Read, true)?;
        let buffer = highwater_io::AlignedBuffer::zeroed(SEGMENT_HEADER_BYTES);
        let (buffer, count) = control.io.read(file, 0, buffer, SEGMENT_HEADER_BYTES);
        let header = SegmentHeader::decode(buffer.get(..count?).unwrap_or_default());
        if let Ok(header) = header {
            log_id = log_id.or(Some(header.log_id));
            let found = file_evidence(
                &mut control.io,
                file,
                FIRST_BATCH,
                Some(header.salt),
                Generation(0),
            )?;
            generation = generation.max(found.newer_generation.unwrap_or_default());
        }
        longest = control.io.length(file)?.max(longest);
        control.io.close(file)?;
    }
    let first = view.bases.first().copied().unwrap_or_default();
    let log_id = log_id.ok_or_else(|| lost(view))?;
    // Every raise of the epoch raises the generation too, so this is above every epoch led.
    let epoch = Epoch(generation.0.saturating_add(1));
    Ok(LogMeta {
        sequence: 0,
        log_id,
        incarnation: control.incarnation(),
        state: LogState::Open,
        generation,
        epoch,
        log_start: first,
        flushed: Mark { offset: first, segment: first, position: FIRST_BATCH },
        high_watermark: first,
        durable_watermark: first,
        segment_bytes: longest
            .next_multiple_of(4096)
            .clamp(DEFAULT_SEGMENT_BYTES, highwater_segment::MAX_SEGMENT_BYTES),
        never_rewrite_flushed: false,
        epochs: vec![EpochStart { epoch, start: first }],
        truncations: Vec::new(),
        producers: ProducersMark::default(),
    })
}
