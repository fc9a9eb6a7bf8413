//! Suspending services whose lease was missed, with what runs below them.

use caracal_authority::ZoneId;
use caracal_cascade::{Suspension, suspend};
use caracal_store::{Store, leases};

use super::ttl::next_zone;
use super::{Failed, JobCounts, each_zone};
use crate::outage::Outage;

/// Suspends every service of every zone whose lease was missed.
pub(crate) async fn sweep(store: &Store, batch: u32, counts: &JobCounts) -> Result<Failed, Outage> {
    let next = |after: Option<ZoneId>| async move { next_zone(store, after.as_ref()).await };
    each_zone("services whose lease was missed could not be suspended", next, |zone| async move {
        let changed = sweep_batch(store, &zone, batch).await?;
        JobCounts::add(&counts.ended, changed);
        Ok(changed > 0)
    })
    .await
}

async fn sweep_batch(store: &Store, zone: &ZoneId, batch: u32) -> Result<usize, Outage> {
    store
        .commit(zone, i64::from(batch.max(1)), |tx, batch| {
            Box::pin(async move {
                let mut suspended = 0;
                for session in leases::list_missed(tx, *batch).await? {
                    // One that was renewed meanwhile is left alone, and one that fell with another counts once.
                    suspended += suspend(tx, &session, Suspension::HeartbeatLost).await?;
                }
                Ok(suspended)
            })
        })
        .await
}
