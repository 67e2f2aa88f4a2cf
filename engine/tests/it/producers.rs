//! Idempotent producers on the simulated disk: what is sent twice is there once.

use std::path::PathBuf;

use highwater::{
    Ack, Appended, ErrorKind, Isolation, LocalEngine, LocalLog, LogOptions, Marks, Offset, Options,
    Outcome, ProducerEpoch, ProducerId, RecordBatch, Sequence, Ticket,
};
use highwater_io::sim::{SimDisk, SimIo, SimPlatform, SimProfile, Survival};
use highwater_io::{Access, AlignedBuffer, Blocking, Platform};

const LOG: &str = "orders";
const ID: ProducerId = ProducerId(7);

struct Rig {
    disk: SimDisk,
    engine: LocalEngine<SimPlatform>,
    log: LocalLog,
    options: LogOptions,
}

fn open(disk: &SimDisk, options: &LogOptions) -> (LocalEngine<SimPlatform>, LocalLog) {
    let mut engine = LocalEngine::open(disk.start_process(), &Options::at("/data")).expect("opens");
    assert_eq!(engine.recovery().failed, []);
    let log = engine.log(LOG, options).expect("opens");
    (engine, log)
}

impl Rig {
    fn new(options: LogOptions) -> Rig {
        let disk = SimDisk::new(1, SimProfile::default());
        let (engine, log) = open(&disk, &options);
        Rig { disk, engine, log, options }
    }

    fn send(&mut self, batch: &RecordBatch, ack: Ack) -> Ticket {
        self.engine.append(self.log, batch.clone(), ack).expect("is queued")
    }

    fn sent(&mut self, batch: &RecordBatch, ack: Ack) -> Appended {
        let ticket = self.send(batch, ack);
        self.engine.run_until(&ticket).unwrap_or_else(|error| panic!("{batch:?}: {error}"))
    }

    fn refused(&mut self, batch: &RecordBatch) -> ErrorKind {
        let end = self.marks().log_end;
        let ticket = self.send(batch, Ack::LEADER);
        let error = self.engine.run_until(&ticket).expect_err("refused");
        assert_eq!(error.outcome(), Outcome::NotAppended, "{error}");
        assert_eq!(self.marks().log_end, end, "{error}");
        error.kind().clone()
    }

    fn marks(&self) -> Marks {
        self.engine.marks(self.log)
    }

    /// Ends the process, or takes the power with it, and opens the log again.
    fn crash(self, survival: Option<Survival>) -> Rig {
        self.killed(|disk| survival.into_iter().for_each(|survival| disk.power_cut(survival)))
    }

    /// Ends the process, does something to the disk, and opens the log again.
    fn killed(self, work: impl FnOnce(&SimDisk)) -> Rig {
        let Rig { disk, engine, options, .. } = self;
        drop(engine);
        disk.kill();
        work(&disk);
        let (engine, log) = open(&disk, &options);
        Rig { disk, engine, log, options }
    }

    fn close(self) -> Rig {
        let Rig { disk, engine, options, .. } = self;
        engine.close().expect("closes");
        disk.kill();
        let (engine, log) = open(&disk, &options);
        Rig { disk, engine, log, options }
    }

    /// The base sequences in the log, in their order.
    fn sequences(&self) -> Vec<i32> {
        let start = self.marks().log_start;
        let batches = self.engine.read(self.log, start, Isolation::Written).expect("readable");
        batches.map(|batch| batch.expect("undamaged").header().base_sequence).collect()
    }
}

fn snapshot_path(offset: u64) -> PathBuf {
    PathBuf::from(format!("/data/{LOG}/{offset:020}.producers"))
}

/// Does something with files as another process.
fn disk_io(disk: &SimDisk, work: impl FnOnce(&mut Blocking<SimIo>)) {
    let platform = disk.start_process();
    work(&mut Blocking::new(platform.control_io().expect("opens")));
    disk.kill();
}

fn numbered(epoch: i16, base_sequence: i32, records: usize, bytes: usize) -> RecordBatch {
    let value = base_sequence.to_le_bytes();
    let value: Vec<u8> = value.iter().copied().cycle().take(bytes.max(4)).collect();
    let mut builder =
        RecordBatch::builder().producer(ID, ProducerEpoch(epoch), Sequence(base_sequence));
    (0..records).for_each(|_| builder.push(None, None, Some(&value), &[]));
    builder.build().expect("it fits")
}

fn small(sequence: i32) -> RecordBatch {
    numbered(0, sequence, 1, 4)
}

