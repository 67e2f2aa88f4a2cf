//! Which log of a shard is meant.

use std::collections::BTreeSet;

/// A log's number in its shard. It is never given twice: who still holds the number of a closed
/// log reaches no other log with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogNumber {
    slot: u16,
    /// How many logs had the slot before.
    life: u64,
}

impl LogNumber {
    /// Returns the log's place among those its shard owns now; another log can have it later.
    pub(crate) fn slot(self) -> u16 {
        self.slot
    }
}

/// Gives numbers to the logs of one shard, from the lowest free slot.
#[derive(Debug, Default)]
pub(crate) struct LogNumbers {
    /// How many logs had each slot so far.
    lives: Vec<u64>,
    free: BTreeSet<u16>,
}

impl LogNumbers {
    /// Returns a number that was never given.
    ///
    /// # Panics
    /// Beyond 65,536 logs at once; an engine refuses them long before.
    pub(crate) fn take(&mut self) -> LogNumber {
        let slot = self.free.pop_first().unwrap_or_else(|| {
            let Ok(slot) = u16::try_from(self.lives.len()) else { panic!("logs are bounded") };
            self.lives.push(0);
            slot
        });
        let life = &mut self.lives[usize::from(slot)];
        *life += 1;
        LogNumber { slot, life: *life }
    }

    /// Takes back the number of a log that is gone for good.
    ///
    /// # Panics
    /// If its slot is free already.
    pub(crate) fn give_back(&mut self, number: LogNumber) {
        assert_eq!(self.lives.get(usize::from(number.slot)), Some(&number.life), "its own number");
        assert!(self.free.insert(number.slot), "a number is given back once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_never_given_twice_though_its_slot_is() {
        let mut numbers = LogNumbers::default();
        let (first, second) = (numbers.take(), numbers.take());
        assert_eq!((first.slot(), second.slot()), (0, 1));
        numbers.give_back(first);
        let third = numbers.take();
        assert_eq!(third.slot(), 0);
        assert_ne!(third, first);
        assert_eq!(numbers.take().slot(), 2);
    }
}
