//! `GET /zones/:zoneId/outbox`, `POST …/outbox/requeue` and `POST …/outbox/:id/requeue`: messages that the stream refused
//! until they were given up (contract: coordinator.md §8; difference D27: they can be listed, and requeued in bulk).
//! Only a coordinator's administrator sees or moves them; whose they are is judged before anything else is.

use std::sync::Arc;

use axum::http::StatusCode;
use caracal_authority::OutboxId;
use caracal_http::Problem;
use caracal_ledger::Ledger;
use caracal_store::outbox::{self, OutboxRow};
use caracal_store::{StoreError, ZoneWrite};
use serde_json::{Value, json};

use crate::Coordinator;
use crate::auth::{IdentityRevoked, Principal};
use crate::evidence::{Caller, record_success};
use crate::outage::Outage;
use crate::wire::{Answer, refusal};

/// Messages in one answer. Whoever has more of them requeues first.
const LISTED: i64 = 500;
const WHO: &str = "messages of the outbox are for holders of coordinator.admin";

/// Why nothing is requeued.
#[derive(Debug, thiserror::Error)]
enum RequeueRefused {
    #[error(transparent)]
    Caller(#[from] IdentityRevoked),
    #[error("no such message of this zone is dead")]
    NotFound,
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<StoreError> for RequeueRefused {
    fn from(error: StoreError) -> Self {
        Self::Outage(error.into())
    }
}

impl From<RequeueRefused> for Problem {
    fn from(error: RequeueRefused) -> Self {
        let message = error.to_string();
        match error {
            RequeueRefused::Caller(revoked) => revoked.into(),
            RequeueRefused::NotFound => refusal(StatusCode::NOT_FOUND, "dead_outbox_not_found").describe(message),
            RequeueRefused::Outage(outage) => outage.problem(),
        }
    }
}

struct Requeue {
    caller: Arc<Caller>,
    ledger: Ledger,
    /// One message, or all that are dead in the zone.
    id: Option<OutboxId>,
}

/// Lists the zone's dead messages, oldest first.
pub(crate) async fn list_dead(coordinator: &Coordinator, principal: &Principal) -> Result<Answer, Problem> {
    principal.require_admin(WHO)?;
    let outage = |error: StoreError| Outage::from(error).problem();
    let mut snapshot = coordinator.store.snapshot().await.map_err(outage)?;
    let dead = outbox::list_dead(&mut snapshot.zone(principal.zone()), LISTED).await.map_err(outage)?;
    Ok(Answer::ok(json!({"items": dead.iter().map(dead_json).collect::<Vec<_>>()})))
}

/// Gives one dead message another try.
pub(crate) async fn requeue(coordinator: &Coordinator, caller: Arc<Caller>, id: &str) -> Result<Answer, Problem> {
    caller.principal.require_admin(WHO)?;
    let id = OutboxId::parse(id).map_err(|_| refusal(StatusCode::BAD_REQUEST, "invalid_body"))?;
    commit(coordinator, caller, Some(id.clone())).await?;
    Ok(Answer::ok(json!({"id": id, "status": "pending"})))
}

/// Gives all dead messages of the zone another try.
pub(crate) async fn requeue_all(coordinator: &Coordinator, caller: Arc<Caller>) -> Result<Answer, Problem> {
    caller.principal.require_admin(WHO)?;
    let requeued = commit(coordinator, caller, None).await?;
    Ok(Answer::ok(json!({"requeued": requeued})))
}

async fn commit(coordinator: &Coordinator, caller: Arc<Caller>, id: Option<OutboxId>) -> Result<usize, Problem> {
    let zone = caller.principal.zone().clone();
    let requeue = Requeue { caller, ledger: coordinator.ledger.clone(), id };
    let requeued: Result<usize, RequeueRefused> =
        coordinator.store.commit(&zone, requeue, |tx, requeue| Box::pin(requeue.commit(tx))).await;
    Ok(requeued?)
}

impl Requeue {
    async fn commit(&self, tx: &mut ZoneWrite<'_>) -> Result<usize, RequeueRefused> {
        self.caller.principal.check_alive(tx).await??;
        let requeued = outbox::requeue(tx, self.id.as_ref()).await?;
        if self.id.is_some() && requeued == 0 {
            return Err(RequeueRefused::NotFound);
        }
        record_success(tx, &self.ledger, &self.caller, StatusCode::OK.as_u16()).await?;
        Ok(requeued)
    }
}

fn dead_json(row: &OutboxRow) -> Value {
    json!({
        "id": row.id,
        "topic": row.topic,
        "attempts": row.attempts,
        "last_error": row.last_error,
        "created_at": row.created_at,
        "dead_at": row.dead_at,
    })
}
