//! Everything that is revoked and could still be presented, across zones: the Gateway's snapshot
//! (contract: gateway.md §10.2).

use caracal_authority::{Timestamp, ZoneId};

use crate::error::StoreError;
use crate::tx::DeploymentRead;
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

fn read(row: Row, kind: AnchorKind) -> Result<Anchor, StoreError> {
    let mut columns = row.columns("revocations");
    Ok(Anchor { zone: columns.next()?, kind, id: columns.next()? })
}
