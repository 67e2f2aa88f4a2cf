//! Straight-line use of an [`Io`]: submit one operation, wait for it, return what it gave.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::buffer::AlignedBuffer;
use crate::error::IoError;
use crate::mapping::Mapping;
use crate::operation::{Access, Completion, Entry, FileId, OpenMode, Operation, Output, Token};
use crate::{Io, Wait};

/// Wraps an [`Io`] that nobody else submits to, for opening, recovery, truncation, closing and
/// readers: code that reads better as a sequence than as a state machine.
#[derive(Debug)]
pub struct Blocking<I: Io> {
    io: I,
    next_token: u64,
    completions: Vec<Completion>,
}

/// A read that was started; its buffer comes back with its end.
#[derive(Debug)]
#[must_use = "a file is not closed before its reads have ended"]
pub struct StartedRead {
    token: Token,
}

fn read_of(
    (result, buffer): (Result<Output, IoError>, Option<AlignedBuffer>),
) -> (AlignedBuffer, Result<usize, IoError>) {
    let Some(buffer) = buffer else { panic!("a read returns its buffer") };
    match result {
        Ok(Output::Bytes(count)) => (buffer, Ok(count)),
        Ok(other) => panic!("read returned {other:?}"),
        Err(error) => (buffer, Err(error)),
    }
}

impl<I: Io> Blocking<I> {
    /// Returns the straight-line view of `io`.
    ///
    /// # Panics
    /// If operations are in flight on it.
    pub fn new(io: I) -> Self {
        assert_eq!(io.in_flight(), 0, "a blocking view starts with an idle Io");
        Blocking { io, next_token: 0, completions: Vec::new() }
    }

    /// Returns the [`Io`] beneath, for its clock and random numbers.
    pub fn io(&mut self) -> &mut I {
        &mut self.io
    }

    /// Returns the [`Io`] beneath, idle, with the files that are open on it.
    pub fn into_io(self) -> I {
        self.io
    }

    /// Runs one operation to its end. The buffer of a read or write comes back in any case.
    ///
    /// # Errors
    /// What the operation failed with.
    ///
    /// # Panics
    /// If the backend reports an operation nobody submitted.
    pub fn run(
        &mut self,
        operation: Operation,
    ) -> (Result<Output, IoError>, Option<AlignedBuffer>) {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.io.submit(token, operation);
        self.wait_for(token)
    }

    /// Waits for one operation; the ends of others that were started stay here until they are
    /// asked for.
    fn wait_for(&mut self, token: Token) -> (Result<Output, IoError>, Option<AlignedBuffer>) {
        loop {
            let arrived = self.completions.iter().position(|done| done.token == token);
            if let Some(arrived) = arrived {
                let completion = self.completions.swap_remove(arrived);
                return (completion.result, completion.buffer);
            }
            self.io.poll(Wait::Forever, &mut self.completions);
        }
    }

    /// Starts reads of `length` bytes, each at its position into its buffer. Each is waited for
    /// with [`finish_read`](Self::finish_read), in any order.
    ///
    /// # Panics
    /// If `length` is longer than a buffer, or so many cannot be in flight.
    pub fn start_reads(
        &mut self,
        file: FileId,
        length: usize,
        reads: impl IntoIterator<Item = (u64, AlignedBuffer)>,
    ) -> Vec<StartedRead> {
        let started = reads.into_iter().map(|(position, buffer)| {
            assert!(length <= buffer.len(), "a read fits its buffer");
            let token = Token(self.next_token);
            self.next_token += 1;
            self.io.submit(token, Operation::Read { file, position, buffer, length });
            StartedRead { token }
        });
        let started = started.collect();
        // Into the kernel, and what is there already.
        self.io.poll(Wait::No, &mut self.completions);
        started
    }

    /// Waits for a read that was started.
    ///
    /// # Panics
    /// If the backend breaks its contract.
    pub fn finish_read(&mut self, read: StartedRead) -> (AlignedBuffer, Result<usize, IoError>) {
        read_of(self.wait_for(read.token))
    }

    fn done(&mut self, operation: Operation) -> Result<(), IoError> {
        self.run(operation).0.map(|_| ())
    }

    /// Opens a file; returns it and whether the page cache is bypassed.
    ///
    /// # Errors
    /// As [`Operation::Open`].
    ///
    /// # Panics
    /// If the backend answers with something else than a file.
    pub fn open(
        &mut self,
        path: &Path,
        access: Access,
        direct: bool,
    ) -> Result<(FileId, bool), IoError> {
        let mode = OpenMode { access, direct };
        match self.run(Operation::Open { path: path.to_owned(), mode }).0? {
            Output::File { file, direct } => Ok((file, direct)),
            other => panic!("open returned {other:?}"),
        }
    }

    /// Closes a file.
    ///
    /// # Errors
    /// As [`Operation::Close`].
    pub fn close(&mut self, file: FileId) -> Result<(), IoError> {
        self.done(Operation::Close { file })
    }

