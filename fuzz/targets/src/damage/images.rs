//! The logs that are damaged: small, made once per process by the real engine on a simulated disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use highwater::{
    Ack, FlushPolicy, LocalEngine, LocalLog, LogOptions, Offset, Options, RecordBatch,
};
use highwater_io::sim::{Fault, FaultRule, SimDisk, SimPlatform, SimProfile, Survival};
use highwater_segment::scan::{Chain, GenerationRule, Step};
use highwater_segment::segment::parse_segment_file_name;
use highwater_segment::{Epoch, FIRST_BATCH, Generation, Position, SegmentHeader};

use crate::input::narrow;

/// The engine's directory.
pub(crate) const ROOT: &str = "/data";
/// The log's name.
pub(crate) const LOG: &str = "log";

/// Returns the directory of the log.
pub(crate) fn log_directory() -> PathBuf {
    Path::new(ROOT).join(LOG)
}

/// A disk without a process, and all that is known of the log on it.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) disk: SimDisk,
    /// The value appended at each offset.
    pub(crate) values: Vec<Vec<u8>>,
    /// Everything below was acked so that it survives how the last life ended.
    pub(crate) promised: u64,
    /// Closed, so that nothing in it may change unnoticed.
    pub(crate) clean: bool,
    /// How many bytes of each segment are its header and its batches.
    pub(crate) used: BTreeMap<PathBuf, u64>,
}

/// Returns the images, always the same.
pub(crate) fn images() -> &'static [Image] {
    static IMAGES: OnceLock<Vec<Image>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        vec![
            small(End::Close),
            several_segments(1, End::Close, false),
            several_segments(2, End::Kill, false),
            several_segments(3, End::PowerCut, false),
            several_segments(4, End::Close, true),
            several_segments(5, End::Kill, true),
            several_segments(6, End::Poison, false),
            small(End::Kill),
        ]
    })
}

/// How the last life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Close,
    Kill,
    PowerCut,
    Poison,
}

/// One life of the writer.
struct Life {
    engine: LocalEngine<SimPlatform>,
    log: LocalLog,
}

/// The writer over its lives.
struct Writer {
    disk: SimDisk,
    options: LogOptions,
    values: Vec<Vec<u8>>,
    attempts: u64,
}

impl Writer {
    fn new(seed: u64, never_rewrite_flushed: bool) -> Self {
        let options = LogOptions {
            segment_bytes: Some(64 << 10),
            never_rewrite_flushed: Some(never_rewrite_flushed),
            flush: FlushPolicy::NONE,
            ..LogOptions::default()
        };
        let disk = SimDisk::new(seed, SimProfile::default());
        Writer { disk, options, values: Vec::new(), attempts: 0 }
    }

    fn open(&self) -> Life {
        let platform = self.disk.start_process();
        let mut engine = LocalEngine::open(platform, &Options::at(ROOT)).expect("the disk is good");
        let log = engine.log(LOG, &self.options).expect("the log is good");
        assert_eq!(engine.marks(log).log_end.0, crate::input::wide(self.values.len()));
        Life { engine, log }
    }

    /// Appends `records` records of about `bytes` bytes; does not wait unless the ack does.
    fn append(&mut self, life: &mut Life, records: u64, bytes: usize, ack: Ack) {
        let mut builder = RecordBatch::builder();
        for _ in 0..records {
            let value = value(self.attempts, bytes);
            self.attempts += 1;
            builder.push(None, None, Some(&value), &[]);
            self.values.push(value);
        }
        let batch = builder.build().expect("it fits");
        let ticket = life.engine.append(life.log, batch, ack).expect("the log takes it");
        if ack == Ack::LEADER || ack == Ack::LEADER_FLUSHED {
            life.engine.run_until(&ticket).expect("the disk is good");
        }
    }

    fn truncate(&mut self, life: &mut Life, to: u64) {
        let marks = life.engine.truncate(life.log, Offset(to)).expect("the log is good");
        self.values.truncate(narrow(marks.log_end.0));
    }

