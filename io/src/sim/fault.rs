//! Faults: what can go wrong, and rules that make it go wrong once.

use crate::error::IoErrorKind;

/// What goes wrong with one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A read finds unreadable blocks; they stay so until rewritten.
    ReadError,
    /// A read finds one flipped bit on the media.
    BitFlip,
    /// A write lands at another aligned position of its file.
    MisdirectedWrite,
    /// A write is reported but never reaches the media; it is seen until the next restart.
    LostWrite,
    /// A block of a write shows its older bytes after the next restart.
    StaleBlock,
    /// A write fails with any subset of its sectors changed.
    WriteError,
    /// A flush or directory sync fails; a part of what it covered - bytes, and names that came -
    /// never reaches the media, and the next one succeeds. Names that went stay unsynced.
    FlushError,
    /// The operation fails like this and changes nothing.
    Refuse(IoErrorKind),
    /// The operation takes [`SimProfile::slow_factor`](super::SimProfile::slow_factor) times as
    /// long.
    Slow,
    /// The disk hangs from here until [`SimDisk::thaw`](super::SimDisk::thaw).
    Hang,
}

impl Fault {
    /// Returns the name counted in [`SimDisk::counts`](super::SimDisk::counts).
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Fault::ReadError => "read error",
            Fault::BitFlip => "bit flip",
            Fault::MisdirectedWrite => "misdirected write",
            Fault::LostWrite => "lost write",
            Fault::StaleBlock => "stale block",
            Fault::WriteError => "write error",
            Fault::FlushError => "flush error",
            Fault::Refuse(_) => "refusal",
            Fault::Slow => "slow operation",
            Fault::Hang => "hang",
        }
    }

    fn applies_to(&self, verb: &str) -> bool {
        match self {
            Fault::ReadError | Fault::BitFlip => verb == "read",
            Fault::MisdirectedWrite | Fault::LostWrite | Fault::StaleBlock | Fault::WriteError => {
                verb == "write"
            }
            Fault::FlushError => verb == "flush" || verb == "sync directory",
            Fault::Refuse(_) | Fault::Slow | Fault::Hang => true,
        }
    }
}

/// Makes one operation go wrong, once: the `nth` submitted from now on (0 for the first) whose
/// verb is `verb` and whose path contains `path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRule {
    verb: &'static str,
    path: String,
    nth: u64,
    fault: Fault,
}

impl FaultRule {
    /// Returns the rule for the next operation with this verb (see
    /// [`Operation::verb`](crate::Operation::verb)) on a path that contains `path`.
    ///
    /// # Panics
    /// If the fault means nothing to that verb.
    #[must_use]
    pub fn new(verb: &'static str, path: &str, fault: Fault) -> Self {
        assert!(fault.applies_to(verb), "a {verb} has no {}", fault.name());
        FaultRule { verb, path: path.to_owned(), nth: 0, fault }
    }

    /// Returns the rule for the operation after `skipped` matching ones.
    #[must_use]
    pub fn nth(self, skipped: u64) -> Self {
        FaultRule { nth: skipped, ..self }
    }

    /// Counts an operation; returns whether the rule strikes now.
    pub(super) fn strikes(&mut self, verb: &str, path: &str) -> bool {
        if self.verb != verb || !path.contains(&self.path) {
            return false;
        }
        let now = self.nth == 0;
        self.nth = self.nth.saturating_sub(1);
        now
    }

    pub(super) fn fault(&self) -> &Fault {
        &self.fault
    }
}

/// A deliberate mistake of the simulated kernel, to prove that a harness would notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Planted {
    /// None: the disk is as described.
    #[default]
    Nothing,
    /// A directory lock is free as soon as its process is killed, so that writes still in flight
    /// land in the next life.
    LockDroppedAtKill,
    /// A flush of a file succeeds and does nothing.
    FlushIgnored,
}
