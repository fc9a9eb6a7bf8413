//! The Merkle tree of a zone's evidence: its log key, how far it reaches, and its hashes in tiles. It only grows, and the
//! storage refuses everything else. Only the `ledger` room calls [`advance`] and [`put_tile`].

use caracal_authority::{Timestamp, ZoneId};

use crate::error::StoreError;
use crate::tx::{DeploymentRead, ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// The key that signs checkpoints of one zone.
#[derive(Debug, Clone)]
pub struct LogKeyRow {
    /// The id that a signature names it by: eight digits of lower-case hex.
    pub key_id: String,
    /// The public half, as verifiers are given it (C2SP signed-note).
    pub verifier_key: String,
    /// Envelope around the 32 bytes that the private half is made of.
    pub sealed_private: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// How far a zone's tree reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeRow {
    /// Events in the tree, from 1: the first `size` of the zone's chain.
    pub size: i64,
    /// The signed checkpoint over exactly these.
    pub checkpoint: String,
    /// When it was signed.
    pub signed_at: Timestamp,
}

/// The zone's log key; none before its first checkpoint.
pub async fn find_log_key(tx: &mut ZoneRead<'_>) -> Result<Option<LogKeyRow>, StoreError> {
    let sql = "SELECT key_id, verifier_key, sealed_private, created_at FROM ledger_log_keys WHERE zone_id = ?1";
    let read = |row: Row| {
        let mut columns = row.columns("ledger_log_keys");
        Ok(LogKeyRow {
            key_id: columns.next()?,
            verifier_key: columns.next()?,
            sealed_private: columns.next()?,
            created_at: columns.next()?,
        })
    };
    tx.tx.query_one(sql, params![tx.zone]).await?.map(read).transpose()
}

/// Adds the zone's log key. Conflicts when it has one.
pub async fn add_log_key(tx: &mut ZoneWrite<'_>, key: &LogKeyRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO ledger_log_keys (zone_id, key_id, verifier_key, sealed_private, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let zone = tx.zone.clone();
    let params = params![zone, key.key_id, key.verifier_key, key.sealed_private, key.created_at];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// The zone's tree; none before its first checkpoint.
pub async fn find_tree(tx: &mut ZoneRead<'_>) -> Result<Option<TreeRow>, StoreError> {
    let sql = "SELECT size, checkpoint, signed_at FROM ledger_trees WHERE zone_id = ?1";
    let read = |row: Row| {
        let mut columns = row.columns("ledger_trees");
        Ok(TreeRow { size: columns.next()?, checkpoint: columns.next()?, signed_at: columns.next()? })
    };
    tx.tx.query_one(sql, params![tx.zone]).await?.map(read).transpose()
}

/// Moves the tree from `from` events on to what `to` says. `false`, and nothing done: it does not reach to `from`, as
/// somebody else moved it.
pub async fn advance(tx: &mut ZoneWrite<'_>, from: i64, to: &TreeRow) -> Result<bool, StoreError> {
    let zone = tx.zone.clone();
    let TreeRow { size, checkpoint, signed_at } = to;
    let changed = if from == 0 {
        let sql = "INSERT INTO ledger_trees (zone_id, size, checkpoint, signed_at) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (zone_id) DO NOTHING";
        tx.tx.append(sql, params![zone, size, checkpoint, signed_at]).await?
    } else {
        let sql = "UPDATE ledger_trees SET size = ?3, checkpoint = ?4, signed_at = ?5 WHERE zone_id = ?1 AND size = ?2";
        tx.tx.append(sql, params![zone, from, size, checkpoint, signed_at]).await?
    };
    Ok(changed == 1)
}

/// The hashes of a tile, each 32 bytes; none where the tree has no such tile.
pub async fn find_tile(tx: &mut ZoneRead<'_>, level: i64, position: i64) -> Result<Option<Vec<u8>>, StoreError> {
    let sql = "SELECT hashes FROM ledger_tiles WHERE zone_id = ?1 AND level = ?2 AND position = ?3";
    let row = tx.tx.query_one(sql, params![tx.zone, level, position]).await?;
    row.map(|row| row.columns("ledger_tiles").next()).transpose()
}

/// How many tiles the zone's tree has.
pub async fn count_tiles(tx: &mut ZoneRead<'_>) -> Result<i64, StoreError> {
    let row = tx.tx.query_one("SELECT count(*) FROM ledger_tiles WHERE zone_id = ?1", params![tx.zone]).await?;
    row.map_or(Ok(0), |row| row.columns("ledger_tiles").next())
}

/// Writes a tile, or lets it grow: `hashes` begin with those that are there.
pub async fn put_tile(tx: &mut ZoneWrite<'_>, level: i64, position: i64, hashes: &[u8]) -> Result<(), StoreError> {
    let sql = "INSERT INTO ledger_tiles (zone_id, level, position, hashes) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (zone_id, level, position) DO UPDATE SET hashes = excluded.hashes";
    let zone = tx.zone.clone();
    tx.tx.append(sql, params![zone, level, position, hashes]).await.map(|_| ())
}

/// Zones whose chain is longer than their tree.
pub async fn list_behind(tx: &mut DeploymentRead<'_>) -> Result<Vec<ZoneId>, StoreError> {
    let sql = "SELECT h.zone_id FROM audit_heads h LEFT JOIN ledger_trees t ON t.zone_id = h.zone_id
               WHERE t.size IS NULL OR t.size < h.chain_seq ORDER BY h.zone_id";
    tx.tx().query(sql, &[]).await?.into_iter().map(|row| row.columns("audit_heads").next()).collect()
}

/// Zones in which something happened under that request id.
pub async fn list_zones_of_request(tx: &mut DeploymentRead<'_>, request_id: &str) -> Result<Vec<ZoneId>, StoreError> {
    // Zone by zone, which is how events can be found by their request.
    let sql = "SELECT h.zone_id FROM audit_heads h WHERE EXISTS
                 (SELECT 1 FROM audit_events e WHERE e.zone_id = h.zone_id AND e.request_id = ?1) ORDER BY h.zone_id";
    let rows = tx.tx().query(sql, params![request_id]).await?;
    rows.into_iter().map(|row| row.columns("audit_heads").next()).collect()
}

/// The public half of every zone's log key.
pub async fn list_log_keys(tx: &mut DeploymentRead<'_>) -> Result<Vec<(ZoneId, String)>, StoreError> {
    let rows = tx.tx().query("SELECT zone_id, verifier_key FROM ledger_log_keys ORDER BY zone_id", &[]).await?;
    rows.into_iter()
        .map(|row| {
            let mut columns = row.columns("ledger_log_keys");
            Ok((columns.next()?, columns.next()?))
        })
        .collect()
}
