//! The job that ends attempts whose deadline has passed (contract: coordinator.md §7, §13, deadline enforcer).
//!
//! One process of all does it, elected by whoever composes the services; and should two do it for a moment, each commit
//! looks again, so an attempt is ended once. What is damaged keeps its zone waiting and no other.

use std::time::Duration;

use caracal_authority::ZoneId;
use caracal_authority::invocation::{InvocationMove, InvocationStatus};
use caracal_store::invocations::{self, Invocation};
use caracal_store::{Store, ZoneWrite};
use serde_json::json;
use tokio::sync::watch;

use super::transitions::attempts;
use crate::events;
use crate::outage::Outage;
use crate::stopped;

/// Looks every `interval` until `shutdown` turns true. What is under way is finished.
pub(crate) async fn run(store: &Store, interval: Duration, batch: u32, mut shutdown: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stopped(&mut shutdown) => return,
        }
        if let Err(error) = enforce(store, batch).await {
            tracing::error!(%error, "zones with overdue invocations could not be found; it is tried again");
        }
    }
}

/// Ends every overdue attempt of every zone, also when a zone before it fails.
async fn enforce(store: &Store, batch: u32) -> Result<(), Outage> {
    let mut zone = next_zone(store, None).await?;
    while let Some(current) = zone {
        loop {
            match end_batch(store, &current, batch).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(zone = %current, %error, "overdue invocations could not be ended");
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
    Ok(invocations::find_overdue_zone(&mut snapshot.deployment(), after).await?)
}

async fn end_batch(store: &Store, zone: &ZoneId, batch: u32) -> Result<usize, Outage> {
    store
        .commit(zone, i64::from(batch.max(1)), |tx, batch| {
            Box::pin(async move {
                let overdue = invocations::list_overdue(tx, *batch).await?;
                let mut ended = 0;
                for invocation in overdue {
                    ended += usize::from(end(tx, invocation).await?);
                }
                Ok(ended)
            })
        })
        .await
}

/// Ends one attempt: another may begin while any is left, unless the worker had been asked to stop. `false` when there is
/// none to end.
async fn end(tx: &mut ZoneWrite<'_>, mut invocation: Invocation) -> Result<bool, Outage> {
    let ended = invocation.status.after(InvocationMove::TimeOut, attempts(&invocation)?);
    let Ok(ended) = ended else { return Ok(false) };
    invocation.status = ended;
    invocation.completed_at = Some(tx.now());
    invocation.error = json!({"reason": "deadline_exceeded"}).as_object().cloned();
    invocations::update(tx, &invocation).await?;
    let event = if ended == InvocationStatus::TimedOut { "invocation.timed_out" } else { "invocation.failed" };
    events::invocation_moved(tx, event, &invocation).await?;
    Ok(true)
}