#[test]
fn a_duplicate_is_acked_where_its_original_is_and_waits_for_its_own_policy() {
    for (first, second) in [
        (Ack::LEADER, Ack::LEADER),
        (Ack::LEADER, Ack::LEADER_FLUSHED),
        (Ack::LEADER_FLUSHED, Ack::LEADER),
        (Ack::NONE, Ack::ISR_FLUSHED),
        (Ack::LEADER_FLUSHED, Ack::NONE),
    ] {
        for in_flight in [false, true] {
            let case = format!("{first:?}, {second:?}, in flight {in_flight}");
            let mut rig = Rig::new(LogOptions::default());
            rig.sent(&RecordBatch::builder().value(b"before").build().expect("fits"), Ack::LEADER);
            let batch = numbered(0, 0, 3, 8);
            let original = rig.send(&batch, first);
            if !in_flight {
                rig.engine.run_until(&original).expect(&case);
            }
            let duplicate = rig.send(&batch, second);
            let other = rig.send(&numbered(0, 3, 1, 8), Ack::LEADER);
            let again = rig.engine.run_until(&duplicate).expect(&case);
            let place = (again.base_offset, again.records, again.end_offset());
            assert_eq!(place, (Offset(1), 3, Offset(4)), "{case}");
            if second.waits_for_flush() {
                assert!(again.marks.flushed >= Offset(4), "{case}: {:?}", again.marks);
            }
            if second != Ack::NONE {
                assert!(again.marks.written >= Offset(4), "{case}: {:?}", again.marks);
            }
            let first = rig.engine.run_until(&original).expect(&case);
            assert_eq!((first.base_offset, first.epoch), (Offset(1), again.epoch), "{case}");
            assert_eq!(rig.engine.run_until(&other).expect(&case).base_offset, Offset(4));
            assert_eq!(rig.marks().log_end, Offset(5), "{case}");
            let metrics = rig.engine.metrics();
            let log = &metrics.logs[LOG];
            assert_eq!((log.duplicates, log.batches), (1, 3), "{case}");
        }
    }
}

#[test]
fn duplicates_inside_one_group_are_left_out_of_it() {
    let mut rig = Rig::new(LogOptions::default());
    // While this is written the next group gathers.
    let mut tickets = vec![rig.send(&small(0), Ack::LEADER_FLUSHED)];
    for sequence in [1, 1, 0, 2, 2, 1, 3, 5, 4, 4] {
        tickets.push(rig.send(&small(sequence), Ack::LEADER_FLUSHED));
    }
    let places: Vec<_> = tickets
        .iter()
        .map(|ticket| rig.engine.run_until(ticket).ok().map(|appended| appended.base_offset.0))
        .collect();
    let expected = [0, 1, 1, 0, 2, 2, 1, 3, u64::MAX, 4, 4];
    let expected: Vec<_> = expected.iter().map(|p| Some(*p).filter(|p| *p < 9)).collect();
    assert_eq!(places, expected);
    assert_eq!(rig.sequences(), [0, 1, 2, 3, 4]);
}

#[test]
fn what_is_neither_the_next_nor_known_is_refused_with_its_kind() {
    let mut rig = Rig::new(LogOptions::default());
    assert_eq!(rig.refused(&small(1)), ErrorKind::OutOfOrderSequence, "P2");
    for sequence in 0..7 {
        rig.sent(&small(sequence), Ack::LEADER);
    }
    assert_eq!(rig.refused(&small(8)), ErrorKind::OutOfOrderSequence, "P10");
    assert_eq!(rig.refused(&small(1)), ErrorKind::OutOfOrderSequence, "P9");
    assert_eq!(rig.refused(&numbered(0, 5, 2, 4)), ErrorKind::OutOfOrderSequence, "P8");
    assert_eq!(rig.refused(&numbered(0, 5, 1, 9)), ErrorKind::OutOfOrderSequence, "P8");
    assert_eq!(rig.refused(&numbered(1, 7, 1, 4)), ErrorKind::OutOfOrderSequence, "P5");
    rig.sent(&numbered(1, 0, 1, 4), Ack::LEADER);
    assert_eq!(rig.refused(&small(6)), ErrorKind::Fenced, "P3");
    assert_eq!(rig.refused(&small(7)), ErrorKind::Fenced, "P3");
    let unnumbered = RecordBatch::builder().value(b"free").build().expect("fits");
    rig.sent(&unnumbered, Ack::LEADER);
    rig.sent(&unnumbered, Ack::LEADER);
    assert_eq!(rig.sequences(), [0, 1, 2, 3, 4, 5, 6, 0, -1, -1]);
}

