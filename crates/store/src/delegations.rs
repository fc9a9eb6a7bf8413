//! Delegation edges and the zone's graph epoch.

use caracal_authority::delegation::{Constraints, Edge, EdgeStatus};
use caracal_authority::resource::ResourceRef;
use caracal_authority::scope::{Scope, Scopes};
use caracal_authority::{AgentSessionId, ApplicationId, EdgeId, ResourceId, Timestamp, ZoneId};
use serde_json::{Map, Value};

use crate::ahead::by_id;
use crate::error::StoreError;
use crate::tx::{ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// A delegation edge.
#[derive(Debug, Clone)]
pub struct EdgeRow {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: EdgeId,
    /// The session that delegates.
    pub source_session_id: AgentSessionId,
    /// The session that receives.
    pub target_session_id: AgentSessionId,
    /// The source's application.
    pub issuer_application_id: ApplicationId,
    /// The target's application.
    pub receiver_application_id: ApplicationId,
    /// The edge it was cut from.
    pub parent_edge_id: Option<EdgeId>,
    /// Whether it is an inherited copy of its parent, which consumes no hop (difference D24).
    pub mirrored: bool,
    /// The one resource it is bound to.
    pub resource_id: Option<ResourceId>,
    /// Scopes, in the order given.
    pub scopes: Vec<String>,
    /// Normalised constraints.
    pub constraints: Map<String, Value>,
    /// `active`, `revoked` or `expired`; it also ends at `expires_at` whatever this says.
    pub status: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// 0, then one more for each revocation.
    pub edge_version: i64,
    /// Why it is not bound to a resource.
    pub broad_reason: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl EdgeRow {
    /// The row as decisions see it. `resource` is what [`EdgeRow::resource_id`] names, looked up by the caller. A row
    /// whose resource is gone, or whose constraints do not parse, is an edge that lends nothing.
    pub fn edge(&self, resource: Option<ResourceRef>) -> Result<Edge, StoreError> {
        let corrupt =
            |what: &str| StoreError::Corrupt { table: "delegation_edges", what: format!("`{}`: {what}", self.id) };
        let scopes = self.scopes.iter().map(|scope| Scope::parse(scope)).collect::<Result<_, _>>();
        let known = self.resource_id.as_ref() == resource.as_ref().map(|resource| &resource.id);
        Ok(Edge {
            id: self.id.clone(),
            zone: self.zone_id.clone(),
            parent: self.parent_edge_id.clone(),
            source: self.source_session_id.clone(),
            target: self.target_session_id.clone(),
            issuer: self.issuer_application_id.clone(),
            receiver: self.receiver_application_id.clone(),
            resource,
            scopes: Scopes::from_list(scopes.map_err(|_| corrupt("unreadable scope"))?),
            constraints: Constraints::parse(&self.constraints).ok().filter(|_| known),
            status: EdgeStatus::parse(&self.status).ok_or_else(|| corrupt("unknown status"))?,
            expires_at: self.expires_at,
        })
    }
}

pub(crate) const COLUMNS: &str = "zone_id, id, source_session_id, target_session_id, issuer_application_id, \
                                  receiver_application_id, parent_edge_id, mirrored, resource_id, scopes, \
                                  constraints_json, status, expires_at, edge_version, broad_reason, revoked_at, created_at";

pub(crate) fn read(row: Row) -> Result<EdgeRow, StoreError> {
    let mut columns = row.columns("delegation_edges");
    Ok(EdgeRow {
        zone_id: columns.next()?,
        id: columns.next()?,
        source_session_id: columns.next()?,
        target_session_id: columns.next()?,
        issuer_application_id: columns.next()?,
        receiver_application_id: columns.next()?,
        parent_edge_id: columns.next()?,
        mirrored: columns.next()?,
        resource_id: columns.next()?,
        scopes: columns.json()?,
        constraints: constraints(&columns.next::<String>()?),
        status: columns.next()?,
        expires_at: columns.next()?,
        edge_version: columns.next()?,
        broad_reason: columns.next()?,
        revoked_at: columns.next()?,
        created_at: columns.next()?,
    })
}

/// What is no object at all is kept as one member that no constraints have, so that it parses as none: such an edge lends
/// nothing (contract: sts.md, edge cases), and it can still be listed and revoked.
fn constraints(text: &str) -> Map<String, Value> {
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => members,
        _ => Map::from_iter([("unreadable".to_owned(), Value::from(text))]),
    }
}

/// One edge.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &EdgeId) -> Result<Option<EdgeRow>, StoreError> {
    let sql = by_id("delegation_edges", COLUMNS);
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// The edge and its ancestors, root first. Stops after `limit` edges or where a parent is missing or repeats, so the
/// caller must check that the first one has no parent.
pub async fn lineage(tx: &mut ZoneRead<'_>, id: &EdgeId, limit: usize) -> Result<Vec<EdgeRow>, StoreError> {
    let mut edges: Vec<EdgeRow> = Vec::new();
    let mut next = Some(id.clone());
    while let Some(id) = next.take() {
        if edges.len() >= limit || edges.iter().any(|edge| edge.id == id) {
            break;
        }
        let Some(edge) = lookup(tx, &id).await? else { break };
        next.clone_from(&edge.parent_edge_id);
        edges.push(edge);
    }
    edges.reverse();
    Ok(edges)
}

pub(crate) const EPOCH: &str = "SELECT epoch FROM delegation_epochs WHERE zone_id = ?1";

/// The zone's delegation graph epoch; 0 before the first change that shrank authority.
pub async fn epoch(tx: &mut ZoneRead<'_>) -> Result<i64, StoreError> {
    let row = tx.tx.query_one(EPOCH, params![tx.zone]).await?;
    row.map_or(Ok(0), |row| row.columns("delegation_epochs").next())
}

/// Raises the epoch by one and returns the new value. Only when authority shrinks (difference D14).
pub async fn raise_epoch(tx: &mut ZoneWrite<'_>) -> Result<i64, StoreError> {
    let zone = tx.zone.clone();
    let sql = "INSERT INTO delegation_epochs (zone_id, epoch) VALUES (?1, 1)
               ON CONFLICT (zone_id) DO UPDATE SET epoch = delegation_epochs.epoch + 1";
    tx.tx.execute(sql, params![zone]).await?;
    epoch(tx).await
}

/// Adds an edge.
pub async fn add(tx: &mut ZoneWrite<'_>, edge: &EdgeRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO delegation_edges (zone_id, id, source_session_id, target_session_id, issuer_application_id,
                 receiver_application_id, parent_edge_id, mirrored, resource_id, scopes, constraints_json, status,
                 expires_at, edge_version, broad_reason, revoked_at, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
    let zone = tx.zone.clone();
    let (scopes, constraints) = (crate::json_text(&edge.scopes), crate::json_text(&edge.constraints));
    let params = params![
        zone,
        edge.id,
        edge.source_session_id,
        edge.target_session_id,
        edge.issuer_application_id,
        edge.receiver_application_id,
        edge.parent_edge_id,
        edge.mirrored,
        edge.resource_id,
        scopes,
        constraints,
        edge.status,
        edge.expires_at,
        edge.edge_version,
        edge.broad_reason,
        edge.revoked_at,
        edge.created_at
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Revokes an edge; `false` when it was not active.
pub async fn revoke(tx: &mut ZoneWrite<'_>, id: &EdgeId) -> Result<bool, StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let sql = "UPDATE delegation_edges SET status = 'revoked', revoked_at = ?3, edge_version = edge_version + 1
               WHERE zone_id = ?1 AND id = ?2 AND status = 'active'";
    Ok(tx.tx.execute(sql, params![zone, id, now]).await? == 1)
}

/// Active edges from a session, lapsed ones included.
pub async fn list_active_from(tx: &mut ZoneRead<'_>, source: &AgentSessionId) -> Result<Vec<EdgeRow>, StoreError> {
    list_active(tx, "source_session_id", "delegation_edges_by_source", source.as_str()).await
}

/// Active edges to a session, lapsed ones included.
pub async fn list_active_to(tx: &mut ZoneRead<'_>, target: &AgentSessionId) -> Result<Vec<EdgeRow>, StoreError> {
    list_active(tx, "target_session_id", "delegation_edges_by_target", target.as_str()).await
}

/// Active edges cut from or mirroring `parent`, lapsed ones included.
pub async fn list_active_derived(tx: &mut ZoneRead<'_>, parent: &EdgeId) -> Result<Vec<EdgeRow>, StoreError> {
    list_active(tx, "parent_edge_id", "delegation_edges_active_by_parent", parent.as_str()).await
}

async fn list_active(
    tx: &mut ZoneRead<'_>,
    column: &str,
    index: &'static str,
    id: &str,
) -> Result<Vec<EdgeRow>, StoreError> {
    let index = tx.tx.by_index(index);
    let sql = format!(
        "SELECT {COLUMNS} FROM delegation_edges {index}
         WHERE zone_id = ?1 AND {column} = ?2 AND status = 'active' ORDER BY id"
    );
    tx.tx.query(&sql, params![tx.zone, id]).await?.into_iter().map(read).collect()
}

/// Edges to a session whatever their status, newest first, `limit` at most, only those with an id below `before`.
pub async fn list_to(
    tx: &mut ZoneRead<'_>,
    target: &AgentSessionId,
    before: Option<&EdgeId>,
    limit: i64,
) -> Result<Vec<EdgeRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM delegation_edges
         WHERE zone_id = ?1 AND target_session_id = ?2 AND (CAST(?3 AS TEXT) IS NULL OR id < ?3) ORDER BY id DESC LIMIT ?4"
    );
    tx.tx.query(&sql, params![tx.zone, target, before, limit]).await?.into_iter().map(read).collect()
}