    /// Reads up to `length` bytes at `position` into `buffer`; returns the buffer and how many.
    ///
    /// # Errors
    /// As [`Operation::Read`].
    ///
    /// # Panics
    /// If `length` is longer than the buffer or the backend breaks its contract.
    pub fn read(
        &mut self,
        file: FileId,
        position: u64,
        buffer: AlignedBuffer,
        length: usize,
    ) -> (AlignedBuffer, Result<usize, IoError>) {
        assert!(length <= buffer.len(), "a read fits its buffer");
        read_of(self.run(Operation::Read { file, position, buffer, length }))
    }

    /// Writes the first `length` bytes of `buffer` at `position`.
    ///
    /// # Errors
    /// As [`Operation::Write`].
    ///
    /// # Panics
    /// If `length` is longer than the buffer or the backend breaks its contract.
    pub fn write(
        &mut self,
        file: FileId,
        position: u64,
        buffer: AlignedBuffer,
        length: usize,
        dsync: bool,
    ) -> (AlignedBuffer, Result<(), IoError>) {
        assert!(length <= buffer.len(), "a write fits its buffer");
        let operation = Operation::Write { file, position, buffer, length, dsync };
        let (result, buffer) = self.run(operation);
        let Some(buffer) = buffer else { panic!("a write returns its buffer") };
        (buffer, result.map(|_| ()))
    }

    /// Makes the writes so far durable.
    ///
    /// # Errors
    /// As [`Operation::Flush`].
    pub fn flush(&mut self, file: FileId) -> Result<(), IoError> {
        self.done(Operation::Flush { file })
    }

    /// Reserves space.
    ///
    /// # Errors
    /// As [`Operation::Allocate`].
    pub fn allocate(&mut self, file: FileId, position: u64, length: u64) -> Result<(), IoError> {
        self.done(Operation::Allocate { file, position, length })
    }

    /// Sets a file's length.
    ///
    /// # Errors
    /// As [`Operation::SetLength`].
    pub fn set_length(&mut self, file: FileId, length: u64) -> Result<(), IoError> {
        self.done(Operation::SetLength { file, length })
    }

    /// Returns a file's length in bytes.
    ///
    /// # Errors
    /// As [`Operation::Length`].
    ///
    /// # Panics
    /// If the backend answers with something else than a length.
    pub fn length(&mut self, file: FileId) -> Result<u64, IoError> {
        match self.run(Operation::Length { file }).0? {
            Output::Length(length) => Ok(length),
            other => panic!("length returned {other:?}"),
        }
    }

    /// Maps a file.
    ///
    /// # Errors
    /// As [`Operation::Map`].
    ///
    /// # Panics
    /// If the backend answers with something else than a mapping.
    pub fn map(&mut self, file: FileId) -> Result<Arc<Mapping>, IoError> {
        match self.run(Operation::Map { file }).0? {
            Output::Mapped(mapping) => Ok(mapping),
            other => panic!("map returned {other:?}"),
        }
    }

    /// Drops the clean cached pages of a file.
    ///
    /// # Errors
    /// As [`Operation::DropCache`].
    pub fn drop_cache(&mut self, file: FileId) -> Result<(), IoError> {
        self.done(Operation::DropCache { file })
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As [`Operation::CreateDirectory`].
    pub fn create_directory(&mut self, path: &Path) -> Result<(), IoError> {
        self.done(Operation::CreateDirectory { path: path.to_owned() })
    }

    /// Makes the entries of a directory durable.
    ///
    /// # Errors
    /// As [`Operation::SyncDirectory`].
    pub fn sync_directory(&mut self, path: &Path) -> Result<(), IoError> {
        self.done(Operation::SyncDirectory { path: path.to_owned() })
    }

    /// Lists a directory, sorted by name.
    ///
    /// # Errors
    /// As [`Operation::List`].
    ///
    /// # Panics
    /// If the backend answers with something else than entries.
    pub fn list(&mut self, path: &Path) -> Result<Vec<Entry>, IoError> {
        match self.run(Operation::List { path: path.to_owned() }).0? {
            Output::Entries(entries) => Ok(entries),
            other => panic!("list returned {other:?}"),
        }
    }

    /// Renames a file.
    ///
    /// # Errors
    /// As [`Operation::Rename`].
    pub fn rename(&mut self, from: PathBuf, to: PathBuf) -> Result<(), IoError> {
        self.done(Operation::Rename { from, to })
    }

    /// Removes a file's name.
    ///
    /// # Errors
    /// As [`Operation::Remove`].
    pub fn remove(&mut self, path: &Path) -> Result<(), IoError> {
        self.done(Operation::Remove { path: path.to_owned() })
    }

    /// Takes the lock of a directory for the life of the [`Io`] beneath.
    ///
    /// # Errors
    /// As [`Operation::Lock`].
    pub fn lock(&mut self, path: &Path) -> Result<(), IoError> {
        self.done(Operation::Lock { path: path.to_owned() })
    }
}
