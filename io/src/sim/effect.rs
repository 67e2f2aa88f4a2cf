//! What operations do when they take effect.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::content::{SECTOR_BYTES, SECTORS, narrow, page_bytes, wide};
use super::core::{Core, HeldLock};
use super::fault::{Fault, Planted, Trouble};
use super::file::SimFile;
use super::flight::{Flight, Part, Work};
use super::tree::NodeId;
use crate::buffer::BLOCK_BYTES;
use crate::error::{IoError, IoErrorKind};
use crate::operation::{Access, EntryKind, OpenMode, Output};
use crate::progress::Progress;

/// The longest file, as on ext4.
const FILE_BYTES_MAX: u64 = 1 << 44;

/// What came of an operation, before the submitter's file numbers.
pub(super) enum Landed {
    Output(Output),
    Opened { node: NodeId, mode: OpenMode },
}

impl Core {
    /// Lets an operation take effect. `buffer` is that of a read.
    pub(super) fn land(
        &mut self,
        flight: &mut Flight,
        buffer: Option<&mut [u8]>,
    ) -> Result<Landed, IoError> {
        if let Work::Close { node } = flight.work {
            // Closed even if it fails.
            self.file(node).let_go();
        }
        if let Some(Fault::Refuse(kind)) = &flight.fault {
            return Err(flight.refusal(kind.clone()));
        }
        if let Some(Fault::Trouble(trouble)) = flight.fault
            && let Some(errno) = self.answer(trouble, &flight.work)
        {
            return Err(self.fail(flight, errno, buffer));
        }
        let done = |result: Result<(), i32>, flight: &Flight| {
            result.map(|()| Landed::Output(Output::Done)).map_err(|errno| flight.error(errno))
        };
        match flight.work.clone() {
            Work::Open { mode, .. } => self.open(flight, mode),
            Work::Read { node, position, length, direct } => {
                let result = self.read(flight, node, (position, length, direct), buffer);
                result.map(|count| Landed::Output(Output::Bytes(count)))
            }
            Work::Write { node, .. } => {
                let result = self.write(flight);
                flight.touched = vec![node];
                let count = result.map_err(|errno| flight.error(errno))?;
                Ok(Landed::Output(Output::Bytes(count)))
            }
            Work::Flush { node } => done(self.flush(flight, node), flight),
            Work::Allocate { node, position, length } => {
                flight.touched = vec![node];
                done(self.allocate(flight.id, node, position, length), flight)
            }
            Work::SetLength { node, length } => {
                flight.touched = vec![node];
                if length > FILE_BYTES_MAX {
                    return done(Err(libc::EFBIG), flight);
                }
                self.file(node).set_length(flight.id, length);
                done(Ok(()), flight)
            }
            Work::Length { node } => {
                Ok(Landed::Output(Output::Length(self.file(node).view.length())))
            }
            Work::Close { .. } => {
                self.collect();
                done(Ok(()), flight)
            }
            Work::DropCache { node } => {
                self.file(node).drop_cache();
                done(Ok(()), flight)
            }
            Work::CreateDirectory { path } => {
                let made = self.create(flight.id, &path, EntryKind::Directory);
                done(made.map(|(_, place)| flight.touched.push(place)), flight)
            }
            Work::SyncDirectory { .. } => done(self.sync_directory(flight), flight),
            Work::List { path } => {
                let entries = self.tree.list(&path).map_err(|errno| flight.error(errno))?;
                Ok(Landed::Output(Output::Entries(entries)))
            }
            Work::Rename { from, to } => {
                let renamed = self.tree.rename(flight.id, &from, &to);
                done(renamed.map(|places| flight.touched = places), flight)
            }
            Work::Remove { path } => {
                let removed = self.tree.remove(flight.id, &path);
                done(removed.map(|place| flight.touched.push(place)), flight)
            }
            Work::Lock { .. } => self.lock(flight),
            Work::Denied { errno, .. } => done(Err(errno), flight),
        }
    }

