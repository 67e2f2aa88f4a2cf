//! Open files: how they are opened, and the handles an [`Io`](crate::Io) gives out for them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::buffer::{AlignedBuffer, BLOCK_BYTES};
use crate::operation::{Access, FileId, OpenMode};
use crate::sys::{self, DirectSupport};

/// How many bits of a [`FileId`] name the place in the table; the others count its uses, so that a
/// handle used after its close is found out instead of reaching another file.
const PLACE_BITS: u32 = 20;

/// The most files one [`Io`](crate::Io) holds open. The kernel's own limit for a process
/// (`fs.nr_open`) is the same by default.
const OPEN_FILES_MAX: usize = 1 << PLACE_BITS;

/// An open file and the name for error messages.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) file: File,
    path: Mutex<PathBuf>,
    /// The device can write through its cache: a durable write needs no flush behind it.
    pub(crate) writes_through: bool,
}

impl OpenFile {
    pub(crate) fn new(file: File, path: PathBuf) -> Self {
        let writes_through = sys::writes_through(&file);
        OpenFile { file, path: Mutex::new(path), writes_through }
    }

    pub(crate) fn into_parts(self) -> (File, PathBuf) {
        (self.file, self.path.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the name under which this is known now: that of its opening, or the one that the
    /// same [`Io`](crate::Io) has given it since.
    pub(crate) fn path(&self) -> PathBuf {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Opens `path`; returns the file and whether the page cache is bypassed.
pub(crate) fn open(path: &Path, mode: OpenMode) -> Result<(File, bool), i32> {
    if !mode.direct {
        return Ok((open_plain(path, mode.access)?, false));
    }
    match open_with(path, mode.access, libc::O_DIRECT) {
        Ok(file) if takes_direct(&file) => Ok((file, true)),
        // The file may just have been created, so creating it anew would fail.
        Ok(_) | Err(libc::EINVAL | libc::EOPNOTSUPP) => {
            Ok((open_after_refusal(path, mode.access)?, false))
        }
        Err(errno) => Err(errno),
    }
}

fn open_plain(path: &Path, access: Access) -> Result<File, i32> {
    open_with(path, access, 0)
}

/// Opens through the page cache after a direct open that was refused or is of no use.
fn open_after_refusal(path: &Path, access: Access) -> Result<File, i32> {
    match open_plain(path, access) {
        // The direct open would have said so first if the name had been there before it: the
        // kernel creates the name and only then finds that the file system has no direct I/O.
        Err(libc::EEXIST) if access == Access::CreateNew => open_plain(path, Access::ReadWrite),
        result => result,
    }
}

fn open_with(path: &Path, access: Access, flags: libc::c_int) -> Result<File, i32> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags | libc::O_CLOEXEC);
    match access {
        Access::Read => {}
        Access::ReadWrite => {
            options.write(true);
        }
        Access::CreateNew => {
            options.write(true).create_new(true);
        }
    }
    options.open(path).map_err(|error| sys::errno_of(&error))
}

/// Returns whether direct I/O works on a file that was opened for it: some file systems accept the
/// open and refuse the first read.
fn takes_direct(file: &File) -> bool {
    match sys::direct_support(file, u32::try_from(BLOCK_BYTES).unwrap_or(u32::MAX)) {
        DirectSupport::Yes => true,
        DirectSupport::No => false,
        DirectSupport::Unknown => {
            let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
            // Any other error is for the read that wants the bytes.
            !matches!(sys::read_at(file, 0, &mut block), Err(libc::EINVAL | libc::EOPNOTSUPP))
        }
    }
}

#[derive(Debug)]
struct Place {
    use_count: u32,
    file: Option<Arc<OpenFile>>,
}

/// The open files of one [`Io`](crate::Io).
#[derive(Debug, Default)]
pub(crate) struct FileTable {
    places: Vec<Place>,
    free: Vec<usize>,
}

impl FileTable {
    /// Keeps `file` and returns its handle.
    pub(crate) fn insert(&mut self, file: OpenFile) -> FileId {
        let file = Some(Arc::new(file));
        let place = if let Some(place) = self.free.pop() {
            self.places[place].file = file;
            place
        } else {
            assert!(self.places.len() < OPEN_FILES_MAX, "more than {OPEN_FILES_MAX} open files");
            self.places.push(Place { use_count: 0, file });
            self.places.len() - 1
        };
        let low = u32::try_from(place).unwrap_or(u32::MAX);
        FileId(self.places[place].use_count << PLACE_BITS | low)
    }

    fn place(&self, id: FileId) -> usize {
        let low = id.0 % (1 << PLACE_BITS);
        let place = usize::try_from(low).unwrap_or(usize::MAX);
        let open = self
            .places
            .get(place)
            .is_some_and(|place| place.file.is_some() && place.use_count == id.0 >> PLACE_BITS);
        assert!(open, "{id:?} is not an open file of this Io");
        place
    }

    /// Returns the file of a handle.
    ///
    /// # Panics
    /// If it is not open.
    pub(crate) fn get(&self, id: FileId) -> Arc<OpenFile> {
        let place = self.place(id);
        match &self.places[place].file {
            Some(file) => Arc::clone(file),
            None => unreachable!("`place` returns places with files"),
        }
    }

    /// Notes that a file was renamed: errors of its open handles name it rightly.
    pub(crate) fn renamed(&self, from: &Path, to: &Path) {
        for file in self.places.iter().filter_map(|place| place.file.as_ref()) {
            let mut path = file.path.lock().unwrap_or_else(PoisonError::into_inner);
            if *path == *from {
                to.clone_into(&mut path);
            }
        }
    }

    /// Forgets a handle and returns its file, which nothing else refers to.
    ///
    /// # Panics
    /// If it is not open or operations of it are in flight.
    pub(crate) fn remove(&mut self, id: FileId) -> OpenFile {
        let place = self.place(id);
        let use_count_end = 1 << (u32::BITS - PLACE_BITS);
        self.places[place].use_count = (self.places[place].use_count + 1) % use_count_end;
        self.free.push(place);
        match self.places[place].file.take().and_then(Arc::into_inner) {
            Some(file) => file,
            None => panic!("{id:?} is closed with operations in flight"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_file(name: &str) -> OpenFile {
        OpenFile::new(File::open("/dev/null").unwrap(), PathBuf::from(name))
    }

    #[test]
    fn handle_reaches_its_file_until_the_close() {
        let mut table = FileTable::default();
        let (first, second) = (table.insert(some_file("a")), table.insert(some_file("b")));
        assert_eq!(table.get(first).path(), PathBuf::from("a"));
        assert_eq!(table.remove(first).path(), PathBuf::from("a"));
        let third = table.insert(some_file("c"));
        assert_ne!(first, third, "a place is used again under another handle");
        assert_eq!(table.get(second).path(), PathBuf::from("b"));
        assert_eq!(table.get(third).path(), PathBuf::from("c"));
    }

    #[test]
    #[should_panic(expected = "is not an open file")]
    fn closed_handle_is_found_out() {
        let mut table = FileTable::default();
        let id = table.insert(some_file("a"));
        table.remove(id);
        table.insert(some_file("b"));
        table.get(id);
    }

    #[test]
    #[should_panic(expected = "operations in flight")]
    fn close_with_operations_in_flight_is_found_out() {
        let mut table = FileTable::default();
        let id = table.insert(some_file("a"));
        let _in_flight = table.get(id);
        table.remove(id);
    }

    #[test]
    fn direct_open_falls_back_where_the_file_system_has_no_direct_io() {
        let mode = OpenMode { access: Access::Read, direct: true };
        let (file, direct) = open(Path::new("/proc/version"), mode).unwrap();
        assert!(!direct);
        assert!(sys::read_at(&file, 0, &mut AlignedBuffer::zeroed(BLOCK_BYTES)).unwrap() > 0);
    }
}
