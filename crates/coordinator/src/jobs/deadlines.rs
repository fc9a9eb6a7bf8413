//! Ending attempts of invocations whose deadline has passed, and what nobody has begun in time (contract: coordinator.md §7,
//! W20).

use std::time::Duration;

use caracal_authority::ZoneId;
use caracal_authority::invocation::{InvocationMove, InvocationStatus};
use caracal_cascade::events;
use caracal_store::invocations::{self, Invocation};
use caracal_store::{Store, ZoneWrite};
use serde_json::json;

use super::{Failed, JobCounts, each_zone};
use crate::invocations::attempts;
use crate::outage::Outage;

/// Ends every overdue attempt of every zone, and whatever waited longer than `waits` for a worker to begin.
pub(crate) async fn enforce(store: &Store, waits: Duration, batch: u32, counts: &JobCounts) -> Result<Failed, Outage> {
    let attempts = enforce_deadlines(store, batch, counts).await?;
    Ok(attempts + end_unstarted(store, waits, batch, counts).await?)
}

async fn enforce_deadlines(store: &Store, batch: u32, counts: &JobCounts) -> Result<Failed, Outage> {
    let next = |after: Option<ZoneId>| async move { next_zone(store, after.as_ref()).await };
    each_zone("overdue invocations could not be ended", next, |zone| async move {
        let ended = end_batch(store, &zone, batch).await?;
        JobCounts::add(&counts.ended, ended);
        Ok(ended > 0)
    })
    .await
}

async fn end_unstarted(store: &Store, waits: Duration, batch: u32, counts: &JobCounts) -> Result<Failed, Outage> {
    let next = |after: Option<ZoneId>| async move {
        let mut snapshot = store.snapshot().await?;
        let before = snapshot.now().minus(waits);
        Ok(invocations::find_unstarted_zone(&mut snapshot.deployment(), after.as_ref(), before).await?)
    };
    each_zone("invocations that nobody began could not be ended", next, |zone| async move {
        let ended = end_unstarted_batch(store, &zone, waits, batch).await?;
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

async fn end_unstarted_batch(store: &Store, zone: &ZoneId, waits: Duration, batch: u32) -> Result<usize, Outage> {
    store
        .commit(zone, (waits, i64::from(batch.max(1))), |tx, (waits, batch)| {
            Box::pin(async move {
                let before = tx.now().minus(*waits);
                let mut ended = 0;
                for invocation in invocations::list_unstarted(tx, before, *batch).await? {
                    ended += usize::from(end(tx, invocation).await?);
                }
                Ok(ended)
            })
        })
        .await
}

/// Ends one attempt, or the wait for the first: another may begin while any is left, unless the worker had been asked to stop. `false` when there is
/// none to end.
async fn end(tx: &mut ZoneWrite<'_>, mut invocation: Invocation) -> Result<bool, Outage> {
    let reason = if invocation.status == InvocationStatus::Pending { "not_started" } else { "deadline_exceeded" };
    let ended = invocation.status.after(InvocationMove::TimeOut, attempts(&invocation)?);
    let Ok(ended) = ended else { return Ok(false) };
    invocation.status = ended;
    invocation.completed_at = Some(tx.now());
    invocation.error = json!({"reason": reason}).as_object().cloned();
    invocations::update(tx, &invocation).await?;
    let event = if ended == InvocationStatus::TimedOut { "invocation.timed_out" } else { "invocation.failed" };
    events::invocation_moved(tx, event, &invocation).await?;
    Ok(true)
}
