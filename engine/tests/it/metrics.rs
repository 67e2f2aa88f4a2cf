//! What is counted agrees with what was done.

use highwater::{Ack, Exposure, FlushPolicy, LocalEngine, LogOptions, Options, RecordBatch};
use highwater_io::sim::{SimDisk, SimProfile};

fn batch() -> RecordBatch {
    RecordBatch::builder().record(b"key", b"value").record(b"key", b"value").build().expect("fits")
}

#[test]
fn what_is_counted_is_what_was_done_and_outlives_maintenance() {
    let disk = SimDisk::new(3, SimProfile::default());
    let mut engine = LocalEngine::open(disk.start_process(), &Options::at("/d")).expect("opens");
    let options = LogOptions { flush: FlushPolicy::NONE, ..Default::default() };
    let log = engine.log("l", &options).expect("opens");
    for _ in 0..10 {
        let ticket = engine.append(log, batch(), Ack::LEADER).expect("appends");
        engine.run_until(&ticket).expect("acked");
    }
    let bytes = batch().disk_bytes();
    let metrics = engine.metrics().total();
    assert_eq!((metrics.groups, metrics.batches, metrics.records), (10, 10, 20));
    assert_eq!((metrics.bytes, metrics.group_bytes.sum()), (10 * bytes, u128::from(10 * bytes)));
    assert!(metrics.written_bytes >= metrics.bytes && metrics.flushes == 0);
    assert_eq!((metrics.write_time.count(), metrics.ack_time.count()), (10, 10));
    let Exposure { records, bytes: exposed, time } = metrics.exposure;
    assert_eq!((records, exposed), (20, 10 * bytes), "acked, and nothing flushed");
    assert!(!time.is_zero());

    let wish = engine.flush(log);
    engine.run_until(&wish).expect("flushed");
    let ticket = engine.append(log, batch(), Ack::LEADER_FLUSHED).expect("appends");
    engine.run_until(&ticket).expect("acked");
    let metrics = engine.metrics().total();
    assert_eq!(metrics.exposure, Exposure::default());
    assert_eq!((metrics.exposure_max.records, metrics.exposure_max.bytes), (20, 10 * bytes));
    assert_eq!((metrics.flushes, metrics.flush_reasons.waited), (2, 2));
    assert_eq!(metrics.records_per_flush.sum(), 22);
    assert_eq!(metrics.flush_reasons.total(), metrics.flushes);
    assert_eq!(metrics.flush_time.count(), 2);
    assert_eq!(metrics.ack_time.count(), 11, "a wish to flush is no append");

    engine.truncate(log, highwater::Offset(4)).expect("truncates");
    let after = engine.metrics().total();
    assert_eq!((after.records, after.flushes), (metrics.records, metrics.flushes));
}

#[test]
fn each_reason_to_flush_is_counted_as_itself() {
    let records = FlushPolicy { records: Some(4), ..FlushPolicy::NONE };
    let bytes = FlushPolicy { bytes: Some(300), ..FlushPolicy::NONE };
    let interval = std::time::Duration::from_millis(1);
    let interval = FlushPolicy { interval: Some(interval), ..FlushPolicy::NONE };
    for (policy, reason) in [
        (FlushPolicy::EVERY_GROUP, "every_group"),
        (records, "records"),
        (bytes, "bytes"),
        (interval, "interval"),
    ] {
        let disk = SimDisk::new(4, SimProfile::default());
        let mut engine = LocalEngine::open(disk.start_process(), &Options::at("/d")).expect("open");
        let log = engine.log("l", &LogOptions { flush: policy, ..Default::default() }).expect("l");
        for _ in 0..4 {
            let ticket = engine.append(log, batch(), Ack::LEADER).expect("appends");
            engine.run_until(&ticket).expect("acked");
        }
        while engine.metrics().total().flushes == 0 {
            engine.poll(std::time::Duration::from_millis(1));
        }
        let counted = engine.metrics().total().flush_reasons.named();
        let counted: Vec<_> = counted.iter().filter(|(_, count)| *count > 0).collect();
        assert!(matches!(counted[..], [(name, _)] if *name == reason), "{reason}: {counted:?}");
    }
}
