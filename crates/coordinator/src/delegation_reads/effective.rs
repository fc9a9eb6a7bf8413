//! `GET /zones/:zoneId/agents/:sessionId/effective-authority`: what all live delegations to a session allow at once.
//! Only the edges that end in it are read. Each was cut from what its source held, so nothing above them could add to it.

use caracal_authority::AgentSessionId;
use caracal_authority::delegation::{self, EffectiveAuthority};
use caracal_http::Problem;
use caracal_store::delegations;
use serde_json::{Value, json};

use super::{ReadRefused, check_reader};
use crate::Coordinator;
use crate::auth::Principal;
use crate::facts::edges;
use crate::wire::Answer;

/// Says what a session may do with what it was lent. To a reader of the whole zone, a session that does not exist holds
/// as little as one that was lent nothing.
pub(crate) async fn effective_authority(
    coordinator: &Coordinator,
    principal: &Principal,
    session: &AgentSessionId,
) -> Result<Answer, Problem> {
    let held = held(coordinator, principal, session).await?;
    Ok(Answer::ok(held.map_or_else(|| nothing_json(session), |held| held_json(session, &held))))
}

async fn held(
    coordinator: &Coordinator,
    principal: &Principal,
    session: &AgentSessionId,
) -> Result<Option<EffectiveAuthority>, ReadRefused> {
    let mut snapshot = coordinator.store.snapshot().await?;
    let zone = &mut snapshot.zone(principal.zone());
    check_reader(zone, principal, session).await?;
    let rows = delegations::list_active_to(zone, session).await?;
    let inbound = edges(zone, &rows).await?;
    Ok(delegation::effective_authority(&inbound, zone.now()))
}

fn held_json(session: &AgentSessionId, held: &EffectiveAuthority) -> Value {
    json!({
        "agent_session_id": session,
        "inbound_edges": held.inbound_edges,
        "effective_scopes": held.scopes,
        "effective_resource_ids": held.resource_ids,
        "effective_resources": held.resources,
        "effective_resource_constrained": held.resource_constrained,
        "effective_max_hops": held.max_hops,
        "effective_ttl_seconds": held.ttl_seconds,
        "earliest_expires_at": held.earliest_expires_at,
    })
}

/// The contract's other shape: two members are absent.
fn nothing_json(session: &AgentSessionId) -> Value {
    json!({
        "agent_session_id": session,
        "inbound_edges": [],
        "effective_scopes": [],
        "effective_resources": [],
        "effective_max_hops": 0,
        "effective_ttl_seconds": null,
        "earliest_expires_at": null,
    })
}
