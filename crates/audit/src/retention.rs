//! Retention: evidence that is old enough goes, behind an anchor (contract: audit-and-streams.md §5.5).
//!
//! Nothing is removed whose chain was not found intact by this process, from its first row on: an anchor over altered rows
//! would make them genuine. Nor is anything that is not in the archive yet, where there is one.

use std::time::Duration;

use caracal_authority::{Timestamp, ZoneId};
use caracal_ledger::{CLOCK_AHEAD, Chain};
use caracal_store::{Store, StoreError, evidence, retention, transparency};

use crate::Audit;
use crate::metrics::add;

/// Rows removed in one commit.
const BATCH: i64 = 500;
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// For how many days evidence is kept: what operators set, but never longer than `ceiling`. What can't be read counts as
/// the ceiling.
async fn days(store: &Store, ceiling: u32) -> u32 {
    let set = async {
        let mut snapshot = store.snapshot().await?;
        retention::find(&mut snapshot.deployment()).await
    };
    match set.await {
        Ok(set) => set.map_or(ceiling, |set| set.days.min(ceiling)),
        Err(error) => {
            tracing::warn!(%error, days = ceiling, "how long evidence is kept can't be read; the longest time counts");
            ceiling
        }
    }
}

impl Audit {
    /// Removes what is old enough, and says how many events that were.
    pub(crate) async fn retire(&self) -> Result<u64, StoreError> {
        let days = days(&self.store, self.config.retention_days).await;
        let older_than = self.store.now().minus(DAY.saturating_mul(days));
        let chains = {
            let mut snapshot = self.store.snapshot().await?;
            evidence::list_chains(&mut snapshot.deployment()).await?
        };
        let verified = self.sweeps.verified();
        let exported = match &self.archive {
            Some(_) => Some(self.exported().await?),
            None => None,
        };
        for zone in chains {
            let Some(head) = verified.get(&Chain::Evidence(zone.clone())) else { continue };
            let mut through = head.chain_seq;
            if let Some(exported) = &exported {
                through = through.min(exported.as_ref().map_or(0, |exported| exported.through(zone.as_str())));
            }
            if self.anchor(&zone, older_than, through).await? {
                add(&self.metrics.anchors, 1);
            }
        }
        let mut removed = 0;
        // Also what an earlier process had anchored and not removed yet.
        let anchored = {
            let mut snapshot = self.store.snapshot().await?;
            retention::list_anchored(&mut snapshot.deployment()).await?
        };
        for zone in anchored {
            removed += self.remove_anchored(&zone).await?;
        }
        if removed > 0 {
            tracing::info!(removed, days, "evidence was removed for its age");
        }
        Ok(removed)
    }

    /// Most chains have nothing that is old enough; that costs them no commit.
    async fn anchor(&self, zone: &ZoneId, older_than: Timestamp, verified: i64) -> Result<bool, StoreError> {
        let mut through = verified;
        {
            let mut snapshot = self.store.snapshot().await?;
            let mut tx = snapshot.zone(zone);
            if retention::find_last_older(&mut tx, older_than, self.store.now().plus(CLOCK_AHEAD)).await?.is_none() {
                return Ok(false);
            }
            if self.config.keeps_trees {
                // What a tree is made of must be there until it is in it.
                through = through.min(transparency::find_tree(&mut tx).await?.map_or(0, |tree| tree.size));
            }
        }
        self.store
            .commit(zone, (self.ledger.clone(), older_than, through), |tx, (ledger, older_than, through)| {
                Box::pin(async move { ledger.anchor(tx, *older_than, *through).await })
            })
            .await
    }

    async fn remove_anchored(&self, zone: &ZoneId) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let some: usize =
                self.store.commit(zone, (), |tx, ()| Box::pin(retention::remove_anchored(tx, BATCH))).await?;
            let some = u64::try_from(some).unwrap_or(0);
            add(&self.metrics.removed, some);
            removed += some;
            if some < BATCH.unsigned_abs() {
                return Ok(removed);
            }
        }
    }
}