    /// Returns with what an operation fails in the end that meets `trouble`, if it does.
    fn answer(&self, trouble: Trouble, work: &Work) -> Option<i32> {
        let progress = match work {
            Work::Read { length, .. } => Progress::reading(*length),
            Work::Write { pages, .. } => Progress::writing(pages.len() * BLOCK_BYTES),
            Work::Allocate { .. } => Progress::writing(0),
            _ => return Some(trouble.errno()),
        };
        let fault = Fault::Trouble(trouble);
        let lasts = self.rules.iter().any(|rule| rule.lasts() && *rule.fault() == fault);
        let mut met = false;
        let ended = progress.drive(|_, bytes| {
            let meets = lasts || !std::mem::replace(&mut met, true);
            match trouble {
                _ if !meets => Ok(bytes),
                // As little as makes it go on.
                Trouble::ShortTransfer => Ok(bytes.min(BLOCK_BYTES + SECTOR_BYTES)),
                _ => Err(trouble.errno()),
            }
        });
        ended.err()
    }

    /// Lets an operation fail with what it may have done by then. `buffer` is that of a read.
    fn fail(&mut self, flight: &mut Flight, errno: i32, buffer: Option<&mut [u8]>) -> IoError {
        match flight.work {
            Work::Write { node, .. } => {
                flight.touched = vec![node];
                self.write_some(flight);
            }
            Work::Flush { node } => self.lose_some(flight, node),
            // A directory that is not there is refused all the same.
            Work::SyncDirectory { .. } => drop(self.lose_names(flight)),
            Work::Read { .. } => {
                if let Some(buffer) = buffer {
                    buffer.fill(0xa5);
                }
            }
            Work::Close { .. } => self.collect(),
            _ => {}
        }
        flight.error(errno)
    }

    /// Returns an open file; a file stays as long as something may still use it.
    pub(super) fn file(&mut self, node: NodeId) -> &mut SimFile {
        self.tree.file_mut(node).expect("an open file exists")
    }

    fn room(&self) -> u64 {
        match self.profile.capacity_bytes {
            Some(bytes) => (bytes / page_bytes()).saturating_sub(self.tree.used_pages()),
            None => u64::MAX,
        }
    }

    fn create(
        &mut self,
        operation: u64,
        path: &std::path::Path,
        kind: EntryKind,
    ) -> Result<(NodeId, NodeId), i32> {
        if self.tree.resolve(path).is_err() && self.room() == 0 {
            return Err(libc::ENOSPC);
        }
        self.tree.create(operation, path, kind)
    }

    fn open(&mut self, flight: &mut Flight, mode: OpenMode) -> Result<Landed, IoError> {
        let Work::Open { path, .. } = &flight.work else { return Err(flight.error(libc::EINVAL)) };
        let path = path.clone();
        let node = match mode.access {
            Access::CreateNew => {
                let created = self.create(flight.id, &path, EntryKind::File);
                created.map(|(node, place)| {
                    flight.touched.push(place);
                    node
                })
            }
            Access::Read | Access::ReadWrite => self.tree.resolve_file(&path),
        };
        let node = node.map_err(|errno| flight.error(errno))?;
        let direct = mode.direct && self.profile.direct_io;
        Ok(Landed::Opened { node, mode: OpenMode { direct, ..mode } })
    }

    fn read(
        &mut self,
        flight: &Flight,
        node: NodeId,
        (position, length, direct): (u64, usize, bool),
        buffer: Option<&mut [u8]>,
    ) -> Result<usize, IoError> {
        let first = position / page_bytes();
        let pages = wide(length) / page_bytes();
        let size = self.file(node).view.length();
        let last = size.div_ceil(page_bytes()).min(first + pages);
        if first < last {
            match flight.fault {
                Some(Fault::ReadError) => {
                    let start = first + self.random.harm.below(last - first);
                    let end = start + 1 + self.random.harm.below((last - start).min(4));
                    self.file(node).mark_bad(start, end);
                }
                Some(Fault::BitFlip) => self.flip(node, first, last),
                _ => {}
            }
        }
        let filler = u8::try_from(0xa5 ^ (flight.id & 0x0f)).unwrap_or(0xa5);
        let Some(buffer) = buffer else { return Ok(0) };
        // Nobody may rely on what a read did not deliver.
        buffer[..length].fill(filler);
        let file = self.file(node);
        if file.is_bad(first, last) {
            return Err(flight.error(libc::EIO));
        }
        Ok(file.read(position, &mut buffer[..length], direct))
    }

