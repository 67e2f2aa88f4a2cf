//! The same random operations give the same results and the same bytes on every backend.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use highwater_io::random::{SeededRandom, kernel_u64};
use highwater_io::{
    Access, AlignedBuffer, BLOCK_BYTES, Completion, FileId, Io, OpenMode, Operation, Output, Token,
    Wait,
};

use crate::harness::{AnyIo, BACKENDS, TestDirectory, block, make};

const SEED: &str = "HIGHWATER_TEST_SEED";
const STEPS: usize = 400;
const NAMES: [&str; 4] = ["a", "b", "sub/c", "sub"];
const BLOCKS: usize = 12;
const OPEN_MAX: usize = 6;

/// A run: the operations come from the seed and from how many files are open, nothing else.
struct Run<'a> {
    io: AnyIo,
    directory: &'a Path,
    random: SeededRandom,
    /// Open files in the order of their opening; handles differ between backends.
    files: Vec<(FileId, bool)>,
    log: Vec<String>,
    token: u64,
}

#[test]
fn random_operations_give_equal_results_and_bytes_on_all_backends() {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(kernel_u64);
    println!("{SEED}={seed}");
    for round in 0..8 {
        let mut expected = None;
        for backend in BACKENDS {
            let Some(io) = make(backend) else { continue };
            let directory = TestDirectory::new();
            let random = SeededRandom::new(seed).split(&format!("round {round}"));
            let (files, log) = (Vec::new(), Vec::new());
            let mut run = Run { io, directory: &directory.path, random, files, log, token: 0 };
            for _ in 0..STEPS {
                run.step();
            }
            let Run { io, log, .. } = run;
            drop(io);
            let got = (log, contents(&directory.path));
            match &expected {
                None => expected = Some(got),
                Some(expected) => {
                    for (step, (theirs, ours)) in expected.0.iter().zip(&got.0).enumerate() {
                        assert_eq!(theirs, ours, "step {step} on {}", backend.name());
                    }
                    assert!(expected.0.len() == got.0.len(), "steps on {}", backend.name());
                    assert!(expected.1 == got.1, "bytes of the files on {}", backend.name());
                }
            }
        }
    }
}

