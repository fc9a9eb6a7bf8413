//! Ending tasks whose time is up (contract: coordinator.md §13, TTL sweeper).
//!
//! Authority never waits for this: a lapsed task may not act, lend or hold a slot from the very instant on. What the
//! sweep adds is the rest of its end: descendants, delegations, a user's record that nobody uses any more, and the
//! messages by which others hear of it.

use std::time::Duration;

use caracal_authority::ZoneId;
use caracal_authority::session::TerminationReason;
use caracal_cascade::end_sessions;
use caracal_store::{Store, sessions};
use tokio::sync::watch;

use crate::outage::Outage;
use crate::stopped;

/// Sweeps every `interval` until `shutdown` turns true. A sweep under way is finished.
pub(crate) async fn run(store: &Store, interval: Duration, batch: u32, mut shutdown: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stopped(&mut shutdown) => return,
        }
        if let Err(error) = sweep(store, batch).await {
            tracing::error!(%error, "zones with tasks whose time is up could not be found; the next sweep tries again");
        }
    }
}

/// Ends every lapsed task of every zone, also when a zone before it fails.
pub(crate) async fn sweep(store: &Store, batch: u32) -> Result<(), Outage> {
    let mut zone = next_zone(store, None).await?;
    while let Some(current) = zone {
        loop {
            match sweep_batch(store, &current, batch).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(zone = %current, %error, "tasks whose time is up could not be ended");
                    break;
                }
            }
        }
        zone = next_zone(store, Some(&current)).await?;
    }
    Ok(())
}

async fn next_zone(store: &Store, after: Option<&ZoneId>) -> Result<Option<ZoneId>, Outage> {
    let mut snapshot = store.snapshot().await?;
    Ok(sessions::find_running_zone(&mut snapshot.deployment(), after).await?)
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
