//! Everything that is revoked and could still be presented: across zones for the Gateway's snapshot (contract: gateway.md
//! §10.2), of one zone for that of its resource servers.

use caracal_authority::{Timestamp, ZoneId};

use crate::error::StoreError;
use crate::tx::{DeploymentRead, ZoneRead};
use crate::value::{Bind, Row, params};

/// Which kind of authority an anchor names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AnchorKind {
    /// An authority record: `sid`, `root_sid`.
    Record,
    /// A governed session: `agent_session_id`.
    Session,
    /// A delegation edge: `delegation_edge_id`.
    Edge,
    /// A zone's signing key: `kid` of the header.
    Key,
}

/// A revoked anchor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Anchor {
    /// Its zone.
    pub zone: ZoneId,
    /// What kind of thing it is.
    pub kind: AnchorKind,
    /// Its id.
    pub id: String,
}

/// All anchors revoked at or after `since`; records only while a mandate of theirs could be alive after `since`.
pub async fn list(tx: &mut DeploymentRead<'_>, since: Timestamp) -> Result<Vec<Anchor>, StoreError> {
    let records = "SELECT zone_id, id FROM authority_records WHERE revoked_at >= ?1 AND expires_at > ?1";
    // Expired sessions are included: a task that ran out must not be usable either (audit-and-streams.md W13).
    let sessions = "SELECT zone_id, id FROM agent_sessions WHERE terminated_at >= ?1";
    let edges = "SELECT zone_id, id FROM delegation_edges WHERE revoked_at >= ?1";
    let keys = "SELECT zone_id, kid FROM withdrawn_keys WHERE withdrawn_at >= ?1";
    let mut anchors = Vec::new();
    let statements = [
        (AnchorKind::Record, records),
        (AnchorKind::Session, sessions),
        (AnchorKind::Edge, edges),
        (AnchorKind::Key, keys),
    ];
    for (kind, sql) in statements {
        for row in tx.tx().query(sql, params![since]).await? {
            anchors.push(read(row, kind)?);
        }
    }
    Ok(anchors)
}

/// The anchors of one zone that were revoked at or after `since`, `limit` at most; as [`list`] has them.
pub async fn list_of_zone(tx: &mut ZoneRead<'_>, since: Timestamp, limit: i64) -> Result<Vec<Anchor>, StoreError> {
    let mut anchors: Vec<Anchor> = Vec::new();
    for (kind, table, id, at, still) in [
        (AnchorKind::Record, "authority_records", "id", "revoked_at", "AND expires_at > ?2"),
        (AnchorKind::Session, "agent_sessions", "id", "terminated_at", ""),
        (AnchorKind::Edge, "delegation_edges", "id", "revoked_at", ""),
        (AnchorKind::Key, "withdrawn_keys", "kid", "withdrawn_at", ""),
    ] {
        let sql = format!(
            "SELECT zone_id, {id} FROM {table} WHERE zone_id = ?1 AND {at} >= ?2 {still} ORDER BY {id} LIMIT ?3"
        );
        let left = limit - i64::try_from(anchors.len()).unwrap_or(limit);
        for row in tx.tx.query(&sql, params![tx.zone, since, left]).await? {
            anchors.push(read(row, kind)?);
        }
    }
    Ok(anchors)
}

fn read(row: Row, kind: AnchorKind) -> Result<Anchor, StoreError> {
    let mut columns = row.columns("revocations");
    Ok(Anchor { zone: columns.next()?, kind, id: columns.next()? })
}
