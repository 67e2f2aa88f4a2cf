//! One step along a segment, and resynchronising behind damage.
//!
//! A [`Chain`] knows what the next batch must look like; [`Chain::step`] checks the bytes in front
//! of it and moves on, or says why it stops. Nothing that does not fit the chain is ever served:
//! magic, header checksum, salt, position, generation, offset, epoch and the records' checksum all
//! have to hold (D7). [`evidence`] looks behind a stop for good headers; what it finds only
//! classifies the damage.

use crate::batch::{BatchHeader, HEADER_BYTES, HeaderFault, MAGIC};
use crate::bytes::{all_zero, to_u64};
use crate::filler::gap_bytes;
use crate::types::{Epoch, Generation, Offset, Position, Salt};

/// Where a walk along one segment stands, and what it asks of the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    salt: u32,
    position: Position,
    next_offset: Offset,
    epoch: Epoch,
    seen_generation: Generation,
    generation: Generation,
    exact_from: Position,
    proven: Offset,
}

/// What lies in front of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A batch with good records.
    Batch {
        /// Its header.
        header: BatchHeader,
        /// Its records, encoded.
        records: &'a [u8],
    },
    /// A filler, checked to its last zero.
    Filler {
        /// Its header.
        header: BatchHeader,
    },
    /// So many zeros to the block border, where no header fits.
    Gap {
        /// 8 to 80.
        bytes: usize,
    },
    /// To decide, so many bytes from the chain's position are needed; at the end of the file that
    /// is [`Stop::CutShort`].
    NeedBytes(usize),
}

/// Why a chain does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// No batch begins here: zeros, the end of the file, or other bytes without the magic.
    NoBatch,
    /// The file ends inside what begins here.
    CutShort,
    /// A batch begins here but its header is damaged.
    Header(HeaderFault),
    /// The header is good but belongs to another file, or to an earlier use of this one.
    Salt {
        /// What stands there.
        found: u32,
    },
    /// The header is good but was written for another place.
    MovedFrom(Position),
    /// The header is good but was written before a cut: a stale remainder.
    StaleGeneration(Generation),
    /// The header is good and newer than `log.meta` admits: an old `log.meta`.
    NewerGeneration(Generation),
    /// The header is good but does not continue the offsets.
    Offset {
        /// What stands there.
        found: Offset,
    },
    /// The header is good but its epoch is lower than its predecessor's (A2).
    EpochWentBack(Epoch),
    /// The header is good but the records' checksum is wrong.
    Records {
        /// The header.
        header: BatchHeader,
        /// What the bytes give.
        computed: u32,
    },
    /// The header is good but the padding behind the batch, or the body of the filler, is not
    /// zero.
    Padding {
        /// The header.
        header: BatchHeader,
    },
}

impl Stop {
    /// Returns in a few words what was found.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Stop::NoBatch => "no batch begins here".into(),
            Stop::CutShort => "the file ends inside a batch".into(),
            Stop::Header(HeaderFault::NoMagic) => "no batch begins here".into(),
            Stop::Header(HeaderFault::Checksum { stored, computed }) => {
                format!("header checksum {computed:08x}, expected {stored:08x}")
            }
            Stop::Header(HeaderFault::Field(field)) => format!("impossible header field {field}"),
            Stop::Salt { found } => format!("batch of another file or use (salt {found:08x})"),
            Stop::MovedFrom(position) => format!("batch written for byte {position}"),
            Stop::StaleGeneration(found) => format!("stale batch of generation {found}"),
            Stop::NewerGeneration(found) => {
                format!("batch of generation {found}, newer than log.meta")
            }
            Stop::Offset { found } => format!("batch with base offset {found}"),
            Stop::EpochWentBack(found) => format!("batch of the lower epoch {found}"),
            Stop::Records { header, computed } => {
                format!("records checksum {computed:08x}, expected {:08x}", header.records_crc)
            }
            Stop::Padding { .. } => "bytes that must be zero are not".into(),
        }
    }

    /// Returns whether this can be the plain end of a log that was never torn: nothing, or a
    /// remainder from before a cut or from an earlier use of the file.
    #[must_use]
    pub fn is_plain_end(&self) -> bool {
        matches!(self, Stop::NoBatch | Stop::StaleGeneration(_) | Stop::Salt { .. })
    }
}

/// Which generations a chain accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationRule {
    /// The generation in `log.meta`; higher ones never.
    pub current: Generation,
    /// From this position on only `current`; below it lower ones too, as they never fall.
    pub exact_from: Position,
}

impl Chain {
    /// Returns the chain at `position`, where the batch with `next_offset` starts or will.
    ///
    /// # Panics
    /// If no batch can start at `position`.
    #[must_use]
    pub fn new(
        salt: Salt,
        position: Position,
        next_offset: Offset,
        epoch: Epoch,
        rule: GenerationRule,
    ) -> Self {
        assert!(position >= crate::FIRST_BATCH && position.0.is_multiple_of(8));
        Chain {
            salt: salt.low(),
            position,
            next_offset,
            epoch,
            seen_generation: Generation(0),
            generation: rule.current,
            exact_from: rule.exact_from,
            proven: Offset(0),
        }
    }

    /// Returns the low half of the salt its batches carry.
    #[must_use]
    pub fn salt(&self) -> Salt {
        Salt(u64::from(self.salt))
    }

    /// Returns where the next batch starts or will.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the offset of the next record.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Returns the epoch of the last batch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns the highest flush mark in the headers passed so far.
    #[must_use]
    pub fn proven(&self) -> Offset {
        self.proven
    }

