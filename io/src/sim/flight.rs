//! An operation between its submission and its end.

use std::path::PathBuf;
use std::sync::Arc;

use super::content::{Page, page_bytes, zero_page};
use super::fault::Fault;
use super::profile::{Latency, SimProfile};
use super::tree::NodeId;
use crate::error::{IoError, IoErrorKind};
use crate::operation::{OpenMode, Output};

/// An operation with its file looked up.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Open {
        path: PathBuf,
        mode: OpenMode,
    },
    Close {
        node: NodeId,
    },
    Read {
        node: NodeId,
        position: u64,
        length: usize,
        direct: bool,
    },
    Write {
        node: NodeId,
        first: u64,
        pages: Arc<[Arc<Page>]>,
        dsync: bool,
        part: Option<Part>,
    },
    Flush {
        node: NodeId,
    },
    Allocate {
        node: NodeId,
        position: u64,
        length: u64,
    },
    SetLength {
        node: NodeId,
        length: u64,
    },
    Length {
        node: NodeId,
    },
    DropCache {
        node: NodeId,
    },
    CreateDirectory {
        path: PathBuf,
    },
    SyncDirectory {
        path: PathBuf,
    },
    List {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    Lock {
        path: PathBuf,
    },
    /// The file was opened for less: fails with this number.
    Denied {
        errno: i32,
        position: Option<u64>,
    },
}

impl Work {
    /// Returns whether it changes the disk, so that it goes on when its process is killed.
    pub(super) fn changes(&self) -> bool {
        match self {
            Work::Open { mode, .. } => mode.access == crate::Access::CreateNew,
            Work::Write { .. }
            | Work::Allocate { .. }
            | Work::SetLength { .. }
            | Work::CreateDirectory { .. }
            | Work::Rename { .. }
            | Work::Remove { .. } => true,
            Work::Close { .. }
            | Work::Read { .. }
            | Work::Flush { .. }
            | Work::Length { .. }
            | Work::DropCache { .. }
            | Work::SyncDirectory { .. }
            | Work::List { .. }
            | Work::Lock { .. }
            | Work::Denied { .. } => false,
        }
    }

    /// Returns a hash of the bytes to be written, so that runs that differ in them only differ in
    /// their traces.
    pub(super) fn hash(&self) -> u64 {
        let Work::Write { pages, .. } = self else { return 0 };
        let zero = zero_page();
        let mut hash: u64 = 0;
        for page in pages.iter() {
            hash = hash.rotate_left(7) ^ 0x9e37_79b9_7f4a_7c15;
            if Arc::ptr_eq(page, &zero) {
                continue;
            }
            for word in page.chunks_exact(8) {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(word);
                hash = (hash ^ u64::from_le_bytes(bytes)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        hash
    }

    /// Returns where in the file it works, where that means something.
    pub(super) fn position(&self) -> Option<u64> {
        match self {
            Work::Read { position, .. } | Work::Allocate { position, .. } => Some(*position),
            Work::Write { first, .. } => Some(first * page_bytes()),
            Work::Denied { position, .. } => *position,
            _ => None,
        }
    }

    /// Returns the file it works on, if it was open before.
    pub(super) fn node(&self) -> Option<NodeId> {
        match self {
            Work::Close { node }
            | Work::Read { node, .. }
            | Work::Write { node, .. }
            | Work::Flush { node }
            | Work::Allocate { node, .. }
            | Work::SetLength { node, .. }
            | Work::Length { node }
            | Work::DropCache { node } => Some(*node),
            Work::Open { .. }
            | Work::CreateDirectory { .. }
            | Work::SyncDirectory { .. }
            | Work::List { .. }
            | Work::Rename { .. }
            | Work::Remove { .. }
            | Work::Lock { .. }
            | Work::Denied { .. } => None,
        }
    }

    pub(super) fn latency(&self, profile: &SimProfile) -> Latency {
        match self {
            Work::Read { .. } => profile.read,
            Work::Write { .. } => profile.write,
            Work::Flush { .. } | Work::SyncDirectory { .. } => profile.flush,
            _ => profile.metadata,
        }
    }
}

/// The sectors of a write that become visible before the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) sectors: u64,
    pub(super) at_end: bool,
}

/// An operation between its submission and its end.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) id: u64,
    pub(super) life: u32,
    /// Who hears of its end; nobody after a kill.
    pub(super) io: Option<u32>,
    /// The `Io` it was submitted to.
    pub(super) owner: u32,
    pub(super) verb: &'static str,
    pub(super) path: PathBuf,
    pub(super) work: Work,
    pub(super) fault: Option<Fault>,
    /// How many operations had been reported when this was submitted.
    pub(super) covers: u64,
    /// The kernel drops it when its process is gone.
    pub(super) cancelled: bool,
    /// What it came to, once it took effect.
    pub(super) result: Option<Result<Output, IoError>>,
    /// What it changed: files, or directories.
    pub(super) touched: Vec<NodeId>,
}

impl Flight {
    pub(super) fn position(&self) -> Option<u64> {
        self.work.position()
    }

    pub(super) fn error(&self, errno: i32) -> IoError {
        IoError::from_errno(errno, self.verb, self.path.clone(), self.position())
    }

    pub(super) fn refusal(&self, kind: IoErrorKind) -> IoError {
        let (operation, path, position) = (self.verb, self.path.clone(), self.position());
        IoError { kind, operation, path, position, errno: None }
    }
}

/// What happens next to an operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A part of a write becomes visible.
    Part,
    /// It takes effect.
    Effect,
    /// It ends.
    Finish,
}
