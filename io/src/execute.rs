//! One operation from submission to completion by blocking system calls, wherever it runs.

use std::fs::FileType;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::buffer::{AlignedBuffer, BLOCK_BYTES};
use crate::error::{IoError, IoErrorKind};
use crate::files::{FileTable, OpenFile, open};
use crate::lock::{DirectoryLock, LockFailure, Owner};
use crate::mapping::Mapping;
use crate::operation::{Completion, Entry, EntryKind, Operation, Output, Token};
use crate::progress::Progress;
use crate::sys;

/// The most operations in flight on one [`Io`](crate::Io) of the real backends.
pub(crate) const IN_FLIGHT_MAX: usize = 256;

/// The most directory locks one [`Io`](crate::Io) holds.
pub(crate) const LOCKS_MAX: usize = 16;

/// The file an operation works on.
#[derive(Debug)]
pub(crate) enum Target {
    /// The operation names its object by path.
    Path,
    /// The same, for a lock, and who takes it.
    Lock(Owner),
    /// An open file, which stays open.
    Shared(Arc<OpenFile>),
    /// The file of a close.
    Last(OpenFile),
}

/// An operation with its file.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) token: Token,
    pub(crate) operation: Operation,
    pub(crate) target: Target,
}

/// What a successful job gives.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Ready for the submitter.
    Plain(Output),
    /// A file that has no handle yet.
    Opened { file: OpenFile, direct: bool },
    /// A file has another name from now on.
    Renamed { from: PathBuf, to: PathBuf },
    /// A lock nobody keeps yet.
    Locked(Arc<DirectoryLock>),
}

/// The end of a job.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) token: Token,
    pub(crate) result: Result<Outcome, IoError>,
    pub(crate) buffer: Option<AlignedBuffer>,
}

/// Why a job failed.
enum Failure {
    Errno(i32),
    Locked(Option<String>),
}

impl From<i32> for Failure {
    fn from(errno: i32) -> Self {
        Failure::Errno(errno)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Errno(sys::errno_of(&error))
    }
}

/// What one [`Io`](crate::Io) holds open.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    files: FileTable,
    locks: Vec<Arc<DirectoryLock>>,
    owner: Owner,
}

impl Holdings {
    /// Returns empty holdings of an [`Io`](crate::Io) that shares locks with its owner's others.
    pub(crate) fn of(owner: Owner) -> Self {
        Holdings { owner, ..Holdings::default() }
    }

    /// Returns `operation` with its file.
    ///
    /// # Panics
    /// If the operation breaks the rules of [`Operation`], its file not being open included.
    pub(crate) fn job(&mut self, token: Token, operation: Operation) -> Job {
        assert_transfer(&operation);
        let target = match &operation {
            Operation::Close { file } => Target::Last(self.files.remove(*file)),
            Operation::Read { file, .. }
            | Operation::Write { file, .. }
            | Operation::Flush { file }
            | Operation::Allocate { file, .. }
            | Operation::SetLength { file, .. }
            | Operation::Length { file }
            | Operation::Map { file }
            | Operation::DropCache { file } => Target::Shared(self.files.get(*file)),
            Operation::Lock { .. } => Target::Lock(self.owner.clone()),
            Operation::Open { .. }
            | Operation::CreateDirectory { .. }
            | Operation::SyncDirectory { .. }
            | Operation::List { .. }
            | Operation::Rename { .. }
            | Operation::Remove { .. } => Target::Path,
        };
        Job { token, operation, target }
    }

    /// Gives an opened file its handle and a lock its keeper.
    ///
    /// # Panics
    /// If there are more than [`LOCKS_MAX`] locks.
    pub(crate) fn settle(&mut self, done: Done) -> Completion {
        let result = done.result.map(|outcome| match outcome {
            Outcome::Plain(output) => output,
            Outcome::Opened { file, direct } => {
                Output::File { file: self.files.insert(file), direct }
            }
            Outcome::Renamed { from, to } => {
                self.files.renamed(&from, &to);
                Output::Done
            }
            Outcome::Locked(lock) => {
                assert!(self.locks.len() < LOCKS_MAX, "more than {LOCKS_MAX} locks on one Io");
                self.locks.push(lock);
                Output::Done
            }
        });
        Completion { token: done.token, result, buffer: done.buffer }
    }

