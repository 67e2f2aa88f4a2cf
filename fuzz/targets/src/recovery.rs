//! Recovery: a few lives of one log, each ended by a close, a kill or a power cut that leaves any
//! part of what was unsynced; each is recovered, checked, appended to, and recovered again.
//!
//! The input is a [`Program`] (`arbitrary`), and every program is a possible history: whatever
//! panics here is a bug. The oracle stands at the head of [`highwater_sim::program`].

use arbitrary::{Arbitrary, Unstructured};
use highwater_sim::program::{ACTS_MAX, Act, Fate, LIVES_MAX, Life, Program, run};

/// Fates that a power cut repeats, at most.
const FATES_MAX: usize = 16;

/// What the input says, in a form that the fuzzer can change piece by piece.
#[derive(Arbitrary, Debug)]
struct Input {
    seed: u8,
    never_rewrite_flushed: bool,
    prepared: bool,
}

#[derive(Arbitrary, Debug)]
struct InputLife {
    dies: bool,
    behind: u16,
    closes: bool,
    cut: bool,
}

#[derive(Arbitrary, Debug)]
enum InputAct {
    Append { records: u8, bytes: u16, ack: u8, wait: bool },
    Durable { bytes: u8 },
    Flush,
    Wait(u8),
    Truncate(u8, bool),
    Trim(u8),
    Reopen,
}

#[derive(Arbitrary, Debug)]
enum InputFate {
    Lost,
    Kept,
    Prefix(u8),
    Hole(u8),
    Only(u64),
    Torn(u8, u8),
}

/// Returns the program that the bytes stand for.
fn program(bytes: &[u8]) -> arbitrary::Result<Program> {
    let mut input = Unstructured::new(bytes);
    let Input { seed, never_rewrite_flushed, prepared } = input.arbitrary()?;
    let mut lives = Vec::new();
    while !input.is_empty() && lives.len() < LIVES_MAX {
        lives.push(life(&mut input)?);
    }
    Ok(Program { seed: seed.into(), never_rewrite_flushed, prepared, lives })
}

fn life(input: &mut Unstructured<'_>) -> arbitrary::Result<Life> {
    let InputLife { dies, behind, closes, cut } = input.arbitrary()?;
    let acts = input.int_in_range(0..=ACTS_MAX)?;
    let acts = (0..acts).map(|_| Ok(act(&input.arbitrary()?))).collect::<arbitrary::Result<_>>()?;
    let fates = if cut { input.int_in_range(1..=FATES_MAX)? } else { 0 };
    let power_cut = (0..fates).map(|_| Ok(fate(&input.arbitrary()?)));
    let power_cut = power_cut.collect::<arbitrary::Result<_>>()?;
    // Most lives have fewer boundaries.
    let dies_behind = dies.then_some(behind % 512);
    Ok(Life { dies_behind, acts, closes, power_cut })
}

fn act(act: &InputAct) -> Act {
    match *act {
        InputAct::Append { records, bytes, ack, wait } => Act::Append { records, bytes, ack, wait },
        InputAct::Durable { bytes } => {
            Act::Append { records: 0, bytes: bytes.into(), ack: 2, wait: true }
        }
        InputAct::Flush => Act::Flush,
        InputAct::Wait(times) => Act::Wait(times),
        InputAct::Truncate(share, inside) => Act::Truncate(share, inside),
        InputAct::Trim(share) => Act::Trim(share),
        InputAct::Reopen => Act::Reopen,
    }
}

fn fate(fate: &InputFate) -> Fate {
    match *fate {
        InputFate::Lost => Fate::Lost,
        InputFate::Kept => Fate::Kept,
        InputFate::Prefix(sectors) => Fate::Prefix(sectors),
        InputFate::Hole(sector) => Fate::Hole(sector),
        InputFate::Only(mask) => Fate::Only(mask),
        InputFate::Torn(sector, bytes) => Fate::Torn(sector, bytes),
    }
}

pub(crate) fn check(bytes: &[u8]) {
    let Ok(program) = program(bytes) else { return };
    if let Err(failure) = run(&program) {
        panic!("{failure}\n{program:#?}");
    }
}

/// Returns the program of an input in words.
pub(crate) fn describe(bytes: &[u8]) -> String {
    program(bytes).map_or_else(|error| error.to_string(), |program| format!("{program:#?}"))
}
