//! The numbers that must not be mixed up.

use std::fmt;

/// A record's number in its log, dense from 0. As a watermark it is exclusive: everything below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The highest offset: a name, header or mark above it is not ours, so sums never overflow.
    pub const MAX: Offset = Offset(1 << 62);

    /// Returns the offset `records` further.
    ///
    /// # Panics
    /// If the sum does not fit 64 bits; batches that would are refused before.
    #[must_use]
    pub fn plus(self, records: u32) -> Offset {
        match self.0.checked_add(u64::from(records)) {
            Some(sum) => Offset(sum),
            None => panic!("offset {self} + {records} records does not fit 64 bits"),
        }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A byte place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// Returns the position `bytes` further.
    ///
    /// # Panics
    /// If the sum does not fit 64 bits.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Position {
        match self.0.checked_add(bytes) {
            Some(sum) => Position(sum),
            None => panic!("position {self} + {bytes} bytes does not fit 64 bits"),
        }
    }

    /// Returns the start of the block this lies in.
    #[must_use]
    pub fn block_start(self) -> Position {
        Position(self.0 - self.0 % crate::BLOCK_BYTES)
    }

    /// Returns the first block border at or behind this.
    #[must_use]
    pub fn block_end(self) -> Position {
        Position(self.0.next_multiple_of(crate::BLOCK_BYTES))
    }

    /// Returns whether this is a block border.
    #[must_use]
    pub fn is_block_border(self) -> bool {
        self.0.is_multiple_of(crate::BLOCK_BYTES)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a leader's term; strictly increasing, never led twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How often a log was opened for writing or truncated: what tells bytes written before a cut from
/// those written after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 128 random bits that name a log for its whole life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u128);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// 64 random bits of one use of a segment file; its low half stands in every batch, so that bytes
/// of another file or of an earlier use are recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Salt(pub u64);

impl Salt {
    /// Returns the 32 bits that stand in batch headers.
    #[must_use]
    pub fn low(self) -> u32 {
        u32::try_from(self.0 & 0xffff_ffff).unwrap_or_default()
    }
}

impl fmt::Display for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
