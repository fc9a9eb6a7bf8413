//! What readers ask about delegations, beyond what a decision needs: what a session lends, what lends now, and what
//! hangs on an edge. Writes and the reads of decisions are in [`delegations`](crate::delegations).

use caracal_authority::{AgentSessionId, ApplicationId, AuthorityRecordId, EdgeId};

use crate::delegations::{COLUMNS, EdgeRow, read};
use crate::error::StoreError;
use crate::tx::ZoneRead;
use crate::value::{Bind, params};

/// Edges from a session whatever their status, newest first, `limit` at most, only those with an id below `before`.
pub async fn list_from(
    tx: &mut ZoneRead<'_>,
    source: &AgentSessionId,
    before: Option<&EdgeId>,
    limit: i64,
) -> Result<Vec<EdgeRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM delegation_edges
         WHERE zone_id = ?1 AND source_session_id = ?2 AND (CAST(?3 AS TEXT) IS NULL OR id < ?3) ORDER BY id DESC LIMIT ?4"
    );
    tx.tx.query(&sql, params![tx.zone, source, before, limit]).await?.into_iter().map(read).collect()
}

/// Edges that lend now, newest first, `limit` at most, only those with an id below `before`; only those that `party`
/// issued or received, if one is named.
pub async fn list_live(
    tx: &mut ZoneRead<'_>,
    party: Option<&ApplicationId>,
    before: Option<&EdgeId>,
    limit: i64,
) -> Result<Vec<EdgeRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM delegation_edges
         WHERE zone_id = ?1 AND status = 'active' AND expires_at > ?2
           AND (CAST(?3 AS TEXT) IS NULL OR issuer_application_id = ?3 OR receiver_application_id = ?3)
           AND (CAST(?4 AS TEXT) IS NULL OR id < ?4) ORDER BY id DESC LIMIT ?5"
    );
    let now = tx.now();
    tx.tx.query(&sql, params![tx.zone, now, party, before, limit]).await?.into_iter().map(read).collect()
}

/// The edges that lend now and can be reached from the target of the edge `?2`, itself included, each once, at `?3`.
/// Each is remembered, so that no number of paths between two sessions costs more than their edges, and a circle ends.
/// The whole row of each goes along: an engine that takes the reached ones for many would read all of the zone's to join them.
fn reached() -> String {
    let columns: Vec<String> = COLUMNS.split(',').map(|column| format!("e.{}", column.trim())).collect();
    format!(
        "WITH RECURSIVE reached AS (
           SELECT {COLUMNS} FROM delegation_edges
           WHERE zone_id = ?1 AND id = ?2 AND status = 'active' AND expires_at > ?3
         UNION
           SELECT {} FROM reached r CROSS JOIN delegation_edges e
           WHERE e.zone_id = ?1 AND e.source_session_id = r.target_session_id AND e.status = 'active' AND e.expires_at > ?3)",
        columns.join(", ")
    )
}

/// The edge `start` and all that is downstream of it, as far as they lend now; by id. Empty when `start` does not.
pub async fn list_live_downstream(tx: &mut ZoneRead<'_>, start: &EdgeId) -> Result<Vec<EdgeRow>, StoreError> {
    let sql = format!("{} SELECT {COLUMNS} FROM reached ORDER BY id", reached());
    let now = tx.now();
    tx.tx.query(&sql, params![tx.zone, start, now]).await?.into_iter().map(read).collect()
}

/// The records that the sessions are anchored to which the edge `start` and all downstream of it lead to, each once.
pub async fn list_records_downstream(
    tx: &mut ZoneRead<'_>,
    start: &EdgeId,
) -> Result<Vec<AuthorityRecordId>, StoreError> {
    // Looked up one by one, for the same reason.
    let sql = format!(
        "{} SELECT DISTINCT record FROM
           (SELECT (SELECT s.subject_record_id FROM agent_sessions s
                    WHERE s.zone_id = ?1 AND s.id = r.target_session_id) AS record FROM reached r) found
         WHERE record IS NOT NULL ORDER BY record",
        reached()
    );
    let now = tx.now();
    let rows = tx.tx.query(&sql, params![tx.zone, start, now]).await?;
    rows.into_iter().map(|row| row.columns("agent_sessions").next()).collect()
}
