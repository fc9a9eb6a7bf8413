//! Management records on their way into their chain. A change that runs beside all others of its zone can't extend the
//! chain, which only one can do at a time; so it leaves its record here, in its own commit, and the chain takes it from
//! here. Only the `ledger` room knows what is in a record.

use caracal_authority::ZoneId;

use crate::error::StoreError;
use crate::tx::{DeploymentRead, ZoneRead, ZoneWrite};
use crate::value::{Bind, params};

/// A record that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingChange {
    /// The record's id; ids ascend with time.
    pub id: String,
    /// The record, as JSON text.
    pub record: String,
}

/// Leaves a record.
pub async fn add(tx: &mut ZoneWrite<'_>, change: &WaitingChange) -> Result<(), StoreError> {
    let zone = tx.zone.clone();
    let sql = "INSERT INTO waiting_changes (zone_id, id, record) VALUES (?1, ?2, ?3)";
    tx.tx.append(sql, params![zone, change.id, change.record]).await.map(|_| ())
}

/// Records that wait, oldest first, `limit` at most.
pub async fn list(tx: &mut ZoneRead<'_>, limit: i64) -> Result<Vec<WaitingChange>, StoreError> {
    let sql = "SELECT id, record FROM waiting_changes WHERE zone_id = ?1 ORDER BY id LIMIT ?2";
    let read = |row: crate::value::Row| {
        let mut columns = row.columns("waiting_changes");
        Ok(WaitingChange { id: columns.next()?, record: columns.next()? })
    };
    tx.tx.query(sql, params![tx.zone, limit]).await?.into_iter().map(read).collect()
}

/// Removes a record that is in its chain.
pub async fn remove(tx: &mut ZoneWrite<'_>, id: &str) -> Result<(), StoreError> {
    let zone = tx.zone.clone();
    let sql = "DELETE FROM waiting_changes WHERE zone_id = ?1 AND id = ?2";
    tx.tx.append(sql, params![zone, id]).await.map(|_| ())
}

/// The first zone after `after`, in the order of ids, in which a record waits.
pub async fn find_zone(tx: &mut DeploymentRead<'_>, after: Option<&ZoneId>) -> Result<Option<ZoneId>, StoreError> {
    let after = after.map_or("", ZoneId::as_str);
    let sql = "SELECT zone_id FROM waiting_changes WHERE zone_id > ?1 ORDER BY zone_id LIMIT 1";
    let row = tx.tx().query_one(sql, params![after]).await?;
    row.map(|row| row.columns("waiting_changes").next()).transpose()
}
