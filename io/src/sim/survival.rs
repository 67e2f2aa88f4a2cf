//! Power cuts: what survives of everything that was not yet on the media.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::content::{SECTOR_BYTES, narrow, page_bytes, wide};
use super::core::Core;
use super::file::{Change, ChangeFate, Origin, Pending, SectorFate};
use super::tree::{Node, PendingEntry};
use crate::buffer::BLOCK_BYTES;
use crate::random::SeededRandom;

/// What survives a power cut of what was unsynced or in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing: finds every missing flush.
    Nothing,
    /// Everything, also what was still in flight.
    Everything,
    /// Each piece or a part of it by itself, as this seed says.
    Random(u64),
}

/// Names one thing that a power cut decides on; the same in copies of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceId(pub u64);

/// One thing that a power cut decides on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsyncedPiece {
    /// Its name.
    pub id: PieceId,
    /// Whether its submitter has not heard of its end.
    pub in_flight: bool,
    /// What it is.
    pub kind: PieceKind,
}

/// What an [`UnsyncedPiece`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// The bytes of a write, without the size that finds them.
    Write {
        /// The file.
        path: PathBuf,
        /// First byte, inclusive.
        position: u64,
        /// So many bytes.
        length: u64,
    },
    /// The length of a file.
    Size {
        /// The file.
        path: PathBuf,
        /// The length: exactly, or at least if it only grows.
        length: u64,
        /// Whether it only grows.
        grows: bool,
    },
    /// Names in one directory.
    Entry {
        /// The directory.
        directory: PathBuf,
        /// Names that come or change their file.
        set: Vec<String>,
        /// Names that go.
        cleared: Vec<String>,
    },
}

/// What survives of one piece. All but `Lost` mean `Kept` for a size or names. Sectors are counted
/// from the start of the write and are 512 bytes long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PieceSurvival {
    /// Nothing.
    Lost,
    /// All of it.
    Kept,
    /// The first so many sectors.
    Prefix {
        /// How many.
        sectors: u64,
    },
    /// All but one sector.
    Hole {
        /// Which is lost.
        sector: u64,
    },
    /// The sectors whose place in the mask says so; those beyond it are lost.
    Only(Vec<bool>),
    /// The sectors before one, and the start of that one: for devices without P1.
    Torn {
        /// The torn one.
        sector: u64,
        /// So many bytes of it survive.
        bytes: usize,
    },
}

impl PieceSurvival {
    fn fate(self) -> ChangeFate {
        let sectors: Box<dyn FnMut(u64) -> SectorFate> = match self {
            PieceSurvival::Lost => return ChangeFate::Lost,
            PieceSurvival::Kept => return ChangeFate::Kept,
            PieceSurvival::Prefix { sectors } => Box::new(move |at| kept(at < sectors)),
            PieceSurvival::Hole { sector } => Box::new(move |at| kept(at != sector)),
            PieceSurvival::Only(mask) => {
                Box::new(move |at| kept(mask.get(narrow(at)).copied().unwrap_or(false)))
            }
            PieceSurvival::Torn { sector, bytes } => Box::new(move |at| match at.cmp(&sector) {
                std::cmp::Ordering::Less => SectorFate::New,
                std::cmp::Ordering::Equal => SectorFate::Torn { bytes, garbage: None },
                std::cmp::Ordering::Greater => SectorFate::Old,
            }),
        };
        ChangeFate::Sectors(sectors)
    }
}

fn kept(new: bool) -> SectorFate {
    if new { SectorFate::New } else { SectorFate::Old }
}

fn piece_id(origin: &Origin, part: u64) -> PieceId {
    PieceId(origin.operation * 8 + part)
}

fn file_piece(path: &Path, pending: &Pending) -> UnsyncedPiece {
    let path = path.to_owned();
    let (part, kind) = match &pending.change {
        Change::Write { first, pages } => {
            let (position, length) = (first * page_bytes(), wide(pages.len() * BLOCK_BYTES));
            (0, PieceKind::Write { path, position, length })
        }
        Change::Grow { to } => (1, PieceKind::Size { path, length: *to, grows: true }),
        Change::Set { to } => (1, PieceKind::Size { path, length: *to, grows: false }),
    };
    let in_flight = !pending.origin.acknowledged;
    UnsyncedPiece { id: piece_id(&pending.origin, part), in_flight, kind }
}

fn entry_piece(directory: &Path, pending: &PendingEntry) -> UnsyncedPiece {
    let names = |set: bool| {
        let changes = pending.changes.iter().filter(|(_, node)| node.is_some() == set);
        changes.map(|(name, _)| name.to_string_lossy().into_owned()).collect()
    };
    let (set, cleared) = (names(true), names(false));
    let kind = PieceKind::Entry { directory: directory.to_owned(), set, cleared };
    let in_flight = !pending.origin.acknowledged;
    UnsyncedPiece { id: piece_id(&pending.origin, 2 + pending.part), in_flight, kind }
}

/// Decides at random, with other odds at every power cut, so that over many cuts nearly
/// everything, nearly nothing and every mixture survive.
struct Chooser {
    random: SeededRandom,
    writes: u64,
    sizes: u64,
    entries: u64,
    tear: bool,
}

