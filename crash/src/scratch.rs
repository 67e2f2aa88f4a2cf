//! Directories for a while.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::workload::Failure;

/// A new directory in the temporary directory; removed with all it holds when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes one.
    pub(crate) fn new(purpose: &str) -> Result<Self, Failure> {
        let random = highwater_io::random::kernel_u64();
        let name = format!("highwater-{purpose}-{}-{random:016x}", std::process::id());
        let path = std::env::temp_dir().canonicalize()?.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Scratch { path })
    }

    /// Returns where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("highwater-crash: left over: {}: {error}", self.path.display());
        }
    }
}

/// Everything below a directory: the bytes of every file, by its path from there.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Reads every file below `root`.
pub(crate) fn read_files(root: &Path) -> Result<Files, Failure> {
    let mut files = Files::new();
    for path in paths(root)? {
        files.insert(path.strip_prefix(root)?.to_owned(), std::fs::read(&path)?);
    }
    Ok(files)
}

/// Makes `root` hold exactly `files`, and what every engine's directory has.
pub(crate) fn write_files(root: &Path, files: &Files) -> Result<(), Failure> {
    if root.exists() {
        std::fs::remove_dir_all(root)?;
    }
    std::fs::create_dir_all(root.join(".pool"))?;
    for (path, bytes) in files {
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, bytes)?;
    }
    Ok(())
}

/// What a file looks like from outside: its length, a checksum of its bytes, when it changed.
pub(crate) type Print = (u64, u32, SystemTime);

/// Takes the print of every file below `root`.
pub(crate) fn prints(root: &Path) -> Result<BTreeMap<PathBuf, Print>, Failure> {
    let mut prints = BTreeMap::new();
    for path in paths(root)? {
        let metadata = path.metadata()?;
        let sum = crc32c::crc32c(&std::fs::read(&path)?);
        prints.insert(path, (metadata.len(), sum, metadata.modified()?));
    }
    Ok(prints)
}

/// Returns the paths of all files below `root`.
fn paths(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else {
                paths.push(entry.path());
            }
        }
    }
    Ok(paths)
}

/// Waits until nobody holds the lock of an engine's directory: when a process was killed, the
/// kernel may still be writing for it.
pub(crate) fn wait_unlocked(directory: &Path) -> Result<(), Failure> {
    match File::open(directory) {
        Ok(file) => {
            file.lock()?;
            Ok(file.unlock()?)
        }
        // Killed before it was made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}
