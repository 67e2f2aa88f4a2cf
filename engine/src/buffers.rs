//! The buffers that groups are written from, shared by the logs of a shard.

use highwater_io::AlignedBuffer;

use crate::options::{GROUP_BYTES, WRITES_IN_FLIGHT};

/// The size of the large buffers: a group, its tail block and its filler.
const LARGE_BYTES: usize = GROUP_BYTES + 2 * 4096;
/// The size of the small ones: what one append of a few records takes.
const SMALL_BYTES: usize = 4 * 4096;
/// The most large ones kept: what one busy log has in flight.
const LARGE_MAX: usize = WRITES_IN_FLIGHT;
/// The most small ones kept.
const SMALL_MAX: usize = 128;

/// Free buffers, so that steady appends allocate nothing; at most some 4 MiB.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    small: Vec<AlignedBuffer>,
    large: Vec<AlignedBuffer>,
}

impl Buffers {
    /// Returns a buffer of at least `bytes`, whatever is in it.
    pub(crate) fn take(&mut self, bytes: usize) -> AlignedBuffer {
        let (kept, size) = if bytes <= SMALL_BYTES {
            (&mut self.small, SMALL_BYTES)
        } else if bytes <= LARGE_BYTES {
            (&mut self.large, LARGE_BYTES)
        } else {
            return AlignedBuffer::zeroed(bytes);
        };
        kept.pop().unwrap_or_else(|| AlignedBuffer::zeroed(size))
    }

    /// Keeps a buffer that is free again, if it is of use.
    pub(crate) fn give_back(&mut self, buffer: AlignedBuffer) {
        let (kept, most) = match buffer.len() {
            SMALL_BYTES => (&mut self.small, SMALL_MAX),
            LARGE_BYTES => (&mut self.large, LARGE_MAX),
            _ => return,
        };
        if kept.len() < most {
            kept.push(buffer);
        }
    }
}
