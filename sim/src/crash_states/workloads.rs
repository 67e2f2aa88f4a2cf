//! The named workloads: small, and together they make every kind of write the engine knows.

use highwater::{Ack, Mode, Preparation};

use super::stage::Cut::{Border, Inside, To};
use super::stage::Step::{
    self, Append, Await, Batch, Close, Flush, Free, Kill, Log, Numbered, Open, Reopen, Trim,
    Truncate, Wait,
};

/// A workload: its name, what it is for, and its steps.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// The name for `--workload`.
    pub name: &'static str,
    /// How many logs.
    pub(crate) logs: usize,
    /// Made with `never_rewrite_flushed`, on a device that tears sectors.
    pub(crate) never_rewrite_flushed: bool,
    /// When its segments are prepared: by most not, as preparing only adds writes nobody reads.
    pub(crate) prepare: Preparation,
    pub(crate) mode: Mode,
    pub(crate) retention_bytes: Option<u64>,
    /// What is done before, without a crash.
    pub(crate) before: &'static [Step],
    pub(crate) steps: &'static [Step],
}

impl Workload {
    /// Returns whether the disk is full for a while.
    pub(crate) fn fills_the_disk(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Free(bytes) if *bytes > 0))
    }
}

const NONE: Ack = Ack::NONE;
const LEADER: Ack = Ack::LEADER;
const FLUSHED: Ack = Ack::LEADER_FLUSHED;
/// A value with which one record's batch takes exactly one block.
const WHOLE_BLOCK: u64 = 3977;
/// A third of the smallest segment.
const LARGE: u64 = 19_000;

const fn plain(name: &'static str, steps: &'static [Step]) -> Workload {
    Workload {
        name,
        logs: 1,
        never_rewrite_flushed: false,
        prepare: Preparation::Never,
        mode: Mode::Direct,
        retention_bytes: None,
        before: &[],
        steps,
    }
}

const fn prepared(name: &'static str, steps: &'static [Step]) -> Workload {
    Workload { prepare: Preparation::AtOpen, ..plain(name, steps) }
}

const fn buffered(name: &'static str, steps: &'static [Step]) -> Workload {
    Workload { mode: Mode::Buffered, ..plain(name, steps) }
}

/// So many epochs that a slot of `log.meta` no longer fits one sector: with fewer, a torn one is
/// old or new.
const EPOCHS: usize = 30;
const OLD: &[Step] = &old();

/// Returns the steps of a log's youth: an append in each epoch, or it would not be remembered.
const fn old() -> [Step; 3 * EPOCHS + 3] {
    let mut steps = [Await; 3 * EPOCHS + 3];
    steps[0] = Open;
    steps[1] = Log(0);
    let mut epoch = 0;
    while epoch < EPOCHS {
        steps[3 * epoch + 2] = Append(0, 20, FLUSHED);
        steps[3 * epoch + 4] = Reopen(0);
        epoch += 1;
    }
    steps[3 * EPOCHS + 2] = Close;
    steps
}

