//! What became of this process's log lines (contract: admin-api.md §12). Counted here because every service's metrics may
//! show it, and only the composition writes lines.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

// Of the process, as its log is.
static EMITTED: AtomicU64 = AtomicU64::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static SAMPLED: AtomicU64 = AtomicU64::new(0);

/// A line was handed to the queue.
pub fn emitted() {
    EMITTED.fetch_add(1, Ordering::Relaxed);
}

/// A debug line was left out on purpose.
pub fn sampled() {
    SAMPLED.fetch_add(1, Ordering::Relaxed);
}

/// So many lines were lost by now because the queue was full.
pub fn dropped_so_far(lines: u64) {
    DROPPED.fetch_max(lines, Ordering::Relaxed);
}

/// The three counters by their names.
pub fn counts() -> [(&'static str, u64); 3] {
    [("emitted", &EMITTED), ("dropped", &DROPPED), ("sampled", &SAMPLED)]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
}

/// The three counters in the text format of Prometheus.
pub fn write_metrics(text: &mut String) {
    for (name, counter, help) in [
        ("emitted", &EMITTED, "Log lines that were handed to the writer."),
        ("dropped", &DROPPED, "Log lines lost because the writer's queue was full."),
        ("sampled", &SAMPLED, "Debug lines left out on purpose."),
    ] {
        let count = counter.load(Ordering::Relaxed);
        let name = format!("caracal_log_{name}_total");
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {count}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_never_counted_backwards() {
        dropped_so_far(7);
        dropped_so_far(3);
        let mut text = String::new();
        write_metrics(&mut text);
        assert!(text.contains("\ncaracal_log_dropped_total 7\n"), "{text}");
    }
}