    /// Checks what lies in front of the chain - `bytes` start at its position - and moves behind
    /// it. Moves only on a batch, filler or gap.
    ///
    /// # Errors
    /// [`Stop`]: why nothing can be served from here.
    ///
    /// # Panics
    /// A1: if a checked header does not continue the offsets.
    pub fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<Step<'a>, Stop> {
        let gap = gap_bytes(self.position);
        if gap > 0 {
            match bytes.get(..gap) {
                None => return Ok(Step::NeedBytes(gap)),
                Some(zeros) if all_zero(zeros) => {
                    self.position = self.position.block_end();
                    return Ok(Step::Gap { bytes: gap });
                }
                Some(_) => {}
            }
        }
        let Some(head) = bytes.get(..HEADER_BYTES) else {
            return Ok(Step::NeedBytes(HEADER_BYTES));
        };
        let header = self.check_header(head)?;
        let padded = usize::try_from(header.padded_bytes()).unwrap_or(usize::MAX);
        let total = HEADER_BYTES + header.records_bytes();
        let Some(whole) = bytes.get(..padded) else { return Ok(Step::NeedBytes(padded)) };
        let (Some(records), Some(padding)) = (whole.get(HEADER_BYTES..total), whole.get(total..))
        else {
            return Err(Stop::CutShort);
        };
        let computed = crc32c::crc32c(records);
        if computed != header.records_crc {
            return Err(Stop::Records { header, computed });
        }
        if !all_zero(padding) || header.is_filler() && !all_zero(records) {
            return Err(Stop::Padding { header });
        }
        assert_eq!(header.base_offset, self.next_offset, "A1: offsets continue");
        self.position = header.end_position();
        self.next_offset = header.end_offset();
        self.epoch = header.leader_epoch;
        self.seen_generation = header.generation;
        self.proven = self.proven.max(header.flush_mark);
        if header.is_filler() {
            Ok(Step::Filler { header })
        } else {
            Ok(Step::Batch { header, records })
        }
    }

    /// Returns the header in front of the chain if it belongs exactly here.
    fn check_header(&self, head: &[u8]) -> Result<BatchHeader, Stop> {
        let header = match BatchHeader::decode(head) {
            Ok(header) => header,
            Err(HeaderFault::NoMagic) => return Err(Stop::NoBatch),
            Err(fault) => return Err(Stop::Header(fault)),
        };
        if header.salt != self.salt {
            return Err(Stop::Salt { found: header.salt });
        }
        if header.position != self.position {
            return Err(Stop::MovedFrom(header.position));
        }
        if header.generation > self.generation {
            return Err(Stop::NewerGeneration(header.generation));
        }
        let exact = self.position >= self.exact_from && header.generation != self.generation;
        if exact || header.generation < self.seen_generation {
            return Err(Stop::StaleGeneration(header.generation));
        }
        if header.base_offset != self.next_offset {
            return Err(Stop::Offset { found: header.base_offset });
        }
        if header.leader_epoch < self.epoch {
            return Err(Stop::EpochWentBack(header.leader_epoch));
        }
        let ends_its_block = header.end_position().is_block_border();
        if header.is_filler() && (self.position.is_block_border() || !ends_its_block) {
            return Err(Stop::Header(HeaderFault::Field("total_bytes")));
        }
        Ok(header)
    }
}

/// What good headers behind a stop say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The highest flush mark in them: everything below was flushed.
    pub proven: Offset,
    /// A header of a generation above `log.meta`'s.
    pub newer_generation: Option<Generation>,
    /// The first batch with records behind the stop: where it starts and its base offset.
    pub resumes: Option<(Position, Offset)>,
}

impl Evidence {
    /// Adds what another stretch of bytes says; `self` lies before `other`.
    #[must_use]
    pub fn and_then(self, other: Evidence) -> Evidence {
        Evidence {
            proven: self.proven.max(other.proven),
            newer_generation: self.newer_generation.max(other.newer_generation),
            resumes: self.resumes.or(other.resumes),
        }
    }
}

/// Returns what the good headers in `bytes` say, which start at `position` (a multiple of 8) of a
/// segment: every 8-byte place is tried whose magic, salt (any, where the segment's is not known),
/// generation, position and header checksum hold. Headers that cross the end of `bytes` are not
/// seen: let stretches overlap by [`HEADER_BYTES`].
///
/// # Panics
/// If `position` is not a multiple of 8.
#[must_use]
pub fn evidence(
    bytes: &[u8],
    position: Position,
    salt: Option<Salt>,
    generation: Generation,
) -> Evidence {
    assert!(position.0.is_multiple_of(8), "batches start on the 8-byte grid");
    let mut found = Evidence::default();
    for at in (0..bytes.len()).step_by(8) {
        let Some(rest) = bytes.get(at..) else { break };
        if !rest.starts_with(&MAGIC) {
            continue;
        }
        let Ok(header) = BatchHeader::decode(rest) else { continue };
        let here = position.plus(to_u64(at));
        let belongs = header.position == here && salt.is_none_or(|s| s.low() == header.salt);
        if !belongs || header.generation < generation {
            continue;
        }
        if header.generation > generation {
            found.newer_generation = found.newer_generation.max(Some(header.generation));
            continue;
        }
        found.proven = found.proven.max(header.flush_mark);
        if found.resumes.is_none() && !header.is_filler() {
            found.resumes = Some((here, header.base_offset));
        }
    }
    found
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
