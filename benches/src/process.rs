//! What this process and this machine have used.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The length of one tick of `/proc/stat`, fixed by the kernel's interface.
const TICK: Duration = Duration::from_millis(10);

/// Returns the processor time (user and system) of all threads of this process so far, those of
/// the kernel's `io_uring` workers among them. What the kernel does for it elsewhere - writing
/// back dirty pages - is not in it.
#[must_use]
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Returns the time all processors of the machine were busy since it started; `None` if the kernel
/// does not tell. Other processes are in it.
#[must_use]
pub fn machine_busy_time() -> Option<Duration> {
    busy_time(&fs::read_to_string("/proc/stat").ok()?)
}

fn busy_time(stat: &str) -> Option<Duration> {
    let ticks = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks: Vec<u32> = ticks.map(str::parse).collect::<Result<_, _>>().ok()?;
    // user nice system idle iowait irq softirq; the rest is in these or stolen.
    let busy: u32 = [0, 1, 2, 5, 6].iter().filter_map(|field| ticks.get(*field)).sum();
    Some(TICK * busy)
}

/// Returns the largest memory this process has had resident, in bytes; `None` if the kernel does
/// not tell.
#[must_use]
pub fn peak_resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_not_being_busy() {
        let stat = "cpu  100 10 20 9999 8888 1 2 0 0 0\ncpu0 1 1 1 1 1\n";
        assert_eq!(busy_time(stat), Some(TICK * 133));
        assert_eq!(busy_time("intr 1"), None);
    }

    #[test]
    fn working_takes_processor_time_and_memory() {
        let before = cpu_time();
        let mut sum = 0u64;
        while cpu_time() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(peak_resident_bytes().is_some_and(|bytes| bytes > 1 << 16));
    }
}