impl Chooser {
    fn new(seed: u64, tear: bool) -> Self {
        let mut random = SeededRandom::new(seed).split("power cut");
        let mut odds = || [0, 2, 8, 14, 16][random.index(5)];
        let (writes, sizes, entries) = (odds(), odds(), odds());
        Chooser { random, writes, sizes, entries, tear }
    }

    fn decide(&mut self, pending: &Pending) -> ChangeFate {
        let Change::Write { pages, .. } = &pending.change else {
            let survives = self.random.below(16) < self.sizes;
            return if survives { ChangeFate::Kept } else { ChangeFate::Lost };
        };
        let sectors = wide(pages.len() * BLOCK_BYTES / SECTOR_BYTES);
        let whole = self.random.below(16) < self.writes;
        if self.tear && self.random.chance(1, 4) {
            let (at, bytes) = (self.random.below(sectors), self.random.index(SECTOR_BYTES));
            let garbage = [None, Some(0), Some(0xee)][self.random.index(3)];
            return ChangeFate::Sectors(Box::new(move |sector| match sector.cmp(&at) {
                std::cmp::Ordering::Equal => SectorFate::Torn { bytes, garbage },
                std::cmp::Ordering::Less => SectorFate::New,
                std::cmp::Ordering::Greater => kept(whole),
            }));
        }
        match self.random.below(8) {
            0 => PieceSurvival::Prefix { sectors: self.random.below(sectors) }.fate(),
            1 => PieceSurvival::Hole { sector: self.random.below(sectors) }.fate(),
            2 => {
                let mut random = self.random.split("sectors");
                self.random.next_u64();
                let odds = 1 + random.below(7);
                ChangeFate::Sectors(Box::new(move |_| kept(random.below(8) < odds)))
            }
            _ if whole => ChangeFate::Kept,
            _ => ChangeFate::Lost,
        }
    }
}

impl Core {
    /// Lets everything in flight take effect, so that it becomes a matter of the power cut: in the
    /// order of submission, or in any.
    fn land_all(&mut self, order: Option<SeededRandom>) {
        let mut flights: Vec<_> = std::mem::take(&mut self.flights).into_values().collect();
        if let Some(mut order) = order {
            for last in (1..flights.len()).rev() {
                flights.swap(last, order.index(last + 1));
            }
        }
        for mut flight in flights {
            if flight.result.is_none() && flight.work.changes() {
                // One that fails changed nothing; nobody is left to be told.
                drop(self.land(&mut flight, None));
            }
        }
    }

    /// Returns everything a power cut now would decide on, files in the order they were made.
    pub(super) fn unsynced(&self) -> Vec<UnsyncedPiece> {
        let mut after = self.clone();
        after.land_all(None);
        let mut pieces = Vec::new();
        for (_, node) in after.tree.nodes() {
            match node {
                Node::File(file) => {
                    pieces.extend(file.pending.iter().map(|own| file_piece(&file.path, own)));
                }
                Node::Directory(directory) => {
                    let own = directory.pending.iter();
                    pieces.extend(own.map(|own| entry_piece(&directory.path, own)));
                }
            }
        }
        pieces
    }

    fn settle(
        &mut self,
        mut changes: impl FnMut(&Path, &Pending) -> ChangeFate,
        entries: impl FnMut(&PendingEntry) -> bool,
    ) {
        for file in self.tree.files_mut() {
            let path = file.path.clone();
            file.survive(|pending| changes(&path, pending));
            file.restart();
        }
        self.tree.survive_names(entries);
        self.forget_flights();
        self.trace.count("power cut", 1);
        self.trace.note(self.now, "power cut", [0; 3], String::new);
    }

    /// Cuts the power.
    pub(super) fn power_cut(&mut self, survival: Survival) {
        match survival {
            Survival::Nothing => self.settle(|_, _| ChangeFate::Lost, |_| false),
            Survival::Everything => {
                self.land_all(None);
                self.settle(|_, _| ChangeFate::Kept, |_| true);
            }
            Survival::Random(seed) => {
                let mut chooser = Chooser::new(seed, self.profile.tear_sectors);
                self.land_all(Some(chooser.random.split("order")));
                let mut names = chooser.random.split("names");
                let odds = chooser.entries;
                self.settle(|_, own| chooser.decide(own), |_| names.below(16) < odds);
            }
        }
    }

    /// Cuts the power; `fates` says what survives of each piece, nothing of those not in it.
    pub(super) fn power_cut_with(&mut self, mut fates: BTreeMap<PieceId, PieceSurvival>) {
        self.land_all(None);
        let mut entries = fates.clone();
        self.settle(
            |path, own| {
                let fate = fates.remove(&file_piece(path, own).id);
                fate.map_or(ChangeFate::Lost, PieceSurvival::fate)
            },
            |own| {
                let id = piece_id(&own.origin, 2 + own.part);
                entries.remove(&id).is_some_and(|fate| fate != PieceSurvival::Lost)
            },
        );
    }
}
