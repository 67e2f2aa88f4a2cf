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
    /// The kernel gives this answer.
    Trouble(Trouble),
}

/// An answer of the kernel other than success. What a backend hides (a short transfer, an
/// interrupted one) is given to the same code that hides it from the real kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// `EIO`: a write has changed any subset of its sectors; a flush or directory sync loses a part
    /// of what it covered; anything else changes nothing.
    DeviceError,
    /// `ENOSPC`, where space may be needed, a flush included; changes as `DeviceError`.
    NoSpace,
    /// `EINTR`: a read, a write or a reservation goes on, a flush or directory sync has failed.
    Interrupted,
    /// `EAGAIN`, as `Interrupted`.
    TryAgain,
    /// A read or a write moves a part only and is continued.
    ShortTransfer,
}

impl Trouble {
    /// Every one of them.
    pub const ALL: [Trouble; 5] = [
        Trouble::DeviceError,
        Trouble::NoSpace,
        Trouble::Interrupted,
        Trouble::TryAgain,
        Trouble::ShortTransfer,
    ];

    /// Returns its name, as in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Trouble::DeviceError => "EIO",
            Trouble::NoSpace => "ENOSPC",
            Trouble::Interrupted => "EINTR",
            Trouble::TryAgain => "EAGAIN",
            Trouble::ShortTransfer => "short transfer",
        }
    }

    pub(super) fn errno(self) -> i32 {
        match self {
            Trouble::DeviceError | Trouble::ShortTransfer => libc::EIO,
            Trouble::NoSpace => libc::ENOSPC,
            Trouble::Interrupted => libc::EINTR,
            Trouble::TryAgain => libc::EAGAIN,
        }
    }

    fn applies_to(self, verb: &str) -> bool {
        match self {
            Trouble::DeviceError => true,
            Trouble::NoSpace => matches!(
                verb,
                "open"
                    | "write"
                    | "flush"
                    | "allocate"
                    | "set the length of"
                    | "create directory"
                    | "sync directory"
                    | "rename"
            ),
            Trouble::Interrupted | Trouble::TryAgain => {
                matches!(verb, "read" | "write" | "flush" | "allocate" | "sync directory")
            }
            Trouble::ShortTransfer => matches!(verb, "read" | "write"),
        }
    }
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
            Fault::Trouble(trouble) => trouble.name(),
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
            Fault::Trouble(trouble) => trouble.applies_to(verb),
        }
    }
}

/// Makes one operation go wrong, once or for ever: the `nth` submitted from now on (0 for the
/// first) whose verb is `verb` and whose path contains `path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRule {
    /// `None` for any that the fault means something to.
    verb: Option<&'static str>,
    path: String,
    nth: u64,
    for_ever: bool,
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
        let (verb, path) = (Some(verb), path.to_owned());
        FaultRule { verb, path, nth: 0, for_ever: false, fault }
    }

    /// Returns the rule for the next operation that the fault means something to.
    #[must_use]
    pub fn any(fault: Fault) -> Self {
        FaultRule { verb: None, path: String::new(), nth: 0, for_ever: false, fault }
    }

    /// Returns the rule for that operation and every matching one behind it, until
    /// [`SimDisk::heal`](super::SimDisk::heal).
    #[must_use]
    pub fn for_ever(self) -> Self {
        FaultRule { for_ever: true, ..self }
    }

    /// Returns the rule for the operation after `skipped` matching ones.
    #[must_use]
    pub fn nth(self, skipped: u64) -> Self {
        FaultRule { nth: skipped, ..self }
    }

    /// Counts an operation; returns whether the rule strikes now. `changes` tells an opening that
    /// makes a file from others.
    pub(super) fn strikes(&mut self, verb: &str, path: &str, changes: bool) -> bool {
        let matches = match self.verb {
            Some(own) => own == verb,
            None => self.fault.applies_to(verb),
        };
        let opens = verb == "open" && self.fault == Fault::Trouble(Trouble::NoSpace) && !changes;
        if !matches || opens || !path.contains(&self.path) {
            return false;
        }
        let now = self.nth == 0;
        self.nth = self.nth.saturating_sub(1);
        now
    }

    pub(super) fn lasts(&self) -> bool {
        self.for_ever
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
