//! What the input does to an image.

use std::path::{Path, PathBuf};

use highwater_io::sim::SimDisk;
use highwater_io::{Access, Blocking, Platform};
use highwater_segment::batch::MAGIC;
use highwater_segment::meta::{META_BYTES, META_FILE_NAME, decode_slots};
use highwater_segment::recovery::{MetaCase, decide_meta};
use highwater_segment::segment::segment_file_name;
use highwater_segment::{MAX_SEGMENT_BYTES, Offset};

use super::images::{Image, log_directory};
use crate::input::{Input, narrow, wide};
use crate::seal::{BLOCK, seal_batch, seal_block, seal_index};

/// The most things one input does.
const ACTS_MAX: usize = 16;
const SECTOR: u64 = 512;
/// Grown files stay small.
const GROWN_BYTES_MAX: u64 = 1 << 20;

/// What was done, as far as the promises depend on it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// Checksums were made to fit: whatever is read may be anything.
    pub(crate) forged: bool,
    /// A segment was put there that nobody wrote.
    pub(crate) planted: bool,
    /// Blocks cannot be read.
    pub(crate) unreadable: bool,
    /// Something of a closed log is not what it was: `verify` must say so.
    pub(crate) changed: bool,
}

/// Carries out the acts of `input` on `disk`, a copy of the image's.
pub(crate) fn carry_out(image: &Image, disk: &SimDisk, mut input: Input<'_>) -> Done {
    let mut done = Done::default();
    for _ in 0..ACTS_MAX {
        if input.is_empty() {
            break;
        }
        let kind = input.byte();
        let files = log_files(disk);
        let Some(path) = files.get(usize::from(input.byte()) % files.len().max(1)) else { break };
        act(kind, disk, path, &files, &mut input, &mut done);
    }
    done.changed = image.clean && differs(image, disk);
    done
}

/// Returns the files of the log, sorted.
pub(crate) fn log_files(disk: &SimDisk) -> Vec<PathBuf> {
    let directory = log_directory();
    disk.files().into_iter().filter(|path| path.starts_with(&directory)).collect()
}

fn act(
    kind: u8,
    disk: &SimDisk,
    path: &Path,
    files: &[PathBuf],
    input: &mut Input<'_>,
    done: &mut Done,
) {
    let length = disk.read_file(path).map_or(0, |bytes| wide(bytes.len()));
    match kind % 9 {
        0 => {
            let at = u64::from(input.word());
            let count = usize::from(input.byte());
            overwrite(disk, path, at, input.bytes(count));
        }
        1 => {
            let at = u64::from(input.word()) % length.max(1);
            let flips = input.byte();
            let old = disk.read_file(path).unwrap_or_default();
            if let Some(old) = old.get(narrow(at)) {
                overwrite(disk, path, at, &[old ^ flips]);
            }
        }
        2 => {
            let sector = u64::from(input.short()) * SECTOR;
            overwrite(disk, path, sector, &[0; 512]);
        }
        3 => {
            let sectors = u64::from(input.byte() % 16) + 1;
            let (from, to) = (u64::from(input.short()) * SECTOR, u64::from(input.short()) * SECTOR);
            let source = &files[usize::from(input.byte()) % files.len()];
            let bytes = disk.read_file(source).unwrap_or_default();
            let bytes = bytes.get(narrow(from)..).unwrap_or_default();
            overwrite(disk, path, to, &bytes[..bytes.len().min(narrow(sectors * SECTOR))]);
        }
        4 => {
            let new = u64::from(input.word()) % GROWN_BYTES_MAX;
            with_files(disk, |io| {
                let (file, _) = io.open(path, Access::ReadWrite, true).expect("it is there");
                io.set_length(file, new).expect("the disk is good");
                io.flush(file).expect("the disk is good");
                io.close(file).expect("the disk is good");
            });
        }
        5 => with_files(disk, |io| {
            io.remove(path).expect("it is there");
            io.sync_directory(&log_directory()).expect("the disk is good");
        }),
        6 => {
            let base =
                if input.byte().is_multiple_of(2) { input.long() } else { input.byte().into() };
            done.planted |= plant(disk, path, Offset(base));
        }
        7 => {
            let at = u64::from(input.word()) % length.max(1);
            let blocks = u64::from(input.byte() % 4) + 1;
            disk.break_blocks(path, at, blocks.min(length / 4096) * 4096);
            done.unreadable = true;
        }
        _ => {
            forge(disk, path, input);
            done.forged = true;
        }
    }
}

