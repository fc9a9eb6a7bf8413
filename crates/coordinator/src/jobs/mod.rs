//! What has to be done without being asked (contract: coordinator.md §13). Authority never waits for any of it: a task whose
//! time is up may do nothing from that very instant on, because every decision looks at the time. What a job adds is the rest
//! of it: what hangs on it, and the messages by which others hear of it.
//!
//! Each job is run by one process of a cluster at a time, and does nothing wrong when two run it: every change looks again at
//! what it is about to end, and is in turn with the zone's others. A zone that fails keeps no other from its turn, and is tried
//! again with the next run.

pub(crate) mod deadlines;
pub(crate) mod ttl;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::outage::Outage;
use crate::stopped;

/// How often a job ran, how often in vain, and how much it ended, since the process was started.
#[derive(Debug, Default)]
pub struct JobCounts {
    /// Runs that were finished or failed.
    pub runs: AtomicU64,
    /// Runs in which a zone, or all of them, failed.
    pub failures: AtomicU64,
    /// Sessions, or attempts of invocations, that the job ended.
    pub ended: AtomicU64,
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
    /// Attempts of invocations whose deadline had passed.
    pub deadlines: JobCounts,
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
