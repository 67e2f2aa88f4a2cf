//! The I/O seam of Highwater: a small, completion-based view of files, directories and time.
//!
//! Everything above this crate asks for work with [`Io::submit`] and learns of its end from
//! [`Io::poll`]; nothing ever completes inline. Three backends keep the same promises:
//!
//! * [`uring`] - `io_uring(7)`, for a shard that wants many writes in flight from one thread;
//! * [`threads`] - plain system calls, on worker threads (a shard where `io_uring` is forbidden)
//!   or on the caller's own thread inside `poll` (control work and readers);
//! * [`sim`] - a simulated disk with virtual time and faults, driven by a seed.
//!
//! This is the only crate with `unsafe` code and the only one that talks to the kernel. It knows
//! files and bytes; it does not know what is in them.
#![warn(missing_docs)]

pub mod blocking;
pub mod buffer;
pub mod clock;
pub mod error;
mod execute;
mod files;
pub mod floor;
pub mod limits;
mod lock;
pub mod mapping;
pub mod operation;
mod pool;
mod progress;
pub mod random;
pub mod sim;
pub mod space;
mod sys;
pub mod system;
pub mod thread;
pub mod threads;
pub mod uring;
pub mod usage;
pub mod waker;

use std::time::Duration;

pub use blocking::Blocking;
pub use buffer::{AlignedBuffer, BLOCK_BYTES};
pub use clock::Monotonic;
pub use error::{IoError, IoErrorKind};
pub use mapping::Mapping;
pub use operation::{
    Access, Completion, Entry, EntryKind, FileId, OpenMode, Operation, Output, Token,
};
pub use waker::Waker;

/// How long [`Io::poll`] may wait for a first completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Do not wait: report what has completed and return.
    No,
    /// Wait at most this long.
    AtMost(Duration),
    /// Wait until something completes or the [`Waker`] is used.
    Forever,
}

/// Which implementation serves an [`Io`]; it stands in every metric and result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `io_uring(7)`.
    Uring,
    /// System calls on worker threads.
    Threads,
    /// System calls on the polling thread itself.
    Inline,
    /// The simulated disk.
    Sim,
}

impl Backend {
    /// Returns the name used in reports: `uring`, `threads`, `inline` or `sim`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Backend::Uring => "uring",
            Backend::Threads => "threads",
            Backend::Inline => "inline",
            Backend::Sim => "sim",
        }
    }
}

/// Files, directories and time for one thread, by submission and completion.
///
/// Rules every backend keeps:
///
/// 1. A submitted operation is reported exactly once, by a later [`poll`](Io::poll).
/// 2. There is no order between operations in flight. Who needs B after A submits B when A has
///    been reported. In particular a flush covers only the writes *reported* before it was
///    submitted (measured on Linux 6.18: a flush submitted with a write in flight can return
///    first).
/// 3. A buffer belongs to the backend from `submit` until its completion, which returns it.
/// 4. A short read means the end of the file; a short write is continued, never reported.
/// 5. Dropping an `Io` waits for every operation in flight (a killed process cannot; see
///    [`Operation::Lock`]).
pub trait Io {
    /// Queues `operation`; its completion carries `token`.
    ///
    /// # Panics
    /// If more than [`capacity`](Io::capacity) operations would be in flight.
    fn submit(&mut self, token: Token, operation: Operation);

    /// Starts what was submitted, waits as `wait` says for at least one completion, and appends
    /// all that are there to `completions`. May return with none (time over, woken).
    ///
    /// *Blocking*: only as `wait` says, except for the inline backend, which does the work here.
    fn poll(&mut self, wait: Wait, completions: &mut Vec<Completion>);

    /// Returns whether one durable write was submitted with nothing else in flight, and is not
    /// started yet: [`run_alone`](Io::run_alone) may then be called instead of
    /// [`poll`](Io::poll). Backends without such a way never say so.
    fn is_alone(&self) -> bool {
        false
    }

    /// Runs the lone write by blocking calls on this thread; its completion is in `completions`
    /// then. This spares the way to another thread and back, which is a good part of what a small
    /// durable write costs on a fast device.
    ///
    /// *Blocking*: until the write is on stable media, or has failed.
    ///
    /// # Panics
    /// If [`is_alone`](Io::is_alone) does not say that there is one.
    fn run_alone(&mut self, completions: &mut Vec<Completion>) {
        panic!("no write is alone, beside {} completions", completions.len());
    }

    /// Returns the number of operations submitted and not yet reported.
    fn in_flight(&self) -> usize;

    /// Returns the most operations that may be in flight at once.
    fn capacity(&self) -> usize;

    /// Returns which implementation this is.
    fn backend(&self) -> Backend;

    /// Returns a handle that ends a waiting [`poll`](Io::poll) from another thread.
    fn waker(&self) -> Waker;

    /// Returns the monotonic time of this backend.
    fn now(&self) -> Monotonic;

    /// Returns wall-clock time in milliseconds since 1970-01-01 UTC; only ever used as data.
    fn wall_clock_ms(&self) -> i64;

    /// Returns 64 random bits (from the seed, on the simulated disk).
    fn random_u64(&mut self) -> u64;
}

/// Makes the [`Io`]s of one process: one for each shard thread, and others for control work
/// (opening, truncating, closing) and for readers.
pub trait Platform: Clone {
    /// What a shard thread uses; made on that thread.
    type ShardIo: Io;
    /// What straight-line control code uses.
    type ControlIo: Io;
    /// What a reader uses; it can have several reads in flight.
    type ReaderIo: Io;

    /// Returns a new [`Io`] for the calling shard thread.
    ///
    /// # Errors
    /// If the chosen backend cannot be had; the message says why.
    fn shard_io(&self) -> Result<Self::ShardIo, IoError>;

    /// Returns a new [`Io`] for control work on the calling thread.
    ///
    /// # Errors
    /// If the process is out of resources.
    fn control_io(&self) -> Result<Self::ControlIo, IoError>;

    /// Returns the device under `path` if a flush of any file there makes every completed write in
    /// place durable, as [`space::device_written_in_place`] says.
    ///
    /// # Errors
    /// As there.
    fn device_written_in_place(&self, path: &std::path::Path) -> Result<u64, IoError> {
        Err(IoError {
            kind: IoErrorKind::Unsupported,
            operation: "ask the device of",
            path: path.to_owned(),
            position: None,
            errno: None,
        })
    }

    /// Returns a new [`Io`] for one reader.
    ///
    /// # Errors
    /// If the process is out of resources.
    fn reader_io(&self) -> Result<Self::ReaderIo, IoError>;
}
