//! Which states a power cut can leave, of those that are tried.

use std::collections::BTreeMap;

use highwater_io::sim::{PieceId, PieceKind, PieceSurvival, SimDisk, Survival, UnsyncedPiece};

/// Random subsets of each crash.
const RANDOM_SUBSETS: u64 = 16;
/// Sectors are 512 bytes long.
const SECTOR_BYTES: u64 = 512;

/// One state that a power cut can leave.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// Nothing, everything, or a random subset.
    Whole(Survival),
    /// Everything, but this piece only so.
    But(PieceId, PieceSurvival),
    /// No power cut: the process alone was killed, what is in flight lands later.
    Killed,
}

impl State {
    /// Whether a crash is tried at every boundary of the recovery from this state; of the others,
    /// at one.
    pub(crate) fn is_thorough(&self) -> bool {
        !matches!(self, State::But(..))
    }

    /// Makes the disk so.
    pub(crate) fn apply(&self, disk: &SimDisk) {
        match self {
            State::Whole(survival) => disk.power_cut(*survival),
            State::But(piece, survival) => {
                let mut fates = BTreeMap::from([(*piece, survival.clone())]);
                disk.power_cut_with(&mut |piece| {
                    fates.remove(&piece.id).unwrap_or(PieceSurvival::Kept)
                });
            }
            State::Killed => disk.kill(),
        }
    }
}

/// Returns every state that is tried for what is unsynced at a crash.
pub(crate) fn states(pieces: &[UnsyncedPiece], seed: u64, tear: bool) -> Vec<State> {
    let mut all =
        vec![State::Killed, State::Whole(Survival::Nothing), State::Whole(Survival::Everything)];
    if pieces.is_empty() {
        return all;
    }
    let random = (0..RANDOM_SUBSETS).map(|number| seed * RANDOM_SUBSETS + number);
    all.extend(random.map(|number| State::Whole(Survival::Random(number))));
    for piece in pieces {
        all.push(State::But(piece.id, PieceSurvival::Lost));
        let PieceKind::Write { length, .. } = piece.kind else { continue };
        for sector in 0..length / SECTOR_BYTES {
            if sector > 0 {
                all.push(State::But(piece.id, PieceSurvival::Prefix { sectors: sector }));
            }
            all.push(State::But(piece.id, PieceSurvival::Hole { sector }));
            if tear {
                let bytes = 40 + crate::convert::narrow(seed % 400);
                all.push(State::But(piece.id, PieceSurvival::Torn { sector, bytes }));
            }
        }
    }
    all
}
