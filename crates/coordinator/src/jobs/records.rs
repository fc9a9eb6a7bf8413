//! Giving the management records of heartbeats their places in the chain (see [`crate::lease`]).

use caracal_authority::ZoneId;
use caracal_ledger::Ledger;
use caracal_store::{Store, waiting_changes};

use super::{Failed, JobCounts, each_zone};
use crate::outage::Outage;

/// Records chained in one commit.
const BATCH: u32 = 64;

/// Chains all that waits, zone by zone.
pub(crate) async fn chain(store: &Store, ledger: &Ledger, counts: &JobCounts) -> Result<Failed, Outage> {
    let next = |after: Option<ZoneId>| async move { next_zone(store, after.as_ref()).await };
    each_zone("records of heartbeats could not be chained yet", next, |zone| async move {
        let chained = ledger.chain_waiting(store, &zone, BATCH).await?;
        JobCounts::add(&counts.ended, chained);
        Ok(chained > 0)
    })
    .await
}

async fn next_zone(store: &Store, after: Option<&ZoneId>) -> Result<Option<ZoneId>, Outage> {
    let mut snapshot = store.snapshot().await?;
    Ok(waiting_changes::find_zone(&mut snapshot.deployment(), after).await?)
}
