//! Ending tasks whose time is up.

use caracal_authority::ZoneId;
use caracal_authority::session::TerminationReason;
use caracal_cascade::end_sessions;
use caracal_store::{Store, leases, sessions};

use super::{Failed, JobCounts, each_zone};
use crate::outage::Outage;

/// Ends every lapsed task of every zone.
pub(crate) async fn sweep(store: &Store, batch: u32, counts: &JobCounts) -> Result<Failed, Outage> {
    let next = |after: Option<ZoneId>| async move { next_zone(store, after.as_ref()).await };
    each_zone("tasks whose time is up could not be ended", next, |zone| async move {
        let changed = sweep_batch(store, &zone, batch).await?;
        JobCounts::add(&counts.ended, changed);
        Ok(changed > 0)
    })
    .await
}

/// The next zone in which something is past its time.
pub(super) async fn next_zone(store: &Store, after: Option<&ZoneId>) -> Result<Option<ZoneId>, Outage> {
    let mut snapshot = store.snapshot().await?;
    Ok(leases::find_overdue_zone(&mut snapshot.deployment(), after).await?)
}

async fn sweep_batch(store: &Store, zone: &ZoneId, batch: u32) -> Result<usize, Outage> {
    store
        .commit(zone, i64::from(batch.max(1)), |tx, batch| {
            Box::pin(async move {
                let lapsed = sessions::list_lapsed_tasks(tx, *batch).await?;
                if lapsed.is_empty() {
                    return Ok(0);
                }
                Ok(end_sessions(tx, &lapsed, &TerminationReason::Ttl).await?.sessions)
            })
        })
        .await
}
