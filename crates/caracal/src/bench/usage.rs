//! What a process has used, as Linux says. Elsewhere nothing is known, and nothing is said.

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
    fn of_a_process_that_is_not_there_nothing_is_known() {
        assert_eq!(processor_time(u32::MAX), None);
        assert_eq!(resident_mib(u32::MAX), None);
    }
}
