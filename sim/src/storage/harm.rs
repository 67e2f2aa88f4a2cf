//! The ways to damage a log's files. No process is alive while it happens.

use std::ops::Range;
use std::path::{Path, PathBuf};

use highwater_io::random::SeededRandom;
use highwater_io::sim::{SimDisk, Survival};
use highwater_io::{Access, AlignedBuffer, Blocking, Platform};
use highwater_segment::meta::{LogMeta, LogState, META_FILE_NAME, SLOT_BYTES, slot_of};
use highwater_segment::scan::evidence;
use highwater_segment::segment::{SegmentHeader, parse_segment_file_name, segment_file_name};
use highwater_segment::{FIRST_BATCH, Generation, Offset, Salt};

use crate::convert::{narrow, wide};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Some bytes of a segment below the mark were changed.
    Flipped {
        /// The segment.
        base: u64,
        /// The first byte.
        position: u64,
    },
    /// A segment's header block is zeros.
    ZeroHeader {
        /// The segment.
        base: u64,
    },
    /// A segment is gone.
    SegmentRemoved {
        /// The segment.
        base: u64,
    },
    /// `log.meta` is gone.
    MetaRemoved,
    /// Both slots are damaged.
    MetaDamaged,
    /// One slot is damaged.
    SlotDamaged,
    /// One slot is of another log.
    MetaOfTwo,
    /// `log.meta` is an older copy.
    OldMeta,
    /// A segment is that of another log.
    Foreign,
    /// A version nobody knows, with a good checksum, in `log.meta` or in a segment.
    Version,
    /// A second segment claims offsets of the first.
    Overlap,
    /// Both slots say clean, at an older mark than the log's end.
    FalseClean,
    /// Blocks that cannot be read.
    Unreadable,
}

/// A log to be damaged.
pub(crate) struct Harmed<'a> {
    pub(crate) disk: &'a SimDisk,
    pub(crate) directory: PathBuf,
    pub(crate) meta: &'a LogMeta,
    pub(crate) slots: Vec<LogMeta>,
}

