//! The workload of the self-test: blocks appended to files, each made safe by `fdatasync`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use highwater_io::random::SeededRandom;

use crate::device::Marker;
use crate::image::wide;
use crate::replay::Mark;
use crate::workload::{Failure, Verdict, Workload};

const BLOCK_BYTES: usize = 4096;
const BLOCKS_PER_FILE: usize = 24;
const FIRST_LIFE_BLOCKS: usize = 240;
const SECOND_LIFE_BLOCKS: usize = 48;

/// One block that was called safe.
#[derive(Clone, Copy, Debug)]
struct Acked {
    /// Its place: blocks are numbered through all files.
    index: usize,
    /// Which life wrote it; the bytes of a block follow from this and the index.
    life: u64,
    mark: Mark,
}

/// Appends blocks of 4 KiB to files of 24, each file made under another name and renamed.
///
/// With flushes it must lose nothing. Without, as a *control*, it calls every block safe as soon
/// as it is written: a rig that does not catch this proves nothing.
#[derive(Debug)]
pub struct Blocks {
    random: SeededRandom,
    flush: bool,
    life: u64,
    first: Vec<Acked>,
    /// Those of `first` that the first cut had to keep.
    kept: Vec<Acked>,
    second: Vec<Acked>,
}

impl Blocks {
    /// Returns a workload whose bytes follow from `seed`; `control` leaves out every flush.
    #[must_use]
    pub fn new(seed: u64, control: bool) -> Self {
        let random = SeededRandom::new(seed).split("blocks");
        let (first, kept, second) = (Vec::new(), Vec::new(), Vec::new());
        Blocks { random, flush: !control, life: 0, first, kept, second }
    }

    /// Appends the blocks from `from` to `to` in a new life.
    fn append(
        &mut self,
        directory: &Path,
        from: usize,
        to: usize,
        marker: &dyn Marker,
    ) -> io::Result<Vec<Acked>> {
        self.life = self.random.next_u64();
        let mut acked = Vec::new();
        let mut file = None;
        for index in from..to {
            let block = block(self.life, index);
            file = match file {
                Some(file) if !index.is_multiple_of(BLOCKS_PER_FILE) => Some(file),
                _ => Some(self.open(directory, index)?),
            };
            if let Some(file) = &mut file {
                file.write_all(&block)?;
                if self.flush {
                    file.sync_data()?;
                }
            }
            acked.push(Acked { index, life: self.life, mark: marker.mark() });
        }
        Ok(acked)
    }

    /// Opens the file that block `index` is to be appended to, a new one for its first block.
    fn open(&self, directory: &Path, index: usize) -> io::Result<File> {
        let path = file_path(directory, index);
        if !index.is_multiple_of(BLOCKS_PER_FILE) {
            return OpenOptions::new().append(true).open(path);
        }
        let unnamed = path.with_extension("new");
        let file = File::create(&unnamed)?;
        std::fs::rename(&unnamed, &path)?;
        if self.flush {
            File::open(directory)?.sync_all()?;
        }
        Ok(file)
    }

    /// Removes everything from block `index` on.
    fn truncate(&self, directory: &Path, index: usize) -> io::Result<()> {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(number) = name.strip_prefix("blocks-") else { continue };
            let first = number.parse().map_or(usize::MAX, |file: usize| file * BLOCKS_PER_FILE);
            if first >= index {
                std::fs::remove_file(&path)?;
            } else if first + BLOCKS_PER_FILE > index {
                let file = OpenOptions::new().write(true).open(&path)?;
                file.set_len(wide((index - first) * BLOCK_BYTES))?;
                if self.flush {
                    file.sync_all()?;
                }
            }
        }
        if self.flush { File::open(directory)?.sync_all() } else { Ok(()) }
    }
}

impl Workload for Blocks {
    fn first_life(&mut self, directory: &Path, marker: &dyn Marker) -> Result<(), Failure> {
        self.first = self.append(directory, 0, FIRST_LIFE_BLOCKS, marker)?;
        Ok(())
    }

    fn check_and_continue(
        &mut self,
        directory: &Path,
        cut: Mark,
        marker: &dyn Marker,
    ) -> Result<Verdict, Failure> {
        self.kept = self.first.iter().filter(|acked| acked.mark <= cut).copied().collect();
        let verdict = check(directory, self.kept.iter())?;
        let mut whole = 0;
        for acked in &self.first {
            if !is_there(directory, *acked)? {
                break;
            }
            whole += 1;
        }
        self.truncate(directory, whole)?;
        self.second = self.append(directory, whole, whole + SECOND_LIFE_BLOCKS, marker)?;
        Ok(verdict)
    }

    fn check_again(&mut self, directory: &Path, cut: Mark) -> Result<Verdict, Failure> {
        let second = self.second.iter().filter(|acked| acked.mark <= cut);
        Ok(check(directory, self.kept.iter().chain(second))?)
    }
}

/// Compares what is below `directory` with what was called safe.
fn check<'a>(directory: &Path, owed: impl Iterator<Item = &'a Acked>) -> io::Result<Verdict> {
    let mut verdict = Verdict::default();
    for acked in owed {
        verdict.owed += 1;
        if !is_there(directory, *acked)? {
            verdict.lost += 1;
            verdict.first_loss.get_or_insert_with(|| {
                format!("block {}, acknowledged at mark {}, is gone", acked.index, acked.mark.0)
            });
        }
    }
    Ok(verdict)
}

/// Returns whether a block is where it was written, with its bytes.
fn is_there(directory: &Path, acked: Acked) -> io::Result<bool> {
    let file = match File::open(file_path(directory, acked.index)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; BLOCK_BYTES];
    let position = wide(acked.index % BLOCKS_PER_FILE * BLOCK_BYTES);
    match file.read_exact_at(&mut bytes, position) {
        Ok(()) => Ok(bytes == block(acked.life, acked.index)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the path of the file that holds block `index`.
fn file_path(directory: &Path, index: usize) -> PathBuf {
    directory.join(format!("blocks-{}", index / BLOCKS_PER_FILE))
}

/// Returns the bytes of a block.
fn block(life: u64, index: usize) -> Vec<u8> {
    let mut random = SeededRandom::new(life ^ wide(index));
    let words = std::iter::repeat_with(|| random.next_u64().to_le_bytes());
    words.take(BLOCK_BYTES / 8).flatten().collect()
}
