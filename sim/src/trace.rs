//! What happened, as text: the last lines for a failure, a hash over all of them for comparisons.

use std::collections::VecDeque;

/// How many lines a failure prints.
const LINES_KEPT: usize = 200;

/// The trace of one seed.
#[derive(Debug)]
pub(crate) struct Trace {
    lines: VecDeque<String>,
    digest: u64,
    /// Every line, when the whole trace is wanted.
    all: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(keep_all: bool) -> Self {
        let digest = 0xcbf2_9ce4_8422_2325; // FNV-1a
        Trace { lines: VecDeque::new(), digest, all: keep_all.then(Vec::new) }
    }

    pub(crate) fn line(&mut self, text: String) {
        for byte in text.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if let Some(all) = &mut self.all {
            all.push(text.clone());
        }
        if self.lines.len() >= LINES_KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(text);
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Returns the last lines, or all of them if they were kept.
    pub(crate) fn into_lines(self) -> Vec<String> {
        self.all.unwrap_or_else(|| self.lines.into())
    }
}