impl Harmed<'_> {
    /// Damages the log; `None` if this kind is not possible here.
    pub(crate) fn apply(
        &self,
        random: &mut SeededRandom,
        other: Option<PathBuf>,
        old_meta: Option<Vec<u8>>,
    ) -> Option<Harm> {
        let meta_path = self.directory.join(META_FILE_NAME);
        match random.below(16) {
            0..5 => self.flip(random),
            5 => self.zero_header(random),
            6 => self.remove_segment(random),
            7 => {
                self.remove(&meta_path);
                Some(Harm::MetaRemoved)
            }
            8 => {
                if random.chance(1, 2) {
                    let at = random.below(2) * wide(SLOT_BYTES) + random.below(300);
                    self.change(&meta_path, at, 1 + random.below(8))?;
                    return Some(Harm::SlotDamaged);
                }
                for slot in 0..2 {
                    let at = slot * wide(SLOT_BYTES) + 16 + random.below(200);
                    self.change(&meta_path, at, 1 + random.below(8))?;
                }
                Some(Harm::MetaDamaged)
            }
            9 => {
                let foreign = self.disk.read_file(&other?.join(META_FILE_NAME))?;
                let second = foreign.get(SLOT_BYTES..2 * SLOT_BYTES)?;
                LogMeta::decode(second).ok()?;
                self.disk.overwrite_media(&meta_path, wide(SLOT_BYTES), second);
                Some(Harm::MetaOfTwo)
            }
            10 => self.restore_meta(&meta_path, &old_meta?),
            11 => self.swap_segment(random, &other?),
            12 => self.unknown_version(random, &meta_path),
            13 => self.overlap(),
            14 => self.false_clean(&meta_path),
            _ => {
                let base = self.base_below_mark(random)?;
                let path = self.path(base);
                let end = self.end_below_mark(base)?;
                self.disk.break_blocks(&path, random.below(end), 4096);
                Some(Harm::Unreadable)
            }
        }
    }

    fn path(&self, base: u64) -> PathBuf {
        self.directory.join(segment_file_name(Offset(base)))
    }

    fn bases(&self) -> Vec<u64> {
        let files = self.disk.files();
        let own = files.iter().filter(|path| path.parent() == Some(&self.directory));
        let names = own.filter_map(|path| path.file_name()?.to_str());
        names.filter_map(parse_segment_file_name).map(|base| base.0).collect()
    }

    /// Returns a segment with flushed batches in it.
    fn base_below_mark(&self, random: &mut SeededRandom) -> Option<u64> {
        let mark = self.meta.flushed;
        let mut bases = self.bases();
        bases.retain(|base| *base < mark.offset.0 && *base <= mark.segment.0);
        let at = random.index(bases.len().max(1));
        bases.get(at).copied()
    }

    /// Returns up to which byte a segment is below the mark.
    fn end_below_mark(&self, base: u64) -> Option<u64> {
        let mark = self.meta.flushed;
        if base == mark.segment.0 {
            return Some(mark.position.0);
        }
        let bytes = self.disk.read_file(&self.path(base))?;
        bytes.iter().rposition(|byte| *byte != 0).map(|last| wide(last) + 1)
    }

    fn change(&self, path: &Path, at: u64, count: u64) -> Option<()> {
        let bytes = self.disk.read_file(path)?;
        let range = narrow(at)..narrow(at + count).min(bytes.len());
        let changed: Vec<u8> = bytes.get(range)?.iter().map(|byte| !byte).collect();
        self.disk.overwrite_media(path, at, &changed);
        Some(())
    }

    fn flip(&self, random: &mut SeededRandom) -> Option<Harm> {
        let mark = self.meta.flushed;
        // Behind the mark, in a sealed segment: what only a later batch proves. Seldom possible.
        if self.bases().iter().any(|base| *base > mark.segment.0) && random.chance(1, 2) {
            return self.flip_in(mark.segment.0, mark.position.0..u64::MAX, random);
        }
        let base = self.base_below_mark(random)?;
        // Mostly below the mark, sometimes anywhere up to the end.
        let end = self.end_below_mark(base)?;
        let end = if random.chance(1, 3) { u64::MAX } else { end };
        self.flip_in(base, FIRST_BATCH.0..end, random)
    }

    /// Changes some bytes of a segment in a range, as far as it is used.
    fn flip_in(&self, base: u64, range: Range<u64>, random: &mut SeededRandom) -> Option<Harm> {
        let bytes = self.disk.read_file(&self.path(base))?;
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| wide(last) + 1);
        let end = range.end.min(used);
        let room = end.checked_sub(range.start).filter(|room| *room > 0)?;
        let position = range.start + random.below(room);
        let count = (1 + random.below(600)).min(end - position);
        self.change(&self.path(base), position, count)?;
        Some(Harm::Flipped { base, position })
    }

    fn zero_header(&self, random: &mut SeededRandom) -> Option<Harm> {
        let base = self.base_below_mark(random)?;
        self.disk.overwrite_media(&self.path(base), 0, &[0; 4096]);
        Some(Harm::ZeroHeader { base })
    }

    fn remove_segment(&self, random: &mut SeededRandom) -> Option<Harm> {
        let base = self.base_below_mark(random)?;
        self.remove(&self.path(base));
        Some(Harm::SegmentRemoved { base })
    }

    /// Puts an older copy back, if it is one that can be told: the generation was raised since,
    /// batches of the newer one are there, and nothing was truncated. Without such a batch the log
    /// is as a crash before the newer generation could have left it.
    fn restore_meta(&self, path: &Path, old: &[u8]) -> Option<Harm> {
        let slots = old.chunks(SLOT_BYTES).filter_map(|slot| LogMeta::decode(slot).ok());
        let old_meta = slots.max_by_key(|slot| slot.sequence)?;
        let same_log = old_meta.log_id == self.meta.log_id;
        let older = old_meta.generation < self.meta.generation;
        let truncated = old_meta.truncations != self.meta.truncations;
        if !same_log || !older || truncated || !self.holds_newer_than(old_meta.generation) {
            return None;
        }
        self.disk.overwrite_media(path, 0, old);
        Some(Harm::OldMeta)
    }

    /// Returns whether a good header of a newer generation stands in some segment.
    fn holds_newer_than(&self, generation: Generation) -> bool {
        let files =
            self.bases().into_iter().filter_map(|base| self.disk.read_file(&self.path(base)));
        files.into_iter().any(|bytes| {
            let header = SegmentHeader::decode(&bytes).ok();
            let body = bytes.get(narrow(FIRST_BATCH.0)..).unwrap_or_default();
            let salt = header.map(|header| header.salt);
            evidence(body, FIRST_BATCH, salt, generation).newer_generation.is_some()
        })
    }

    fn swap_segment(&self, random: &mut SeededRandom, other: &Path) -> Option<Harm> {
        let base = self.base_below_mark(random)?;
        let files = self.disk.files();
        let foreign = files.iter().find(|path| {
            path.parent() == Some(other) && path.extension().is_some_and(|end| end == "log")
        })?;
        let bytes = self.disk.read_file(foreign)?;
        self.replace(&self.path(base), &bytes);
        Some(Harm::Foreign)
    }

    fn unknown_version(&self, random: &mut SeededRandom, meta: &Path) -> Option<Harm> {
        let path = if random.chance(1, 2) {
            meta.to_owned()
        } else {
            let mut bases = self.bases();
            bases.retain(|base| *base >= self.meta.flushed.segment.0);
            self.path(*bases.first()?)
        };
        let mut block = self.disk.read_file(&path)?.get(..4096)?.to_vec();
        block[8] = 9;
        block[12..16].fill(0);
        let sum = crc32c(&block);
        block[12..16].copy_from_slice(&sum.to_le_bytes());
        self.disk.overwrite_media(&path, 0, &block);
        Some(Harm::Version)
    }

    /// Adds a segment whose base lies inside the newest.
    fn overlap(&self) -> Option<Harm> {
        let mark = self.meta.flushed;
        let base = mark.segment.0 + 1;
        if base >= mark.offset.0 || self.bases().contains(&base) {
            return None;
        }
        let (log_id, base_offset) = (self.meta.log_id, Offset(base));
        let header = SegmentHeader { log_id, base_offset, salt: Salt(1) };
        self.replace(&self.path(base), &header.encode());
        Some(Harm::Overlap)
    }

    /// Says clean at the older of the two slots' marks.
    fn false_clean(&self, path: &Path) -> Option<Harm> {
        let [a, b] = self.slots.as_slice() else { return None };
        if a.generation != b.generation {
            return None;
        }
        for slot in [a, b] {
            let mut lie = slot.clone();
            lie.state = LogState::Clean;
            lie.flushed = a.flushed.min(b.flushed);
            lie.producers.offset = lie.producers.offset.min(lie.flushed.offset);
            lie.log_start = a.log_start.min(b.log_start);
            lie.high_watermark = lie.flushed.offset;
            lie.durable_watermark = lie.flushed.offset;
            let at = wide(slot_of(slot.sequence) * SLOT_BYTES);
            self.disk.overwrite_media(path, at, &lie.encode());
        }
        Some(Harm::FalseClean)
    }

    fn remove(&self, path: &Path) {
        self.operate(|io| drop(io.remove(path)));
    }

    fn replace(&self, path: &Path, bytes: &[u8]) {
        self.operate(|io| {
            drop(io.remove(path));
            let Ok((file, _)) = io.open(path, Access::CreateNew, true) else { return };
            let mut buffer = AlignedBuffer::zeroed(bytes.len());
            buffer[..bytes.len()].copy_from_slice(bytes);
            let length = buffer.len();
            drop(io.write(file, 0, buffer, length, true));
            drop(io.close(file));
        });
    }

    fn operate(&self, work: impl FnOnce(&mut Blocking<highwater_io::sim::SimIo>)) {
        let platform = self.disk.start_process();
        if let Ok(io) = platform.control_io() {
            work(&mut Blocking::new(io));
        }
        self.disk.power_cut(Survival::Everything);
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    !sum
}
