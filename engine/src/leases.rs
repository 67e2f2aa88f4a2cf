//! What readers hold of what was read: whole chunks, shared by the batches that lie in them.
//!
//! A batch that was read is not copied out of its chunk; it leases it. What is leased counts
//! against one budget of the engine ([`READ_LEASE_BYTES`]); beyond it batches are copied, so a
//! reader that keeps all it was given holds no more memory than its copies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use highwater_io::AlignedBuffer;

/// How many bytes of chunks all readers of an engine lease. One reader from outside its process has
/// as much for itself.
pub(crate) const READ_LEASE_BYTES: usize = 32 << 20;

/// The budget of leases.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    bytes: AtomicUsize,
}

impl Leases {
    fn take(self: &Arc<Self>, bytes: usize) -> Option<Lease> {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= READ_LEASE_BYTES);
        let taken = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.ok().map(|_| Lease { budget: Arc::clone(self), bytes })
    }
}

#[derive(Debug)]
struct Lease {
    budget: Arc<Leases>,
    bytes: usize,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes that were read, of which batches can be leased.
#[derive(Debug)]
pub(crate) struct Chunk {
    buffer: Arc<AlignedBuffer>,
    lease: Option<Lease>,
}

impl Chunk {
    /// Returns a chunk with the bytes of `buffer`; one that can be leased, if the budget allows.
    pub(crate) fn new(buffer: AlignedBuffer, leases: &Arc<Leases>) -> Self {
        Chunk::shared(Arc::new(buffer), leases)
    }

    /// As [`new`](Chunk::new), of bytes that others share.
    pub(crate) fn shared(buffer: Arc<AlignedBuffer>, leases: &Arc<Leases>) -> Self {
        let lease = leases.take(buffer.len());
        Chunk { buffer, lease }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    pub(crate) fn can_be_leased(&self) -> bool {
        self.lease.is_some()
    }

    pub(crate) fn into_buffer(self) -> Option<AlignedBuffer> {
        Arc::into_inner(self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_end_at_their_budget_and_come_back() {
        let leases = Arc::new(Leases::default());
        let bytes = 256 << 10;
        let chunk = || Chunk::new(AlignedBuffer::zeroed(bytes), &leases);
        let held: Vec<_> = std::iter::repeat_with(chunk).take(READ_LEASE_BYTES / bytes).collect();
        assert!(held.iter().all(Chunk::can_be_leased));
        assert!(!chunk().can_be_leased());
        drop(held);
        assert!(chunk().can_be_leased());
        assert_eq!(leases.bytes.load(Ordering::Relaxed), 0);
    }
}