    /// Returns how many locks are held.
    pub(crate) fn locks(&self) -> usize {
        self.locks.len()
    }
}

impl Job {
    /// Runs the job by blocking calls. The file is let go before this returns.
    pub(crate) fn execute(mut self) -> Done {
        let result = match self.target {
            Target::Last(open) => {
                let (file, path) = open.into_parts();
                let closed = sys::close(file).map_err(Failure::from);
                closed
                    .map(|()| Outcome::Plain(Output::Done))
                    .map_err(|failure| error_of(&self.operation, path, failure))
            }
            Target::Shared(file) => on_file(&mut self.operation, &file)
                .map(Outcome::Plain)
                .map_err(|errno| error_of(&self.operation, file.path(), errno.into())),
            Target::Path => on_path(&self.operation)
                .map_err(|failure| error_of(&self.operation, path_of(&self.operation), failure)),
            Target::Lock(owner) => {
                let path = path_of(&self.operation);
                match owner.take(&path) {
                    Ok(lock) => Ok(Outcome::Locked(lock)),
                    Err(LockFailure::Held(holder)) => {
                        Err(error_of(&self.operation, path, Failure::Locked(holder)))
                    }
                    Err(LockFailure::Errno(errno)) => {
                        Err(error_of(&self.operation, path, errno.into()))
                    }
                }
            }
        };
        Done { token: self.token, result, buffer: buffer_of(self.operation) }
    }

    /// Returns the end of a job on an open file that the kernel ran for a ring.
    pub(crate) fn finish(self, result: Result<Output, i32>) -> Done {
        let result = result.map(Outcome::Plain).map_err(|errno| {
            let path = match &self.target {
                Target::Shared(file) => file.path(),
                Target::Last(file) => file.path(),
                Target::Path | Target::Lock(_) => path_of(&self.operation),
            };
            error_of(&self.operation, path, errno.into())
        });
        Done { token: self.token, result, buffer: buffer_of(self.operation) }
    }
}

/// Checks what direct I/O demands, on every backend and in every mode, so that a mistake does not
/// wait for the machine where it matters.
fn assert_transfer(operation: &Operation) {
    let (Operation::Read { position, length, buffer, .. }
    | Operation::Write { position, length, buffer, .. }) = operation
    else {
        return;
    };
    assert!(length.is_multiple_of(BLOCK_BYTES), "{length} bytes are not whole blocks");
    let bytes = u64::try_from(*length).unwrap_or(u64::MAX);
    let block = u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX);
    assert!(position.is_multiple_of(block), "position {position} is not on a block");
    assert!(*length <= buffer.len(), "{length} bytes do not fit the buffer of {}", buffer.len());
    let end = position.checked_add(bytes).and_then(|end| i64::try_from(end).ok());
    assert!(end.is_some(), "position {position} is beyond what a file can hold");
}

/// Returns where a piece that starts `start` bytes into an operation lies in the file.
pub(crate) fn piece_position(position: u64, start: usize) -> u64 {
    position + u64::try_from(start).unwrap_or(u64::MAX)
}

