//! Durations, counted in buckets: what the last call took says nothing about the others.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in microseconds, and as Prometheus writes them in seconds.
const BOUNDS: [(u64, &str); 14] = [
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
];

/// A histogram of durations.
#[derive(Default)]
pub(crate) struct Histogram {
    /// One for each bound, each counting what no smaller one does.
    buckets: [AtomicU64; BOUNDS.len()],
    /// Beyond all bounds.
    beyond: AtomicU64,
    sum_micros: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bound = BOUNDS.iter().position(|(bound, _)| micros <= *bound);
        bound.and_then(|at| self.buckets.get(at)).unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many were observed.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().chain([&self.beyond]).map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Appends its lines in Prometheus text.
    pub(crate) fn write(&self, text: &mut String, name: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP caracal_gateway_{name} {help}\n# TYPE caracal_gateway_{name} histogram");
        let mut count = 0;
        for (bucket, (_, bound)) in self.buckets.iter().zip(BOUNDS) {
            count += bucket.load(Ordering::Relaxed);
            let _ = writeln!(text, "caracal_gateway_{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        count += self.beyond.load(Ordering::Relaxed);
        let sum = self.sum_micros.load(Ordering::Relaxed);
        let _ = writeln!(text, "caracal_gateway_{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "caracal_gateway_{name}_sum {}.{:06}", sum / 1_000_000, sum % 1_000_000);
        let _ = writeln!(text, "caracal_gateway_{name}_count {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_everything_up_to_its_bound() {
        let histogram = Histogram::default();
        for micros in [0, 1_000, 1_001, 40_000, 30_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut text = String::new();
        histogram.write(&mut text, "x_seconds", "X.");
        let value = |line: &str| {
            let found =
                text.lines().find_map(|found| found.strip_prefix(&format!("caracal_gateway_x_seconds_{line} ")));
            found.map(str::to_owned).unwrap_or_default()
        };
        assert!(text.starts_with("# HELP caracal_gateway_x_seconds X.\n# TYPE caracal_gateway_x_seconds histogram\n"));
        assert_eq!(value("bucket{le=\"0.001\"}"), "2");
        assert_eq!(value("bucket{le=\"0.0025\"}"), "3");
        assert_eq!(value("bucket{le=\"0.05\"}"), "4");
        assert_eq!(value("bucket{le=\"30\"}"), "4");
        assert_eq!((value("bucket{le=\"+Inf\"}"), value("count")), ("5".to_owned(), "5".to_owned()));
        assert_eq!(value("sum"), "30.042002");
        assert_eq!(histogram.count(), 5);
    }
}
