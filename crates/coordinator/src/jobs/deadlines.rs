//! Ending attempts of invocations whose deadline has passed (contract: coordinator.md §7).

use caracal_authority::ZoneId;
use caracal_authority::invocation::{InvocationMove, InvocationStatus};
use caracal_cascade::events;
use caracal_store::invocations::{self, Invocation};
use caracal_store::{Store, ZoneWrite};
use serde_json::json;

use super::{Failed, JobCounts, each_zone};
use crate::invocations::attempts;
use crate::outage::Outage;

/// Ends every overdue attempt of every zone.
pub(crate) async fn enforce(store: &Store, batch: u32, counts: &JobCounts) -> Result<Failed, Outage> {
    let next = |after: Option<ZoneId>| async move { next_zone(store, after.as_ref()).await };
    each_zone("overdue invocations could not be ended", next, |zone| async move {
        let ended = end_batch(store, &zone, batch).await?;
        JobCounts::add(&counts.ended, ended);
        Ok(ended > 0)
    })
    .await
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
