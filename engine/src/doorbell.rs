//! Waking a thread that sleeps, and only then.
//!
//! The sleeper says that it is about to sleep and looks for work once more; who leaves work looks
//! whether the sleeper said so. Both write first and read second, with a fence between: at least
//! one of them sees the other, so no wake-up is lost; and of many who left work, one rings. A
//! sleeper that is awake costs them a fence and a load. The test below explores every interleaving.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The bell of one sleeper, for any number of others.
#[derive(Debug)]
pub(crate) struct Doorbell {
    asleep: AtomicBool,
}

impl Doorbell {
    pub(crate) fn new() -> Self {
        Doorbell { asleep: AtomicBool::new(false) }
    }

    /// The sleeper: returns whether it may sleep until someone rings. `is_idle` says whether there
    /// is no work.
    pub(crate) fn fall_asleep(&self, is_idle: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let idle = is_idle();
        if !idle {
            self.wake_up();
        }
        idle
    }

    /// The sleeper: from now on nobody rings.
    pub(crate) fn wake_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// The others, having left work: returns whether the caller is the one to wake the sleeper.
    pub(crate) fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        if !self.asleep.load(Ordering::Relaxed) {
            return false;
        }
        // Of many one; and an exchange that fails writes nothing.
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        self.asleep.compare_exchange(true, false, success, failure).is_ok()
    }
}

/// Run with `RUSTFLAGS="--cfg loom" cargo test -p highwater --lib --release doorbell`.
#[cfg(all(test, loom))]
mod tests {
    use loom::sync::{Arc, Condvar, Mutex};

    use super::Doorbell;

    struct House {
        bell: Doorbell,
        work: Mutex<usize>,
        /// Rung and not yet heard; and how often in all.
        rung: Mutex<(bool, usize)>,
        heard: Condvar,
    }

    impl House {
        fn leave_work(&self) {
            *self.work.lock().unwrap() += 1;
            if self.bell.must_ring() {
                let mut rung = self.rung.lock().unwrap();
                *rung = (true, rung.1 + 1);
                drop(rung);
                self.heard.notify_one();
            }
        }

        /// Works until `pieces` are done; returns how often it was about to sleep.
        fn live(&self, pieces: usize) -> usize {
            let (mut done, mut naps) = (0, 0);
            loop {
                done += std::mem::take(&mut *self.work.lock().unwrap());
                if done == pieces {
                    return naps;
                }
                naps += 1;
                if self.bell.fall_asleep(|| *self.work.lock().unwrap() == 0) {
                    let mut rung = self.rung.lock().unwrap();
                    while !rung.0 {
                        // A lost wake-up is a deadlock here, which loom reports.
                        rung = self.heard.wait(rung).unwrap();
                    }
                    rung.0 = false;
                    drop(rung);
                    self.bell.wake_up();
                }
            }
        }
    }

    #[test]
    fn no_wake_up_is_lost_and_nobody_rings_at_who_is_awake() {
        let mut model = loom::model::Builder::new();
        // Beyond three a run takes minutes, and found nothing.
        model.preemption_bound.get_or_insert(3);
        model.check(|| {
            let house = Arc::new(House {
                bell: Doorbell::new(),
                work: Mutex::new(0),
                rung: Mutex::new((false, 0)),
                heard: Condvar::new(),
            });
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let house = Arc::clone(&house);
                    loom::thread::spawn(move || house.leave_work())
                })
                .collect();
            let naps = house.live(2);
            for other in others {
                other.join().unwrap();
            }
            let rung = house.rung.lock().unwrap().1;
            assert!(rung <= naps, "{rung} rings for {naps} naps");
        });
    }
}
