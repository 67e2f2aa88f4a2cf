//! Without faults the simulated disk answers as the real file system does.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use highwater_io::random::SeededRandom;
use highwater_io::threads::InlineIo;
use highwater_io::{
    Access, AlignedBuffer, BLOCK_BYTES, Completion, FileId, Io, OpenMode, Operation, Output,
    Platform, Token, Wait,
};

use crate::harness::{block, disk};

const NAMES: [&str; 6] = ["a", "b", "c", "sub", "sub/a", "a/below"];

struct Run<I> {
    io: I,
    directory: PathBuf,
    random: SeededRandom,
    files: Vec<FileId>,
    log: Vec<String>,
}

impl<I: Io> Run<I> {
    fn name(&mut self) -> PathBuf {
        self.directory.join(NAMES[self.random.index(NAMES.len())])
    }

    fn step(&mut self) {
        let operation = self.choose();
        let mut line = format!("{} ", operation.verb());
        self.io.submit(Token(1), operation);
        let mut completions = Vec::new();
        while completions.is_empty() {
            self.io.poll(Wait::Forever, &mut completions);
        }
        let note = self.note(completions.remove(0));
        write!(line, "-> {note}").expect("a string takes it");
        self.log.push(line);
    }

    fn note(&mut self, completion: Completion) -> String {
        match completion.result {
            Ok(Output::File { file, .. }) => {
                self.files.push(file);
                "opened".to_owned()
            }
            Ok(Output::Bytes(count)) => {
                let buffer = completion.buffer.expect("a transfer returns its buffer");
                let sum: u64 = buffer[..count].iter().map(|byte| u64::from(*byte)).sum();
                format!("{count} bytes {sum}")
            }
            Ok(output) => format!("{output:?}"),
            Err(error) => {
                let path = error.path.strip_prefix(&self.directory).expect("all are inside");
                format!("{:?} {path:?} {:?} {:?}", error.kind, error.position, error.errno)
            }
        }
    }

    fn choose(&mut self) -> Operation {
        let path = self.name();
        match self.random.below(30) {
            0 => Operation::Remove { path },
            // The simulated disk moves no directories.
            1 if !path.ends_with("sub") => Operation::Rename { from: path, to: self.target() },
            2 => Operation::CreateDirectory { path: self.directory.join("sub") },
            // Of a file the simulated disk refuses it, the kernel does not.
            3 => Operation::SyncDirectory { path: self.directory.join("sub") },
            4 => Operation::List { path },
            5 => Operation::List { path: self.directory.clone() },
            6 => Operation::Lock { path },
            7..=12 => self.open(path),
            _ if self.files.is_empty() => self.open(path),
            _ => self.on_file(),
        }
    }

    fn target(&mut self) -> PathBuf {
        self.directory.join(["a", "b", "c", "sub/a"][self.random.index(4)])
    }

    fn open(&mut self, path: PathBuf) -> Operation {
        let access = [Access::CreateNew, Access::ReadWrite, Access::ReadWrite, Access::Read];
        let access = access[self.random.index(4)];
        // Opening a directory for reading is nobody's business.
        let access = if path.ends_with("sub") { Access::ReadWrite } else { access };
        Operation::Open { path, mode: OpenMode { access, direct: false } }
    }

    fn on_file(&mut self) -> Operation {
        let file = self.files[self.random.index(self.files.len())];
        let position = block(self.random.index(16));
        let blocks = self.random.index(6);
        let (mut buffer, length) =
            (AlignedBuffer::zeroed(blocks * BLOCK_BYTES), blocks * BLOCK_BYTES);
        match self.random.below(12) {
            0..=3 => {
                buffer.fill(u8::try_from(self.random.below(256)).expect("a byte"));
                let dsync = self.random.chance(1, 4);
                Operation::Write { file, position, buffer, length, dsync }
            }
            4..=6 => Operation::Read { file, position, buffer, length },
            7 => Operation::Flush { file },
            8 => Operation::SetLength { file, length: self.random.below(block(16)) },
            9 => Operation::Allocate { file, position, length: self.random.below(block(4)) },
            10 => Operation::Length { file },
            _ => {
                self.files.retain(|other| *other != file);
                Operation::Close { file }
            }
        }
    }
}

fn run<I: Io>(io: I, directory: &Path, seed: u64) -> Vec<String> {
    let (random, files, log) = (SeededRandom::new(seed), Vec::new(), Vec::new());
    let mut run = Run { io, directory: directory.to_owned(), random, files, log };
    for _ in 0..250 {
        run.step();
    }
    run.log
}

#[test]
fn random_operations_give_what_the_real_file_system_gives() {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for seed in 0..40 {
        let directory = parent.join(format!("like-linux-{}-{seed}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a test has its directory");
        let real = run(InlineIo::new(), &directory, seed);
        std::fs::remove_dir_all(&directory).expect("it goes away");
        let process = disk(seed).start_process();
        let simulated = process.control_io().expect("it is alive");
        let simulated = run(simulated, Path::new("/"), seed);
        for (step, (real, simulated)) in real.iter().zip(&simulated).enumerate() {
            assert_eq!(simulated, real, "seed {seed} step {step}");
        }
    }
}
