//! `GET /zones/:zoneId/delegations/:id/traverse` and `…/:id/impact`: what hangs on a delegation now. It is what a
//! revocation of it would take, so nothing is cut off after ten edges.
//!
//! The reference follows every path, which grows beyond all bounds in a dense graph, and shows an edge once for each.
//! Here an edge is found once, at its shortest distance (W19): callers that count edges count right.

use std::collections::HashSet;

use caracal_authority::delegation::{Link, Reached, downstream};
use caracal_authority::{AgentSessionId, EdgeId};
use caracal_cascade::link;
use caracal_http::Problem;
use caracal_store::delegation_reads;
use serde_json::{Value, json};

use super::ReadRefused;
use crate::Coordinator;
use crate::auth::Principal;
use crate::wire::Answer;

const WHO: &str = "how delegations hang together is for holders of coordinator.admin";

/// Lists the delegation, and all that can be reached from its target: nearest first, then by id. Nothing when it is
/// unknown or lends nothing.
pub(crate) async fn traverse(coordinator: &Coordinator, principal: &Principal, id: &EdgeId) -> Result<Answer, Problem> {
    principal.require_admin(WHO)?;
    let links = links(coordinator, principal, id).await?;
    Ok(Answer::ok(rows_json(&downstream(&links, id))))
}

async fn links(coordinator: &Coordinator, principal: &Principal, id: &EdgeId) -> Result<Vec<Link>, ReadRefused> {
    let mut snapshot = coordinator.store.snapshot().await?;
    let rows = delegation_reads::list_live_downstream(&mut snapshot.zone(principal.zone()), id).await?;
    Ok(rows.iter().map(link).collect())
}

/// Says what a delegation and all behind it lead to: edges, sessions, and the records behind those.
pub(crate) async fn impact(coordinator: &Coordinator, principal: &Principal, id: &EdgeId) -> Result<Answer, Problem> {
    principal.require_admin(WHO)?;
    Ok(Answer::ok(affected(coordinator, principal, id).await?))
}

async fn affected(coordinator: &Coordinator, principal: &Principal, id: &EdgeId) -> Result<Value, ReadRefused> {
    let mut snapshot = coordinator.store.snapshot().await?;
    let zone = &mut snapshot.zone(principal.zone());
    let rows = delegation_reads::list_live_downstream(zone, id).await?;
    let links: Vec<Link> = rows.iter().map(link).collect();
    let reached = downstream(&links, id);
    if reached.is_empty() {
        return Err(ReadRefused::DelegationNotFound);
    }
    let records = delegation_reads::list_records_downstream(zone, id).await?;
    let mut seen = HashSet::new();
    let sessions: Vec<&AgentSessionId> =
        reached.iter().map(|reached| &reached.link.target).filter(|target| seen.insert(*target)).collect();
    Ok(json!({
        "edge_id": id,
        "affected_edges": rows_json(&reached),
        "affected_sessions": sessions,
        // The name by which two admin clients read the same (W21).
        "affected_agents": sessions,
        "affected_authority_records": records,
    }))
}

fn rows_json(reached: &[Reached<'_>]) -> Value {
    let row = |Reached { link, depth }: &Reached<'_>| {
        json!({
            "id": link.edge,
            "source_session_id": link.source,
            "target_session_id": link.target,
            "depth": depth,
        })
    };
    reached.iter().map(row).collect()
}