    fn flip(&mut self, node: NodeId, first: u64, last: u64) {
        let page = first + self.random.harm.below(last - first);
        let byte = self.random.harm.index(narrow(page_bytes()));
        let bit = self.random.harm.below(8);
        let file = self.file(node);
        // The media is damaged, and only a clean page is read from there.
        if file.is_clean(page) {
            file.damage(page, |bytes| bytes[byte] ^= 1 << bit);
            self.trace.count("bit flipped", 1);
        }
    }

    fn write(&mut self, flight: &Flight) -> Result<usize, i32> {
        let Work::Write { node, first, pages, .. } = &flight.work else { return Err(libc::EINVAL) };
        let (node, first, count) = (*node, *first, wide(pages.len()));
        if count == 0 {
            return Ok(0);
        }
        if (first + count) * page_bytes() > FILE_BYTES_MAX {
            return Err(libc::EFBIG);
        }
        let room = self.room();
        let missing = self.file(node).space.missing(first, first + count);
        let id = flight.id;
        if missing > room {
            // What fitted before the disk was full may be there.
            let fitting = narrow(self.random.harm.below(room.min(count - 1) + 1));
            if fitting > 0 {
                let kept: Vec<_> = pages[..fitting].iter().cloned().map(Some).collect();
                self.file(node).write(id, first, &kept);
            }
            return Err(libc::ENOSPC);
        }
        match flight.fault {
            Some(Fault::WriteError) => {
                self.write_some(flight);
                return Err(libc::EIO);
            }
            Some(Fault::LostWrite) => self.file(node).write_lost(id, first, pages),
            Some(Fault::MisdirectedWrite) => self.misdirect(flight, node, first),
            _ => {
                if flight.fault == Some(Fault::StaleBlock) {
                    let page = self.random.harm.below(count);
                    let old = self.file(node).view.page(first + page);
                    self.write_all(flight, node, first);
                    self.file(node).mark_stale(first + page, old);
                } else {
                    self.write_all(flight, node, first);
                }
            }
        }
        Ok(narrow(count * page_bytes()))
    }

    /// Writes any subset of the sectors of a write.
    fn write_some(&mut self, flight: &Flight) {
        let Work::Write { node, first, pages, .. } = &flight.work else { return };
        let mut random = self.random.harm.split("write error");
        self.random.harm.next_u64();
        let limit = random.below(9);
        let file = self.file(*node);
        let mixed = file.mixed(*first, pages, |_| random.below(8) < limit);
        let written = mixed.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        if written > 0 {
            file.write(flight.id, *first, &mixed[..written]);
        }
    }

    fn write_all(&mut self, flight: &Flight, node: NodeId, first: u64) {
        if let Work::Write { pages, .. } = &flight.work {
            let pages: Vec<_> = pages.iter().map(|page| Some(Arc::clone(page))).collect();
            let in_parts = !flight.touched.is_empty();
            let file = self.file(node);
            if in_parts {
                file.forget(flight.id);
            }
            file.write(flight.id, first, &pages);
        }
    }

    fn misdirect(&mut self, flight: &Flight, node: NodeId, first: u64) {
        let Work::Write { pages, .. } = &flight.work else { return };
        let count = wide(pages.len());
        let size = self.file(node).view.length() / page_bytes();
        let places = size.saturating_sub(count) + 1;
        let place = self.random.harm.below(places);
        if size < count || place == first {
            // There is no other place: it goes nowhere.
            return self.file(node).write_lost(flight.id, first, pages);
        }
        self.write_all(flight, node, place);
        self.file(node).allocate(flight.id, first, first, (first + count) * page_bytes());
    }

    /// Makes a part of a write visible ahead of the rest.
    pub(super) fn land_part(&mut self, flight: &mut Flight) {
        let Work::Write { node, first, pages, part: Some(part), .. } = &flight.work else { return };
        let Part { sectors, at_end } = *part;
        let all = wide(pages.len() * SECTORS);
        let file = self.file(*node);
        let end = first + wide(pages.len());
        // Growth shows at once, for readers go by the length; and a hole may find no space.
        let over_written = end * page_bytes() <= file.view.length();
        let whole = !matches!(flight.fault, None | Some(Fault::Trouble(Trouble::ShortTransfer)));
        if whole || !over_written || file.space.missing(*first, end) > 0 {
            return;
        }
        let mixed = file.mixed(*first, pages, |sector| {
            if at_end { sector >= all - sectors } else { sector < sectors }
        });
        file.write(flight.id, *first, &mixed);
        flight.touched = vec![*node];
    }

