//! Straight-line use of the simulated disk.

use std::path::Path;

use highwater_io::sim::{SimDisk, SimIo, SimProfile};
use highwater_io::{
    Access, AlignedBuffer, BLOCK_BYTES, Blocking, Completion, FileId, Io, IoError, IoErrorKind,
    Operation, Platform, Token, Wait,
};

/// Returns an empty disk without faults.
pub(crate) fn disk(seed: u64) -> SimDisk {
    SimDisk::new(seed, SimProfile::default())
}

/// Returns the straight-line Io of a new process.
pub(crate) fn start(disk: &SimDisk) -> Blocking<SimIo> {
    Blocking::new(disk.start_process().control_io().expect("a new process is alive"))
}

pub(crate) fn path(name: &str) -> &Path {
    Path::new(name)
}

/// Returns a buffer of `blocks` blocks filled with `byte`.
pub(crate) fn filled(blocks: usize, byte: u8) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::zeroed(blocks * BLOCK_BYTES);
    buffer.fill(byte);
    buffer
}

pub(crate) fn block(number: usize) -> u64 {
    u64::try_from(number * BLOCK_BYTES).expect("a small number")
}

/// Returns `blocks` blocks of `byte`.
pub(crate) fn bytes(blocks: usize, byte: u8) -> Vec<u8> {
    vec![byte; blocks * BLOCK_BYTES]
}

pub(crate) fn open(io: &mut Blocking<SimIo>, name: &str, access: Access) -> FileId {
    io.open(path(name), access, true).expect("the file opens").0
}

/// Returns a file whose name and first `blocks` blocks of `byte` are on the media.
pub(crate) fn durable(io: &mut Blocking<SimIo>, name: &str, blocks: usize, byte: u8) -> FileId {
    let file = open(io, name, Access::CreateNew);
    write(io, file, 0, blocks, byte);
    io.flush(file).expect("it is flushed");
    sync(io, "/");
    file
}

pub(crate) fn sync(io: &mut Blocking<SimIo>, name: &str) {
    io.sync_directory(path(name)).expect("it is synced");
}

pub(crate) fn try_write(
    io: &mut Blocking<SimIo>,
    file: FileId,
    at: usize,
    blocks: usize,
    byte: u8,
) -> Result<(), IoError> {
    io.write(file, block(at), filled(blocks, byte), blocks * BLOCK_BYTES, false).1
}

pub(crate) fn write(io: &mut Blocking<SimIo>, file: FileId, at: usize, blocks: usize, byte: u8) {
    try_write(io, file, at, blocks, byte).expect("the write succeeds");
}

pub(crate) fn try_read(
    io: &mut Blocking<SimIo>,
    file: FileId,
    at: usize,
    blocks: usize,
) -> Result<Vec<u8>, IoError> {
    let length = blocks * BLOCK_BYTES;
    let (buffer, result) = io.read(file, block(at), filled(blocks, 0), length);
    result.map(|count| buffer[..count].to_vec())
}

pub(crate) fn read(io: &mut Blocking<SimIo>, file: FileId, at: usize, blocks: usize) -> Vec<u8> {
    try_read(io, file, at, blocks).expect("the read succeeds")
}

pub(crate) fn write_of(file: FileId, at: usize, blocks: usize, byte: u8) -> Operation {
    let (buffer, length) = (filled(blocks, byte), blocks * BLOCK_BYTES);
    Operation::Write { file, position: block(at), buffer, length, dsync: false }
}

/// Waits for everything in flight; returns it in the order it was reported.
pub(crate) fn drain(io: &mut SimIo) -> Vec<Completion> {
    let mut completions = Vec::new();
    while io.in_flight() > 0 {
        io.poll(Wait::Forever, &mut completions);
    }
    completions
}

/// Submits without waiting.
pub(crate) fn submit(io: &mut Blocking<SimIo>, token: u64, operation: Operation) {
    io.io().submit(Token(token), operation);
}

pub(crate) fn kind_of<T: std::fmt::Debug>(result: Result<T, IoError>) -> IoErrorKind {
    result.expect_err("this must fail").kind
}

/// Returns how many of the seeds below `seeds` make `case` true.
pub(crate) fn count(seeds: u64, case: impl Fn(u64) -> bool) -> u64 {
    (0..seeds).map(|seed| u64::from(case(seed))).sum()
}
