//! What is looked at every half minute of the frames' topic, for metrics and readiness (contract: audit-and-streams.md §7).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use caracal_stream::{AUDIT_DEAD_LETTERS, AUDIT_EVENTS, StreamError};
use tokio::sync::watch;

use crate::Audit;
use crate::dlq::age_secs;
use crate::ingest::GROUP;

const INTERVAL: Duration = Duration::from_secs(30);

/// From how much on the service is not ready; none is never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Thresholds {
    /// `AUDIT_READY_DLQ_MAX`: frames put aside.
    pub dead: Option<u64>,
    /// `AUDIT_READY_LAG_MAX`: frames not in the ledger yet.
    pub lag: Option<u64>,
    /// `AUDIT_READY_PEL_OLDEST_SECS_MAX`: seconds for which a frame was read and not stored.
    pub oldest_pending_secs: Option<u64>,
}

impl Audit {
    /// Looks until `shutdown` turns true.
    pub async fn run_gauges(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        loop {
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "the frames' topic can't be looked at");
            }
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// One look.
    pub(crate) async fn look(&self) -> Result<(), StreamError> {
        let now = self.store.now();
        let age = |id: &str| age_secs(id, now).unsigned_abs();
        let groups = self.streams.list_groups(AUDIT_EVENTS).await?;
        let group = groups.iter().find(|group| group.name == GROUP);
        // What nobody was handed yet counts as well: a reader that stands still must not look idle.
        let lag = group.map_or(0, |group| group.pending + group.lag);
        let oldest = group.and_then(|group| group.oldest_pending.as_deref()).map_or(0, age);
        let dead = self.streams.count(AUDIT_DEAD_LETTERS).await?;
        let first = self.streams.list_raw(AUDIT_DEAD_LETTERS, None, 1).await?;
        self.metrics.lag.store(lag, Ordering::Relaxed);
        self.metrics.oldest_pending_secs.store(oldest, Ordering::Relaxed);
        self.metrics.dead.store(dead, Ordering::Relaxed);
        self.metrics.oldest_dead_secs.store(first.first().map_or(0, |entry| age(&entry.id)), Ordering::Relaxed);
        Ok(())
    }

    /// The first threshold that is passed, as a reason not to be ready.
    pub(crate) fn passed_threshold(&self) -> Option<&'static str> {
        let Thresholds { dead, lag, oldest_pending_secs } = self.config.thresholds;
        let looked = [
            (dead, &self.metrics.dead, "audit_dlq_threshold"),
            (lag, &self.metrics.lag, "audit_lag_threshold"),
            (oldest_pending_secs, &self.metrics.oldest_pending_secs, "audit_pel_oldest_threshold"),
        ];
        let passed =
            looked.into_iter().find(|(most, now, _)| most.is_some_and(|most| now.load(Ordering::Relaxed) > most));
        passed.map(|(_, _, reason)| reason)
    }
}
