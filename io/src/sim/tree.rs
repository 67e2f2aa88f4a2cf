//! Directories: names on the media, names on their way there, and the names a process sees.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::file::{Origin, SimFile};
use crate::operation::{Entry, EntryKind};

/// A file or directory, whatever its names.
pub(super) type NodeId = u64;

/// The directory above all others; it always exists.
pub(super) const ROOT: NodeId = 0;

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(SimFile),
    Directory(SimDirectory),
}

/// One change of names in one directory; it survives a power cut as a whole or not at all.
#[derive(Clone, Debug)]
pub(super) struct PendingEntry {
    pub(super) origin: Origin,
    /// 0, or 1 for the second directory of a rename.
    pub(super) part: u64,
    /// Each name and what it names from now on.
    pub(super) changes: Vec<(OsString, Option<NodeId>)>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct SimDirectory {
    pub(super) path: PathBuf,
    pub(super) media: BTreeMap<OsString, NodeId>,
    pub(super) view: BTreeMap<OsString, NodeId>,
    pub(super) pending: Vec<PendingEntry>,
}

impl SimDirectory {
    fn change(&mut self, operation: u64, part: u64, changes: Vec<(OsString, Option<NodeId>)>) {
        apply(&mut self.view, &changes);
        self.pending.push(PendingEntry { origin: Origin::of(operation), part, changes });
    }

    /// Moves the changes `covered` says to the media.
    pub(super) fn pin(&mut self, covered: impl Fn(&Origin) -> bool) {
        let mut rest: Vec<PendingEntry> = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            if covered(&pending.origin) {
                for earlier in &mut rest {
                    earlier.changes.retain(|(name, _)| {
                        pending.changes.iter().all(|(pinned, _)| pinned != name)
                    });
                }
                rest.retain(|earlier| !earlier.changes.is_empty());
                apply(&mut self.media, &pending.changes);
            } else {
                rest.push(pending);
            }
        }
        self.pending = rest;
    }

    /// Drops covered changes, as a failed sync does: the view goes on showing them. Returns how
    /// many.
    pub(super) fn doom(
        &mut self,
        covered: impl Fn(&Origin) -> bool,
        mut chosen: impl FnMut() -> bool,
    ) -> u64 {
        let mut doomed = 0;
        self.pending.retain(|pending| {
            let makes = pending.changes.iter().any(|(_, node)| node.is_some());
            let lost = makes && covered(&pending.origin) && chosen();
            doomed += u64::from(lost);
            !lost
        });
        doomed
    }

    /// Ends a power cut: `decide` says whether each pending change survives, in order.
    fn survive(&mut self, mut decide: impl FnMut(&PendingEntry) -> bool) {
        for pending in std::mem::take(&mut self.pending) {
            if decide(&pending) {
                apply(&mut self.media, &pending.changes);
            }
        }
        self.view = self.media.clone();
    }
}

