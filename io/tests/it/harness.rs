//! Running one case on every backend, in a directory of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use highwater_io::system::{BackendChoice, SystemIo, SystemPlatform};
use highwater_io::threads::{InlineIo, ThreadsIo};
use highwater_io::uring::{UringIo, remedy};
use highwater_io::{
    Access, AlignedBuffer, BLOCK_BYTES, Backend, Blocking, Completion, FileId, Io, IoErrorKind,
    Monotonic, OpenMode, Operation, Output, Token, Wait, Waker,
};

/// Any backend.
pub(crate) enum AnyIo {
    Inline(InlineIo),
    System(SystemIo),
}

impl AnyIo {
    fn get(&self) -> &dyn Io {
        match self {
            AnyIo::Inline(io) => io,
            AnyIo::System(io) => io,
        }
    }

    fn get_mut(&mut self) -> &mut dyn Io {
        match self {
            AnyIo::Inline(io) => io,
            AnyIo::System(io) => io,
        }
    }
}

impl Io for AnyIo {
    fn submit(&mut self, token: Token, operation: Operation) {
        self.get_mut().submit(token, operation);
    }

    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        self.get_mut().poll(wait, completions);
    }

    fn is_alone(&self) -> bool {
        self.get().is_alone()
    }

    fn run_alone(&mut self, completions: &mut Vec<Completion>) {
        self.get_mut().run_alone(completions);
    }

    fn in_flight(&self) -> usize {
        self.get().in_flight()
    }

    fn capacity(&self) -> usize {
        self.get().capacity()
    }

    fn backend(&self) -> Backend {
        self.get().backend()
    }

    fn waker(&self) -> Waker {
        self.get().waker()
    }

    fn now(&self) -> Monotonic {
        self.get().now()
    }

    fn wall_clock_ms(&self) -> i64 {
        self.get().wall_clock_ms()
    }

    fn random_u64(&mut self) -> u64 {
        self.get_mut().random_u64()
    }
}

/// Returns a new `backend`, or nothing where this machine has none (the reason is printed).
pub(crate) fn make(backend: Backend) -> Option<AnyIo> {
    match backend {
        Backend::Inline => Some(AnyIo::Inline(InlineIo::new())),
        Backend::Threads => {
            let io = ThreadsIo::new(3).expect("threads start");
            Some(AnyIo::System(SystemIo::Threads(io)))
        }
        Backend::Uring => match UringIo::new() {
            Ok(io) => Some(AnyIo::System(SystemIo::Uring(Box::new(io)))),
            Err(error) => {
                println!("skipped on io_uring: {error}; {}", remedy(&error));
                None
            }
        },
        Backend::Sim => unreachable!("the simulated disk has tests of its own"),
    }
}

pub(crate) const BACKENDS: [Backend; 3] = [Backend::Inline, Backend::Threads, Backend::Uring];

/// Runs `case` on every backend: `make` gives it as many of that backend as it wants, and the
/// directory is empty and its own.
pub(crate) fn check(case: impl Fn(&dyn Fn() -> AnyIo, &Path)) {
    for backend in BACKENDS {
        if make(backend).is_none() {
            continue;
        }
        println!("on {}", backend.name());
        let directory = TestDirectory::new();
        case(&|| make(backend).expect("it was there a moment ago"), &directory.path);
    }
}

/// As [`check`], for cases that need one Io and no order of operations.
pub(crate) fn check_blocking(case: impl Fn(Blocking<AnyIo>, &Path)) {
    check(|make, directory| case(Blocking::new(make()), directory));
}

/// Returns the platform whose shards use `backend`.
pub(crate) fn platform(backend: Backend) -> SystemPlatform {
    let uring = backend == Backend::Uring;
    SystemPlatform::new(if uring { BackendChoice::Uring } else { BackendChoice::Threads })
}

/// A directory that goes away with its test.
pub(crate) struct TestDirectory {
    pub(crate) path: PathBuf,
}

impl TestDirectory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Set while it runs, it chooses the file system to test on.
        let chosen = std::env::var("CARGO_TARGET_TMPDIR").ok();
        let parent = chosen.as_deref().or(option_env!("CARGO_TARGET_TMPDIR"));
        let parent = parent.map_or_else(std::env::temp_dir, PathBuf::from);
        let path = parent.join(format!("highwater-io-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a test has its directory");
        TestDirectory { path }
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            println!("left behind: {}: {error}", self.path.display());
        }
    }
}

/// Returns a buffer of `blocks` blocks filled with `byte`.
pub(crate) fn filled(blocks: usize, byte: u8) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::zeroed(blocks * BLOCK_BYTES);
    buffer.fill(byte);
    buffer
}

/// Returns the byte position of a block.
pub(crate) fn block(number: usize) -> u64 {
    u64::try_from(number * BLOCK_BYTES).expect("a small number")
}

/// Opens for direct I/O, as the engine does.
pub(crate) fn open<I: Io>(io: &mut Blocking<I>, path: &Path, access: Access) -> FileId {
    io.open(path, access, true).expect("the file opens").0
}

/// Writes `blocks` blocks of `byte` at a block.
pub(crate) fn write<I: Io>(io: &mut Blocking<I>, file: FileId, at: usize, blocks: usize, byte: u8) {
    let length = blocks * BLOCK_BYTES;
    io.write(file, block(at), filled(blocks, byte), length, false).1.expect("the write succeeds");
}

/// Reads up to `blocks` blocks at a block and returns the bytes there were.
pub(crate) fn read<I: Io>(io: &mut Blocking<I>, file: FileId, at: usize, blocks: usize) -> Vec<u8> {
    let length = blocks * BLOCK_BYTES;
    let (buffer, result) = io.read(file, block(at), filled(blocks, 0xee), length);
    buffer[..result.expect("the read succeeds")].to_vec()
}

/// Opens for direct I/O on an Io that is used by submission and completion.
pub(crate) fn open_on(io: &mut AnyIo, path: &Path, access: Access) -> FileId {
    let mode = OpenMode { access, direct: true };
    io.submit(Token(u64::MAX), Operation::Open { path: path.to_owned(), mode });
    match take_one(io).result {
        Ok(Output::File { file, .. }) => file,
        other => panic!("open gave {other:?}"),
    }
}

/// Waits for the one operation in flight.
pub(crate) fn take_one(io: &mut AnyIo) -> Completion {
    let mut completions = Vec::new();
    while completions.is_empty() {
        io.poll(Wait::Forever, &mut completions);
    }
    assert_eq!((completions.len(), io.in_flight()), (1, 0));
    completions.remove(0)
}

/// Returns the kind of the error.
pub(crate) fn kind_of<T: std::fmt::Debug>(result: Result<T, highwater_io::IoError>) -> IoErrorKind {
    result.expect_err("this must fail").kind
}
