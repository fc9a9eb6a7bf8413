//! What is over: edges that lapsed and are to be marked, and edges and sessions that nobody asks about any more.
//!
//! Not everything old may go. A session whose delegations have all ended may not lend wider ones (difference D25), and what
//! tells that it once held one is the ended edge: so an edge stays as long as the session it led to runs. A session stays
//! as long as an edge or a child names it.

use caracal_authority::{AgentSessionId, EdgeId, Timestamp, ZoneId};

use crate::error::StoreError;
use crate::tx::{DeploymentRead, ZoneRead, ZoneWrite};
use crate::value::{Bind, Param, params};

/// Active edges past their expiry, oldest first, `limit` at most.
pub async fn list_lapsed_edges(tx: &mut ZoneRead<'_>, limit: i64) -> Result<Vec<EdgeId>, StoreError> {
    let sql = "SELECT id FROM delegation_edges WHERE zone_id = ?1 AND status = 'active' AND expires_at <= ?2
               ORDER BY expires_at, id LIMIT ?3";
    let now = tx.now();
    let rows = tx.tx.query(sql, params![tx.zone, now, limit]).await?;
    rows.into_iter().map(|row| row.columns("delegation_edges").next()).collect()
}

/// Marks a lapsed edge as expired; `false` when it is not active or has not lapsed.
pub async fn expire_edge(tx: &mut ZoneWrite<'_>, id: &EdgeId) -> Result<bool, StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let sql = "UPDATE delegation_edges SET status = 'expired'
               WHERE zone_id = ?1 AND id = ?2 AND status = 'active' AND expires_at <= ?3";
    Ok(tx.tx.execute(sql, params![zone, id, now]).await? == 1)
}

/// Edges that ended before `before`, have no edge derived from them that is active, and led to a session that runs no
/// more; oldest ids first, `limit` at most.
pub async fn list_forgettable_edges(
    tx: &mut ZoneRead<'_>,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<EdgeId>, StoreError> {
    let sql = "SELECT e.id FROM delegation_edges e
               WHERE e.zone_id = ?1 AND (e.revoked_at < ?2 OR (e.status = 'expired' AND e.expires_at < ?2))
                 AND NOT EXISTS (SELECT 1 FROM delegation_edges c
                   WHERE c.zone_id = ?1 AND c.parent_edge_id = e.id AND c.status = 'active')
                 AND NOT EXISTS (SELECT 1 FROM agent_sessions s
                   WHERE s.zone_id = ?1 AND s.id = e.target_session_id AND s.capacity_until IS NOT NULL)
               ORDER BY e.id LIMIT ?3";
    let rows = tx.tx.query(sql, params![tx.zone, before, limit]).await?;
    rows.into_iter().map(|row| row.columns("delegation_edges").next()).collect()
}

/// Sessions that ended before `before` and that no child and no edge names; oldest ids first, `limit` at most.
pub async fn list_forgettable_sessions(
    tx: &mut ZoneRead<'_>,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<AgentSessionId>, StoreError> {
    let sql = "SELECT s.id FROM agent_sessions s
               WHERE s.zone_id = ?1 AND s.terminated_at < ?2 AND s.capacity_until IS NULL
                 AND NOT EXISTS (SELECT 1 FROM agent_sessions c WHERE c.zone_id = ?1 AND c.parent_id = s.id)
                 AND NOT EXISTS (SELECT 1 FROM delegation_edges e WHERE e.zone_id = ?1 AND e.source_session_id = s.id)
                 AND NOT EXISTS (SELECT 1 FROM delegation_edges e WHERE e.zone_id = ?1 AND e.target_session_id = s.id)
               ORDER BY s.id LIMIT ?3";
    let rows = tx.tx.query(sql, params![tx.zone, before, limit]).await?;
    rows.into_iter().map(|row| row.columns("agent_sessions").next()).collect()
}

/// Removes an edge that has ended. No decision reads it any more.
pub async fn remove_edge(tx: &mut ZoneWrite<'_>, id: &EdgeId) -> Result<bool, StoreError> {
    let zone = tx.zone.clone();
    let sql = "DELETE FROM delegation_edges WHERE zone_id = ?1 AND id = ?2 AND status <> 'active'";
    Ok(tx.tx.append(sql, params![zone, id]).await? == 1)
}

/// Removes a session that has ended.
pub async fn remove_session(tx: &mut ZoneWrite<'_>, id: &AgentSessionId) -> Result<bool, StoreError> {
    let zone = tx.zone.clone();
    let sql = "DELETE FROM agent_sessions WHERE zone_id = ?1 AND id = ?2 AND capacity_until IS NULL";
    Ok(tx.tx.append(sql, params![zone, id]).await? == 1)
}

/// The first zone after `after`, in the order of ids, that has an edge which lapsed, or an edge or session which ended
/// before the given instants.
pub async fn find_zone(
    tx: &mut DeploymentRead<'_>,
    after: Option<&ZoneId>,
    edges_before: Timestamp,
    sessions_before: Timestamp,
) -> Result<Option<ZoneId>, StoreError> {
    let after = after.map_or("", ZoneId::as_str);
    let now = tx.now();
    let mut first: Option<ZoneId> = None;
    let lapsed =
        "SELECT min(zone_id) FROM delegation_edges WHERE zone_id > ?1 AND status = 'active' AND expires_at <= ?2";
    let expired =
        "SELECT min(zone_id) FROM delegation_edges WHERE zone_id > ?1 AND status = 'expired' AND expires_at < ?2";
    let revoked = "SELECT min(zone_id) FROM delegation_edges WHERE zone_id > ?1 AND revoked_at < ?2";
    let ended = "SELECT min(zone_id) FROM agent_sessions WHERE zone_id > ?1 AND terminated_at < ?2";
    for (sql, before) in [(lapsed, now), (expired, edges_before), (revoked, edges_before), (ended, sessions_before)] {
        let params: &[Param<'_>] = params![after, before];
        let row = tx.tx().query_one(sql, params).await?;
        let zone: Option<ZoneId> = row.map_or(Ok(None), |row| row.columns("delegation_edges").next())?;
        first = [first, zone].into_iter().flatten().min();
    }
    Ok(first)
}
