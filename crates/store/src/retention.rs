//! What is removed of the evidence ledger once it is old enough: whole beginnings of chains, and never without an anchor
//! that stays. The storage itself refuses every other removal. Only the `ledger` room makes anchors: it seals them.

use caracal_authority::{Timestamp, ZoneId};
use serde::{Deserialize, Serialize};

use crate::deployment;
use crate::error::StoreError;
use crate::evidence::Head;
use crate::tx::{DeploymentRead, DeploymentWrite, ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

const NAME: &str = "audit_retention";

/// Where a chain begins since its older rows were removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The zone, which selects the chain. Text, so that a damaged row can still be named.
    pub zone_id: String,
    /// Position of the last row that was removed.
    pub chain_seq: i64,
    /// Its content hash, lower-case hex.
    pub content_sha256: String,
    /// What was removed had been stored before this instant, in microseconds since 1970.
    pub older_than: i64,
    /// When it was removed, in microseconds since 1970.
    pub created_at: i64,
    /// Keyed hash over all of it, lower-case hex; empty without a key.
    pub seal: String,
    /// Name of the key; none without one, and on anchors from before keys had names.
    pub key_id: Option<String>,
}

fn read(row: Row) -> Result<Anchor, StoreError> {
    let mut columns = row.columns("audit_anchors");
    Ok(Anchor {
        zone_id: columns.next()?,
        chain_seq: columns.next()?,
        content_sha256: columns.next()?,
        older_than: columns.next()?,
        created_at: columns.next()?,
        seal: columns.next()?,
        key_id: columns.next()?,
    })
}

/// Every anchor of the zone, oldest first: for the verifier.
pub async fn list_anchors(tx: &mut ZoneRead<'_>) -> Result<Vec<Anchor>, StoreError> {
    let sql = "SELECT zone_id, chain_seq, content_sha256, older_than, created_at, seal, key_id FROM audit_anchors
               WHERE zone_id = ?1 ORDER BY chain_seq";
    tx.tx.query(sql, params![tx.zone]).await?.into_iter().map(read).collect()
}

/// The zone's newest anchor; none where nothing was removed.
pub async fn find_anchor(tx: &mut ZoneRead<'_>) -> Result<Option<Anchor>, StoreError> {
    let sql = "SELECT zone_id, chain_seq, content_sha256, older_than, created_at, seal, key_id FROM audit_anchors
               WHERE zone_id = ?1 ORDER BY chain_seq DESC LIMIT 1";
    tx.tx.query_one(sql, params![tx.zone]).await?.map(read).transpose()
}

/// Every zone that has an anchor.
pub async fn list_anchored(tx: &mut DeploymentRead<'_>) -> Result<Vec<ZoneId>, StoreError> {
    let rows = tx.tx().query("SELECT DISTINCT zone_id FROM audit_anchors ORDER BY zone_id", &[]).await?;
    rows.into_iter().map(|row| row.columns("audit_anchors").next()).collect()
}

/// The last row of the zone's chain that, with all before it, happened and was stored before `older_than`; none when there
/// is no such row. The newest row of a chain always stays, however old. That it happened so long ago is asked too because
/// only that is under the content hash: who makes fresh rows look as if they had been stored long ago removes nothing. What
/// says that it happens after `latest`, when nothing can have happened yet, says nothing of its age: else one such row would
/// keep all that follow for ever.
pub async fn find_last_older(
    tx: &mut ZoneRead<'_>,
    older_than: Timestamp,
    latest: Timestamp,
) -> Result<Option<Head>, StoreError> {
    let sql = "SELECT chain_seq, content_sha256, key_id FROM audit_events WHERE zone_id = ?1 AND chain_seq < COALESCE(
                 (SELECT min(chain_seq) FROM audit_events WHERE zone_id = ?1
                    AND (ingested_at >= ?2 OR occurred_at BETWEEN ?2 AND ?3)),
                 (SELECT max(chain_seq) FROM audit_events WHERE zone_id = ?1))
               ORDER BY chain_seq DESC LIMIT 1";
    let Some(row) = tx.tx.query_one(sql, params![tx.zone, older_than, latest]).await? else { return Ok(None) };
    let mut columns = row.columns("audit_events");
    Ok(Some(Head { chain_seq: columns.next()?, content_sha256: columns.next()?, key_id: columns.next()? }))
}

/// Adds an anchor. From then on what lies at and before it can be removed.
pub async fn add_anchor(tx: &mut ZoneWrite<'_>, anchor: &Anchor) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit_anchors (zone_id, chain_seq, content_sha256, older_than, created_at, seal, key_id)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let Anchor { chain_seq, content_sha256, older_than, created_at, seal, key_id, .. } = anchor;
    let zone = tx.zone.clone();
    tx.tx
        .append(sql, params![zone, *chain_seq, *content_sha256, *older_than, *created_at, *seal, *key_id])
        .await
        .map(|_| ())
}

/// Removes the oldest rows up to the zone's newest anchor, `limit` at most, and says how many they were.
pub async fn remove_anchored(tx: &mut ZoneWrite<'_>, limit: i64) -> Result<usize, StoreError> {
    let zone = tx.zone.clone();
    if tx.tx.is_embedded() {
        let sql = "DELETE FROM audit_events WHERE zone_id = ?1 AND chain_seq IN (
                     SELECT chain_seq FROM audit_events WHERE zone_id = ?1
                       AND chain_seq <= (SELECT max(chain_seq) FROM audit_anchors WHERE zone_id = ?1)
                     ORDER BY chain_seq LIMIT ?2)";
        return tx.tx.append(sql, params![zone, limit]).await;
    }
    let removed = tx.tx.query_one("SELECT caracal_remove_anchored(?1, ?2)", params![zone, limit]).await?;
    let removed: i64 = removed.map_or(Ok(0), |row| row.columns("audit_events").next())?;
    Ok(usize::try_from(removed).unwrap_or(0))
}

/// For how long evidence is kept, as operators set it (contract: audit-and-streams.md §5.5). One for the deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Days; at least 1.
    pub days: u32,
    /// Who set it.
    pub updated_by: String,
    /// When.
    pub updated_at: Timestamp,
}

/// As it lies in the store; the time in microseconds, as everywhere there.
#[derive(Serialize, Deserialize)]
struct Stored {
    days: u32,
    updated_by: String,
    updated_at: i64,
}

/// What was set, if anything ever was.
pub async fn find(tx: &mut DeploymentRead<'_>) -> Result<Option<Retention>, StoreError> {
    let Some(text) = deployment::lookup(tx, NAME).await? else { return Ok(None) };
    let stored: Option<Stored> = serde_json::from_str(&text).ok().filter(|stored: &Stored| stored.days > 0);
    let Stored { days, updated_by, updated_at } = stored.ok_or_else(|| StoreError::Corrupt {
        table: "deployment",
        what: format!("`{NAME}` does not hold a number of days; set it again"),
    })?;
    Ok(Some(Retention { days, updated_by, updated_at: Timestamp::from_micros(updated_at) }))
}

/// Sets it, as of now.
pub async fn set(tx: &mut DeploymentWrite<'_>, days: u32, by: &str) -> Result<Retention, StoreError> {
    let retention = Retention { days, updated_by: by.to_owned(), updated_at: tx.now() };
    let stored = Stored { days, updated_by: by.to_owned(), updated_at: retention.updated_at.as_micros() };
    deployment::put(tx, NAME, &crate::json_text(&stored)).await?;
    Ok(retention)
}