fn on_file(operation: &mut Operation, open: &OpenFile) -> Result<Output, i32> {
    let file = &open.file;
    match operation {
        Operation::Read { position, buffer, length, .. } => Progress::reading(*length)
            .drive(|start, bytes| {
                let piece = &mut buffer[start..start + bytes];
                sys::read_at(file, piece_position(*position, start), piece)
            })
            .map(Output::Bytes),
        Operation::Write { position, buffer, length, dsync, .. } => Progress::writing(*length)
            .drive(|start, bytes| {
                let piece = &buffer[start..start + bytes];
                sys::write_at(file, piece_position(*position, start), piece, *dsync)
            })
            .map(Output::Bytes),
        Operation::Flush { .. } => {
            Progress::once().drive(|_, _| sys::flush_data(file).map(|()| 0)).map(|_| Output::Done)
        }
        Operation::Allocate { position, length, .. } => Progress::writing(0)
            .drive(|_, _| sys::allocate(file, *position, *length).map(|()| 0))
            .map(|_| Output::Done),
        Operation::SetLength { length, .. } => {
            file.set_len(*length).map(|()| Output::Done).map_err(|error| sys::errno_of(&error))
        }
        Operation::Length { .. } => file
            .metadata()
            .map(|metadata| Output::Length(metadata.len()))
            .map_err(|error| sys::errno_of(&error)),
        Operation::Map { .. } => map(open).map(Output::Mapped),
        Operation::DropCache { .. } => sys::drop_cache(file).map(|()| Output::Done),
        other => unreachable!("{} does not work on a shared file", other.verb()),
    }
}

fn map(open: &OpenFile) -> Result<Arc<Mapping>, i32> {
    let length = open.file.metadata().map_err(|error| sys::errno_of(&error))?.len();
    let bytes = usize::try_from(length).map_err(|_| libc::EFBIG)?;
    Mapping::new(&open.file, bytes, open.path()).map(Arc::new).map_err(|errno| match errno {
        // No mapping of such files, or a kernel that cannot populate one.
        libc::ENODEV | libc::EINVAL | libc::ENOSYS => libc::EOPNOTSUPP,
        other => other,
    })
}

fn on_path(operation: &Operation) -> Result<Outcome, Failure> {
    match operation {
        Operation::Open { path, mode } => {
            let (file, direct) = open(path, *mode)?;
            let file = OpenFile::new(file, path.clone());
            return Ok(Outcome::Opened { file, direct });
        }
        Operation::List { path } => return Ok(Outcome::Plain(Output::Entries(list(path)?))),
        Operation::CreateDirectory { path } => std::fs::create_dir(path)?,
        Operation::SyncDirectory { path } => {
            let directory = std::fs::File::open(path)?;
            sys::flush_all(&directory)?;
        }
        Operation::Rename { from, to } => {
            std::fs::rename(from, to)?;
            return Ok(Outcome::Renamed { from: from.clone(), to: to.clone() });
        }
        Operation::Remove { path } => std::fs::remove_file(path)?,
        other => unreachable!("{} does not work on a path", other.verb()),
    }
    Ok(Outcome::Plain(Output::Done))
}

fn list(path: &Path) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push(Entry { name, kind: kind_of(entry.file_type()?) });
    }
    entries.sort();
    Ok(entries)
}

fn kind_of(file_type: FileType) -> EntryKind {
    if file_type.is_file() {
        EntryKind::File
    } else if file_type.is_dir() {
        EntryKind::Directory
    } else {
        EntryKind::Other
    }
}

fn path_of(operation: &Operation) -> PathBuf {
    match operation {
        Operation::Open { path, .. }
        | Operation::CreateDirectory { path }
        | Operation::SyncDirectory { path }
        | Operation::List { path }
        | Operation::Remove { path }
        | Operation::Lock { path }
        | Operation::Rename { from: path, .. } => path.clone(),
        other => unreachable!("{} has an open file", other.verb()),
    }
}

fn buffer_of(operation: Operation) -> Option<AlignedBuffer> {
    match operation {
        Operation::Read { buffer, .. } | Operation::Write { buffer, .. } => Some(buffer),
        _ => None,
    }
}

fn error_of(operation: &Operation, path: PathBuf, failure: Failure) -> IoError {
    let position = match operation {
        Operation::Read { position, .. }
        | Operation::Write { position, .. }
        | Operation::Allocate { position, .. } => Some(*position),
        _ => None,
    };
    match failure {
        Failure::Errno(errno) => IoError::from_errno(errno, operation.verb(), path, position),
        Failure::Locked(holder) => {
            let kind = IoErrorKind::Locked { holder };
            let errno = Some(libc::EWOULDBLOCK);
            IoError { kind, operation: operation.verb(), path, position, errno }
        }
    }
}
