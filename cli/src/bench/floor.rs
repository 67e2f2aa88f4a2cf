//! The floor: what the disk does when nothing but bytes is asked of it.
//!
//! One file, written once from end to end with zeros and flushed before any clock starts, so that
//! every write of the clock meets blocks that are there. No format, no checksums, no queue. Two
//! figures: a stream of writes with a flush behind every 128 MiB and at the end, and a write with
//! its flush, in four ways. What an engine does on top of it is its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater_io::clock::monotonic_now;
use highwater_io::floor::LinkedFile;
use highwater_io::random::SeededRandom;
use highwater_io::system::{BackendChoice, SystemIo, SystemPlatform};
use highwater_io::threads::InlineIo;
use highwater_io::usage::process_usage;
use highwater_io::{
    Access, AlignedBuffer, BLOCK_BYTES, Blocking, Completion, FileId, Io, IoError, IoErrorKind,
    Monotonic, Operation, Output, Platform, Token, Wait,
};

use super::latency::Latency;
use super::numbers::{count, length};
use crate::output::Failure;

/// The bytes between two flushes of the stream: the size of a segment.
pub(crate) const SEGMENT_BYTES: u64 = 128 << 20;
/// The bytes of one write of the preparation.
const PREPARE_BYTES: usize = 1 << 20;
/// Preparing ends after this long even if the file is still shorter than asked for.
const PREPARE_TIME_MAX: Duration = Duration::from_secs(5);
/// Names the flushes of the stream among its writes.
const FLUSH: Token = Token(u64::MAX);

/// A way to make one block durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Variant {
    /// A write and a flush behind it, linked in the kernel.
    Linked,
    /// A write; when it was reported, a flush.
    Unlinked,
    /// A write that is durable when it is reported (`RWF_DSYNC`).
    Dsync,
    /// Two blocking system calls: `pwrite`, `fdatasync`.
    Blocking,
}

impl Variant {
    pub(crate) const ALL: [Variant; 4] =
        [Variant::Linked, Variant::Unlinked, Variant::Dsync, Variant::Blocking];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Variant::Linked => "linked",
            Variant::Unlinked => "unlinked",
            Variant::Dsync => "dsync",
            Variant::Blocking => "blocking",
        }
    }
}

/// What a stream of writes came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Streamed {
    pub(crate) bytes: u64,
    pub(crate) writes: u64,
    pub(crate) time: Duration,
    pub(crate) cpu: Duration,
}

/// What durable writes of one variant came to.
#[derive(Clone, Debug)]
pub(crate) struct Durable {
    pub(crate) latency: Latency,
    pub(crate) time: Duration,
    pub(crate) cpu: Duration,
}

impl Durable {
    pub(crate) fn new() -> Self {
        Durable { latency: Latency::new(), time: Duration::ZERO, cpu: Duration::ZERO }
    }
}

/// The file of the floor, open in every way. It has no name any more: a killed bench leaves
/// nothing behind.
#[derive(Debug)]
pub(crate) struct FloorFile {
    ring: SystemIo,
    file: FileId,
    inline: Blocking<InlineIo>,
    inline_file: FileId,
    linked: Option<LinkedFile>,
    bytes: u64,
    direct: bool,
    /// Where the next durable write goes.
    position: u64,
    completions: Vec<Completion>,
}

impl FloorFile {
    /// Makes and prepares a file of `bytes` in `directory`; of fewer, but at least `bytes_min`, on
    /// a disk that is slow.
    pub(crate) fn prepare(
        directory: &Path,
        backend: BackendChoice,
        [bytes_min, bytes]: [u64; 2],
    ) -> Result<Self, Failure> {
        let path = directory.join(format!(".bench-floor-{}", std::process::id()));
        let made = Self::make(&path, backend, [bytes_min, bytes]);
        // Whatever came of it, the name is not needed any more.
        match (made, std::fs::remove_file(&path)) {
            (Err(error), _) => Err(highwater::Error::from(error).into()),
            (Ok(floor), Ok(())) => Ok(floor),
            (Ok(_), Err(error)) => Err(Failure::new(
                crate::output::Exit::Error,
                format!(
                    "cannot remove {}: {error}; was the directory removed or unmounted?",
                    path.display()
                ),
            )),
        }
    }

