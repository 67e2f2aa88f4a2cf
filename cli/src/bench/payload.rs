//! What the records of a bench hold.

use std::sync::Arc;

use clap::ValueEnum;
use highwater_io::random::SeededRandom;

/// The bytes that records are cut from. Larger than a processor's nearest caches: a producer of
/// real records would not find them there either.
const PAYLOAD_BYTES: usize = 8 << 20;
const SEED: u64 = 0x7061_796c_6f61_6421;
/// What lines of text are made of, beside numbers.
const WORDS: [&str; 16] = [
    "GET ",
    "POST ",
    "/orders/",
    "/items/",
    "user=",
    "session=",
    "status=200 ",
    "status=404 ",
    "region=eu-west ",
    "region=us-east ",
    "latency_us=",
    "bytes=",
    "retry=false ",
    "trace=",
    "level=info ",
    "cache=hit ",
];

/// What values are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PayloadName {
    /// Bytes that neither a disk nor a codec can squeeze.
    Random,
    /// Lines of words and numbers, as of a log file.
    Text,
}

impl PayloadName {
    /// Returns the name as the flag takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            PayloadName::Random => "random",
            PayloadName::Text => "text",
        }
    }
}

/// Bytes made before any clock starts, the same in every run.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    bytes: Arc<Vec<u8>>,
    record_bytes: usize,
    position: usize,
}

impl Payload {
    pub(crate) fn new(record_bytes: usize, of: PayloadName) -> Self {
        let length = PAYLOAD_BYTES.max(record_bytes);
        let bytes = match of {
            PayloadName::Random => random(length),
            PayloadName::Text => text(length),
        };
        Payload { bytes: Arc::new(bytes), record_bytes, position: 0 }
    }

    /// Returns the length of a value.
    pub(crate) fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// Returns the same bytes for another producer, which starts elsewhere.
    pub(crate) fn share(&self, index: u32) -> Self {
        let position = self.bytes.len() / 64 * (usize::try_from(index).unwrap_or(0) % 64);
        Payload { position, ..self.clone() }
    }

    pub(crate) fn next(&mut self) -> &[u8] {
        if self.position + self.record_bytes > self.bytes.len() {
            self.position = 0;
        }
        let record = &self.bytes[self.position..self.position + self.record_bytes];
        self.position += self.record_bytes;
        record
    }
}

fn random(length: usize) -> Vec<u8> {
    let mut random = SeededRandom::new(SEED);
    let words = length.div_ceil(size_of::<u64>());
    (0..words).flat_map(|_| random.next_u64().to_le_bytes()).collect()
}

fn text(length: usize) -> Vec<u8> {
    let mut random = SeededRandom::new(SEED);
    let mut bytes = Vec::with_capacity(length + 64);
    while bytes.len() < length {
        let word = random.below(u64::try_from(WORDS.len()).unwrap_or(1));
        let word = WORDS.get(usize::try_from(word).unwrap_or(0)).unwrap_or(&"");
        bytes.extend_from_slice(word.as_bytes());
        if word.ends_with(['=', '/']) {
            bytes.extend_from_slice(random.below(1_000_000).to_string().as_bytes());
            bytes.push(if random.below(8) == 0 { b'\n' } else { b' ' });
        }
    }
    bytes.truncate(length);
    bytes
}
