//! `highwater dump`: every header field of a file, and what it holds.

use std::path::{Path, PathBuf};

use highwater::inspect::{DumpItem, dump};
use highwater::{Codec, ReadBatch};
use highwater_segment::producer_snapshot::ProducerSnapshot;
use highwater_segment::{BatchHeader, LogMeta, SegmentHeader, producers};
use serde::Serialize;

use crate::args::Format;
use crate::output::{Exit, Failure, Output};
use crate::text::{Hexadecimal, JsonBatchRecords, show_bytes};

const EXAMPLE: &str = "\
Examples:
  highwater dump ./data/demo --no-records
  highwater dump ./data/demo/00000000000000000000.log --format text
  highwater dump ./data/demo/log.meta

Prints one object per line, `type` first: slot, producers, segment, batch, filler, stop. Bytes that
are not UTF-8 stand as base64. It shows what is there; `highwater verify` says whether it is right.";

/// Show every header field of a segment, a log.meta, a snapshot of the producers or a log's
/// directory; writes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// A segment file, a log.meta, a .producers file, or the directory of a log.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Leave the records out.
    #[arg(long)]
    no_records: bool,
    /// How things are printed.
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Item<'a> {
    Slot {
        slot: usize,
        #[serde(flatten)]
        content: Content<Meta>,
    },
    Segment {
        file: String,
        length: u64,
        #[serde(flatten)]
        content: Content<Segment>,
    },
    Producers {
        file: String,
        #[serde(flatten)]
        content: Content<Snapshot>,
    },
    Batch {
        file: String,
        #[serde(flatten)]
        header: Header,
        codec: &'static str,
        /// As they are stored.
        records_bytes: usize,
        /// Decompressed; `null` where that cannot be done.
        uncompressed_bytes: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        records: Option<JsonBatchRecords<'a>>,
    },
    Filler {
        file: String,
        end_position: u64,
    },
    Stop {
        file: String,
        position: u64,
        what: String,
    },
}

/// What stands there, or what is wrong with it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Content<T> {
    Good(T),
    Bad { fault: String },
}

impl<T> Content<T> {
    fn of<A, F: std::fmt::Display>(found: Result<A, F>, show: impl FnOnce(&A) -> T) -> Self {
        match found {
            Ok(found) => Content::Good(show(&found)),
            Err(fault) => Content::Bad { fault: fault.to_string() },
        }
    }
}

#[derive(Debug, Serialize)]
struct Meta {
    sequence: u64,
    log_id: String,
    incarnation: Hexadecimal,
    state: &'static str,
    generation: u32,
    epoch: u32,
    log_start: u64,
    flushed: Mark,
    high_watermark: u64,
    durable_watermark: u64,
    segment_bytes: u64,
    never_rewrite_flushed: bool,
    epochs: Vec<EpochStart>,
    truncations: Vec<Truncation>,
    producers_offset: u64,
    producer_count: u32,
    log_time_ms: i64,
}

#[derive(Debug, Serialize)]
struct Snapshot {
    log_id: String,
    at: Mark,
    log_time_ms: i64,
    leader_epoch: u32,
    producers: Vec<Producer>,
}

#[derive(Debug, Serialize)]
struct Producer {
    id: i64,
    epoch: i16,
    last_seen_ms: i64,
    next_sequence: i32,
    batches: Vec<SeenBatch>,
}

#[derive(Debug, Serialize)]
struct SeenBatch {
    base_offset: u64,
    base_sequence: i32,
    record_count: u32,
    records_crc: u32,
    leader_epoch: u32,
}

#[derive(Debug, Serialize)]
struct Mark {
    offset: u64,
    segment: u64,
    position: u64,
}

#[derive(Debug, Serialize)]
struct EpochStart {
    epoch: u32,
    start: u64,
}

#[derive(Debug, Serialize)]
struct Truncation {
    generation: u32,
    to: u64,
}

#[derive(Debug, Serialize)]
struct Segment {
    log_id: String,
    base_offset: u64,
    salt: String,
}

#[derive(Debug, Serialize)]
struct Header {
    position: u64,
    total_bytes: u32,
    base_offset: u64,
    record_count: u32,
    generation: u32,
    leader_epoch: u32,
    flush_mark: u64,
    salt: Hexadecimal,
    records_crc: u32,
    attributes: u16,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut output = Output::new();
    let mut printed = Ok(());
    let dumped = dump(&arguments.path, &mut |item| {
        if printed.is_ok() {
            printed = print(item, arguments, &mut output);
        }
    });
    printed?;
    output.flush()?;
    dumped?;
    Ok(Exit::Ok)
}

