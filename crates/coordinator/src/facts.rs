//! Rows as the decisions of `authority` see them.

use caracal_authority::delegation::{Edge, NarrowedEdge};
use caracal_authority::resource::{ResourceIdentifier, ResourceRef};
use caracal_authority::{AgentSessionId, ApplicationId, EdgeId, Timestamp, ZoneId};
use caracal_store::delegations::{self, EdgeRow};
use caracal_store::{StoreError, ZoneRead, resources};

/// The edge behind a row, its resource looked up, archived or not: what an archived resource lends is for the mint to
/// say, and a child of its edge has to name a live one anyway.
async fn edge(tx: &mut ZoneRead<'_>, row: &EdgeRow) -> Result<Edge, StoreError> {
    let resource = match &row.resource_id {
        None => None,
        Some(id) => resources::lookup(tx, id).await?,
    };
    let named = resource.and_then(|resource| {
        let identifier = ResourceIdentifier::parse(&resource.identifier).ok()?;
        Some(ResourceRef { id: resource.id, identifier })
    });
    row.edge(named)
}

/// The edges behind rows.
pub(crate) async fn edges(tx: &mut ZoneRead<'_>, rows: &[EdgeRow]) -> Result<Vec<Edge>, StoreError> {
    let mut edges = Vec::with_capacity(rows.len());
    for row in rows {
        edges.push(edge(tx, row).await?);
    }
    Ok(edges)
}

/// The edges to a session that say what it may lend: all active ones, or, when there is none, one that has ended, as a
/// witness that it once held something. How many have ended makes no difference, and may be a great many.
pub(crate) async fn inbound(tx: &mut ZoneRead<'_>, target: &AgentSessionId) -> Result<Vec<Edge>, StoreError> {
    let mut rows = delegations::list_active_to(tx, target).await?;
    if rows.is_empty() {
        rows = delegations::list_to(tx, target, None, 1).await?;
    }
    edges(tx, &rows).await
}

/// The row of a new edge.
pub(crate) fn new_edge_row(
    id: EdgeId,
    zone: &ZoneId,
    narrowed: &NarrowedEdge,
    mirrored: bool,
    broad_reason: Option<String>,
    now: Timestamp,
) -> EdgeRow {
    let edge = narrowed.edge();
    EdgeRow {
        zone_id: zone.clone(),
        id,
        source_session_id: edge.source.clone(),
        target_session_id: edge.target.clone(),
        issuer_application_id: edge.issuer.clone(),
        receiver_application_id: edge.receiver.clone(),
        parent_edge_id: narrowed.parent().cloned(),
        mirrored,
        resource_id: edge.resource.as_ref().map(|resource| resource.id.clone()),
        scopes: edge.scopes.listed().iter().map(|scope| scope.as_str().to_owned()).collect(),
        constraints: edge.constraints.to_json(),
        status: "active".to_owned(),
        expires_at: edge.expires_at,
        edge_version: 0,
        broad_reason,
        revoked_at: None,
        created_at: now,
    }
}

/// Text of a request as the id of an application, if it can be one.
pub(crate) fn application_id(text: &str) -> Option<ApplicationId> {
    ApplicationId::parse(text).ok()
}

/// Text of a request as the id of a session, if it can be one.
pub(crate) fn session_id(text: &str) -> Option<AgentSessionId> {
    AgentSessionId::parse(text).ok()
}

/// Text of a request as the id of an edge, if it can be one.
pub(crate) fn edge_id(text: &str) -> Option<EdgeId> {
    EdgeId::parse(text).ok()
}
