//! Through the page cache or past it: the same log, the same promises.

use highwater::inspect::verify;
use highwater::{Ack, BackendChoice, Engine, FlushPolicy, Isolation, LogOptions, Mode, Offset};

use crate::basics::{Scratch, batch, on_each_backend, read_all};

/// The bit of `O_DIRECT` in `/proc/self/fdinfo`, x86 and most others; on arm it is another.
const O_DIRECT: [u32; 2] = [0o40000, 0o200_000];

/// Returns how the segments of `scratch` that this process has open were opened: whether direct.
fn open_segments(scratch: &Scratch) -> Vec<bool> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").expect("listed").flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let is_segment = target.extension().is_some_and(|extension| extension == "log");
        if !target.starts_with(&scratch.0) || !is_segment {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{name}")) else {
            continue;
        };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap_or("0").trim(), 8).expect("octal");
        let bit = O_DIRECT[usize::from(cfg!(any(target_arch = "aarch64", target_arch = "arm")))];
        found.push(flags & bit != 0);
    }
    found
}

fn options(mode: Mode) -> LogOptions {
    LogOptions { segment_bytes: Some(256 << 10), mode, ..LogOptions::default() }
}

/// Each life in another mode, ended in order or not; segments are rolled, trimmed and used again.
#[test]
fn a_log_goes_from_mode_to_mode_and_loses_nothing() {
    on_each_backend("modes", |scratch, backend| {
        let mut next = 0;
        let lives = [Mode::Buffered, Mode::Direct, Mode::Buffered, Mode::Buffered, Mode::Direct];
        for (life, mode) in lives.into_iter().enumerate() {
            let engine = Engine::open(scratch.options(backend)).expect("opens");
            let retained = LogOptions { retention_bytes: Some(512 << 10), ..options(mode) };
            let log = engine.log("orders", retained).expect("opens");
            assert!(log.marks().log_end >= Offset(next), "what was written is there");
            next = log.marks().log_end.0;
            let mut receipts = Vec::new();
            for index in 0..400 {
                let ack = [Ack::NONE, Ack::LEADER, Ack::LEADER_FLUSHED, Ack::LEADER][index % 4];
                receipts.push(log.append(batch(next, 7, 300), ack).expect("taken"));
                next += 7;
            }
            for receipt in receipts {
                let appended = receipt.wait().expect("acked");
                assert!(appended.marks.flushed <= appended.marks.written, "D1");
            }
            // Far above what retention may take meanwhile.
            assert_eq!(read_all(&log, next - 300, Isolation::Written), next);
            if life % 2 == 0 {
                engine.close().expect("closes");
            } else {
                drop(engine);
            }
        }
        let verdicts = verify(&scratch.0, None).expect("verified");
        assert!(verdicts[0].damages.is_empty() && verdicts[0].log_end == Offset(next));
    });
}

#[test]
fn segments_are_opened_as_the_mode_says_also_when_it_changes_while_the_log_is_open() {
    for backend in [BackendChoice::Auto, BackendChoice::Threads] {
        let scratch = Scratch::new(&format!("mode-flags-{backend:?}"));
        let engine = Engine::open(scratch.options(backend)).expect("opens");
        let log = engine.log("orders", options(Mode::Direct)).expect("opens");
        let direct = !log.recovery().page_cache;
        let mut next = 0;
        for mode in [Mode::Direct, Mode::Buffered, Mode::Direct, Mode::Buffered] {
            let flush = FlushPolicy::EVERY_GROUP;
            let log = engine.log("orders", LogOptions { flush, ..options(mode) }).expect("opens");
            for _ in 0..3 {
                let receipt = log.append(batch(next, 1, 100), Ack::LEADER_FLUSHED).expect("taken");
                receipt.wait().expect("acked");
                next += 1;
            }
            let expected = direct && mode == Mode::Direct;
            assert_eq!(open_segments(&scratch), [expected], "{mode:?} on {backend:?}");
            assert_eq!(read_all(&log, 0, Isolation::Durable), next);
        }
        engine.close().expect("closes");
        let engine = Engine::open(scratch.options(backend)).expect("opens");
        let log = engine.log("orders", options(Mode::Buffered)).expect("opens");
        log.append(batch(next, 1, 100), Ack::LEADER_FLUSHED).expect("taken").wait().expect("acked");
        assert_eq!(open_segments(&scratch), [false], "the engine opened it before");
    }
}