/// Overwrites what of `bytes` lies inside the file.
fn overwrite(disk: &SimDisk, path: &Path, at: u64, bytes: &[u8]) {
    let length = disk.read_file(path).map_or(0, |file| wide(file.len()));
    let at = at % length.max(1);
    let room = narrow(length - at.min(length)).min(bytes.len());
    if room > 0 {
        disk.overwrite_media(path, at, &bytes[..room]);
    }
}

fn with_files<T>(
    disk: &SimDisk,
    work: impl FnOnce(&mut Blocking<<highwater_io::sim::SimPlatform as Platform>::ControlIo>) -> T,
) -> T {
    let platform = disk.start_process();
    let mut io = Blocking::new(platform.control_io().expect("the process lives"));
    work(&mut io)
}

/// Copies a file to the name of the segment that would start at `base`.
fn plant(disk: &SimDisk, source: &Path, base: Offset) -> bool {
    let mut bytes = disk.read_file(source).unwrap_or_default();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    let path = log_directory().join(segment_file_name(base));
    if disk.files().contains(&path) || bytes.is_empty() {
        return false;
    }
    with_files(disk, |io| {
        let (file, _) = io.open(&path, Access::CreateNew, true).expect("the name is free");
        let mut buffer = highwater_io::AlignedBuffer::zeroed(bytes.len());
        buffer.copy_from_slice(&bytes);
        io.write(file, 0, buffer, bytes.len(), true).1.expect("the disk is good");
        io.close(file).expect("the disk is good");
        io.sync_directory(&log_directory()).expect("the disk is good");
    });
    true
}

/// Changes bytes of something that has a checksum - a slot, a header block, a batch header, an
/// index - and makes the checksum fit.
fn forge(disk: &SimDisk, path: &Path, input: &mut Input<'_>) {
    let (which, at) = (usize::from(input.byte()), usize::from(input.short()));
    let count = usize::from(input.byte());
    let new = input.bytes(count);
    let Some(mut file) = disk.read_file(path) else { return };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (start, length) = if name == META_FILE_NAME {
        (which % 2 * BLOCK, BLOCK)
    } else if name.ends_with(".index") {
        (0, file.len())
    } else {
        let batches = (BLOCK..file.len()).step_by(8).filter(|at| file[*at..].starts_with(&MAGIC));
        let starts: Vec<usize> = std::iter::once(0).chain(batches).collect();
        let start = starts[which % starts.len()];
        (start, if start == 0 { BLOCK } else { 88 })
    };
    if file.len() < start + length || length == 0 {
        return;
    }
    let at = start + at % length;
    let new = &new[..new.len().min(start + length - at)];
    file[at..at + new.len()].copy_from_slice(new);
    match (name.ends_with(".index"), start) {
        (true, _) => seal_index(&mut file),
        (false, start) if length == BLOCK => seal_block(&mut file[start..]),
        (false, start) => seal_batch(&mut file[start..], true),
    }
    assert!(wide(file.len()) <= MAX_SEGMENT_BYTES);
    let end = (start + length).min(file.len());
    disk.overwrite_media(path, wide(start), &file[start..end]);
}

/// Whether something of the log differs from the image, in `log.meta` or in a segment from its
/// start to the end of its batches.
fn differs(image: &Image, disk: &SimDisk) -> bool {
    let meta = log_directory().join(META_FILE_NAME);
    let same = |path: &Path, used: usize| {
        let (old, new) = (image.disk.read_file(path), disk.read_file(path));
        let used = |bytes: Option<Vec<u8>>| bytes.map(|b| b[..used.min(b.len())].to_vec());
        used(old) == used(new)
    };
    if is_like_new(disk) {
        return false;
    }
    !same(&meta, META_BYTES) || image.used.iter().any(|(path, used)| !same(path, narrow(*used)))
}

/// Whether nothing is left to tell that there was a log: no segment and no good slot (M1).
pub(crate) fn is_like_new(disk: &SimDisk) -> bool {
    let meta = log_directory().join(META_FILE_NAME);
    let names = log_files(disk);
    let segments = names.iter().any(|path| path.extension().is_some_and(|end| end == "log"));
    let slots = decode_slots(&disk.read_file(&meta).unwrap_or_default());
    decide_meta(&slots, segments).0 == MetaCase::M1NeverCreated
}
