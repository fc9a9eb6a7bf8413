//! `GET /zones/:zoneId/agents/:id` (contract: coordinator.md §4.3). An application sees its own sessions; everyone else's
//! do not exist for it (difference D26).

use axum::http::StatusCode;
use caracal_authority::AgentSessionId;
use caracal_http::Problem;
use caracal_store::sessions::{self, SessionRow};
use serde_json::{Value, json};

use crate::Coordinator;
use crate::auth::Principal;
use crate::outage::Outage;
use crate::wire::{Answer, instant, refusal};

/// Reads a session.
pub(crate) async fn read_session(
    coordinator: &Coordinator,
    principal: &Principal,
    id: &AgentSessionId,
) -> Result<Answer, Problem> {
    let session = find(coordinator, principal, id).await.map_err(|outage| outage.problem())?;
    let session = session.ok_or_else(|| refusal(StatusCode::NOT_FOUND, "session_not_found"))?;
    Ok(Answer::ok(session_json(&session)))
}

async fn find(
    coordinator: &Coordinator,
    principal: &Principal,
    id: &AgentSessionId,
) -> Result<Option<SessionRow>, Outage> {
    let mut snapshot = coordinator.store.snapshot().await?;
    let session = sessions::lookup(&mut snapshot.zone(principal.zone()), id).await?;
    Ok(session.filter(|session| principal.is_admin() || principal.is(session.application_id.as_str())))
}

/// A session as reads and lists show it (contract: coordinator.md §4.1).
pub(crate) fn session_json(session: &SessionRow) -> Value {
    json!({
        "agent_session_id": session.id,
        "zone_id": session.zone_id,
        "application_id": session.application_id,
        "parent_id": session.parent_id,
        "subject_authority_record_id": session.subject_record_id,
        "lifecycle": session.lifecycle,
        "labels": session.labels,
        "status": session.status,
        "depth": session.depth,
        "ttl_seconds": session.ttl_seconds,
        "metadata": session.metadata,
        "started_at": session.started_at,
        "terminated_at": instant(session.terminated_at),
        "last_heartbeat_at": instant(session.last_heartbeat_at),
        "heartbeat_deadline_at": instant(session.heartbeat_deadline_at),
        "termination_reason": session.termination_reason,
        // Text here, a number where it is handed out: the contract's shape, on which typed admin clients may depend.
        "lease_generation": session.lease_generation.to_string(),
    })
}
