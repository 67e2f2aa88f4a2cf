//! Long random runs against an oracle that knows what must have survived.

use std::collections::BTreeMap;

use highwater_io::random::SeededRandom;
use highwater_io::sim::{Planted, SimDisk, SimIo, SimProfile, Survival};
use highwater_io::{
    Access, AlignedBuffer, BLOCK_BYTES, Completion, FileId, Io, Operation, Token, Wait,
};

use crate::harness::{block, count, durable, filled, open, path, start};

const BLOCKS: usize = 12;

/// What is known of one block. Versions are the bytes written, always growing.
#[derive(Clone, Copy, Default)]
struct Known {
    submitted: u8,
    reported: u8,
    pinned: u8,
    in_flight: bool,
}

enum Expected {
    Write { blocks: Vec<usize>, version: u8, dsync: bool },
    Flush { covered: [u8; BLOCKS] },
}

struct Oracle {
    known: [Known; BLOCKS],
    expected: BTreeMap<u64, Expected>,
    random: SeededRandom,
    token: u64,
    version: u8,
}

impl Oracle {
    fn submit(&mut self, io: &mut SimIo, file: FileId) {
        self.token += 1;
        if self.random.chance(1, 4) {
            let covered = std::array::from_fn(|block| self.known[block].reported);
            self.expected.insert(self.token, Expected::Flush { covered });
            return io.submit(Token(self.token), Operation::Flush { file });
        }
        let at = self.random.index(BLOCKS);
        let count = 1 + self.random.index(3.min(BLOCKS - at));
        if self.version == u8::MAX || self.known[at..at + count].iter().any(|own| own.in_flight) {
            return;
        }
        self.version += 1;
        let (version, dsync) = (self.version, self.random.chance(1, 6));
        for own in &mut self.known[at..at + count] {
            own.in_flight = true;
            own.submitted = version;
        }
        let blocks = (at..at + count).collect();
        self.expected.insert(self.token, Expected::Write { blocks, version, dsync });
        let buffer: AlignedBuffer = filled(count, version);
        let (position, length) = (block(at), count * BLOCK_BYTES);
        io.submit(Token(self.token), Operation::Write { file, position, buffer, length, dsync });
    }

    fn learn(&mut self, completion: &Completion) {
        completion.result.as_ref().expect("nothing fails here");
        match self.expected.remove(&completion.token.0).expect("each token once") {
            Expected::Write { blocks, version, dsync } => {
                for block in blocks {
                    let own = &mut self.known[block];
                    own.in_flight = false;
                    own.reported = version;
                    own.pinned = if dsync { version } else { own.pinned };
                }
            }
            Expected::Flush { covered } => {
                for (own, version) in self.known.iter_mut().zip(covered) {
                    own.pinned = own.pinned.max(version);
                }
            }
        }
    }

    /// Every sector is at least as new as what was pinned, and from some write.
    fn check(&self, disk: &SimDisk, what: &str) {
        let found = disk.read_file(path("/a")).expect("its name is synced");
        for (block, own) in self.known.iter().enumerate() {
            let sectors = found.iter().skip(block * BLOCK_BYTES).step_by(512).take(8);
            let mut any = false;
            for sector in sectors {
                any = true;
                assert!(
                    (own.pinned..=own.submitted).contains(sector),
                    "{what}: block {block} shows {sector}, pinned {}, written {}",
                    own.pinned,
                    own.submitted
                );
            }
            assert!(any || own.pinned == 0, "{what}: the size of block {block} was pinned");
        }
    }
}

fn run(seed: u64, planted: Planted) {
    let random = SeededRandom::new(seed).split("oracle");
    let disk = SimDisk::new(seed, SimProfile { split_writes: 300_000, ..SimProfile::default() });
    disk.set_planted(planted);
    let mut io = start(&disk);
    durable(&mut io, "/a", 1, 0);
    drop(io);
    let (known, expected) = ([Known::default(); BLOCKS], BTreeMap::new());
    let mut oracle = Oracle { known, expected, random, token: 0, version: 0 };
    for life in 0..4 {
        let mut io = start(&disk);
        let file = open(&mut io, "/a", Access::ReadWrite);
        let mut completions = Vec::new();
        for _ in 0..oracle.random.below(60) {
            oracle.submit(io.io(), file);
            if oracle.random.chance(1, 2) {
                io.io().poll(Wait::No, &mut completions);
            } else if io.io().in_flight() > 0 {
                io.io().poll(Wait::Forever, &mut completions);
            }
            completions.drain(..).for_each(|completion| oracle.learn(&completion));
            if oracle.random.chance(1, 8) {
                let copy = disk.clone_state();
                let cut = [Survival::Nothing, Survival::Everything, Survival::Random(seed)];
                copy.power_cut(cut[oracle.random.index(3)]);
                oracle.check(&copy, &format!("seed {seed} life {life}"));
            }
        }
        disk.kill();
        drop(io);
        // What was in flight lands now or never; nobody knows which.
        disk.advance(std::time::Duration::from_secs(1));
        oracle.expected.clear();
        oracle.known.iter_mut().for_each(|own| own.in_flight = false);
        oracle.check(&disk, "after the kill");
    }
    let mut io = start(&disk);
    let file = open(&mut io, "/a", Access::ReadWrite);
    io.flush(file).expect("it is flushed");
    let view = disk.read_file(path("/a"));
    disk.power_cut(Survival::Random(seed));
    assert_eq!(disk.read_file(path("/a")), view, "seed {seed}: all of it was flushed");
}

#[test]
fn no_power_cut_shows_a_sector_older_than_what_was_pinned() {
    for seed in 0..400 {
        run(seed, Planted::Nothing);
    }
}

#[test]
fn oracle_notices_a_disk_whose_flush_does_nothing() {
    let noticed =
        count(20, |seed| std::panic::catch_unwind(|| run(seed, Planted::FlushIgnored)).is_err());
    assert_eq!(noticed, 20);
}
