//! The simulated disk: one node's storage, processes and time, driven by a seed.
//!
//! [`SimDisk`] is what a test harness holds; [`SimDisk::start_process`] returns the
//! [`Platform`](crate::Platform) of one life of a process. The same seed and the same calls give
//! the same bytes, times, errors and [trace](SimDisk::trace_digest). Everything runs on the
//! caller's thread; polling an [`Io`](crate::Io) moves virtual time.
//!
//! # The fault model
//!
//! **Three states of a byte.** A file has its *media* (what a power cut cannot take), an ordered
//! list of *unsynced* changes (writes, growth, set lengths), and operations *in flight*. What
//! processes see, the *view*, is the media and all changes that took effect. A directory is the
//! same with names.
//!
//! **In flight.** Operations take effect at a seeded moment between their submission and their
//! end, in any order, and are reported by a later poll. A write over existing bytes may become
//! visible in two steps, so a concurrent read can see half of it. What a read did not deliver is
//! filled with rubbish.
//!
//! **A lone durable write** waits in its process until it is run ([`Io::run_alone`](crate::Io)),
//! polled for or joined by another. A kill before that leaves nothing of it, not even in flight; a
//! kill inside is like that of any write.
//!
//! **Pinning.** A flush moves to the media exactly the changes of that file whose operations were
//! *reported* before it was submitted, with the size that finds them. A write with `dsync` pins
//! itself when it ends, and nothing else. Lengths of one file keep their order: pinning what came
//! after a cut pins the cut. Names are pinned only by `SyncDirectory` of their directory: a synced
//! file may lose its name, and with its last name it is gone.
//!
//! **A kill** drops the process, not the cache: what took effect stays in the view, unsynced, and
//! a flush of the next life covers it. Changes in flight land later, up to
//! [`SimProfile::late_landing_max`] after the kill, among the operations of the next life - or one
//! in sixteen never, when the kernel cancels it with its process. A directory lock, shared by the
//! `Io`s of a process that took it, stays taken until everything in flight on *those* has landed:
//! an `Io` that writes without having taken the lock can hit a successor. A planted mistake
//! ([`Planted::LockDroppedAtKill`]) lets all of them do so. From its end on a dead process gets
//! [`IoErrorKind::Dead`](crate::IoErrorKind::Dead); its own clock goes on, the disk's stands still.
//!
//! **A power cut** decides on every unsynced or in-flight change by itself, without order between
//! them: per 512-byte sector of a write old or new (P1), or with [`SimProfile::tear_sectors`] one
//! sector torn inside; each size; each change of names. A size may survive without its data
//! (zeros), data beyond a lost size is gone, and a later surviving change of the same name wins. A
//! rename within a directory survives whole or not; one between directories in either, none or
//! both of them, the file being the same under both names. *Assumed*, as on ext4, xfs and btrfs: a
//! rename replaces its target atomically, and metadata on the media is never itself corrupt.
//!
//! **Faults**, by rate ([`FaultRates`]) or once ([`FaultRule`]): unreadable blocks and flipped bits
//! (until rewritten), misdirected and lost writes, blocks that are stale after a restart, failed
//! writes that changed any subset of their sectors, failed flushes, refusals such as a full disk,
//! every answer of the kernel to the nth operation ([`Trouble`]), slow operations and spells, a
//! hanging disk. After a *failed flush* the pages it lost are clean
//! in the page cache: reads through the cache show them, direct reads show the media, the next
//! flush succeeds and does not bring them back. A *lost write* shows in every read until the next
//! kill or power cut. Whole-disk loss is [`SimDisk::reformat`]; an operator's old copy is
//! [`SimDisk::clone_state`]; a full disk is [`SimDisk::set_capacity`].
//!
//! # Not modelled
//!
//! * Corruption of the file system's own metadata, and directories that move between directories.
//! * A removal that a failed directory sync lost for good: it stays unsynced.
//! * Partial pages: positions and lengths of I/O are whole blocks, as the contract says.
//! * Memory maps.
//! * The bytes of a freed block showing up in another file: file systems zero them.
//! * A flush in flight at a kill: it pins nothing. A random power cut covers that it had.
//! * Clocks that start anew at a power cut: monotonic time goes on. Threads: the handles may move
//!   between threads, but only calls in one order give one outcome.

mod content;
mod core;
mod disk;
mod effect;
mod fault;
mod file;
mod flight;
mod io;
mod machine;
mod profile;
mod submit;
mod survival;
mod trace;
mod tree;

pub use disk::SimDisk;
pub use fault::{Fault, FaultRule, Planted, Trouble};
pub use io::{SimIo, SimPlatform};
pub use profile::{FaultRates, Latency, SimProfile};
pub use survival::{PieceId, PieceKind, PieceSurvival, Survival, UnsyncedPiece};
