//! What is counted of providers (contract: sts.md §15).

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts up and never down.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters without labels: what callers send can't make them grow.
#[derive(Default)]
pub struct BrokerMetrics {
    pub(crate) refresh_shared: Counter,
    pub(crate) refresh_leased: Counter,
    pub(crate) refresh_waited: Counter,
    pub(crate) refresh_errors: Counter,
    pub(crate) circuits_opened: Counter,
}

impl BrokerMetrics {
    /// Name without prefix, help, value.
    pub fn series(&self) -> [(&'static str, &'static str, u64); 5] {
        [
            ("provider_refresh_shared_total", "Accounts that somebody else had renewed.", self.refresh_shared.get()),
            (
                "provider_refresh_leased_total",
                "Accounts that this process set out to renew.",
                self.refresh_leased.get(),
            ),
            ("provider_refresh_waited_total", "Accounts whose renewal was waited for.", self.refresh_waited.get()),
            ("provider_refresh_errors_total", "Accounts that had no token.", self.refresh_errors.get()),
            (
                "provider_circuit_open_total",
                "Times that a token endpoint failed so often that it is left alone.",
                self.circuits_opened.get(),
            ),
        ]
    }
}
