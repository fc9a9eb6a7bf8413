//! Marking delegations that lapsed, and forgetting what is over.
//!
//! A delegation that lapsed lends nothing from that instant on. Marking it tells those who verify elsewhere: the epoch rises
//! once for all that are marked together. What ended long ago is removed, edges before the sessions they name, as far as
//! nothing that runs depends on its memory ([`caracal_store::forgetting`]).

use std::time::Duration;

use caracal_authority::{Timestamp, ZoneId};
use caracal_cascade::events;
use caracal_store::{Store, ZoneWrite, delegations, forgetting};

use super::{Failed, JobCounts, each_zone};
use crate::outage::Outage;

/// How long what is over is kept, and how much of it goes in one commit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) edges: Duration,
    pub(crate) sessions: Duration,
    pub(crate) batch: u32,
}

/// What one commit did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Done {
    expired: usize,
    edges: usize,
    sessions: usize,
}

/// Cleans every zone.
pub(crate) async fn clean(store: &Store, kept: Kept, counts: &JobCounts) -> Result<Failed, Outage> {
    let next = |after: Option<ZoneId>| async move { next_zone(store, kept, after.as_ref()).await };
    each_zone("what is over could not be marked or removed", next, |zone| async move {
        let done = clean_batch(store, &zone, kept).await?;
        JobCounts::add(&counts.expired_edges, done.expired);
        JobCounts::add(&counts.deleted_edges, done.edges);
        JobCounts::add(&counts.ended, done.sessions);
        Ok(done != Done::default())
    })
    .await
}

async fn next_zone(store: &Store, kept: Kept, after: Option<&ZoneId>) -> Result<Option<ZoneId>, Outage> {
    let mut snapshot = store.snapshot().await?;
    let now = snapshot.now();
    let (edges, sessions) = (now.minus(kept.edges), now.minus(kept.sessions));
    Ok(forgetting::find_zone(&mut snapshot.deployment(), after, edges, sessions).await?)
}

async fn clean_batch(store: &Store, zone: &ZoneId, kept: Kept) -> Result<Done, Outage> {
    store
        .commit(zone, kept, |tx, kept| {
            Box::pin(async move {
                let limit = i64::from(kept.batch.max(1));
                let now = tx.now();
                let expired = expire(tx, limit).await?;
                let (edges, sessions) = forget(tx, now.minus(kept.edges), now.minus(kept.sessions), limit).await?;
                Ok(Done { expired, edges, sessions })
            })
        })
        .await
}

async fn expire(tx: &mut ZoneWrite<'_>, limit: i64) -> Result<usize, Outage> {
    let mut expired = Vec::new();
    for edge in forgetting::list_lapsed_edges(tx, limit).await? {
        if forgetting::expire_edge(tx, &edge).await? {
            expired.push(edge);
        }
    }
    if !expired.is_empty() {
        let epoch = delegations::raise_epoch(tx).await?;
        events::edges_expired(tx, &expired, epoch).await?;
    }
    Ok(expired.len())
}

async fn forget(
    tx: &mut ZoneWrite<'_>,
    edges_before: Timestamp,
    sessions_before: Timestamp,
    limit: i64,
) -> Result<(usize, usize), Outage> {
    let (mut edges, mut sessions) = (0, 0);
    for edge in forgetting::list_forgettable_edges(tx, edges_before, limit).await? {
        edges += usize::from(forgetting::remove_edge(tx, &edge).await?);
    }
    for session in forgetting::list_forgettable_sessions(tx, sessions_before, limit).await? {
        sessions += usize::from(forgetting::remove_session(tx, &session).await?);
    }
    Ok((edges, sessions))
}
