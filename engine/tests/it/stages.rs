//! Where the time of an append went, on the simulated disk's clock.

use std::time::Duration;

use highwater::{Ack, LocalEngine, LogOptions, Options, RecordBatch, Stages};
use highwater_io::sim::{SimDisk, SimProfile};

fn batch() -> RecordBatch {
    RecordBatch::builder().record(b"key", b"value").build().expect("it fits")
}

#[test]
fn the_stages_of_an_append_are_the_whole_time_until_its_ack() {
    let disk = SimDisk::new(7, SimProfile::default());
    let mut engine = LocalEngine::open(disk.start_process(), &Options::at("/d")).expect("opens");
    let log = engine.log("l", &LogOptions::default()).expect("opens");
    for round in 0..100 {
        let ack = [Ack::LEADER, Ack::LEADER_FLUSHED][round % 2];
        let asked = disk.now();
        let ticket = engine.append(log, batch(), ack).expect("appends");
        let acked = engine.run_until(&ticket).expect("acked");
        let stages = acked.stages;
        assert_eq!(stages.total(), disk.now().since(asked), "{stages:?}");
        assert!(stages.written > Duration::ZERO, "{stages:?}");
        if ack == Ack::LEADER {
            let Stages { flush_waited, flushed, .. } = stages;
            assert_eq!(flush_waited + flushed, Duration::ZERO, "nobody flushed yet: {stages:?}");
        }
        // The flush that nobody asked for yet: the same stages, and two more.
        let wish = engine.flush(log);
        let wished = engine.run_until(&wish).expect("flushed");
        let flushed = ticket.flushed().expect("flushed").expect("flushed");
        assert_eq!(flushed.stages.written, stages.written);
        assert!(wished.marks.flushed >= flushed.end_offset());
        if ack == Ack::LEADER {
            assert_eq!(flushed.stages.total(), disk.now().since(asked), "{:?}", flushed.stages);
            assert!(flushed.stages.flushed > Duration::ZERO, "{:?}", flushed.stages);
        }
    }
}

#[test]
fn the_stages_of_many_appends_in_flight_each_start_at_their_own_call() {
    let disk = SimDisk::new(8, SimProfile::default());
    let mut engine = LocalEngine::open(disk.start_process(), &Options::at("/d")).expect("opens");
    let log = engine.log("l", &LogOptions::default()).expect("opens");
    for round in 0..50_usize {
        let mut tickets = Vec::new();
        for number in 0..20 {
            let ack = [Ack::LEADER_FLUSHED, Ack::NONE, Ack::LEADER][(round + number) % 3];
            let asked = disk.now();
            tickets.push((asked, ack, engine.append(log, batch(), ack).expect("appends")));
        }
        for (asked, ack, ticket) in tickets {
            let stages = engine.run_until(&ticket).expect("acked").stages;
            assert!(stages.total() <= disk.now().since(asked), "{stages:?}");
            let reached = stages.written > Duration::ZERO;
            assert_eq!(reached, ack != Ack::NONE, "{ack:?} {stages:?}");
        }
    }
}
