//! What to do after a short, interrupted or refused piece of I/O: pure, shared by all backends.

use crate::buffer::BLOCK_BYTES;

/// How often in a row a piece may be interrupted, refused for the moment or get nowhere before the
/// operation fails: enough for a storm of signals, and still an end.
const FRUITLESS_TRIES_MAX: u32 = 128;

/// The longest piece given to the kernel at once; it takes no more than 2 GiB less a page.
const PIECE_BYTES_MAX: usize = 1 << 30;

/// What follows a piece.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Give [`Progress::piece`] to the kernel again.
    Again,
    /// The operation ended well with so many bytes.
    Finished(usize),
    /// The operation failed with this number of the kernel's.
    Failed(i32),
}

/// How far one operation got.
#[derive(Debug)]
pub(crate) struct Progress {
    length: usize,
    reached: usize,
    fruitless: u32,
    reading: bool,
}

impl Progress {
    /// Starts reading `length` bytes.
    pub(crate) fn reading(length: usize) -> Self {
        Progress { length, reached: 0, fruitless: 0, reading: true }
    }

    /// Starts writing `length` bytes; with zero, anything that moves none and may be repeated.
    pub(crate) fn writing(length: usize) -> Self {
        Progress { length, reached: 0, fruitless: 0, reading: false }
    }

    /// Starts what must not be repeated. A flush that ended early may have taken the one report of
    /// a failed write with it, so even an interrupted flush is a failed one.
    pub(crate) fn once() -> Self {
        Progress { length: 0, reached: 0, fruitless: FRUITLESS_TRIES_MAX, reading: false }
    }

    /// Returns where in the operation the next piece starts and how long it is. It starts on a
    /// block, as direct I/O demands: what a short piece left of a block is moved again.
    pub(crate) fn piece(&self) -> (usize, usize) {
        let start = self.reached - self.reached % BLOCK_BYTES;
        (start, (self.length - start).min(PIECE_BYTES_MAX))
    }

    /// Takes what the kernel said to the piece and returns what follows.
    pub(crate) fn advance(&mut self, result: Result<usize, i32>) -> Next {
        let moved = match result {
            Ok(moved) => moved,
            Err(libc::EINTR | libc::EAGAIN) if self.fruitless < FRUITLESS_TRIES_MAX => {
                self.fruitless += 1;
                return Next::Again;
            }
            Err(errno) => return Next::Failed(errno),
        };
        let (start, asked) = self.piece();
        assert!(moved <= asked, "the kernel moved {moved} bytes of {asked}");
        if start + moved > self.reached {
            self.reached = start + moved;
            self.fruitless = 0;
        } else if self.reading {
            // A short read alone does not prove the end of the file; one that gets no further does.
            return Next::Finished(self.reached);
        } else {
            self.fruitless += 1;
        }
        if self.reached == self.length {
            Next::Finished(self.length)
        } else if self.fruitless > FRUITLESS_TRIES_MAX {
            Next::Failed(libc::EIO)
        } else {
            Next::Again
        }
    }

    /// Runs the operation to its end by blocking calls of `piece(start, length)`.
    pub(crate) fn drive(
        mut self,
        mut piece: impl FnMut(usize, usize) -> Result<usize, i32>,
    ) -> Result<usize, i32> {
        loop {
            let (start, length) = self.piece();
            match self.advance(piece(start, length)) {
                Next::Again => {}
                Next::Finished(bytes) => return Ok(bytes),
                Next::Failed(errno) => return Err(errno),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = BLOCK_BYTES;

    #[test]
    fn whole_piece_ends_the_operation() {
        assert_eq!(Progress::reading(BLOCK).advance(Ok(BLOCK)), Next::Finished(BLOCK));
        assert_eq!(Progress::writing(BLOCK).advance(Ok(BLOCK)), Next::Finished(BLOCK));
        assert_eq!(Progress::once().advance(Ok(0)), Next::Finished(0));
        assert_eq!(Progress::writing(0).advance(Ok(0)), Next::Finished(0));
        assert_eq!(Progress::reading(0).advance(Ok(0)), Next::Finished(0));
    }

    #[test]
    fn short_piece_is_continued_on_a_block() {
        for mut progress in [Progress::reading(4 * BLOCK), Progress::writing(4 * BLOCK)] {
            assert_eq!(progress.advance(Ok(2 * BLOCK)), Next::Again);
            assert_eq!(progress.piece(), (2 * BLOCK, 2 * BLOCK));
            assert_eq!(progress.advance(Ok(100)), Next::Again);
            assert_eq!(progress.piece(), (2 * BLOCK, 2 * BLOCK));
            assert_eq!(progress.advance(Ok(2 * BLOCK)), Next::Finished(4 * BLOCK));
        }
    }

    #[test]
    fn read_ends_at_the_end_of_the_file_only() {
        let mut aligned = Progress::reading(4 * BLOCK);
        assert_eq!(aligned.advance(Ok(BLOCK)), Next::Again);
        assert_eq!(aligned.advance(Ok(0)), Next::Finished(BLOCK));
        let mut ragged = Progress::reading(4 * BLOCK);
        assert_eq!(ragged.advance(Ok(BLOCK + 100)), Next::Again);
        assert_eq!(ragged.piece(), (BLOCK, 3 * BLOCK));
        assert_eq!(ragged.advance(Ok(100)), Next::Finished(BLOCK + 100));
        assert_eq!(Progress::reading(BLOCK).advance(Ok(0)), Next::Finished(0));
    }

    #[test]
    fn write_that_gets_nowhere_fails_in_the_end() {
        let mut tries = 0;
        let result = Progress::writing(BLOCK).drive(|_, _| {
            tries += 1;
            Ok(0)
        });
        assert_eq!((result, tries), (Err(libc::EIO), FRUITLESS_TRIES_MAX + 1));
    }

    #[test]
    fn interruption_is_repeated_and_bounded() {
        for errno in [libc::EINTR, libc::EAGAIN] {
            let mut progress = Progress::writing(2 * BLOCK);
            for _ in 0..FRUITLESS_TRIES_MAX {
                assert_eq!(progress.advance(Err(errno)), Next::Again);
            }
            assert_eq!(progress.advance(Ok(BLOCK)), Next::Again, "progress starts the count anew");
            for _ in 0..FRUITLESS_TRIES_MAX {
                assert_eq!(progress.advance(Err(errno)), Next::Again);
            }
            assert_eq!(progress.advance(Err(errno)), Next::Failed(errno));
        }
    }

    #[test]
    fn flush_is_never_repeated() {
        for errno in [libc::EINTR, libc::EAGAIN, libc::EIO] {
            assert_eq!(Progress::once().advance(Err(errno)), Next::Failed(errno));
        }
    }

    #[test]
    fn failure_after_a_short_piece_is_the_result() {
        let mut progress = Progress::writing(2 * BLOCK);
        assert_eq!(progress.advance(Ok(BLOCK)), Next::Again);
        assert_eq!(progress.advance(Err(libc::ENOSPC)), Next::Failed(libc::ENOSPC));
    }

    #[test]
    fn long_operation_is_cut_into_pieces() {
        let length = PIECE_BYTES_MAX + 3 * BLOCK;
        let mut progress = Progress::reading(length);
        assert_eq!(progress.piece(), (0, PIECE_BYTES_MAX));
        assert_eq!(progress.advance(Ok(PIECE_BYTES_MAX)), Next::Again);
        assert_eq!(progress.piece(), (PIECE_BYTES_MAX, 3 * BLOCK));
    }
}
