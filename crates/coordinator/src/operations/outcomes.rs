//! What became of requests with an idempotency key, since this process was started.

use std::sync::atomic::{AtomicU64, Ordering};

use caracal_http::Problem;

use crate::wire::Answer;

/// Counts of requests with a key.
#[derive(Debug, Default)]
pub(crate) struct KeyOutcomes {
    created: AtomicU64,
    replayed: AtomicU64,
    conflicts: AtomicU64,
    invalid: AtomicU64,
    expired: AtomicU64,
}

impl KeyOutcomes {
    /// Counts how such a request ended, if its key had a part in it.
    pub(crate) fn note(&self, outcome: &Result<Answer, Problem>) {
        let counter = match outcome {
            Ok(answer) if answer.replayed => &self.replayed,
            Ok(_) => &self.created,
            Err(problem) => match problem.code() {
                Some("idempotency_key_conflict") => &self.conflicts,
                Some("idempotency_key_invalid" | "idempotency_key_multiple") => &self.invalid,
                Some("idempotency_result_inactive") => &self.expired,
                _ => return,
            },
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Each outcome by its name.
    pub(super) fn counts(&self) -> [(&'static str, u64); 5] {
        [
            ("created", &self.created),
            ("replayed", &self.replayed),
            ("conflicts", &self.conflicts),
            ("invalid", &self.invalid),
            ("expired", &self.expired),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}
