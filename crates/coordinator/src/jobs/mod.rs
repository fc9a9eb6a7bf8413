//! What has to be done without being asked (contract: coordinator.md §13). Authority never waits for any of it: a task whose
//! time is up, a service whose lease was missed and a delegation that lapsed may do nothing from that very instant on,
//! because every decision looks at the time. What a job adds is the rest of it: what hangs on them, and the messages by which
//! others hear of it.
//!
//! Each job is run by one process of a cluster at a time, and does nothing wrong when two run it: every statement says in its
//! condition what it relies on, and every change is in turn with the zone's others. A zone that fails keeps no other from its
//! turn, and is tried again with the next run.

pub(crate) mod deadlines;
pub(crate) mod leases;
pub(crate) mod records;
pub(crate) mod retention;
pub(crate) mod ttl;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caracal_authority::ZoneId;
use tokio::sync::watch;

use crate::outage::Outage;
use crate::stopped;

/// How often a job ran, how often in vain, and what it did, since the process was started.
#[derive(Debug, Default)]
pub struct JobCounts {
    /// Runs that were finished or failed.
    pub runs: AtomicU64,
    /// Runs in which a zone, or all of them, failed.
    pub failures: AtomicU64,
    /// Sessions that the job ended, suspended or removed; attempts of invocations that it ended; records that it chained.
    pub ended: AtomicU64,
    /// Delegations that it marked as expired.
    pub expired_edges: AtomicU64,
    /// Delegations that it removed.
    pub deleted_edges: AtomicU64,
}

impl JobCounts {
    pub(crate) fn add(counter: &AtomicU64, by: usize) {
        counter.fetch_add(u64::try_from(by).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The counts of all jobs.
#[derive(Debug, Default)]
pub struct Jobs {
    /// Tasks whose time was up.
    pub ttl: JobCounts,
    /// Services whose lease was missed.
    pub leases: JobCounts,
    /// Attempts of invocations whose deadline had passed.
    pub deadlines: JobCounts,
    /// Records of heartbeats.
    pub records: JobCounts,
    /// What is over.
    pub retention: JobCounts,
}

/// What others remove on the Coordinator's behalf, since the process was started: messages leave with their delivery, and
/// receipts are forgotten by the housekeeping of all services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Messages that were sent.
    pub messages: u64,
    /// Idempotency receipts past their retention.
    pub receipts: u64,
}

/// What came of a run: zones in which something failed.
pub(crate) type Failed = usize;

/// Runs `once` every `interval`, the first time after one, until `shutdown` turns true. A run under way is finished.
pub(crate) async fn every<F>(
    name: &'static str,
    interval: Duration,
    counts: &JobCounts,
    mut shutdown: watch::Receiver<bool>,
    mut once: impl FnMut() -> F,
) where
    F: Future<Output = Result<Failed, Outage>>,
{
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stopped(&mut shutdown) => return,
        }
        let outcome = once().await;
        if let Err(error) = &outcome {
            tracing::error!(job = name, %error, "zones with work to do could not be found; the next run tries again");
        }
        JobCounts::add(&counts.runs, 1);
        JobCounts::add(&counts.failures, usize::from(outcome.map_or(true, |failed| failed > 0)));
    }
}

/// Goes through the zones that `next` finds after one another, and has `batch` work in each until it says that nothing is left
/// there, or fails; `trouble` says in the log what then could not be done.
pub(crate) async fn each_zone<N, B>(
    trouble: &'static str,
    mut next: impl FnMut(Option<ZoneId>) -> N,
    mut batch: impl FnMut(ZoneId) -> B,
) -> Result<Failed, Outage>
where
    N: Future<Output = Result<Option<ZoneId>, Outage>>,
    B: Future<Output = Result<bool, Outage>>,
{
    let (mut zone, mut failed) = (next(None).await?, 0);
    while let Some(current) = zone {
        loop {
            match batch(current.clone()).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(zone = %current, %error, "{trouble}");
                    failed += 1;
                    break;
                }
            }
        }
        zone = next(Some(current)).await?;
    }
    Ok(failed)
}
