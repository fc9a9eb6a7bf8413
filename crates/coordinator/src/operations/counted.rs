//! What is counted in the store, and remembered for a moment: counting reads whole indexes, and whoever watches asks often.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caracal_authority::Timestamp;
use caracal_http::Problem;
use caracal_store::{Store, invocations, outbox, receipts};

use crate::Coordinator;
use crate::outage::Outage;

/// How long counts are repeated.
const FRESH: Duration = Duration::from_secs(15);

/// Counts of the whole deployment at one instant.
#[derive(Debug)]
pub(crate) struct Counted {
    at: Timestamp,
    /// By status, those that occur.
    pub(super) invocations: Vec<(&'static str, i64)>,
    /// Messages that wait and messages that are dead. What was sent is removed (difference D27).
    pub(super) outbox: [(&'static str, i64); 2],
    /// Idempotency receipts, expired ones until they are removed.
    pub(super) receipts: i64,
    /// The age of the oldest of them; 0 when there is none.
    pub(super) oldest_receipt_seconds: i64,
}

/// The last counts.
#[derive(Debug, Default)]
pub(crate) struct CountedCache(Mutex<Option<Arc<Counted>>>);

impl CountedCache {
    /// Counts that are at most [`FRESH`] old.
    pub(super) async fn read(&self, coordinator: &Coordinator) -> Result<Arc<Counted>, Problem> {
        let now = coordinator.store.now();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.filter(|known| known.at <= now && now < known.at.plus(FRESH)) {
            return Ok(known);
        }
        let counted = Arc::new(count(&coordinator.store).await.map_err(|outage| outage.problem())?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(counted.clone());
        Ok(counted)
    }
}

async fn count(store: &Store) -> Result<Counted, Outage> {
    let mut snapshot = store.snapshot().await?;
    let mut all = snapshot.deployment();
    let at = all.now();
    let invocations = invocations::count_by_status(&mut all).await?;
    let backlog = outbox::backlog(&mut all).await?;
    let (receipts, oldest) = receipts::count_all(&mut all).await?;
    Ok(Counted {
        at,
        invocations: invocations.into_iter().map(|(status, count)| (status.as_str(), count)).collect(),
        outbox: [("pending", backlog.pending), ("dead", backlog.dead)],
        receipts,
        oldest_receipt_seconds: oldest.map_or(0, |oldest| (at.as_seconds() - oldest.as_seconds()).max(0)),
    })
}
