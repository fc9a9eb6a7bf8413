//! The text that a monitoring system reads.

use std::fmt::{Display, Write};

use caracal_http::log_counts;

use super::counted::Counted;
use super::job_counts;
use crate::Coordinator;

/// A family of the exposition in the making.
struct Exposition(String);

impl Exposition {
    /// Adds a family of samples, each with the value of its one label, or none.
    fn family(&mut self, name: &str, kind: &str, label: &str, samples: &[(&str, impl Display)]) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# TYPE caracal_{name} {kind}");
        for (of, value) in samples {
            let _ = match *of {
                "" => writeln!(self.0, "caracal_{name} {value}"),
                of => writeln!(self.0, "caracal_{name}{{{label}=\"{of}\"}} {value}"),
            };
        }
    }
}

pub(super) fn text(coordinator: &Coordinator, counted: &Counted) -> String {
    let mut text = Exposition(String::new());
    text.family("invocations_total", "counter", "status", &counted.invocations);
    text.family("outbox_total", "gauge", "status", &counted.outbox);
    text.family("idempotency_requests_total", "counter", "outcome", &coordinator.outcomes.counts());
    text.family("idempotency_receipts", "gauge", "", &[("", counted.receipts)]);
    text.family("idempotency_oldest_seconds", "gauge", "", &[("", counted.oldest_receipt_seconds)]);
    for (name, count) in job_counts::totals(&coordinator.jobs) {
        text.family(name, "counter", "", &[("", count)]);
    }
    let work = coordinator.gate.get().into_iter().flat_map(|gate| gate.counts().series());
    for (name, kind, value, _) in work {
        text.family(&format!("coordinator_{name}"), kind, "", &[("", value)]);
    }
    log_counts::write_metrics(&mut text.0);
    text.0
}