    fn make(path: &Path, backend: BackendChoice, sizes: [u64; 2]) -> Result<Self, IoError> {
        let platform = SystemPlatform::new(backend);
        let mut inline = Blocking::new(platform.control_io()?);
        let (inline_file, direct) = inline.open(path, Access::CreateNew, true)?;
        let bytes = fill(&mut inline, inline_file, sizes)?;
        let mut ring = Blocking::new(platform.shard_io()?);
        let (file, _) = ring.open(path, Access::ReadWrite, true)?;
        let uses_ring = ring.io().backend() == highwater_io::Backend::Uring;
        let linked = if uses_ring { Some(LinkedFile::open(path)?) } else { None };
        Ok(FloorFile {
            ring: ring.into_io(),
            file,
            inline,
            inline_file,
            linked,
            bytes,
            direct,
            position: 0,
            completions: Vec::new(),
        })
    }

    /// Returns whether the page cache is bypassed.
    pub(crate) fn is_direct(&self) -> bool {
        self.direct
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn backend_name(&self) -> &'static str {
        self.ring.backend().name()
    }

    /// Returns the ways this machine has.
    pub(crate) fn variants(&self) -> Vec<Variant> {
        let all = Variant::ALL.into_iter();
        all.filter(|variant| *variant != Variant::Linked || self.linked.is_some()).collect()
    }

    /// Writes `bytes` in blocks, `depth` of them in flight, over and over the file; a flush goes
    /// out behind each 128 MiB once all its writes were reported, and a last one ends the clock.
    /// Ends early, with a whole number of blocks, when `time_max` is over.
    pub(crate) fn stream(
        &mut self,
        block_bytes: usize,
        depth: usize,
        bytes: u64,
        time_max: Duration,
    ) -> Result<Streamed, Failure> {
        let mut stream = Stream::new(self.bytes, block_bytes, depth);
        let blocks = (bytes / count(block_bytes)).max(1);
        let (started, cpu) = (monotonic_now(), cpu_time());
        let deadline = started.plus(time_max);
        while stream.completed < stream.target(blocks, deadline) || self.ring.in_flight() > 0 {
            let target = stream.target(blocks, deadline);
            while stream.submitted < target
                && let Some(buffer) = stream.free.pop()
            {
                let operation = stream.next_write(self.file, buffer);
                self.ring.submit(Token(stream.segment_of_last()), operation);
            }
            self.poll()?;
            for completion in std::mem::take(&mut self.completions) {
                if completion.token == FLUSH {
                    continue;
                }
                stream.free.extend(completion.buffer);
                if stream.ended_segment(completion.token.0) {
                    self.ring.submit(FLUSH, Operation::Flush { file: self.file });
                }
            }
        }
        self.flush_through_ring()?;
        Ok(Streamed {
            bytes: stream.completed * count(block_bytes),
            writes: stream.completed,
            time: monotonic_now().since(started),
            cpu: cpu_time().saturating_sub(cpu),
        })
    }

    /// Makes block after block durable for `time` (at least one), one way.
    pub(crate) fn durable(
        &mut self,
        variant: Variant,
        block_bytes: usize,
        time: Duration,
        sum: &mut Durable,
    ) -> Result<(), Failure> {
        let mut buffer = random_buffer(block_bytes);
        let (started, cpu) = (monotonic_now(), cpu_time());
        let (mut before, deadline) = (started, started.plus(time));
        while before == started || before < deadline {
            if self.position + count(block_bytes) > self.bytes {
                self.position = 0;
            }
            buffer = self.durable_once(variant, buffer)?;
            self.position += count(block_bytes);
            let now = monotonic_now();
            sum.latency.record(now.since(before));
            before = now;
        }
        sum.time += before.since(started);
        sum.cpu += cpu_time().saturating_sub(cpu);
        Ok(())
    }

