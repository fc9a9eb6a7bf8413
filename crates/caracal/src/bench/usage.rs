//! What a process has used, as Linux says. Elsewhere nothing is known, and nothing is said.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The kernel counts processor time for programs in ticks of this many per second, whatever its own clock is
/// (proc(5), `USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// Processor time of all threads of a process, those that have ended included.
pub(super) fn processor_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let (user, system) = (fields.nth(11)?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    Some(Duration::from_millis((user + system) * 1_000 / TICKS_PER_SECOND))
}

/// Where this thread is found, by [`thread_time`].
pub(super) fn this_thread() -> Option<PathBuf> {
    Some(Path::new("/proc").join(std::fs::read_link("/proc/thread-self").ok()?))
}

/// Processor time of a thread. The scheduler's own count is exact, and some kernels do without it.
pub(super) fn thread_time(thread: &Path) -> Option<Duration> {
    let counted = std::fs::read_to_string(thread.join("schedstat")).ok()?;
    let nanoseconds = counted.split_whitespace().next()?.parse().ok()?;
    // A kernel that does not count says 0 for a thread that evidently runs.
    (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
}

/// Processor time of these threads together.
pub(super) fn threads_time(threads: &[PathBuf]) -> Option<Duration> {
    // One that has not been on a processor yet is counted as nothing by every kernel.
    let times = threads.iter().map(|thread| thread_time(thread));
    let known: Duration = times.flatten().sum();
    (known > Duration::ZERO).then_some(known)
}

/// Processor time of the threads that this process has now.
pub(super) fn own_threads_time() -> Option<Duration> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    let mut sum = Duration::ZERO;
    for thread in threads {
        // A thread may end while they are gone through.
        sum += thread.ok().and_then(|thread| thread_time(&thread.path())).unwrap_or_default();
    }
    (sum > Duration::ZERO).then_some(sum)
}

/// Memory that a process holds now, in MiB.
pub(super) fn resident_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(kib) / 1_024.0)
}

/// Bytes that a process had written to storage by now.
pub(super) fn bytes_written(pid: u32) -> Option<u64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_memory_and_uses_time() {
        let pid = std::process::id();
        assert!(resident_mib(pid).is_some_and(|mib| mib > 1.0));
        let before = processor_time(pid).unwrap();
        let mut sum = 0_u64;
        while processor_time(pid).unwrap() < before + Duration::from_millis(20) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(bytes_written(pid).is_some() && sum > 0);
    }

    #[test]
    fn a_threads_own_time_is_part_of_that_of_all() {
        let thread = this_thread().unwrap();
        let mut sum = 0_u64;
        // Of a thread that has just begun nothing may have been counted yet.
        while thread_time(&thread).unwrap_or_default() < Duration::from_millis(2) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        let (one, all) = (thread_time(&thread).unwrap(), own_threads_time().unwrap());
        assert!(one >= Duration::from_millis(2) && all >= one && sum > 0, "{one:?} {all:?}");
        assert_eq!(thread_time(Path::new("/proc/self/task/0")), None);
    }

    #[test]
    fn of_a_process_that_is_not_there_nothing_is_known() {
        assert_eq!(processor_time(u32::MAX), None);
        assert_eq!(resident_mib(u32::MAX), None);
    }
}
