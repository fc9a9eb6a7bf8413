//! The sweep: every chain, from its first row, at start and then hourly. Findings are counted, logged, and make the
//! service unready: evidence that does not verify must not look like evidence that does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use caracal_ledger::{LedgerReport, Problem};
use tokio::sync::watch;

use crate::Audit;

const INTERVAL: Duration = Duration::from_secs(3_600);

/// What the sweeps have found.
#[derive(Default)]
pub(crate) struct Sweeps {
    checked: AtomicU64,
    mismatches: AtomicU64,
    breaks: AtomicU64,
    seals: AtomicU64,
    last: AtomicI64,
    broken: AtomicBool,
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

    /// Whether the last sweep found every chain intact. Before the first one ends, there is nothing against them.
    pub(crate) fn is_intact(&self) -> bool {
        !self.broken.load(Ordering::Relaxed)
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
    }
}

impl Audit {
    /// Verifies every chain now, and hourly until `shutdown` turns true.
    pub async fn run_sweep(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        loop {
            let verifier = self.verifier.clone();
            let sweep = tokio::task::spawn_blocking(move || verifier.verify());
            tokio::select! {
                // A pass that is under way only reads; it may be left behind.
                _ = shutdown.wait_for(|stop| *stop) => return,
                ended = sweep => match ended.map_err(|error| error.to_string()).and_then(|verdict| verdict) {
                    Ok(report) => self.judge(&report),
                    Err(error) => tracing::error!(error, "the ledger could not be verified"),
                },
            }
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(INTERVAL) => {}
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