    fn durable_once(
        &mut self,
        variant: Variant,
        buffer: AlignedBuffer,
    ) -> Result<AlignedBuffer, Failure> {
        let (position, length) = (self.position, buffer.len());
        let dsync = variant == Variant::Dsync;
        let result = match (variant, &mut self.linked) {
            (Variant::Linked, Some(linked)) => {
                return match linked.write_and_flush(position, &buffer) {
                    Ok(()) => Ok(buffer),
                    Err(error) => Err(highwater::Error::from(error).into()),
                };
            }
            (Variant::Blocking, _) => {
                let file = self.inline_file;
                let (buffer, written) = self.inline.write(file, position, buffer, length, false);
                written.and_then(|()| self.inline.flush(file)).map(|()| buffer)
            }
            _ => {
                let file = self.file;
                let operation = Operation::Write { file, position, buffer, length, dsync };
                self.ring.submit(Token(0), operation);
                let buffer = self.poll()?.pop().and_then(|completion| completion.buffer);
                let Some(buffer) = buffer else { panic!("a write gives its buffer back") };
                if !dsync {
                    self.flush_through_ring()?;
                }
                Ok(buffer)
            }
        };
        result.map_err(|error| highwater::Error::from(error).into())
    }

    fn flush_through_ring(&mut self) -> Result<(), Failure> {
        self.ring.submit(FLUSH, Operation::Flush { file: self.file });
        self.poll()?.clear();
        Ok(())
    }

    /// Waits for at least one completion; all that came stand in `completions`.
    fn poll(&mut self) -> Result<&mut Vec<Completion>, Failure> {
        self.completions.clear();
        while self.completions.is_empty() {
            self.ring.poll(Wait::Forever, &mut self.completions);
        }
        let failed = self.completions.iter().find_map(|c| c.result.as_ref().err());
        match failed {
            Some(error) => Err(highwater::Error::from(error.clone()).into()),
            None => Ok(&mut self.completions),
        }
    }
}

/// The state of a stream of writes over the file.
struct Stream {
    free: Vec<AlignedBuffer>,
    block_bytes: usize,
    blocks_of_file: u64,
    blocks_of_segment: u64,
    submitted: u64,
    completed: u64,
    /// Blocks reported of the segments from `first_open` on.
    reported: std::collections::VecDeque<u64>,
    first_open: u64,
    over: bool,
}

impl Stream {
    fn new(file_bytes: u64, block_bytes: usize, depth: usize) -> Self {
        let block = count(block_bytes);
        Stream {
            free: (0..depth).map(|_| random_buffer(block_bytes)).collect(),
            block_bytes,
            blocks_of_file: (file_bytes / block).max(1),
            blocks_of_segment: (SEGMENT_BYTES / block).max(1),
            submitted: 0,
            completed: 0,
            reported: std::collections::VecDeque::new(),
            first_open: 0,
            over: false,
        }
    }

    /// Returns how many blocks are written in all: as many as asked for, or as there were when the
    /// time was over.
    fn target(&mut self, blocks: u64, deadline: Monotonic) -> u64 {
        self.over = self.over || (self.submitted > 0 && monotonic_now() >= deadline);
        if self.over { self.submitted } else { blocks }
    }

    fn next_write(&mut self, file: FileId, buffer: AlignedBuffer) -> Operation {
        let block = self.submitted % self.blocks_of_file;
        self.submitted += 1;
        Operation::Write {
            file,
            position: block * count(self.block_bytes),
            buffer,
            length: self.block_bytes,
            dsync: false,
        }
    }

    fn segment_of_last(&self) -> u64 {
        (self.submitted - 1) / self.blocks_of_segment
    }

    /// Counts a reported write; returns whether it was the last one of its segment.
    fn ended_segment(&mut self, segment: u64) -> bool {
        self.completed += 1;
        let place = length(segment - self.first_open);
        if self.reported.len() <= place {
            self.reported.resize(place + 1, 0);
        }
        self.reported[place] += 1;
        let ended = self.reported[place] == self.blocks_of_segment;
        while self.reported.front() == Some(&self.blocks_of_segment) {
            self.reported.pop_front();
            self.first_open += 1;
        }
        ended
    }
}