#[test]
fn a_producer_goes_on_where_the_log_is() {
    let mut rig = Rig::new(LogOptions::default());
    let mut producer = rig.engine.producer(rig.log, ID).expect("answers");
    assert_eq!((producer.epoch().0, producer.next_sequence().0), (0, 0));
    for records in 1..4 {
        let mut builder = RecordBatch::builder();
        (0..records).for_each(|_| builder.push(None, None, Some(b"x"), &[]));
        let batch = producer.number(builder.build().expect("fits"));
        rig.sent(&batch, Ack::LEADER);
    }
    let mut rig = rig.crash(None);
    let mut again = rig.engine.producer(rig.log, ID).expect("answers");
    assert_eq!(again, producer);
    again.next_epoch().expect("there are many");
    let takes_over = again.number(RecordBatch::builder().value(b"mine").build().expect("fits"));
    rig.sent(&takes_over, Ack::LEADER);
    let late = producer.number(RecordBatch::builder().value(b"late").build().expect("fits"));
    assert_eq!(rig.refused(&late), ErrorKind::Fenced);
    assert!(rig.engine.producer(rig.log, ProducerId(-1)).is_err());
}

#[test]
fn duplicates_are_known_after_every_kind_of_end() {
    type End = fn(Rig) -> Rig;
    let ends: [(&str, End); 4] = [
        ("kill", |rig| rig.crash(None)),
        ("power cut", |rig| rig.crash(Some(Survival::Nothing))),
        ("close", Rig::close),
        ("close, then a power cut", |rig| rig.close().crash(Some(Survival::Nothing))),
    ];
    for (name, end) in ends {
        let mut rig = Rig::new(LogOptions::default());
        for sequence in 0..8 {
            rig.sent(&small(sequence), Ack::LEADER_FLUSHED);
        }
        let mut rig = end(end(rig));
        for sequence in 3..8 {
            let place = u64::try_from(sequence).expect("small");
            let again = rig.sent(&small(sequence), Ack::LEADER_FLUSHED);
            assert_eq!(again.base_offset, Offset(place), "{name}");
        }
        assert_eq!(rig.refused(&small(2)), ErrorKind::OutOfOrderSequence, "{name}");
        assert_eq!(rig.sent(&small(8), Ack::LEADER).base_offset, Offset(8), "{name}");
    }
}

#[test]
fn what_a_power_cut_took_is_appended_when_it_is_sent_again() {
    let mut rig = Rig::new(LogOptions::default());
    rig.sent(&small(0), Ack::LEADER_FLUSHED);
    rig.sent(&small(1), Ack::LEADER);
    rig.sent(&small(2), Ack::LEADER);
    let mut rig = rig.crash(Some(Survival::Nothing));
    assert_eq!(rig.marks().log_end, Offset(1));
    // Not in their order there would be a hole.
    assert_eq!(rig.refused(&small(2)), ErrorKind::OutOfOrderSequence);
    for sequence in [0, 1, 2, 1] {
        let place = u64::try_from(sequence).expect("small");
        assert_eq!(rig.sent(&small(sequence), Ack::LEADER).base_offset, Offset(place));
    }
    assert_eq!(rig.sequences(), [0, 1, 2]);
}

#[test]
fn after_a_truncation_the_state_is_what_is_left() {
    for records in [1_u64, 40] {
        let options = LogOptions { segment_bytes: Some(64 << 10), ..Default::default() };
        let mut rig = Rig::new(options);
        // 40 records of 1000 bytes: a segment or so for each batch.
        let count = usize::try_from(records).expect("small");
        let of = |batch: i32| {
            let sequence = batch * i32::try_from(records).expect("small");
            numbered(0, sequence, count, 1000)
        };
        for batch in 0..6 {
            rig.sent(&of(batch), Ack::LEADER);
        }
        // The batch that the place lies in goes whole.
        rig.engine.truncate(rig.log, Offset(3 * records + records / 2)).expect("works");
        assert_eq!(rig.refused(&of(4)), ErrorKind::OutOfOrderSequence);
        assert_eq!(rig.sent(&of(2), Ack::LEADER).base_offset, Offset(2 * records));
        assert_eq!(rig.sent(&of(3), Ack::LEADER).base_offset, Offset(3 * records));
        assert_eq!(rig.sent(&of(4), Ack::LEADER).base_offset, Offset(4 * records));
        rig.engine.truncate(rig.log, Offset(0)).expect("works");
        assert_eq!(rig.refused(&of(4)), ErrorKind::OutOfOrderSequence);
        assert_eq!(rig.sent(&of(0), Ack::LEADER).base_offset, Offset(0));
        let rig = rig.crash(Some(Survival::Everything));
        assert_eq!(rig.sequences(), [0]);
    }
}

