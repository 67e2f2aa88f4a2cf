//! The way in: every operation is checked against the contract and put in flight.

use std::path::PathBuf;
use std::sync::Arc;

use super::content::{SECTORS, page_bytes, pages_of, wide};
use super::fault::{Fault, Trouble};
use super::flight::{Flight, Part, Work};
use super::machine::{Machine, Outstanding};
use super::tree::NodeId;
use crate::buffer::{AlignedBuffer, BLOCK_BYTES};
use crate::operation::{FileId, Operation, Token};

impl Machine {
    /// Submits an operation of a process.
    pub(super) fn submit(&mut self, io: u32, token: Token, operation: Operation) {
        let depth = self.core.profile.queue_depth;
        self.begin_alone(io);
        let state = self.io(io);
        if state.outstanding.len() >= depth {
            self.violated("more operations in flight than the capacity");
        }
        let (dead, life) = (state.dead, state.life);
        let alone = state.outstanding.is_empty()
            && matches!(operation, Operation::Write { dsync: true, .. });
        let id = self.core.number();
        let verb = operation.verb();
        let (work, path, file, buffer) = if dead {
            let buffer = match operation {
                Operation::Read { buffer, .. } | Operation::Write { buffer, .. } => Some(buffer),
                _ => None,
            };
            (None, PathBuf::new(), None, buffer)
        } else {
            let (work, path, file, buffer) = self.prepare(io, operation);
            (Some(work), path, file, buffer)
        };
        let mut outstanding = Outstanding {
            token,
            verb,
            path: path.clone(),
            position: None,
            file,
            buffer,
            result: None,
        };
        if let Some(work) = work {
            let covers = self.core.reports;
            let mut flight = Flight {
                id,
                life,
                io: Some(io),
                owner: io,
                verb,
                path,
                work,
                fault: None,
                covers,
                cancelled: false,
                result: None,
                touched: Vec::new(),
            };
            flight.fault = self.core.choose_fault(&flight);
            if flight.fault == Some(Fault::Trouble(Trouble::ShortTransfer)) {
                self.split(&mut flight.work);
            }
            outstanding.position = flight.position();
            let at = outstanding.position.unwrap_or(0);
            let bytes = flight.work.hash();
            self.core.trace.note(self.core.now, "submitted", [id, token.0 ^ bytes, at], || {
                format!("{verb} {} at {at}, fault {:?}", flight.path.display(), flight.fault)
            });
            if alone {
                self.io(io).alone = Some(flight);
            } else {
                self.core.launch(flight);
            }
        }
        self.io(io).outstanding.insert(id, outstanding);
        if !dead {
            self.boundary();
        }
    }

    /// Looks up the file of an operation and checks the contract.
    fn prepare(
        &mut self,
        io: u32,
        operation: Operation,
    ) -> (Work, PathBuf, Option<FileId>, Option<AlignedBuffer>) {
        match operation {
            Operation::Open { path, mode } => {
                (Work::Open { path: path.clone(), mode }, path, None, None)
            }
            Operation::Read { file, position, buffer, length } => {
                self.check_range(position, length, buffer.len());
                let (node, direct, path) = self.enter(io, file);
                let work = Work::Read { node, position, length, direct };
                (work, path, Some(file), Some(buffer))
            }
            Operation::Write { file, position, buffer, length, dsync } => {
                self.check_range(position, length, buffer.len());
                let (node, _, path) = self.enter(io, file);
                let pages: Arc<[_]> = pages_of(&buffer[..length]).into();
                let part = self.choose_part(pages.len());
                let first = position / page_bytes();
                let work = Work::Write { node, first, pages, dsync, part };
                let work = self.permit(io, file, work, libc::EBADF);
                (work, path, Some(file), Some(buffer))
            }
            Operation::Close { file } => {
                let (node, _, path) = self.enter(io, file);
                let closed = self.io(io).files.remove(&file);
                if closed.is_some_and(|closed| closed.in_flight > 1) {
                    self.violated("a file is closed with operations in flight");
                }
                (Work::Close { node }, path, None, None)
            }
            Operation::Flush { file } => {
                let (node, _, path) = self.enter(io, file);
                (Work::Flush { node }, path, Some(file), None)
            }
            Operation::Allocate { file, position, length } => {
                let (node, _, path) = self.enter(io, file);
                let work = Work::Allocate { node, position, length };
                (self.permit(io, file, work, libc::EBADF), path, Some(file), None)
            }
            Operation::SetLength { file, length } => {
                let (node, _, path) = self.enter(io, file);
                let work = Work::SetLength { node, length };
                (self.permit(io, file, work, libc::EINVAL), path, Some(file), None)
            }
            Operation::Length { file } => {
                let (node, _, path) = self.enter(io, file);
                (Work::Length { node }, path, Some(file), None)
            }
            // Not here: callers take the way they take where the kernel cannot.
            Operation::Map { file } => {
                let (_, _, path) = self.enter(io, file);
                let work = Work::Denied { errno: libc::EOPNOTSUPP, position: None };
                (work, path, Some(file), None)
            }
            Operation::DropCache { file } => {
                let (node, _, path) = self.enter(io, file);
                (Work::DropCache { node }, path, Some(file), None)
            }
            Operation::CreateDirectory { path } => {
                (Work::CreateDirectory { path: path.clone() }, path, None, None)
            }
            Operation::SyncDirectory { path } => {
                (Work::SyncDirectory { path: path.clone() }, path, None, None)
            }
            Operation::List { path } => (Work::List { path: path.clone() }, path, None, None),
            Operation::Rename { from, to } => {
                (Work::Rename { from: from.clone(), to }, from, None, None)
            }
            Operation::Remove { path } => (Work::Remove { path: path.clone() }, path, None, None),
            Operation::Lock { path } => (Work::Lock { path: path.clone() }, path, None, None),
        }
    }

    fn choose_part(&mut self, pages: usize) -> Option<Part> {
        let random = &mut self.core.random.schedule;
        let split = random.below(1_000_000) < u64::from(self.core.profile.split_writes);
        let sectors = 1 + random.below(wide(pages.max(1) * SECTORS) - 1);
        let at_end = random.chance(1, 2);
        split.then_some(Part { sectors, at_end })
    }

    /// Lets a write happen in two pieces.
    fn split(&mut self, work: &mut Work) {
        let Work::Write { pages, part, .. } = work else { return };
        let sectors = 1 + self.core.random.harm.below(wide(pages.len().max(1) * SECTORS) - 1);
        *part = Some(Part { sectors, at_end: false });
    }

    fn check_range(&self, position: u64, length: usize, buffer: usize) {
        if !position.is_multiple_of(page_bytes()) || !length.is_multiple_of(BLOCK_BYTES) {
            self.violated("a position or length is not a multiple of the block");
        }
        if length > buffer {
            self.violated("a length does not fit its buffer");
        }
    }

    /// Counts an operation on an open file; returns what it needs.
    fn enter(&mut self, io: u32, file: FileId) -> (NodeId, bool, PathBuf) {
        let Some(open) = self.io(io).files.get_mut(&file) else {
            self.violated("a file that is not open is used");
        };
        open.in_flight += 1;
        (open.node, open.direct, open.path.clone())
    }

    /// Returns `work`, or its refusal if the file is open for reading only.
    fn permit(&mut self, io: u32, file: FileId, work: Work, errno: i32) -> Work {
        let writable = self.io(io).files.get(&file).is_some_and(|open| open.writable);
        let position = work.position();
        if writable { work } else { Work::Denied { errno, position } }
    }
}