/// All workloads.
pub const WORKLOADS: [Workload; 27] = [
    plain("creation", &[Open, Log(0), Append(0, 10, FLUSHED), Await]),
    plain(
        "tail-rewrite",
        &[
            Open,
            Log(0),
            Append(0, 100, LEADER),
            Await,
            Append(0, 900, FLUSHED),
            Await,
            Append(0, 200, LEADER),
            Await,
            Append(0, 3000, LEADER),
            Await,
            Append(0, 50, FLUSHED),
            Await,
        ],
    ),
    plain(
        "filler",
        &[
            Open,
            Log(0),
            Append(0, 500, NONE),
            Append(0, 600, NONE),
            Append(0, 700, LEADER),
            Await,
            Append(0, WHOLE_BLOCK - 40, NONE),
            Append(0, 20, FLUSHED),
            Await,
        ],
    ),
    plain(
        "eight-in-flight",
        &[
            Open,
            Log(0),
            Append(0, WHOLE_BLOCK, NONE),
            Append(0, WHOLE_BLOCK, NONE),
            Append(0, WHOLE_BLOCK, NONE),
            Append(0, WHOLE_BLOCK, NONE),
            Append(0, WHOLE_BLOCK, NONE),
            Append(0, WHOLE_BLOCK, NONE),
            Append(0, WHOLE_BLOCK, NONE),
            Append(0, WHOLE_BLOCK, NONE),
            Append(0, WHOLE_BLOCK, LEADER),
            Append(0, 100, FLUSHED),
            Await,
        ],
    ),
    plain(
        "two-unflushed-segments",
        &[
            Open,
            Log(0),
            Append(0, 10, FLUSHED),
            Await,
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, 100, NONE),
            Append(0, 100, LEADER),
            Await,
        ],
    ),
    plain(
        "roll",
        &[
            Open,
            Log(0),
            Append(0, LARGE, FLUSHED),
            Await,
            Append(0, LARGE, FLUSHED),
            Await,
            Append(0, LARGE, FLUSHED),
            Await,
            Append(0, LARGE, FLUSHED),
            Append(0, LARGE, FLUSHED),
            Await,
        ],
    ),
    plain(
        "rolls-behind-each-other",
        &[
            Open,
            Log(0),
            Append(0, LARGE, NONE),
            Append(0, LARGE, NONE),
            Append(0, LARGE, NONE),
            Append(0, LARGE, NONE),
            Append(0, LARGE, NONE),
            Append(0, LARGE, NONE),
            Append(0, LARGE, NONE),
            Append(0, LARGE, LEADER),
            Await,
        ],
    ),
    plain(
        "truncate-inside-a-segment",
        &[
            Open,
            Log(0),
            Append(0, 100, LEADER),
            Append(0, 200, LEADER),
            Append(0, 300, FLUSHED),
            Await,
            Truncate(0, Border(0)),
            Append(0, 90, LEADER),
            Await,
            Append(0, 80, FLUSHED),
            Await,
        ],
    ),
    plain(
        "truncate-at-a-segments-edge",
        &[
            Open,
            Log(0),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Await,
            Truncate(0, To(3)),
            Append(0, 90, FLUSHED),
            Await,
        ],
    ),
    plain(
        "truncate-inside-a-batch",
        &[
            Open,
            Log(0),
            Append(0, 100, LEADER),
            Batch(0, 4, 200, LEADER),
            Batch(0, 3, 100, LEADER),
            Await,
            Truncate(0, Inside(1)),
            Batch(0, 2, 90, FLUSHED),
            Await,
        ],
    ),
    plain(
        "truncate-across-segments",
        &[
            Open,
            Log(0),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Await,
            Truncate(0, To(1)),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, FLUSHED),
            Await,
        ],
    ),
    plain(
        "producers-and-a-roll",
        &[
            Open,
            Log(0),
            Numbered(0, 0, LARGE, LEADER),
            Numbered(0, 1, 100, LEADER),
            // Both are in flight.
            Numbered(0, 1, 100, FLUSHED),
            Numbered(0, 0, LARGE, LEADER),
            Await,
            Append(0, LARGE, LEADER),
            Numbered(0, 2, LARGE, LEADER),
            Numbered(0, 2, LARGE, FLUSHED),
            // A gap.
            Numbered(0, 4, 100, LEADER),
            Await,
            Wait(150_000),
            Append(0, LARGE, LEADER),
            Numbered(0, 3, LARGE, LEADER),
            Append(0, LARGE, FLUSHED),
            Await,
            Numbered(0, 2, LARGE, LEADER),
            Numbered(0, 4, 100, LEADER),
            Await,
            Close,
            Open,
            Numbered(0, 4, 100, FLUSHED),
            Numbered(0, 5, 100, FLUSHED),
            Await,
        ],
    ),
    plain(
        "producers-and-a-truncation",
        &[
            Open,
            Log(0),
            Numbered(0, 0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Numbered(0, 1, 100, LEADER),
            Numbered(0, 2, LARGE, FLUSHED),
            Await,
            Wait(150_000),
            Truncate(0, To(3)),
            // It is gone, and can come again.
            Numbered(0, 2, LARGE, LEADER),
            Numbered(0, 1, 100, LEADER),
            Await,
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Numbered(0, 2, LARGE, FLUSHED),
            Await,
            Trim(0, 4),
            Wait(150_000),
            Truncate(0, To(4)),
            Numbered(0, 1, 100, LEADER),
            Numbered(0, 2, LARGE, FLUSHED),
            Await,
        ],
    ),
    plain(
        "checkpoint",
        &[
            Open,
            Log(0),
            Append(0, 100, FLUSHED),
            Await,
            Wait(150_000),
            Append(0, 100, FLUSHED),
            Await,
            Wait(150_000),
            Append(0, 50, LEADER),
            Await,
        ],
    ),
    plain(
        "close",
        &[
            Open,
            Log(0),
            Append(0, 100, LEADER),
            Await,
            Close,
            Open,
            Append(0, 50, LEADER),
            Await,
            Close,
        ],
    ),
    plain(
        "kill-and-go-on",
        &[
            Open,
            Log(0),
            Append(0, 700, LEADER),
            Await,
            Append(0, 900, NONE),
            Append(0, WHOLE_BLOCK, NONE),
            Kill,
            Open,
            Append(0, 500, LEADER),
            Await,
            Reopen(0),
            Append(0, 100, FLUSHED),
            Await,
        ],
    ),
    plain(
        "full-disk-at-a-roll",
        &[
            Open,
            Log(0),
            Append(0, LARGE, FLUSHED),
            Append(0, LARGE, FLUSHED),
            Await,
            Free(8192),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Wait(3000),
            Append(0, 1000, FLUSHED),
            Await,
            Free(0),
            Append(0, LARGE, FLUSHED),
            Await,
        ],
    ),
    Workload {
        name: "two-logs",
        logs: 2,
        never_rewrite_flushed: false,
        prepare: Preparation::Never,
        mode: Mode::Direct,
        retention_bytes: None,
        before: &[],
        steps: &[
            Open,
            Log(0),
            Append(0, 100, LEADER),
            Log(1),
            Append(1, 200, LEADER),
            Append(0, 300, FLUSHED),
            Append(1, 100, LEADER),
            Flush(1),
            Close,
        ],
    },
    Workload {
        name: "never-rewrite-flushed",
        logs: 1,
        never_rewrite_flushed: true,
        prepare: Preparation::Never,
        mode: Mode::Direct,
        retention_bytes: None,
        before: &[],
        steps: &[
            Open,
            Log(0),
            Append(0, 100, NONE),
            Append(0, 200, NONE),
            Append(0, 300, NONE),
            Append(0, 400, NONE),
            Append(0, 100, NONE),
            Append(0, 200, NONE),
            Append(0, 300, NONE),
            Append(0, 400, FLUSHED),
            Await,
            Batch(0, 3, 100, LEADER),
            Batch(0, 3, 100, LEADER),
            Await,
            Truncate(0, Inside(0)),
            Append(0, 50, FLUSHED),
            Await,
        ],
    },
    prepared(
        "roll-into-a-prepared-segment",
        &[
            Open,
            Log(0),
            Append(0, LARGE, FLUSHED),
            Await,
            Wait(20_000),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Await,
            Append(0, LARGE, LEADER),
            Await,
            Append(0, 100, FLUSHED),
            Await,
            Append(0, 200, FLUSHED),
            Await,
        ],
    ),
    plain(
        "trim-and-use-again",
        &[
            Open,
            Log(0),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, FLUSHED),
            Await,
            Trim(0, 3),
            Wait(20_000),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Await,
            Append(0, 100, FLUSHED),
            Await,
        ],
    ),
    plain(
        "trim-inside-and-truncate",
        &[
            Open,
            Log(0),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, 100, LEADER),
            Await,
            Trim(0, 4),
            Truncate(0, To(4)),
            Append(0, 100, LEADER),
            Await,
            Trim(0, 5),
            Append(0, 100, FLUSHED),
            Await,
        ],
    ),
    Workload {
        name: "retention-in-circles",
        logs: 1,
        never_rewrite_flushed: false,
        prepare: Preparation::Never,
        mode: Mode::Direct,
        retention_bytes: Some(1),
        before: &[],
        steps: &[
            Open,
            Log(0),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, FLUSHED),
            Await,
            Wait(20_000),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, FLUSHED),
            Await,
            Wait(20_000),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, FLUSHED),
            Await,
        ],
    },
    Workload {
        name: "use-again-and-never-rewrite-flushed",
        logs: 1,
        never_rewrite_flushed: true,
        prepare: Preparation::Never,
        mode: Mode::Direct,
        retention_bytes: Some(1),
        before: &[],
        steps: &[
            Open,
            Log(0),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, FLUSHED),
            Await,
            Wait(20_000),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, LEADER),
            Append(0, LARGE, FLUSHED),
            Await,
        ],
    },
    buffered(
        "buffered",
        &[
            Open,
            Log(0),
            Append(0, 100, LEADER),
            Append(0, WHOLE_BLOCK, NONE),
            Append(0, 700, LEADER),
            Await,
            Append(0, 900, FLUSHED),
            Await,
            Append(0, 300, LEADER),
            Kill,
            Open,
            Append(0, 500, LEADER),
            Await,
            Reopen(0),
            Append(0, 100, FLUSHED),
            Await,
            Close,
        ],
    ),
    Workload {
        mode: Mode::Buffered,
        ..prepared(
            "buffered-roll",
            &[
                Open,
                Log(0),
                Append(0, LARGE, FLUSHED),
                Await,
                Append(0, LARGE, LEADER),
                Append(0, LARGE, LEADER),
                Append(0, LARGE, LEADER),
                Await,
                Append(0, 100, FLUSHED),
                Await,
            ],
        )
    },
    Workload {
        before: OLD,
        ..plain("an-old-log", &[Open, Append(0, 70, FLUSHED), Await, Wait(150_000), Reopen(0)])
    },
];