    /// Ends the last life and tells what is owed.
    fn end(self, mut life: Life, end: End) -> Image {
        let marks = life.engine.marks(life.log);
        let promised = match end {
            End::Close => crate::input::wide(self.values.len()),
            End::Kill => marks.written.0,
            End::PowerCut | End::Poison => marks.flushed.0,
        };
        match end {
            End::Close => life.engine.close().expect("the disk is good"),
            End::Kill => {
                self.disk.kill();
                drop(life);
            }
            End::PowerCut => {
                self.disk.power_cut(Survival::Random(77));
                drop(life);
            }
            End::Poison => {
                self.disk.inject(FaultRule::new("flush", ".log", Fault::FlushError));
                let ticket = life.engine.flush(life.log);
                life.engine.run_until(&ticket).expect_err("the flush was made to fail");
                drop(life);
            }
        }
        let used = used_bytes(&self.disk);
        Image { values: self.values, promised, clean: end == End::Close, used, disk: self.disk }
    }
}

/// Returns a value that no other attempt has, not even in part.
pub(crate) fn value(attempt: u64, bytes: usize) -> Vec<u8> {
    let word = attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    word.iter().copied().cycle().take(bytes.max(word.len())).collect()
}

/// A few batches in one segment.
fn small(end: End) -> Image {
    let mut writer = Writer::new(9, false);
    let mut life = writer.open();
    for (index, bytes) in [20, 300, 9, 5000, 40, 8].into_iter().enumerate() {
        let ack = if index % 2 == 0 { Ack::LEADER_FLUSHED } else { Ack::LEADER };
        writer.append(&mut life, 1 + crate::input::wide(index % 3), bytes, ack);
    }
    writer.end(life, end)
}

/// Three segments, several lives, a truncation inside a segment and one that drops a segment,
/// flushed and unflushed ends.
fn several_segments(seed: u64, end: End, never_rewrite_flushed: bool) -> Image {
    let mut writer = Writer::new(seed, never_rewrite_flushed);
    let mut life = writer.open();
    let acks = [Ack::LEADER, Ack::LEADER_FLUSHED, Ack::NONE, Ack::LEADER];
    for index in 0..24 {
        let bytes = [700, 3900, 60, 9000][index % 4];
        writer.append(&mut life, 1 + crate::input::wide(index % 3), bytes, acks[index % 4]);
    }
    writer.truncate(&mut life, 20);
    for index in 0..6 {
        writer.append(&mut life, 1, 5000, acks[index % 4]);
    }
    life.engine.close().expect("the disk is good");
    let mut life = writer.open();
    for index in 0..12 {
        writer.append(&mut life, 2, 2500 + 10 * index, acks[index % 4]);
    }
    writer.disk.kill();
    let written = life.engine.marks(life.log).written;
    drop(life);
    writer.values.truncate(narrow(written.0));
    let mut life = writer.reopen_after_kill();
    for index in 0..5 {
        writer.append(&mut life, 1, 100 + 900 * index, Ack::LEADER_FLUSHED);
    }
    // What no ack has promised to survive a power cut.
    for index in 0..6 {
        writer.append(&mut life, 1, 100 + 2000 * (index % 3), acks[2 + index % 2]);
    }
    writer.end(life, end)
}

impl Writer {
    /// Opens after a kill: what was not acked may have landed all the same.
    fn reopen_after_kill(&mut self) -> Life {
        let platform = self.disk.start_process();
        let mut engine = LocalEngine::open(platform, &Options::at(ROOT)).expect("the disk is good");
        let log = engine.log(LOG, &self.options).expect("the log is good");
        let end = engine.marks(log).log_end;
        assert!(end.0 >= crate::input::wide(self.values.len()), "D1: written survives a kill");
        if end.0 > crate::input::wide(self.values.len()) {
            let kept = crate::input::wide(self.values.len());
            engine.truncate(log, Offset(kept)).expect("the log is good");
        }
        Life { engine, log }
    }
}

/// Walks every segment to the end of its batches.
fn used_bytes(disk: &SimDisk) -> BTreeMap<PathBuf, u64> {
    let mut used = BTreeMap::new();
    for path in disk.files() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let Some(base) = name.as_deref().and_then(parse_segment_file_name) else { continue };
        let bytes = disk.read_file(&path).expect("the file was listed");
        let header = SegmentHeader::decode(&bytes).expect("the header is good");
        let rule = GenerationRule { current: Generation(u32::MAX), exact_from: Position(u64::MAX) };
        let mut chain = Chain::new(header.salt, FIRST_BATCH, base, Epoch(0), rule);
        let mut end = FIRST_BATCH;
        while let Ok(step) = chain.step(&bytes[narrow(chain.position().0)..]) {
            match step {
                Step::Batch { .. } => end = chain.position(),
                Step::Filler { .. } | Step::Gap { .. } => {}
                Step::NeedBytes(_) => break,
            }
        }
        used.insert(path, end.0);
    }
    used
}