/// Writes a new file from end to end with zeros and flushes it; returns its length.
fn fill(io: &mut Blocking<InlineIo>, file: FileId, sizes: [u64; 2]) -> Result<u64, IoError> {
    let [bytes_min, bytes] = sizes;
    let deadline = monotonic_now().plus(PREPARE_TIME_MAX);
    let mut buffer = AlignedBuffer::zeroed(PREPARE_BYTES);
    let mut position = 0;
    while position < bytes_min || (position < bytes && monotonic_now() < deadline) {
        let (back, written) = io.write(file, position, buffer, PREPARE_BYTES, false);
        match written {
            // A nearly full disk: a smaller file will do, and the run needs room, too.
            Err(error) if error.kind == IoErrorKind::NoSpace && position / 4 >= bytes_min => {
                position = position / 4 / count(PREPARE_BYTES) * count(PREPARE_BYTES);
                if position < bytes_min.max(1) {
                    return Err(error);
                }
                io.set_length(file, position)?;
                break;
            }
            written => written?,
        }
        buffer = back;
        position += count(PREPARE_BYTES);
    }
    io.flush(file)?;
    Ok(position)
}

/// Returns memory that no disk can squeeze.
pub(crate) fn random_buffer(bytes: usize) -> AlignedBuffer {
    let mut random = SeededRandom::new(0x666c_6f6f_7221_2121);
    let mut buffer = AlignedBuffer::zeroed(bytes);
    for word in buffer.chunks_exact_mut(size_of::<u64>()) {
        word.copy_from_slice(&random.next_u64().to_le_bytes());
    }
    buffer
}

pub(crate) fn cpu_time() -> Duration {
    let usage = process_usage();
    usage.user + usage.system
}

/// Reads files by direct reads of `block_bytes`, `depth` in flight; returns the bytes and the time.
pub(crate) fn read_raw(
    paths: &[PathBuf],
    block_bytes: usize,
    depth: usize,
) -> Result<(u64, Duration), IoError> {
    let platform = SystemPlatform::new(BackendChoice::Auto);
    let mut io = platform.shard_io()?;
    let mut free: Vec<_> = (0..depth).map(|_| AlignedBuffer::zeroed(block_bytes)).collect();
    let (mut bytes, mut completions) = (0, Vec::new());
    let mut time = Duration::ZERO;
    for path in paths {
        let mut blocking = Blocking::new(io);
        let (file, direct) = blocking.open(path, Access::Read, true)?;
        if !direct {
            blocking.drop_cache(file)?;
        }
        let end = blocking.length(file)?;
        io = blocking.into_io();
        let (started, mut position) = (monotonic_now(), 0);
        while position < end || io.in_flight() > 0 {
            while position < end
                && let Some(buffer) = free.pop()
            {
                let operation = Operation::Read { file, position, buffer, length: block_bytes };
                io.submit(Token(0), operation);
                position += count(block_bytes);
            }
            io.poll(Wait::Forever, &mut completions);
            for completion in completions.drain(..) {
                free.extend(completion.buffer);
                if let Output::Bytes(read) = completion.result? {
                    bytes += count(read);
                }
            }
        }
        time += monotonic_now().since(started);
        let mut blocking = Blocking::new(io);
        blocking.close(file)?;
        io = blocking.into_io();
    }
    Ok((bytes, time))
}

/// Checks the size of a block of the floor.
pub(crate) fn block_bytes(text: &str) -> Result<u64, String> {
    let bytes = crate::args::byte_count(text)?;
    let unit = count(BLOCK_BYTES);
    if (unit..=16 << 20).contains(&bytes) && bytes.is_multiple_of(unit) {
        return Ok(bytes);
    }
    Err(format!("a multiple of {unit} up to 16 MiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_of_the_stream_is_flushed_once_and_only_when_all_of_it_was_reported() {
        let mut stream = Stream::new(1 << 30, 32 << 20, 8);
        assert_eq!(stream.blocks_of_segment, 4);
        // Reported out of order, over two segments' border.
        let ended: Vec<_> =
            [1, 0, 0, 1, 0, 0, 2, 1, 1].iter().map(|s| stream.ended_segment(*s)).collect();
        assert_eq!(ended, [false, false, false, false, false, true, false, false, true]);
        assert_eq!((stream.completed, stream.first_open), (9, 2));
    }
}
