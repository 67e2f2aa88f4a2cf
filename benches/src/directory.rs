//! Directories of one run.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A directory that was made for one run and is removed with it.
#[derive(Debug)]
pub struct FreshDirectory {
    path: PathBuf,
}

impl FreshDirectory {
    /// Makes `parent/name-PID`. Removes what killed runs left under that name.
    ///
    /// # Errors
    /// If it is there already, or cannot be made.
    pub fn new(parent: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        remove_left_over(parent, name)?;
        let path = parent.join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(FreshDirectory { path })
    }

    /// Returns where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the bytes its files take on the disk.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn disk_bytes(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for file in files_below(&self.path)? {
            bytes += fs::metadata(file)?.blocks() * 512;
        }
        Ok(bytes)
    }

    /// Removes it and waits until the file system has nothing of it left to do.
    ///
    /// # Errors
    /// If that fails.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)?;
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        rustix::fs::syncfs(File::open(parent)?)?;
        Ok(())
    }
}

impl Drop for FreshDirectory {
    fn drop(&mut self) {
        // A run that failed leaves nothing either; after `remove` there is nothing to find.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// Removes `name-PID` of processes that are no more.
fn remove_left_over(parent: &Path, name: &str) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(pid) = file_name.to_str().and_then(|f| f.strip_prefix(name)?.strip_prefix('-'))
        else {
            continue;
        };
        let is_pid = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
        if is_pid && !Path::new("/proc").join(pid).exists() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Returns all files below a directory.
///
/// # Errors
/// If one cannot be listed.
pub fn files_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut files, mut waiting) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let found = if entry.file_type()?.is_dir() { &mut waiting } else { &mut files };
            found.push(entry.path());
        }
    }
    Ok(files)
}

/// Flushes every file below a directory, and the directory, to stable media.
///
/// # Errors
/// If one of them cannot be opened or flushed.
pub fn flush_all(directory: &Path) -> io::Result<()> {
    for file in files_below(directory)? {
        File::open(file)?.sync_data()?;
    }
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_counts_its_bytes_and_leaves_nothing() {
        let parent = std::env::temp_dir();
        let directory = FreshDirectory::new(&parent, "highwater-benches-test").expect("made");
        let path = directory.path().to_owned();
        fs::create_dir(path.join("below")).expect("made");
        fs::write(path.join("below/file"), vec![1; 8192]).expect("written");
        flush_all(&path).expect("flushed");
        assert!(directory.disk_bytes().expect("listed") >= 8192);
        directory.remove().expect("removed");
        assert!(!path.exists());
    }

    #[test]
    fn what_killed_runs_left_is_removed_and_nothing_else() {
        let parent = FreshDirectory::new(&std::env::temp_dir(), "highwater-benches-left");
        let parent = parent.expect("made");
        // No process has such a number; 1 is always there.
        let names = ["run-4194305", "run-1", "run-x", "run-", "running-4194305", "run"];
        for name in names {
            fs::create_dir(parent.path().join(name)).expect("made");
        }
        let run = FreshDirectory::new(parent.path(), "run").expect("made");
        let left: Vec<_> =
            names.iter().filter(|name| parent.path().join(name).exists()).copied().collect();
        assert_eq!(left, names[1..]);
        assert!(run.path().exists());
    }
}