impl Rig {
    /// The offsets of the snapshot files.
    fn snapshots(&self) -> Vec<u64> {
        let files = self.disk.files();
        let names = files.iter().filter_map(|path| path.file_name()?.to_str());
        names.filter_map(|name| name.strip_suffix(".producers")?.parse().ok()).collect()
    }

    /// Lets the log do what it does when nobody appends.
    fn idle(&mut self) {
        (0..400).for_each(|_| self.engine.poll(std::time::Duration::from_millis(10)));
    }

    fn segments(&self) -> Vec<u64> {
        let files = self.disk.files();
        let names = files.iter().filter_map(|path| path.file_name()?.to_str());
        names.filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect()
    }

    fn report(&self) -> highwater::ProducersReport {
        self.engine.log_report(self.log).producers.clone()
    }
}

/// A log of some segments: one numbered batch of producer 7 each four, others between them.
fn rolled(batches: i32) -> Rig {
    let options = LogOptions { segment_bytes: Some(64 << 10), ..Default::default() };
    let mut rig = Rig::new(options);
    let other = RecordBatch::builder().value(&[1; 5000]).build().expect("fits");
    for sequence in 0..batches {
        rig.sent(&small(sequence), Ack::LEADER);
        (0..3).for_each(|_| assert!(rig.sent(&other, Ack::LEADER_FLUSHED).records > 0));
    }
    rig
}

#[test]
fn every_roll_leaves_a_snapshot_and_an_opening_replays_no_more_than_behind_it() {
    let mut rig = rolled(40);
    let (segments, snapshots) = (rig.segments(), rig.snapshots());
    assert!(segments.len() > 5, "{segments:?}");
    assert_eq!(snapshots, segments[1..], "one for each segment but the first");
    for survival in [None, Some(Survival::Nothing), Some(Survival::Everything)] {
        rig = rig.crash(survival);
        let report = rig.report();
        let newest = *rig.segments().last().expect("there is one");
        assert!(report.snapshot.is_some_and(|at| at.0 + 40 > newest), "{report:?} of {newest}");
        assert!(report.bytes_replayed <= 2 * (64 << 10) && !report.incomplete, "{report:?}");
        assert_eq!((report.known, &report.unusable[..]), (1, &[][..]));
        assert_eq!(rig.refused(&small(1)), ErrorKind::OutOfOrderSequence);
        assert_eq!(rig.sent(&small(38), Ack::LEADER).base_offset, Offset(38 * 4));
        assert_eq!(rig.refused(&small(41)), ErrorKind::OutOfOrderSequence);
    }
    // What is trimmed takes nobody's state along.
    let end = rig.marks().log_end;
    let trimmed = rig.engine.trim(rig.log, end);
    rig.engine.run_until(&trimmed).expect("trims");
    let rig = rig.close();
    let report = rig.report();
    assert_eq!(
        (report.known, report.snapshot),
        (1, Some(end)),
        "closed with a snapshot at its end"
    );
    assert_eq!(report.bytes_replayed, 0);
    let (segments, snapshots) = (rig.segments(), rig.snapshots());
    assert!(segments.len() <= 2 && snapshots.len() <= 3, "{segments:?} {snapshots:?}");
    let mut rig = rig.crash(None);
    assert_eq!(rig.sent(&small(38), Ack::LEADER).base_offset, Offset(38 * 4));
}

#[test]
fn no_lost_or_damaged_snapshot_loses_a_producer() {
    for all in [false, true] {
        for damaged in [false, true] {
            let case = format!("all {all}, damaged {damaged}");
            let rig = rolled(40);
            let snapshots = rig.snapshots();
            let used = rig.crash(None);
            let at = used.report().snapshot.expect("one is used").0;
            let concerned = snapshots.iter().filter(|offset| all || **offset == at);
            let mut rig = used.killed(|disk| {
                for path in concerned.map(|offset| snapshot_path(*offset)) {
                    if damaged {
                        disk.overwrite_media(&path, 100, &[77; 3]);
                    } else {
                        disk_io(disk, |io| io.remove(&path).expect("removed"));
                    }
                }
            });
            let report = rig.report();
            assert_eq!(report.unusable.is_empty(), !damaged, "{case}: {report:?}");
            assert_eq!(report.snapshot.is_none(), all, "{case}: {report:?}");
            assert_eq!(rig.sent(&small(37), Ack::LEADER).base_offset, Offset(37 * 4), "{case}");
            assert_eq!(rig.refused(&small(41)), ErrorKind::OutOfOrderSequence, "{case}");
            assert_eq!(rig.sent(&small(40), Ack::LEADER).base_offset, Offset(160), "{case}");
        }
    }
}

