//! `PATCH /zones/:zoneId/agents/:id/suspend` and `…/resume` (contract: coordinator.md §4.4, difference D15): stopping a
//! session and all below it, and letting them go on. A suspended session can do nothing from the very commit on, because
//! whoever mints or enforces looks at its status; nothing lasting is published, so that resuming it restores everything.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use caracal_authority::AgentSessionId;
use caracal_cascade::Suspension;
use caracal_http::Problem;
use caracal_ledger::Ledger;
use caracal_store::{StoreError, ZoneWrite, sessions};
use serde_json::json;

use crate::Coordinator;
use crate::auth::IdentityRevoked;
use crate::evidence::{Caller, record_success};
use crate::outage::Outage;
use crate::wire::{Answer, refusal};

/// Why nothing is suspended or resumed, in the contract's order.
#[derive(Debug, thiserror::Error)]
enum PauseRefused {
    #[error(transparent)]
    Caller(#[from] IdentityRevoked),
    #[error("no such session")]
    NotFound,
    #[error("the session is another application's")]
    Ownership,
    #[error("the session is not active, so it can't be suspended")]
    NotActive,
    #[error("the session is not suspended, so it can't be resumed")]
    NotSuspended,
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<StoreError> for PauseRefused {
    fn from(error: StoreError) -> Self {
        Self::Outage(error.into())
    }
}

impl From<PauseRefused> for Problem {
    fn from(error: PauseRefused) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            PauseRefused::Caller(revoked) => return revoked.into(),
            PauseRefused::NotFound => (StatusCode::NOT_FOUND, "session_not_found"),
            PauseRefused::Ownership => (StatusCode::FORBIDDEN, "application_ownership_required"),
            PauseRefused::NotActive => (StatusCode::CONFLICT, "session_not_found_or_not_active"),
            PauseRefused::NotSuspended => (StatusCode::CONFLICT, "session_not_found_or_not_suspended"),
            PauseRefused::Outage(outage) => return outage.problem(),
        };
        refusal(status, code).describe(message)
    }
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Suspend,
    /// With the length of the leases that services get.
    Resume(Duration),
}

struct Pause {
    caller: Arc<Caller>,
    ledger: Ledger,
    id: AgentSessionId,
    way: Way,
}

/// Suspends a session and what lies below it.
pub(crate) async fn suspend(
    coordinator: &Coordinator,
    caller: Arc<Caller>,
    id: AgentSessionId,
) -> Result<Answer, Problem> {
    let suspended = commit(coordinator, caller, id, Way::Suspend).await?;
    Ok(Answer::ok(json!({"suspended": suspended})))
}

/// Resumes a session and what lies below it.
pub(crate) async fn resume(
    coordinator: &Coordinator,
    caller: Arc<Caller>,
    id: AgentSessionId,
) -> Result<Answer, Problem> {
    let resumed = commit(coordinator, caller, id, Way::Resume(coordinator.config.service_lease)).await?;
    Ok(Answer::ok(json!({"resumed": resumed})))
}

async fn commit(
    coordinator: &Coordinator,
    caller: Arc<Caller>,
    id: AgentSessionId,
    way: Way,
) -> Result<usize, PauseRefused> {
    let zone = caller.principal.zone().clone();
    let pause = Pause { caller, ledger: coordinator.ledger.clone(), id, way };
    coordinator.store.commit(&zone, pause, |tx, pause| Box::pin(pause.commit(tx))).await
}

impl Pause {
    async fn commit(&self, tx: &mut ZoneWrite<'_>) -> Result<usize, PauseRefused> {
        let principal = &self.caller.principal;
        principal.check_alive(tx).await??;
        let session = sessions::lookup(tx, &self.id).await?.ok_or(PauseRefused::NotFound)?;
        if !principal.is_admin() && !principal.may_for("coordinator.spawn_for", session.application_id.as_str()) {
            return Err(PauseRefused::Ownership);
        }
        let changed = match self.way {
            Way::Suspend => caracal_cascade::suspend(tx, &session, Suspension::Requested).await,
            Way::Resume(lease) => caracal_cascade::resume(tx, &session, lease).await,
        };
        match (changed.map_err(Outage::from)?, self.way) {
            (0, Way::Suspend) => Err(PauseRefused::NotActive),
            (0, Way::Resume(_)) => Err(PauseRefused::NotSuspended),
            (changed, _) => {
                record_success(tx, &self.ledger, &self.caller, StatusCode::OK.as_u16()).await?;
                Ok(changed)
            }
        }
    }
}
