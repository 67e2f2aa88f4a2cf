//! Operations the kernel has: a slab whose places name them in `user_data`.

use std::os::fd::AsRawFd;

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::{Fd, FsyncFlags};

use crate::execute::{IN_FLIGHT_MAX, Job, Target, piece_position};
use crate::operation::{Operation, Output};
use crate::progress::{Next, Progress};

/// What the kernel said to an operation.
#[derive(Debug)]
pub(super) enum Landing {
    /// It goes on with this entry.
    Again(Entry),
    /// It has ended.
    Ended(Job, Result<Output, i32>),
}

#[derive(Debug)]
struct Flight {
    job: Job,
    progress: Progress,
    /// The bytes of a durable write are written; the flush behind it is on its way.
    written: Option<usize>,
}

impl Flight {
    /// Returns whether a flush has to follow the write: a durable write on a device that cannot
    /// write through its cache ends in a work queue of the kernel, which does the same flush, but
    /// whose threads have to wait for a processor longer than those of the ring.
    fn needs_flush(&self) -> bool {
        let Operation::Write { dsync: true, .. } = self.job.operation else { return false };
        self.written.is_none() && !self.writes_through()
    }

    fn writes_through(&self) -> bool {
        matches!(&self.job.target, Target::Shared(file) if file.writes_through)
    }
}

#[derive(Debug)]
struct Place {
    use_count: u32,
    flight: Option<Flight>,
}

/// The operations in flight. The buffer and the file of each stay here until it has ended.
#[derive(Debug)]
pub(super) struct Flights {
    places: Vec<Place>,
    free: Vec<u32>,
}

impl Flights {
    pub(super) fn new() -> Self {
        let bound = u32::try_from(IN_FLIGHT_MAX).unwrap_or(u32::MAX);
        let empty = || Place { use_count: 0, flight: None };
        let places = std::iter::repeat_with(empty).take(IN_FLIGHT_MAX).collect();
        Flights { places, free: (0..bound).rev().collect() }
    }

    /// Returns how many are in flight.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Takes a job and returns its first entry.
    ///
    /// # Panics
    /// If [`IN_FLIGHT_MAX`] are in flight, or the job is not for a ring.
    pub(super) fn start(&mut self, job: Job) -> Entry {
        let progress = match &job.operation {
            Operation::Read { length, .. } => Progress::reading(*length),
            Operation::Write { length, .. } => Progress::writing(*length),
            Operation::Allocate { .. } => Progress::writing(0),
            Operation::Flush { .. } => Progress::once(),
            other => unreachable!("{} is not for a ring", other.verb()),
        };
        let Some(low) = self.free.pop() else {
            panic!("more than {IN_FLIGHT_MAX} operations in flight");
        };
        let place = &mut self.places[index(low)];
        assert!(place.flight.is_none(), "a free place is empty");
        place.use_count = place.use_count.wrapping_add(1);
        let key = u64::from(place.use_count) << u32::BITS | u64::from(low);
        entry(place.flight.insert(Flight { job, progress, written: None })).user_data(key)
    }

    /// Takes back the job of an entry that was not given to the kernel.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn withdraw(&mut self, key: u64) -> Job {
        let low = u32::try_from(key & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let flight = self.places.get_mut(index(low)).and_then(|place| place.flight.take());
        let Some(flight) = flight else { panic!("{key:#x} was not begun") };
        self.free.push(low);
        flight.job
    }

    /// Takes what the kernel said to the entry `key`.
    ///
    /// # Panics
    /// If the kernel names an operation that is not in flight.
    pub(super) fn land(&mut self, key: u64, result: i32) -> Landing {
        let low = u32::try_from(key & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let place = self.places.get_mut(index(low));
        let flight = place
            .filter(|place| u64::from(place.use_count) == key >> u32::BITS)
            .and_then(|place| place.flight.as_mut());
        let Some(flight) = flight else { panic!("the kernel ended {key:#x}, which nobody began") };
        let result = usize::try_from(result).map_err(|_| result.wrapping_neg());
        let result = match flight.progress.advance(result) {
            Next::Again => return Landing::Again(entry(flight).user_data(key)),
            Next::Finished(bytes) if flight.needs_flush() => {
                flight.written = Some(bytes);
                flight.progress = Progress::once();
                return Landing::Again(entry(flight).user_data(key));
            }
            Next::Finished(bytes) => match flight.job.operation {
                Operation::Read { .. } | Operation::Write { .. } => {
                    Ok(Output::Bytes(flight.written.unwrap_or(bytes)))
                }
                _ => Ok(Output::Done),
            },
            Next::Failed(errno) => Err(errno),
        };
        self.free.push(low);
        match self.places[index(low)].flight.take() {
            Some(flight) => Landing::Ended(flight.job, result),
            None => unreachable!("the flight was here"),
        }
    }
}

fn index(low: u32) -> usize {
    usize::try_from(low).unwrap_or(usize::MAX)
}

/// Returns the entry for the next piece of a flight.
fn entry(flight: &mut Flight) -> Entry {
    let Target::Shared(file) = &flight.job.target else {
        unreachable!("a ring works on open files");
    };
    let fd = Fd(file.file.as_raw_fd());
    if flight.written.is_some() {
        return opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build();
    }
    let writes_through = file.writes_through;
    let (start, bytes) = flight.progress.piece();
    let length = u32::try_from(bytes).unwrap_or(u32::MAX);
    match &mut flight.job.operation {
        Operation::Read { position, buffer, .. } => {
            let piece = &mut buffer[start..start + bytes];
            opcode::Read::new(fd, piece.as_mut_ptr(), length)
                .offset(piece_position(*position, start))
                .build()
        }
        Operation::Write { position, buffer, dsync, .. } => {
            let piece = &buffer[start..start + bytes];
            opcode::Write::new(fd, piece.as_ptr(), length)
                .offset(piece_position(*position, start))
                .rw_flags(if *dsync && writes_through { libc::RWF_DSYNC } else { 0 })
                .build()
        }
        Operation::Flush { .. } => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
        Operation::Allocate { position, length, .. } => {
            opcode::Fallocate::new(fd, *length).offset(*position).build()
        }
        other => unreachable!("{} is not for a ring", other.verb()),
    }
}
