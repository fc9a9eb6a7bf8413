//! The sweep: every chain, from its first row, at start and then hourly. Findings are counted, logged, and make the
//! service unready: evidence that does not verify must not look like evidence that does. Nor must evidence that could
//! not be verified: whoever removes or forges what the verifier needs would silence it otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use caracal_ledger::{LedgerReport, Problem};
use tokio::sync::watch;

use crate::Audit;

const INTERVAL: Duration = Duration::from_secs(3_600);
/// After a sweep that could not run.
const RETRY: Duration = Duration::from_secs(60);

/// What the sweeps have found.
#[derive(Default)]
pub(crate) struct Sweeps {
    checked: AtomicU64,
    mismatches: AtomicU64,
    breaks: AtomicU64,
    seals: AtomicU64,
    last: AtomicI64,
    broken: AtomicBool,
    unverified: AtomicBool,
}

impl Sweeps {
    /// Metric names of audit-and-streams.md §7.3 that exist here, with their values.
    pub(crate) fn counts(&self) -> [(&'static str, i64); 6] {
        let of = |counter: &AtomicU64| i64::try_from(counter.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        [
            ("tamper_checked_total", of(&self.checked)),
            ("tamper_mismatch_total", of(&self.mismatches)),
            ("tamper_chain_breaks", of(&self.breaks)),
            ("tamper_hmac_failures", of(&self.seals)),
            // Every sweep is a full one.
            ("tamper_last_sweep_unix", self.last.load(Ordering::Relaxed)),
            ("tamper_last_full_unix", self.last.load(Ordering::Relaxed)),
        ]
    }

    /// What the last sweep has against the ledger, as a reason not to be ready. Before the first one ends, that is
    /// nothing.
    pub(crate) fn objection(&self) -> Option<&'static str> {
        if self.broken.load(Ordering::Relaxed) {
            return Some("ledger_tampered");
        }
        self.unverified.load(Ordering::Relaxed).then_some("ledger_unverified")
    }

    fn note(&self, report: &LedgerReport, at: i64) {
        self.checked.fetch_add(report.rows(), Ordering::Relaxed);
        for finding in report.chains.iter().flat_map(|chain| &chain.findings) {
            let counter = match finding.problem {
                Problem::ContentMismatch | Problem::UnreadableRow { .. } => &self.mismatches,
                Problem::WrongHmac => &self.seals,
                _ => &self.breaks,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.last.store(at, Ordering::Relaxed);
        self.broken.store(!report.is_intact(), Ordering::Relaxed);
        self.unverified.store(false, Ordering::Relaxed);
    }
}

impl Audit {
    /// Verifies every chain now, and hourly until `shutdown` turns true.
    pub async fn run_sweep(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        loop {
            let verifier = self.verifier.clone();
            let sweep = tokio::task::spawn_blocking(move || verifier.verify());
            let next = tokio::select! {
                // A pass that is under way only reads; it may be left behind.
                _ = shutdown.wait_for(|stop| *stop) => return,
                ended = sweep => match ended.map_err(|error| error.to_string()).and_then(|verdict| verdict) {
                    Ok(report) => {
                        self.judge(&report);
                        INTERVAL
                    }
                    Err(error) => {
                        tracing::error!(error, "the ledger could not be verified");
                        self.sweeps.unverified.store(true, Ordering::Relaxed);
                        RETRY
                    }
                },
            };
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    fn judge(&self, report: &LedgerReport) {
        self.sweeps.note(report, self.store.now().as_seconds());
        match report.first() {
            None => tracing::info!(rows = report.rows(), chains = report.chains.len(), "the ledger verifies"),
            Some((chain, finding)) => tracing::error!(%chain, %finding, "the ledger does not verify"),
        }
    }
}