impl Run<'_> {
    /// Submits one operation, or several that do not touch each other, and logs what came of it.
    fn step(&mut self) {
        let operations = match self.random.below(20) {
            0..=2 => vec![self.open()],
            3..=14 if !self.files.is_empty() => self.on_file(),
            3..=15 => vec![self.open()],
            _ => vec![self.on_names()],
        };
        let first = self.token;
        let mut line = String::new();
        for operation in operations {
            let token = Token(self.token);
            self.token += 1;
            write!(line, "{} ", operation.verb()).expect("a string takes it");
            self.io.submit(token, operation);
        }
        let mut completions = Vec::new();
        // Drawn on every backend, so that all go the same way.
        if self.random.chance(1, 2) && self.io.is_alone() {
            self.io.run_alone(&mut completions);
        }
        while self.io.in_flight() > 0 {
            self.io.poll(Wait::Forever, &mut completions);
        }
        completions.sort_by_key(|completion| completion.token);
        for (number, completion) in completions.into_iter().enumerate() {
            let number = u64::try_from(number).expect("small");
            assert_eq!(completion.token, Token(first + number), "each token once");
            self.note(&mut line, completion);
        }
        self.log.push(line);
    }

    fn note(&mut self, line: &mut String, completion: Completion) {
        let note = match completion.result {
            Ok(Output::File { file, direct }) => {
                self.files.push((file, direct));
                format!("opened direct={direct}")
            }
            Ok(Output::Bytes(count)) => {
                let buffer = completion.buffer.expect("a transfer returns its buffer");
                format!("{count} bytes {:016x}", hash(&buffer))
            }
            Ok(output) => format!("{output:?}"),
            Err(error) => {
                let path = error.path.strip_prefix(self.directory).expect("all are inside");
                let (kind, errno) = (&error.kind, error.errno);
                format!(
                    "{kind:?} {} {} {:?} {errno:?}",
                    error.operation,
                    path.display(),
                    error.position
                )
            }
        };
        write!(line, "-> {note}; ").expect("a string takes it");
    }

    fn name(&mut self) -> std::path::PathBuf {
        self.directory.join(NAMES[self.random.index(NAMES.len())])
    }

    fn open(&mut self) -> Operation {
        if self.files.len() == OPEN_MAX {
            return self.close();
        }
        // What is opened for reading refuses everything else, everywhere with the same number.
        let accesses = [
            Access::CreateNew,
            Access::CreateNew,
            Access::ReadWrite,
            Access::ReadWrite,
            Access::Read,
        ];
        let access = accesses[self.random.index(accesses.len())];
        let direct = self.random.chance(2, 3);
        Operation::Open { path: self.name(), mode: OpenMode { access, direct } }
    }

    fn close(&mut self) -> Operation {
        let index = self.random.index(self.files.len());
        Operation::Close { file: self.files.remove(index).0 }
    }

    fn on_names(&mut self) -> Operation {
        let path = self.name();
        match self.random.below(6) {
            0 => Operation::Remove { path },
            1 => Operation::Rename { from: path, to: self.name() },
            2 => Operation::CreateDirectory { path: self.directory.join("sub") },
            3 => Operation::SyncDirectory { path: self.directory.to_owned() },
            4 => Operation::List { path: self.directory.join("sub") },
            _ => Operation::List { path: self.directory.to_owned() },
        }
    }

    fn on_file(&mut self) -> Vec<Operation> {
        let index = self.random.index(self.files.len());
        let (file, direct) = self.files[index];
        let position = block(self.random.index(BLOCKS));
        match self.random.below(12) {
            0..=3 => self.writes(file),
            4..=6 => {
                // Never none: of a directory, a ring reads nothing, and the others not even that.
                let blocks = 1 + self.random.index(2 * BLOCKS);
                let length = blocks * BLOCK_BYTES;
                let buffer = AlignedBuffer::zeroed(length);
                vec![Operation::Read { file, position, buffer, length }]
            }
            7 => vec![Operation::Flush { file }],
            8 => {
                let length = self.random.below(block(BLOCKS));
                vec![Operation::SetLength { file, length }]
            }
            9 => {
                let length = self.random.below(block(4));
                vec![Operation::Allocate { file, position, length }]
            }
            10 if !direct => vec![Operation::DropCache { file }],
            10 => vec![Operation::Length { file }],
            _ => vec![self.close()],
        }
    }

    /// Returns writes to one file that do not overlap, or a durable one by itself.
    fn writes(&mut self, file: FileId) -> Vec<Operation> {
        let mut writes = Vec::new();
        if self.random.chance(1, 4) {
            let (buffer, length) = (AlignedBuffer::zeroed(BLOCK_BYTES), BLOCK_BYTES);
            let position = block(self.random.index(2 * BLOCKS));
            return vec![Operation::Write { file, position, buffer, length, dsync: true }];
        }
        let mut at = self.random.index(4);
        while at < BLOCKS {
            let blocks = 1 + self.random.index(3);
            let length = blocks * BLOCK_BYTES;
            let mut buffer = AlignedBuffer::zeroed(length);
            buffer.fill(u8::try_from(self.random.below(256)).expect("a byte"));
            let dsync = self.random.chance(1, 4);
            writes.push(Operation::Write { file, position: block(at), buffer, length, dsync });
            at += blocks + self.random.index(4);
        }
        writes
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Returns the bytes of every file below `directory`.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut contents = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        for entry in std::fs::read_dir(&path).expect("it is readable") {
            let path = entry.expect("it is readable").path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("all are inside");
                let bytes = std::fs::read(&path).expect("it is readable");
                contents.insert(name.display().to_string(), bytes);
            }
        }
    }
    contents
}