#[test]
fn a_log_without_producers_keeps_no_snapshot_and_replays_nothing() {
    let options = LogOptions { segment_bytes: Some(64 << 10), ..Default::default() };
    let mut rig = Rig::new(options);
    let plain = RecordBatch::builder().value(&[1; 9000]).build().expect("fits");
    (0..40).for_each(|_| assert!(rig.sent(&plain, Ack::LEADER_FLUSHED).records > 0));
    assert_eq!(rig.snapshots(), []);
    for rig in [rig.crash(None), Rig::new(LogOptions::default()).close()] {
        assert_eq!(rig.snapshots(), []);
        assert_eq!((rig.report().bytes_replayed, rig.report().known), (0, 0));
    }
}

#[test]
fn a_cut_below_a_snapshot_ends_it_even_if_its_file_comes_back() {
    let mut rig = rolled(40);
    let newest = *rig.snapshots().last().expect("there is one");
    let path = snapshot_path(newest);
    let kept = rig.disk.read_file(&path).expect("there is one");
    // Cut a little below, and grow beyond with other records.
    rig.engine.truncate(rig.log, Offset(newest - 8)).expect("works");
    let other = RecordBatch::builder().value(&[2; 5000]).build().expect("fits");
    (0..12).for_each(|_| assert!(rig.sent(&other, Ack::LEADER_FLUSHED).records > 0));
    assert!(rig.marks().flushed.0 > newest);
    // The mark goes to log.meta when the log is idle.
    rig.idle();
    let mut rig = rig.killed(|disk| {
        disk_io(disk, |io| {
            let (file, _) = io.open(&path, Access::CreateNew, true).expect("opens");
            let mut buffer = AlignedBuffer::zeroed(kept.len());
            buffer.copy_from_slice(&kept);
            io.write(file, 0, buffer, kept.len(), true).1.expect("written");
            io.close(file).expect("closed");
        });
    });
    assert!(rig.report().unusable.contains(&Offset(newest)), "{:?}", rig.report());
    let last = i32::try_from((newest - 8).div_ceil(4)).expect("small");
    assert_eq!(rig.refused(&small(last + 1)), ErrorKind::OutOfOrderSequence);
    rig.sent(&small(last), Ack::LEADER);
}

#[test]
fn a_forgotten_producer_begins_a_new_epoch() {
    let expiry = std::time::Duration::from_millis(1000);
    let options = LogOptions { producer_expiry: Some(expiry), ..Default::default() };
    let mut rig = Rig::new(options);
    rig.sent(&small(0), Ack::LEADER);
    let at = |timestamp_ms: i64| {
        let mut builder = RecordBatch::builder();
        builder.push(Some(timestamp_ms), None, Some(b"x"), &[]);
        builder.build().expect("fits")
    };
    // The log's clock gave the first its time.
    let first = rig.engine.read(rig.log, Offset(0), Isolation::Written).expect("readable").next();
    let now = first.expect("there").expect("undamaged").header().max_timestamp_ms;
    rig.sent(&at(now + 1000), Ack::LEADER);
    rig.sent(&small(1), Ack::LEADER);
    rig.sent(&at(now + 2001), Ack::LEADER);
    assert_eq!(rig.refused(&small(2)), ErrorKind::OutOfOrderSequence);
    // Also in the next life.
    let mut rig = rig.crash(None);
    assert_eq!(rig.refused(&small(2)), ErrorKind::OutOfOrderSequence);
    rig.sent(&numbered(1, 0, 1, 4), Ack::LEADER);
    rig.sent(&numbered(1, 1, 1, 4), Ack::LEADER);
}

#[test]
fn a_truncation_behind_a_trim_knows_who_appended_before() {
    let mut rig = rolled(40);
    let segments = rig.segments();
    // The second to last segment is where the log starts now, and then where it ends.
    let start = segments[segments.len() - 2];
    let trimmed = rig.engine.trim(rig.log, Offset(start));
    rig.engine.run_until(&trimmed).expect("trims");
    rig.idle();
    assert!(rig.segments().len() <= 3, "{:?}", rig.segments());
    rig.engine.truncate(rig.log, Offset(start)).expect("works");
    let before = i32::try_from(start.div_ceil(4)).expect("small");
    let again = rig.sent(&small(before - 1), Ack::LEADER).base_offset.0;
    assert_eq!(again, u64::from(before.unsigned_abs() - 1) * 4);
    assert_eq!(rig.refused(&small(before + 1)), ErrorKind::OutOfOrderSequence);
    assert_eq!(rig.sent(&small(before), Ack::LEADER).base_offset, Offset(start));
}
