//! Power cuts on real file systems, without a virtual machine.
//!
//! The simulator cuts the power of a simulated disk. This crate does it to ext4 and XFS of the
//! running kernel, with its page cache, journal and `io_uring`:
//!
//! 1. A [`Recorder`](device::Recorder) serves block devices from memory, by FUSE and the loop
//!    driver, and logs every write and flush.
//! 2. A [`Workload`](workload::Workload) runs on a file system there and notes, for everything it
//!    is told is safe, how long the log was: its [`Mark`](replay::Mark).
//! 3. A [`Replay`](replay::Replay) makes the image that a power cut at any point of the log could
//!    have left, with unflushed writes kept, torn or dropped.
//! 4. The image is mounted, and everything marked at or before the cut must be there. The
//!    workload goes on writing there, on a device that records again, and the power is cut again.
//!
//! [`power_cut::run`] does all this; `highwater-crash power-cut` does it from the command line.
//! It needs root, `/dev/fuse`, loop devices, `mount`, `losetup` and `mkfs`
//! ([`mount::requirements`] names what is missing).
//!
//! What it does not find: the loop driver serves the requests of a device one after another, so
//! there are fewer orders in the log than a disk with many queues would show; and sectors are
//! never torn within their 512 bytes.
#![forbid(unsafe_code)]

pub mod binary;
pub mod blocks;
mod command;
pub mod confined;
pub mod damage;
pub mod device;
pub mod error;
pub mod faults;
pub mod flips;
pub mod full;
mod fuse;
mod harm;
pub mod image;
pub mod kill;
mod life;
pub mod logs;
pub mod many;
pub mod mount;
pub mod power_cut;
pub mod real_input;
mod records;
pub mod replay;
pub mod rig;
mod scratch;
pub mod sweep;
mod timeline;
pub mod workload;
mod written;
