//! The FUSE side of the recording device: one flat directory, reads, writes, and `fsync`.

use std::ffi::OsStr;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::device::{DiskState, Refused, Table, file_name, lock};
use crate::image::{SECTOR_BYTES, wide};

/// How long the kernel may remember names and sizes: neither ever changes.
const REMEMBER: Duration = Duration::from_secs(3600);

/// The largest write the kernel sends at once; it splits larger ones.
const WRITE_BYTES_MAX: u32 = 1 << 20;

/// `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE` of `fallocate(2)`: the range reads as zeros.
const FALLOCATE_ZEROS: i32 = 0x02 | 0x10;

/// Serves the disks of a [`Table`] to the kernel.
#[derive(Debug)]
pub(crate) struct Server {
    table: Arc<Table>,
}

/// Returns the inode number of a disk; 1 is the root directory.
fn inode(number: u64) -> INodeNo {
    INodeNo(number + 2)
}

fn errno(refused: Refused) -> Errno {
    match refused {
        Refused::Outside => Errno::EFBIG,
        Refused::LogFull | Refused::NoSpace => Errno::ENOSPC,
        Refused::Failing => Errno::EIO,
    }
}

fn attributes(ino: INodeNo, kind: FileType, size: u64) -> FileAttr {
    let directory = kind == FileType::Directory;
    FileAttr {
        ino,
        size,
        blocks: size.div_ceil(wide(SECTOR_BYTES)),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: if directory { 0o700 } else { 0o600 },
        nlink: if directory { 2 } else { 1 },
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Server {
    /// Returns a server of the disks in `table`.
    pub(crate) fn new(table: Arc<Table>) -> Self {
        Server { table }
    }

    fn disk(&self, ino: INodeNo) -> Result<Arc<Mutex<DiskState>>, Errno> {
        let number = ino.0.checked_sub(2).ok_or(Errno::EISDIR)?;
        self.table.get(number).ok_or(Errno::EIO) // removed while in use
    }

    fn attributes(&self, ino: INodeNo) -> Result<FileAttr, Errno> {
        if ino == INodeNo::ROOT {
            return Ok(attributes(ino, FileType::Directory, 0));
        }
        let size = wide(lock(&*self.disk(ino)?).size());
        Ok(attributes(ino, FileType::RegularFile, size))
    }

    fn write(&self, ino: INodeNo, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let position = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let written = u32::try_from(data.len()).map_err(|_| Errno::EINVAL)?;
        lock(&*self.disk(ino)?).write(position, data).map_err(errno)?;
        Ok(written)
    }

    fn read(&self, ino: INodeNo, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let position = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let length = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
        Ok(lock(&*self.disk(ino)?).read(position, length))
    }

    fn fallocate(&self, ino: INodeNo, offset: u64, length: u64, mode: i32) -> Result<(), Errno> {
        let position = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let length = usize::try_from(length).map_err(|_| Errno::EFBIG)?;
        if mode & FALLOCATE_ZEROS == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        lock(&*self.disk(ino)?).zero(position, length).map_err(errno)
    }
}

fn done(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Server {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Write-back caching is off unless asked for.
        config
            .set_max_write(WRITE_BYTES_MAX)
            .map(drop)
            .map_err(|_| io::Error::other("the kernel refuses the write size"))
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let is_named = |number: &u64| name == OsStr::new(&file_name(*number));
        let found = self.table.numbers().into_iter().find(is_named);
        let found = found.filter(|_| parent == INodeNo::ROOT).ok_or(Errno::ENOENT);
        match found.and_then(|number| self.attributes(inode(number))) {
            Ok(attributes) => reply.entry(&REMEMBER, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Ok(attributes) => reply.attr(&REMEMBER, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.attributes(ino) {
            Ok(attributes) if size.is_none_or(|size| size == attributes.size) => {
                reply.attr(&REMEMBER, &attributes);
            }
            Ok(_) => reply.error(Errno::EPERM), // a disk keeps its size
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.disk(ino) {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read(ino, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write(ino, offset, data) {
            Ok(written) => reply.written(written),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        done(self.disk(ino).and_then(|disk| lock(&*disk).flush().map_err(errno)), reply);
    }

    fn fallocate(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        done(self.fallocate(ino, offset, length, mode), reply);
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if ino != INodeNo::ROOT {
            reply.error(Errno::ENOTDIR);
            return;
        }
        // The offset of an entry is its disk's number plus one, and so stays right when disks go.
        for number in self.table.numbers().into_iter().filter(|number| *number >= offset) {
            let next = number + 1;
            if reply.add(inode(number), next, FileType::RegularFile, file_name(number)) {
                break;
            }
        }
        reply.ok();
    }
}