fn apply(names: &mut BTreeMap<OsString, NodeId>, changes: &[(OsString, Option<NodeId>)]) {
    for (name, node) in changes {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}

/// Everything on a disk. Failures are the kernel's error numbers.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    next: NodeId,
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = SimDirectory { path: PathBuf::from("/"), ..SimDirectory::default() };
        Tree { nodes: BTreeMap::from([(ROOT, Node::Directory(root))]), next: ROOT + 1 }
    }

    /// Returns what the path names in the view.
    pub(super) fn resolve(&self, path: &Path) -> Result<NodeId, i32> {
        let mut node = ROOT;
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    let names = &self.directory(node).ok_or(libc::ENOTDIR)?.view;
                    node = *names.get(name).ok_or(libc::ENOENT)?;
                }
                Component::ParentDir | Component::Prefix(_) => {
                    panic!("the simulated disk takes no `..`: {}", path.display())
                }
            }
        }
        Ok(node)
    }

    /// Returns the directory of a path and the name in it.
    fn place(&self, path: &Path) -> Result<(NodeId, OsString), i32> {
        let name = path.file_name().ok_or(libc::EEXIST)?;
        let directory = self.resolve(path.parent().unwrap_or(Path::new("/")))?;
        self.directory(directory).ok_or(libc::ENOTDIR)?;
        Ok((directory, name.to_owned()))
    }

    pub(super) fn resolve_file(&self, path: &Path) -> Result<NodeId, i32> {
        let node = self.resolve(path)?;
        if self.file(node).is_some() { Ok(node) } else { Err(libc::EISDIR) }
    }

    pub(super) fn resolve_directory(&self, path: &Path) -> Result<NodeId, i32> {
        let node = self.resolve(path)?;
        if self.directory(node).is_some() { Ok(node) } else { Err(libc::ENOTDIR) }
    }

    pub(super) fn file(&self, node: NodeId) -> Option<&SimFile> {
        match self.nodes.get(&node) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(super) fn file_mut(&mut self, node: NodeId) -> Option<&mut SimFile> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(super) fn directory(&self, node: NodeId) -> Option<&SimDirectory> {
        match self.nodes.get(&node) {
            Some(Node::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn directory_mut(&mut self, node: NodeId) -> Option<&mut SimDirectory> {
        match self.nodes.get_mut(&node) {
            Some(Node::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    /// Returns every file and directory, in the order they were made.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut SimFile> {
        self.nodes.values_mut().filter_map(|node| match node {
            Node::File(file) => Some(file),
            Node::Directory(_) => None,
        })
    }

    /// Returns how many blocks are taken: those of files that have a name or are open, and one
    /// for each file and directory.
    pub(super) fn used_pages(&self) -> u64 {
        let pages = |node: &Node| match node {
            Node::File(file) if file.links > 0 || file.handles > 0 => 1 + file.space.count(),
            Node::File(_) => 0,
            Node::Directory(_) => 1,
        };
        self.nodes.values().map(pages).sum()
    }

    /// Makes a file or directory; returns it and its directory.
    pub(super) fn create(
        &mut self,
        operation: u64,
        path: &Path,
        kind: EntryKind,
    ) -> Result<(NodeId, NodeId), i32> {
        let (place, name) = self.place(path)?;
        let node = self.next;
        let directory = self.directory_mut(place).ok_or(libc::ENOTDIR)?;
        if directory.view.contains_key(&name) {
            return Err(libc::EEXIST);
        }
        directory.change(operation, 0, vec![(name, Some(node))]);
        self.next += 1;
        let path = path.to_owned();
        let made = match kind {
            EntryKind::Directory => {
                Node::Directory(SimDirectory { path, ..SimDirectory::default() })
            }
            _ => Node::File(SimFile::named(path)),
        };
        self.nodes.insert(node, made);
        Ok((node, place))
    }

    fn unlink(&mut self, node: NodeId) {
        if let Some(file) = self.file_mut(node) {
            file.links = file.links.saturating_sub(1);
        }
    }

    /// Takes a file's name away; returns the directory.
    pub(super) fn remove(&mut self, operation: u64, path: &Path) -> Result<NodeId, i32> {
        let node = self.resolve_file(path)?;
        let (place, name) = self.place(path)?;
        let directory = self.directory_mut(place).ok_or(libc::ENOTDIR)?;
        directory.change(operation, 0, vec![(name, None)]);
        self.unlink(node);
        Ok(place)
    }

    /// Renames, replacing a file that is there; returns the directories changed.
    pub(super) fn rename(
        &mut self,
        operation: u64,
        from: &Path,
        to: &Path,
    ) -> Result<Vec<NodeId>, i32> {
        let node = self.resolve(from)?;
        let (source, old) = self.place(from)?;
        let (target, new) = self.place(to)?;
        let replaced = self.resolve(to).ok();
        if replaced == Some(node) {
            return Ok(Vec::new());
        }
        if self.directory(node).is_some() {
            // Half of it on the media would be a directory with two parents.
            assert_eq!(source, target, "the simulated disk moves directories only in place");
            if let Some(replaced) = replaced {
                let is_file = self.file(replaced).is_some();
                return Err(if is_file { libc::ENOTDIR } else { libc::EEXIST });
            }
        }
        if let Some(replaced) = replaced {
            self.file(replaced).ok_or(libc::EISDIR)?;
            self.unlink(replaced);
        }
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => file.path = to.to_owned(),
            Some(Node::Directory(directory)) => directory.path = to.to_owned(),
            None => return Err(libc::ENOENT),
        }
        if source == target {
            let directory = self.directory_mut(source).ok_or(libc::ENOTDIR)?;
            directory.change(operation, 0, vec![(old, None), (new, Some(node))]);
            return Ok(vec![source]);
        }
        let directory = self.directory_mut(source).ok_or(libc::ENOTDIR)?;
        directory.change(operation, 0, vec![(old, None)]);
        let directory = self.directory_mut(target).ok_or(libc::ENOTDIR)?;
        directory.change(operation, 1, vec![(new, Some(node))]);
        Ok(vec![source, target])
    }

    /// Returns the names in a directory, sorted.
    pub(super) fn list(&self, path: &Path) -> Result<Vec<Entry>, i32> {
        let node = self.resolve_directory(path)?;
        let names = &self.directory(node).ok_or(libc::ENOTDIR)?.view;
        let entry = |(name, node): (&OsString, &NodeId)| Entry {
            name: name.to_string_lossy().into_owned(),
            kind: if self.file(*node).is_some() { EntryKind::File } else { EntryKind::Directory },
        };
        Ok(names.iter().map(entry).collect())
    }

    /// Ends a power cut for names; whatever has none any more is gone.
    pub(super) fn survive_names(&mut self, mut decide: impl FnMut(&PendingEntry) -> bool) {
        for node in self.nodes.values_mut() {
            if let Node::Directory(directory) = node {
                directory.survive(&mut decide);
            }
        }
        let mut reached = BTreeSet::from([ROOT]);
        let mut links: BTreeMap<NodeId, u32> = BTreeMap::new();
        let mut ahead = vec![(ROOT, PathBuf::from("/"))];
        while let Some((node, path)) = ahead.pop() {
            if let Some(file) = self.file_mut(node) {
                file.path = path;
                *links.entry(node).or_default() += 1;
                continue;
            }
            let Some(directory) = self.directory_mut(node) else { continue };
            directory.path.clone_from(&path);
            for (name, child) in directory.view.clone() {
                let known = !reached.insert(child);
                if !known || self.file(child).is_some() {
                    ahead.push((child, path.join(name)));
                }
            }
        }
        self.nodes.retain(|id, _| reached.contains(id));
        for (id, node) in &mut self.nodes {
            if let Node::File(file) = node {
                file.links = links.get(id).copied().unwrap_or(0);
            }
        }
    }

    /// Returns whether there is a file without a name that nobody has open.
    pub(super) fn has_nameless(&self) -> bool {
        let mut nodes = self.nodes.values();
        nodes.any(|node| matches!(node, Node::File(file) if file.links == 0 && file.handles == 0))
    }

    /// Frees files that are not open, not `in_use` and have no name even after a power cut.
    pub(super) fn collect(&mut self, in_use: BTreeSet<NodeId>) {
        let mut reached = in_use;
        for node in self.nodes.values() {
            if let Node::Directory(directory) = node {
                reached.extend(directory.media.values().chain(directory.view.values()));
                let pending = directory.pending.iter().flat_map(|pending| &pending.changes);
                reached.extend(pending.filter_map(|(_, node)| *node));
            }
        }
        self.nodes.retain(|id, node| match node {
            Node::File(file) => file.handles > 0 || file.links > 0 || reached.contains(id),
            Node::Directory(_) => true,
        });
    }

    /// Returns the path of every file a process sees, sorted.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut ahead = vec![(ROOT, PathBuf::from("/"))];
        while let Some((node, path)) = ahead.pop() {
            if self.file(node).is_some() {
                found.push(path);
            } else if let Some(directory) = self.directory(node) {
                let children = directory.view.iter();
                ahead.extend(children.map(|(name, child)| (*child, path.join(name))));
            }
        }
        found.sort();
        found
    }
}
