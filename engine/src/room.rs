//! How much may wait in the queue of a shard, and for which log.

use std::collections::BTreeMap;

use crate::number::LogNumber;

/// Why there is no room now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    Fits,
    /// The queue as a whole is full.
    Full,
    /// Others would find room: this log holds its share.
    ShareTaken,
}

/// The room in one queue: places, and bytes of batches from when they are queued until they are
/// copied.
///
/// A log that does not get on - its disk hangs, or is full - keeps what it was given. So that its
/// neighbours do get on, one log holds three quarters of the bytes at the most, and the last
/// eighth is for logs that hold nothing.
#[derive(Debug)]
pub(crate) struct Room {
    places: usize,
    bytes: usize,
    by_log: BTreeMap<LogNumber, usize>,
    places_max: usize,
    bytes_max: usize,
}

impl Room {
    pub(crate) fn new(places_max: usize, bytes_max: usize) -> Self {
        Room { places: 0, bytes: 0, by_log: BTreeMap::new(), places_max, bytes_max }
    }

    /// Returns whether so many bytes of the log fit now.
    pub(crate) fn fit(&self, log: LogNumber, bytes: usize) -> Fit {
        if self.places >= self.places_max {
            return Fit::Full;
        }
        // A batch larger than the whole budget goes alone.
        if self.bytes == 0 {
            return Fit::Fits;
        }
        let held = self.by_log.get(&log).copied().unwrap_or(0);
        let eighth = self.bytes_max / 8;
        let most = if held == 0 { self.bytes_max } else { self.bytes_max - eighth };
        if held > 0 && held + bytes > self.bytes_max - 2 * eighth {
            Fit::ShareTaken
        } else if self.bytes + bytes > most {
            Fit::Full
        } else {
            Fit::Fits
        }
    }

    pub(crate) fn take(&mut self, log: LogNumber, bytes: usize) {
        self.places += 1;
        self.bytes += bytes;
        *self.by_log.entry(log).or_default() += bytes;
    }

    pub(crate) fn give_back_places(&mut self, places: usize) {
        assert!(self.places >= places, "no more is given back than was taken");
        self.places -= places;
    }

    pub(crate) fn give_back_bytes(&mut self, log: LogNumber, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let Some(held) = self.by_log.get_mut(&log).filter(|held| **held >= bytes) else {
            panic!("no more is given back than was taken")
        };
        *held -= bytes;
        if *held == 0 {
            self.by_log.remove(&log);
        }
        self.bytes -= bytes;
    }
}

/// Bytes that are free again, by log.
#[derive(Debug, Default)]
pub(crate) struct Released(Vec<(LogNumber, usize)>);

impl Released {
    pub(crate) fn add(&mut self, log: LogNumber, bytes: usize) {
        match self.0.last_mut() {
            Some((last, sum)) if *last == log => *sum += bytes,
            _ => self.0.push((log, bytes)),
        }
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (LogNumber, usize)> {
        self.0.drain(..)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::LogNumbers;

    #[test]
    fn a_log_that_does_not_get_on_leaves_room_for_its_neighbours() {
        let mut numbers = LogNumbers::default();
        let (stuck, second, idle) = (numbers.take(), numbers.take(), numbers.take());
        let mut room = Room::new(1000, 800);
        let fill = |room: &mut Room, log| {
            while room.fit(log, 10) == Fit::Fits {
                room.take(log, 10);
            }
        };
        fill(&mut room, stuck);
        assert_eq!((room.bytes, room.fit(stuck, 10)), (600, Fit::ShareTaken));
        fill(&mut room, second);
        assert_eq!((room.bytes, room.fit(second, 10)), (700, Fit::Full));
        assert_eq!(room.fit(idle, 100), Fit::Fits, "the last eighth");
        room.give_back_bytes(second, 100);
        assert_eq!(room.fit(second, 10), Fit::Fits);
    }
}
