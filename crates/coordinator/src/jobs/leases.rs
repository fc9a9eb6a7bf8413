//! Suspending services whose lease was missed, with what runs below them.

use caracal_authority::ZoneId;
use caracal_cascade::{Suspension, suspend};
use caracal_store::{Store, leases};

use super::ttl::next_zone;
use super::{Failed, JobCounts};
use crate::outage::Outage;

/// Suspends every service of every zone whose lease was missed.
pub(crate) async fn sweep(store: &Store, batch: u32, counts: &JobCounts) -> Result<Failed, Outage> {
    let (mut zone, mut failed) = (next_zone(store, None).await?, 0);
    while let Some(current) = zone {
        loop {
            match sweep_batch(store, &current, batch).await {
                Ok(0) => break,
                Ok(suspended) => JobCounts::add(&counts.sessions, suspended),
                Err(error) => {
                    tracing::error!(zone = %current, %error, "services whose lease was missed could not be suspended");
                    failed += 1;
                    break;
                }
            }
        }
        zone = next_zone(store, Some(&current)).await?;
    }
    Ok(failed)
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
