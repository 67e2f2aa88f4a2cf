//! Random numbers: seeded ones for the simulator, the kernel's for names that must not repeat.

/// A small seeded generator (splitmix64, public domain, Vigna 2015): the same seed gives the same
/// numbers on every machine. Not for secrets.
#[derive(Clone, Debug)]
pub struct SeededRandom {
    state: u64,
}

impl SeededRandom {
    /// Returns the generator of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        SeededRandom { state: seed }
    }

    /// Returns an independent generator for the named purpose, so that drawing more numbers for
    /// one purpose does not shift those of another.
    #[must_use]
    pub fn split(&self, purpose: &str) -> Self {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325; // FNV-1a
        for byte in purpose.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let mut mixed = SeededRandom { state: self.state ^ hash };
        SeededRandom { state: mixed.next_u64() }
    }

    /// Returns the next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `limit` (the bias is below 2^-32 for the limits we use).
    ///
    /// # Panics
    /// If `limit` is zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        assert!(limit > 0, "an empty range has no number");
        self.next_u64() % limit
    }

    /// Returns a number below `limit`, as an index.
    ///
    /// # Panics
    /// If `limit` is zero.
    pub fn index(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        usize::try_from(self.below(limit)).unwrap_or(usize::MAX)
    }

    /// Returns true `numerator` times in `denominator`.
    ///
    /// # Panics
    /// If `denominator` is zero.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }
}

/// Returns 64 random bits from the kernel, for salts and incarnations.
///
/// # Panics
/// If the kernel gives none (`getrandom(2)` does not fail for small requests once booted).
#[must_use]
pub fn kernel_u64() -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: the pointer and the length describe `bytes`, which outlives the call.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    assert_eq!(got, 8, "getrandom(2) gives small requests whole");
    u64::from_le_bytes(bytes)
}
