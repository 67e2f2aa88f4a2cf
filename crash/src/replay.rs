//! From the log of a device to the image a power cut would have left.
//!
//! The model: a flush makes everything logged before it permanent. Each write after the last
//! flush may have reached the media whole, in part (by sectors of [`SECTOR_BYTES`]) or not at
//! all, independently of the others; two that overlap land in the order they were served.

use std::ops::Range;
use std::sync::Arc;

use highwater_io::random::SeededRandom;

use crate::image::{Image, SECTOR_BYTES};

/// The block of the file systems here: what some of them need to be written whole.
pub const BLOCK_BYTES: usize = 4096;

/// A point in a device's log: the number of events logged before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub usize);

/// Something a device was asked to do, logged when it was served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes were written.
    Write {
        /// Where the bytes begin on the device.
        position: usize,
        /// The bytes.
        bytes: Arc<[u8]>,
    },
    /// A range was discarded or zeroed; it reads as zeros from then on.
    Zero {
        /// Where the range begins on the device.
        position: usize,
        /// How long it is.
        length: usize,
    },
    /// Everything logged before was made permanent.
    Flush,
}

/// How many events of each kind a log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// [`Event::Write`]s.
    pub writes: usize,
    /// [`Event::Zero`]s.
    pub zeros: usize,
    /// [`Event::Flush`]es.
    pub flushes: usize,
}

/// Everything a device did from `start` on.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The image before the first event.
    pub start: Image,
    /// The events in the order they were served.
    pub events: Vec<Event>,
}

impl Recording {
    /// Returns the point after the last event.
    #[must_use]
    pub fn end(&self) -> Mark {
        Mark(self.events.len())
    }

    /// Counts the events of each kind.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for event in &self.events {
            match event {
                Event::Write { .. } => counts.writes += 1,
                Event::Zero { .. } => counts.zeros += 1,
                Event::Flush => counts.flushes += 1,
            }
        }
        counts
    }
}

/// What becomes of the writes that no flush covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unflushed {
    /// Each by itself is kept (1 in 2), torn by sectors (1 in 4) or dropped (1 in 4).
    Seeded(u64),
    /// The same, but torn by blocks of [`BLOCK_BYTES`] only.
    SeededBlocks(u64),
    /// All are dropped: the cache lost everything.
    Dropped,
    /// All are kept: the cut came when the cache happened to be empty.
    Kept,
}

/// Builds images of power cuts from one [`Recording`].
///
/// It keeps the image of the last flush it needed, so points asked for in rising order cost only
/// the events between them; going back starts over.
#[derive(Debug)]
pub struct Replay {
    recording: Recording,
    /// Indexes of the flushes in `recording.events`, rising.
    flushes: Vec<usize>,
    /// `recording.start` with the first `applied` events.
    base: Image,
    applied: usize,
    untorn: Option<Range<usize>>,
}

impl Replay {
    /// Returns a replay of `recording`.
    #[must_use]
    pub fn new(recording: Recording) -> Self {
        let is_flush = |(index, event): (usize, &Event)| (*event == Event::Flush).then_some(index);
        let flushes = recording.events.iter().enumerate().filter_map(is_flush).collect();
        let base = recording.start.clone();
        Replay { recording, flushes, base, applied: 0, untorn: None }
    }

    /// Never tears within this range of the device: it is kept or dropped as if it were one
    /// sector. See [`FileSystem::untorn`](crate::mount::FileSystem::untorn).
    #[must_use]
    pub fn untorn(mut self, range: Option<Range<usize>>) -> Self {
        self.untorn = range;
        self
    }

    /// Returns what is replayed.
    #[must_use]
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Returns the number of events that a cut at `at` certainly leaves on the media: those before
    /// the last flush among the first `at` events.
    #[must_use]
    pub fn permanent(&self, at: Mark) -> Mark {
        let seen = self.flushes.partition_point(|flush| *flush < at.0);
        Mark(seen.checked_sub(1).map_or(0, |last| self.flushes[last]))
    }

    /// Returns the image that a power cut right after the first `at` events leaves.
    ///
    /// # Panics
    /// If the recording has fewer than `at` events.
    #[must_use]
    pub fn cut(&mut self, at: Mark, unflushed: Unflushed) -> Image {
        assert!(at <= self.recording.end(), "a cut inside the recording");
        let permanent = self.permanent(at).0;
        if permanent < self.applied {
            self.base = self.recording.start.clone();
            self.applied = 0;
        }
        for event in &self.recording.events[self.applied..permanent] {
            apply(&mut self.base, event);
        }
        self.applied = permanent;
        let mut image = self.base.clone();
        let exposed = &self.recording.events[permanent..at.0];
        match unflushed {
            Unflushed::Dropped => {}
            Unflushed::Kept => exposed.iter().for_each(|event| apply(&mut image, event)),
            Unflushed::Seeded(seed) | Unflushed::SeededBlocks(seed) => {
                let blocks = matches!(unflushed, Unflushed::SeededBlocks(_));
                let unit = if blocks { BLOCK_BYTES } else { SECTOR_BYTES };
                let mut random = SeededRandom::new(seed);
                for event in exposed {
                    match random.below(4) {
                        0 => {}
                        1 => tear(&mut image, event, unit, self.untorn.as_ref(), &mut random),
                        _ => apply(&mut image, event),
                    }
                }
            }
        }
        image
    }
}

/// Does to `image` what `event` did to the device.
fn apply(image: &mut Image, event: &Event) {
    match event {
        Event::Write { position, bytes } => image.write(*position, bytes),
        Event::Zero { position, length } => image.zero(*position, *length),
        Event::Flush => {}
    }
}

/// Does to each `unit` of `image`, with even odds, what `event` did to the device.
fn tear(
    image: &mut Image,
    event: &Event,
    unit: usize,
    untorn: Option<&Range<usize>>,
    random: &mut SeededRandom,
) {
    let (position, length) = match event {
        Event::Write { position, bytes } => (*position, bytes.len()),
        Event::Zero { position, length } => (*position, *length),
        Event::Flush => return,
    };
    let end = position + length;
    let mut from = position;
    while from < end {
        let unit_end = from - from % unit + unit;
        let whole = untorn.filter(|range| range.contains(&from));
        let to = end.min(whole.map_or(unit_end, |range| range.end));
        if random.chance(1, 2) {
            match event {
                Event::Write { bytes, .. } => {
                    image.write(from, &bytes[from - position..to - position]);
                }
                _ => image.zero(from, to - from),
            }
        }
        from = to;
    }
}