    fn allocate(&mut self, id: u64, node: NodeId, position: u64, length: u64) -> Result<(), i32> {
        let to = position.checked_add(length).filter(|to| *to <= FILE_BYTES_MAX);
        let to = to.ok_or(libc::EFBIG)?;
        if length == 0 {
            return Err(libc::EINVAL);
        }
        let (first, end) = (position / page_bytes(), to.div_ceil(page_bytes()));
        let room = self.room();
        let file = self.file(node);
        if file.space.missing(first, end) > room {
            return Err(libc::ENOSPC);
        }
        file.allocate(id, first, end, to);
        Ok(())
    }

    fn flush(&mut self, flight: &Flight, node: NodeId) -> Result<(), i32> {
        let covers = flight.covers;
        if flight.fault == Some(Fault::FlushError) {
            self.lose_some(flight, node);
            return Err(libc::EIO);
        }
        if self.planted != Planted::FlushIgnored {
            self.file(node).pin(|origin| origin.covered(covers));
        }
        Ok(())
    }

    /// Loses a part of what a flush covered.
    fn lose_some(&mut self, flight: &Flight, node: NodeId) {
        let covers = flight.covers;
        let mut random = self.random.harm.split("flush error");
        self.random.harm.next_u64();
        let mut first = true;
        let eighths = 1 + random.below(8);
        let doomed = self.file(node).doom(
            |origin| origin.covered(covers),
            || std::mem::take(&mut first) || random.below(8) < eighths,
        );
        self.trace.count("page lost by a failed flush", doomed);
    }

    /// Loses a part of the names that a directory sync covered.
    fn lose_names(&mut self, flight: &Flight) -> Result<(), i32> {
        let Work::SyncDirectory { path } = &flight.work else { return Err(libc::EINVAL) };
        let node = self.tree.resolve_directory(path)?;
        let covers = flight.covers;
        let mut random = self.random.harm.split("sync error");
        let directory = self.tree.directory_mut(node).ok_or(libc::ENOTDIR)?;
        self.random.harm.next_u64();
        let mut first = true;
        let doomed = directory.doom(
            |origin| origin.covered(covers),
            || std::mem::take(&mut first) || random.chance(1, 2),
        );
        self.trace.count("name lost by a failed sync", doomed);
        Ok(())
    }

    fn sync_directory(&mut self, flight: &Flight) -> Result<(), i32> {
        let Work::SyncDirectory { path } = &flight.work else { return Err(libc::EINVAL) };
        if flight.fault == Some(Fault::FlushError) {
            self.lose_names(flight)?;
            return Err(libc::EIO);
        }
        let node = self.tree.resolve_directory(path)?;
        let covers = flight.covers;
        let directory = self.tree.directory_mut(node).ok_or(libc::ENOTDIR)?;
        directory.pin(|origin| origin.covered(covers));
        self.collect();
        Ok(())
    }

    fn lock(&mut self, flight: &Flight) -> Result<Landed, IoError> {
        let Work::Lock { path } = &flight.work else { return Err(flight.error(libc::EINVAL)) };
        let node = self.tree.resolve_directory(path).map_err(|errno| flight.error(errno))?;
        let holder = self.lock_holder(node);
        if let Some(holder) = holder.filter(|holder| *holder != flight.life) {
            self.trace.count("locked", 1);
            self.delay_lock(flight.id);
            let holder = Some(format!("{holder} (simulated)"));
            let errno = Some(libc::EWOULDBLOCK);
            return Err(IoError { errno, ..flight.refusal(IoErrorKind::Locked { holder }) });
        }
        if holder.is_none() {
            let (ios, killed) = (BTreeSet::new(), BTreeSet::new());
            self.locks.insert(node, HeldLock { life: flight.life, ios, killed });
        }
        if let Some(lock) = self.locks.get_mut(&node) {
            lock.ios.insert(flight.owner);
        }
        Ok(Landed::Output(Output::Done))
    }
}
