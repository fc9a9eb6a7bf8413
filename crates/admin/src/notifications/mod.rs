//! Who sends approval events to the sinks of their zones (contract: admin-api.md §8, audit-and-streams.md §8.4).
//!
//! Ann's agent asks for something that a human has to agree to. The STS answers, and in the same commit the zone's chain
//! gets the event `step_up_issued`. One process of the deployment is elected to look after sinks. A second later it finds that
//! the zone's chain is further on than its sinks: it writes one delivery for each sink that wants the event and moves the
//! sink's place in the chain, in one commit, so that a crash neither loses an event nor takes it twice ([`take_over`]). Then
//! it sends what is due, sinks side by side, each sink's events one after the other in the order of the chain
//! ([`deliver`]), and what was sent and how it went is in the store before the next is looked at. Should it die between an
//! answer and that note, its successor sends the same delivery under the same id again: at least once, never out of order.
//!
//! A receiver that is away keeps nobody else waiting: it has a place among those that are served only while it is
//! tried, those that failed last have no more than half of the places, and between two tries it has none.

mod deliver;
mod message;
mod take_over;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caracal_store::StoreError;
use caracal_store::notification_sinks::{self, Due, Health};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Admin;

/// How attempts went since the process began.
#[derive(Default)]
pub(crate) struct Tally {
    delivered: AtomicU64,
    failed: AtomicU64,
    abandoned: AtomicU64,
}

impl Tally {
    /// By outcome, for metrics. An attempt that failed for the last time counts as failed and its delivery as abandoned.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 3] {
        [("delivered", &self.delivered), ("failed", &self.failed), ("abandoned", &self.abandoned)]
            .map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed)))
    }
}

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);
/// Sinks that are served at the same time, of either health.
const PLACES: usize = 16;

impl Admin {
    /// Sends notifications until `shutdown` turns true; then what is being sent is brought to its end. One process of a
    /// deployment does so at a time.
    pub async fn run_notifications(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let (mut well, mut failing) = (JoinSet::new(), JoinSet::new());
        while !*shutdown.borrow() {
            let looked = async {
                self.take_over_events().await?;
                self.start_due(&mut well, Health::Well, &shutdown).await?;
                self.start_due(&mut failing, Health::Failing, &shutdown).await
            };
            if let Err(error) = looked.await {
                tracing::warn!(%error, "notifications wait until the store can be asked");
            }
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        while well.join_next().await.is_some() || failing.join_next().await.is_some() {}
    }

    /// One pass: takes over what was recorded, tries everything that is due once, and returns when that is done.
    pub async fn send_due_notifications(self: &Arc<Self>) -> Result<(), StoreError> {
        let (_stop, never) = watch::channel(false);
        self.take_over_events().await?;
        for health in [Health::Well, Health::Failing] {
            let mut serving = JoinSet::new();
            self.start_due(&mut serving, health, &never).await?;
            while serving.join_next().await.is_some() {}
        }
        Ok(())
    }

    /// Begins to serve sinks that are due, as far as there are places.
    async fn start_due(
        self: &Arc<Self>,
        serving: &mut JoinSet<()>,
        health: Health,
        stopping: &watch::Receiver<bool>,
    ) -> Result<(), StoreError> {
        while serving.try_join_next().is_some() {}
        let free = PLACES.saturating_sub(serving.len());
        if free == 0 {
            return Ok(());
        }
        for due in self.due(health, free).await? {
            serving.spawn(self.clone().serve(due, stopping.clone()));
        }
        Ok(())
    }

    async fn due(&self, health: Health, most: usize) -> Result<Vec<Due>, StoreError> {
        let mut snapshot = self.store.snapshot().await?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        notification_sinks::list_due(&mut snapshot.deployment(), health, most).await
    }
}
