//! Payload that does not compress, made before any clock starts.

/// The least bytes after which a payload repeats: more than the processor's caches hold.
const POOL_BYTES: usize = 16 << 20;

/// A pool of pseudo-random bytes.
#[derive(Debug)]
pub struct Payload {
    bytes: Vec<u8>,
}

impl Payload {
    /// Returns the payload of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut bytes = Vec::with_capacity(POOL_BYTES);
        while bytes.len() < POOL_BYTES {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
        }
        Payload { bytes }
    }

    /// Returns the pool cut into batches of `batch_records` records of `record_bytes` each.
    ///
    /// # Panics
    /// If one of them is 0, or a batch is longer than 16 MiB.
    #[must_use]
    pub fn batches(&self, record_bytes: usize, batch_records: usize) -> Batches<'_> {
        assert!(record_bytes > 0 && batch_records > 0, "a batch has bytes");
        assert!(record_bytes * batch_records <= POOL_BYTES, "a batch is no longer than the pool");
        let records = self.bytes.chunks_exact(record_bytes).collect();
        Batches { records, batch_records, next: 0 }
    }
}

/// Batches of a payload, over and over. Nothing is copied.
#[derive(Debug)]
pub struct Batches<'a> {
    records: Vec<&'a [u8]>,
    batch_records: usize,
    next: usize,
}

impl<'a> Batches<'a> {
    /// Returns the records of the next batch.
    pub fn next_batch(&mut self) -> &[&'a [u8]] {
        if self.next + self.batch_records > self.records.len() {
            self.next = 0;
        }
        let start = self.next;
        self.next += self.batch_records;
        &self.records[start..self.next]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_their_size_and_differ_until_the_pool_is_used_up() {
        let payload = Payload::new(1);
        let mut batches = payload.batches(1000, 16);
        let count = POOL_BYTES / 1000 / 16;
        let all: Vec<Vec<_>> = (0..count).map(|_| batches.next_batch().to_vec()).collect();
        assert!(all.iter().flatten().all(|record| record.len() == 1000));
        assert!(all.iter().all(|batch| batch.len() == 16));
        assert!(all.windows(2).all(|pair| pair[0][0] != pair[1][0]));
        assert_eq!(batches.next_batch(), &all[0][..]);
    }
}