fn print(item: DumpItem<'_>, arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    match arguments.format {
        Format::Json => output.json(&json_item(item, !arguments.no_records)),
        Format::Text => {
            let records = match &item {
                DumpItem::Batch { batch, .. } if !arguments.no_records => Some(*batch),
                _ => None,
            };
            output.line(&text_item(item))?;
            records.map_or(Ok(()), |batch| print_records(batch, output))
        }
    }
}

fn json_item(item: DumpItem<'_>, with_records: bool) -> Item<'_> {
    match item {
        DumpItem::Slot { slot, meta } => Item::Slot { slot, content: Content::of(meta, meta_of) },
        DumpItem::Segment { file, length, header } => {
            Item::Segment { file: name(file), length, content: Content::of(header, segment_of) }
        }
        DumpItem::Producers { file, snapshot } => {
            Item::Producers { file: name(file), content: Content::of(snapshot, snapshot_of) }
        }
        DumpItem::Batch { file, batch } => Item::Batch {
            file: name(file),
            header: header_of(batch.header()),
            codec: batch.codec().name(),
            records_bytes: batch.stored().len(),
            uncompressed_bytes: uncompressed_bytes(batch),
            records: with_records.then_some(JsonBatchRecords(batch)),
        },
        DumpItem::Filler { file, end_position } => Item::Filler { file: name(file), end_position },
        DumpItem::Stop { file, position, what } => Item::Stop { file: name(file), position, what },
    }
}

fn name(file: &Path) -> String {
    file.display().to_string()
}

fn meta_of(meta: &LogMeta) -> Meta {
    let epochs = meta.epochs.iter().map(|e| EpochStart { epoch: e.epoch.0, start: e.start.0 });
    let truncations =
        meta.truncations.iter().map(|t| Truncation { generation: t.generation.0, to: t.to.0 });
    Meta {
        sequence: meta.sequence,
        log_id: meta.log_id.to_string(),
        incarnation: Hexadecimal(meta.incarnation, 32),
        state: meta.state.name(),
        generation: meta.generation.0,
        epoch: meta.epoch.0,
        log_start: meta.log_start.0,
        flushed: mark_of(&meta.flushed),
        high_watermark: meta.high_watermark.0,
        durable_watermark: meta.durable_watermark.0,
        segment_bytes: meta.segment_bytes,
        never_rewrite_flushed: meta.never_rewrite_flushed,
        epochs: epochs.collect(),
        truncations: truncations.collect(),
        producers_offset: meta.producers.offset.0,
        producer_count: meta.producers.count,
        log_time_ms: meta.producers.log_time_ms,
    }
}

fn mark_of(mark: &highwater_segment::meta::Mark) -> Mark {
    Mark { offset: mark.offset.0, segment: mark.segment.0, position: mark.position.0 }
}

fn snapshot_of(snapshot: &ProducerSnapshot) -> Snapshot {
    let producers = snapshot.table.iter().map(|(id, state)| Producer {
        id: id.0,
        epoch: state.epoch.0,
        last_seen_ms: state.last_seen_ms,
        next_sequence: state.next_sequence().0,
        batches: state.batches.iter().map(seen_of).collect(),
    });
    Snapshot {
        log_id: snapshot.log_id.to_string(),
        at: mark_of(&snapshot.at),
        log_time_ms: snapshot.table.log_time_ms(),
        leader_epoch: snapshot.leader_epoch.0,
        producers: producers.collect(),
    }
}

fn seen_of(seen: &producers::SeenBatch) -> SeenBatch {
    SeenBatch {
        base_offset: seen.base_offset.0,
        base_sequence: seen.base_sequence.0,
        record_count: seen.records,
        records_crc: seen.records_crc,
        leader_epoch: seen.leader_epoch.0,
    }
}

fn segment_of(header: &SegmentHeader) -> Segment {
    Segment {
        log_id: header.log_id.to_string(),
        base_offset: header.base_offset.0,
        salt: header.salt.to_string(),
    }
}

fn header_of(header: &BatchHeader) -> Header {
    Header {
        position: header.position.0,
        total_bytes: header.total_bytes,
        base_offset: header.base_offset.0,
        record_count: header.record_count,
        generation: header.generation.0,
        leader_epoch: header.leader_epoch.0,
        flush_mark: header.flush_mark.0,
        salt: Hexadecimal(u128::from(header.salt), 8),
        records_crc: header.records_crc,
        attributes: header.attributes,
        base_timestamp_ms: header.base_timestamp_ms,
        max_timestamp_ms: header.max_timestamp_ms,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
    }
}

fn text_item(item: DumpItem<'_>) -> String {
    match item {
        DumpItem::Slot { slot, meta: Ok(meta) } => format!(
            "slot {slot}: sequence {} {} generation {} epoch {} log_start {} flushed {} (segment \
             {} position {}) high_watermark {} durable_watermark {} segment_bytes {} \
             never_rewrite_flushed {} log_id {} incarnation {:032x} epochs {:?} truncations {:?}",
            meta.sequence,
            meta.state.name(),
            meta.generation,
            meta.epoch,
            meta.log_start,
            meta.flushed.offset,
            meta.flushed.segment,
            meta.flushed.position,
            meta.high_watermark,
            meta.durable_watermark,
            meta.segment_bytes,
            meta.never_rewrite_flushed,
            meta.log_id,
            meta.incarnation,
            meta.epochs.iter().map(|e| (e.epoch.0, e.start.0)).collect::<Vec<_>>(),
            meta.truncations.iter().map(|t| (t.generation.0, t.to.0)).collect::<Vec<_>>(),
        ),
        DumpItem::Slot { slot, meta: Err(fault) } => format!("slot {slot}: {fault}"),
        DumpItem::Segment { file, length, header: Ok(header) } => format!(
            "segment {}: {length} bytes, base offset {} salt {} log_id {}",
            file.display(),
            header.base_offset,
            header.salt,
            header.log_id
        ),
        DumpItem::Segment { file, length, header: Err(fault) } => {
            format!("segment {}: {length} bytes, header: {fault}", file.display())
        }
        DumpItem::Batch { batch, .. } => text_header(batch),
        DumpItem::Producers { file, snapshot: Ok(snapshot) } => text_snapshot(file, &snapshot),
        DumpItem::Producers { file, snapshot: Err(fault) } => {
            format!("producers {}: {fault}", file.display())
        }
        DumpItem::Filler { end_position, .. } => format!("filler up to byte {end_position}"),
        DumpItem::Stop { position, what, .. } => format!("stop at byte {position}: {what}"),
    }
}

/// A line for the snapshot and one for each producer.
fn text_snapshot(file: &Path, snapshot: &ProducerSnapshot) -> String {
    let mut text = format!(
        "producers {}: {} at offset {} (segment {} position {}), log time {}, leader epoch {}",
        file.display(),
        snapshot.table.len(),
        snapshot.at.offset,
        snapshot.at.segment,
        snapshot.at.position,
        snapshot.table.log_time_ms(),
        snapshot.leader_epoch
    );
    for (id, state) in snapshot.table.iter() {
        text += &format!(
            "\n  producer {id}: epoch {} next sequence {} last seen {} batches at {:?}",
            state.epoch,
            state.next_sequence(),
            state.last_seen_ms,
            state.batches.iter().map(|seen| seen.base_offset.0).collect::<Vec<_>>()
        );
    }
    text
}

fn uncompressed_bytes(batch: &ReadBatch) -> Option<usize> {
    batch.plain().ok().map(<[u8]>::len)
}

fn text_header(batch: &ReadBatch) -> String {
    let header = batch.header();
    let codec = match (batch.codec(), uncompressed_bytes(batch)) {
        (Codec::None, _) => String::new(),
        (codec, Some(bytes)) => format!(" codec {} of {bytes} bytes", codec.name()),
        (codec, None) => format!(" codec {} that cannot be undone", codec.name()),
    };
    format!(
        "batch at byte {}: offsets {}..{} in {} bytes, generation {} epoch {} flush_mark {} salt \
         {:08x} records_crc {:08x} attributes {:04x}{codec} timestamps {}..={} producer {} {} sequence {}",
        header.position,
        header.base_offset,
        header.end_offset(),
        header.total_bytes,
        header.generation,
        header.leader_epoch,
        header.flush_mark,
        header.salt,
        header.records_crc,
        header.attributes,
        header.base_timestamp_ms,
        header.max_timestamp_ms,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
    )
}

fn print_records(batch: &ReadBatch, output: &mut Output) -> Result<(), Failure> {
    for record in batch.records() {
        match record {
            Ok(record) => {
                let key = record.key.map(|key| format!("{} = ", show_bytes(key)));
                let value = record.value.map_or_else(|| "null".to_owned(), show_bytes);
                output.line(&format!("  {}: {}{value}", record.offset, key.unwrap_or_default()))?;
            }
            Err(error) => output.line(&format!("  {error}"))?,
        }
    }
    Ok(())
}
