//! The closed set of operations, and what comes back.

use std::path::PathBuf;
use std::sync::Arc;

use crate::buffer::AlignedBuffer;
use crate::error::IoError;
use crate::mapping::Mapping;

/// Names an operation from submission to completion; chosen by the submitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// An open file of one [`Io`](crate::Io); means nothing to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading an existing file.
    Read,
    /// Reading and writing an existing file.
    ReadWrite,
    /// Reading and writing a file that must not exist yet.
    CreateNew,
}

/// How [`Operation::Open`] opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenMode {
    /// What the file is opened for.
    pub access: Access,
    /// Bypass the page cache (`O_DIRECT`). Where the file system refuses it the file is opened
    /// through the page cache and [`Output::File`] says so.
    pub direct: bool,
}

/// One piece of work for the backend. Positions and lengths are in bytes; those of reads and
/// writes are multiples of [`BLOCK_BYTES`](crate::BLOCK_BYTES) (backends assert it).
#[derive(Debug)]
pub enum Operation {
    /// Opens a file. Completes with [`Output::File`]. A created name is not durable before
    /// [`SyncDirectory`](Operation::SyncDirectory) of its directory.
    Open {
        /// Where.
        path: PathBuf,
        /// How.
        mode: OpenMode,
    },
    /// Closes a file. No other operation of it may be in flight. Completes with [`Output::Done`].
    Close {
        /// Which.
        file: FileId,
    },
    /// Reads up to `length` bytes into the start of `buffer`; fewer only at the end of the file.
    /// Completes with [`Output::Bytes`].
    Read {
        /// Which file.
        file: FileId,
        /// First byte, inclusive.
        position: u64,
        /// Where to.
        buffer: AlignedBuffer,
        /// At most so many.
        length: usize,
    },
    /// Writes all of the first `length` bytes of `buffer`. Completes with [`Output::Bytes`] of
    /// `length`. With `dsync` (`RWF_DSYNC`) the completion says that these bytes, and what is
    /// needed to find them again, are on stable media; it says nothing of other writes.
    Write {
        /// Which file.
        file: FileId,
        /// First byte, inclusive.
        position: u64,
        /// Where from.
        buffer: AlignedBuffer,
        /// So many.
        length: usize,
        /// Durable when complete.
        dsync: bool,
    },
    /// Makes durable all writes to `file` reported before this was submitted, and what is needed
    /// to find them again (`fdatasync(2)`). Completes with [`Output::Done`].
    Flush {
        /// Which.
        file: FileId,
    },
    /// Reserves space for a byte range, so that writing it cannot run out of space, and extends
    /// the file over it; new bytes read as zeros (`fallocate(2)`, mode 0). Fails with
    /// [`IoErrorKind::NoSpace`](crate::IoErrorKind::NoSpace), changing nothing that was written,
    /// or with [`IoErrorKind::Unsupported`](crate::IoErrorKind::Unsupported).
    Allocate {
        /// Which.
        file: FileId,
        /// First byte, inclusive.
        position: u64,
        /// So many bytes.
        length: u64,
    },
    /// Sets the length of a file; growth reads as zeros.
    SetLength {
        /// Which.
        file: FileId,
        /// The new length in bytes.
        length: u64,
    },
    /// Asks for the length of a file in bytes. Completes with [`Output::Length`].
    Length {
        /// Which.
        file: FileId,
    },
    /// Maps a file, up to the length it has, read-only and with all its pages in memory. Completes
    /// with [`Output::Mapped`]. Blocks whoever runs it while the disk hangs, so it is not for a
    /// shard. Fails with [`IoErrorKind::Unsupported`](crate::IoErrorKind::Unsupported) where files
    /// cannot be mapped, among them empty ones: read it instead.
    Map {
        /// Which.
        file: FileId,
    },
    /// Drops clean cached pages of a file, so that the next read through the cache comes from the
    /// media as far as the kernel allows (`posix_fadvise(2)`, `DONTNEED`).
    DropCache {
        /// Which.
        file: FileId,
    },
    /// Makes one directory; its parent must exist. Fails with `AlreadyExists` if it is there.
    CreateDirectory {
        /// Where.
        path: PathBuf,
    },
    /// Makes the entries of a directory durable (`fsync(2)` of the directory).
    SyncDirectory {
        /// Which.
        path: PathBuf,
    },
    /// Lists a directory, sorted by name. Completes with [`Output::Entries`].
    List {
        /// Which.
        path: PathBuf,
    },
    /// Renames a file, replacing what is there; atomic for observers, durable after
    /// `SyncDirectory` of both directories.
    Rename {
        /// From.
        from: PathBuf,
        /// To.
        to: PathBuf,
    },
    /// Removes a file's name.
    Remove {
        /// Which.
        path: PathBuf,
    },
    /// Takes the exclusive lock of a directory, which is held until this `Io` is dropped *and* its
    /// last operation has ended - also when the process is killed: the kernel may still be
    /// writing for a dead process, and the next owner must not start before that is over. Fails
    /// with [`IoErrorKind::Locked`](crate::IoErrorKind::Locked) at once if another holds it.
    Lock {
        /// Which directory.
        path: PathBuf,
    },
}

impl Operation {
    /// Returns the verb used in error messages.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Operation::Open { .. } => "open",
            Operation::Close { .. } => "close",
            Operation::Read { .. } => "read",
            Operation::Write { .. } => "write",
            Operation::Flush { .. } => "flush",
            Operation::Allocate { .. } => "allocate",
            Operation::SetLength { .. } => "set the length of",
            Operation::Length { .. } => "ask the length of",
            Operation::Map { .. } => "map",
            Operation::DropCache { .. } => "drop the cache of",
            Operation::CreateDirectory { .. } => "create directory",
            Operation::SyncDirectory { .. } => "sync directory",
            Operation::List { .. } => "list directory",
            Operation::Rename { .. } => "rename",
            Operation::Remove { .. } => "remove",
            Operation::Lock { .. } => "lock",
        }
    }
}

/// What kind of thing a directory entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, without the directory. A name that is not UTF-8 is shown lossily.
    pub name: String,
    /// What it names.
    pub kind: EntryKind,
}

/// What a successful operation returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Nothing more to say.
    Done,
    /// The opened file.
    File {
        /// Its handle.
        file: FileId,
        /// Whether the page cache is bypassed.
        direct: bool,
    },
    /// How many bytes were read or written.
    Bytes(usize),
    /// The length of the file in bytes.
    Length(u64),
    /// The bytes of the file.
    Mapped(Arc<Mapping>),
    /// The entries of a directory.
    Entries(Vec<Entry>),
}

/// The end of one operation.
#[derive(Debug)]
pub struct Completion {
    /// The submitter's name for it.
    pub token: Token,
    /// What came of it.
    pub result: Result<Output, IoError>,
    /// The buffer of a read or write, returned in any case.
    pub buffer: Option<AlignedBuffer>,
}
