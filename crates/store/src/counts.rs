//! What a process that is alone counts, for the one that is started after it (contract: sts.md §12).

use caracal_authority::Timestamp;

use crate::error::StoreError;
use crate::tx::{DeploymentRead, DeploymentWrite};
use crate::value::{Bind, params};

/// How often something was counted under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// What is counted; unique.
    pub name: String,
    /// How often since `began_at`.
    pub count: i64,
    /// When the window, or the block, began.
    pub began_at: Timestamp,
    /// Whether the name is blocked since `began_at`.
    pub blocked: bool,
}

/// Keeps what was counted under a name, in place of what was kept of it.
pub async fn put(tx: &mut DeploymentWrite<'_>, count: &Count) -> Result<(), StoreError> {
    let sql = "INSERT INTO counts (name, count, began_at, blocked) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (name) DO UPDATE SET count = excluded.count, began_at = excluded.began_at,
                 blocked = excluded.blocked";
    let row = params![count.name, count.count, count.began_at, count.blocked];
    tx.tx().append(sql, row).await.map(|_| ())
}

/// What was counted under names that begin with `prefix` and in windows that began at `since` or later; the newest
/// `limit`, the oldest of them first.
pub async fn list(
    tx: &mut DeploymentRead<'_>,
    prefix: &str,
    since: Timestamp,
    limit: i64,
) -> Result<Vec<Count>, StoreError> {
    let sql = "SELECT name, count, began_at, blocked FROM counts
               WHERE began_at >= ?1 AND substr(name, 1, length(?2)) = ?2 ORDER BY began_at DESC, name LIMIT ?3";
    let rows = tx.tx().query(sql, params![since, prefix, limit]).await?;
    let mut counts = Vec::with_capacity(rows.len());
    for row in rows.into_iter().rev() {
        let mut columns = row.columns("counts");
        counts.push(Count {
            name: columns.next()?,
            count: columns.next()?,
            began_at: columns.next()?,
            blocked: columns.next()?,
        });
    }
    Ok(counts)
}

/// Forgets windows that began before `before`, at most `limit`; says how many.
pub async fn purge_older(tx: &mut DeploymentWrite<'_>, before: Timestamp, limit: i64) -> Result<usize, StoreError> {
    let sql = "DELETE FROM counts WHERE name IN (
                 SELECT name FROM counts WHERE began_at < ?1 ORDER BY began_at LIMIT ?2)";
    tx.tx().append(sql, params![before, limit]).await
}
