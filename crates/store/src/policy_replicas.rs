//! Which processes decide, and what each of them has loaded of a zone (contract: policy.md §10.4; README D32). They say so
//! themselves: whoever has not been heard of for a while is gone.

use caracal_authority::{PolicySetVersionId, ReplicaId, Timestamp, ZoneId};

use crate::error::StoreError;
use crate::tx::{DeploymentWrite, ZoneRead};
use crate::value::{Bind, Row, params};

/// What a process has loaded of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedPolicy {
    /// The set version it found active; none when nothing is.
    pub policy_set_version_id: Option<PolicySetVersionId>,
    /// Hash of its manifest, or `no_active_policy_set`.
    pub manifest_sha256: String,
    /// Since when it is loaded; none when it could not be.
    pub loaded_at: Option<Timestamp>,
    /// Why it could not be.
    pub error: Option<String>,
    /// When it looked.
    pub checked_at: Timestamp,
}

/// A process that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its id.
    pub id: ReplicaId,
    /// When it was heard of last.
    pub seen_at: Timestamp,
    /// What it has loaded of the zone, if it has said so.
    pub loaded: Option<LoadedPolicy>,
}

/// Notes that `replica` is there.
pub async fn note_seen(tx: &mut DeploymentWrite<'_>, replica: &ReplicaId) -> Result<(), StoreError> {
    let now = tx.now();
    let sql = "INSERT INTO sts_replicas (id, started_at, seen_at) VALUES (?1, ?2, ?2)
               ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at";
    tx.tx().append(sql, params![replica, now]).await.map(|_| ())
}

/// Notes what `replica` has loaded of `zone`. What was seen earlier does not replace what was seen later.
pub async fn note_loaded(
    tx: &mut DeploymentWrite<'_>,
    replica: &ReplicaId,
    zone: &ZoneId,
    loaded: &LoadedPolicy,
) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO loaded_policies (zone_id, replica_id, policy_set_version_id, manifest_sha256, loaded_at, error,
                 checked_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
               ON CONFLICT (zone_id, replica_id) DO UPDATE SET policy_set_version_id = excluded.policy_set_version_id,
                 manifest_sha256 = excluded.manifest_sha256, loaded_at = excluded.loaded_at, error = excluded.error,
                 checked_at = excluded.checked_at
               WHERE loaded_policies.checked_at <= excluded.checked_at";
    let LoadedPolicy { policy_set_version_id, manifest_sha256, loaded_at, error, checked_at } = loaded;
    let params = params![zone, replica, policy_set_version_id, manifest_sha256, loaded_at, error, checked_at];
    tx.tx().append(sql, params).await.map(|_| ())
}

/// The processes that were heard of since `since`, the oldest first, each with what it has loaded of the zone.
pub async fn list(tx: &mut ZoneRead<'_>, since: Timestamp) -> Result<Vec<Replica>, StoreError> {
    let sql = "SELECT s.id, s.seen_at, l.policy_set_version_id, l.manifest_sha256, l.loaded_at, l.error, l.checked_at
               FROM sts_replicas s LEFT JOIN loaded_policies l ON l.replica_id = s.id AND l.zone_id = ?1
               WHERE s.seen_at >= ?2 ORDER BY s.started_at, s.id";
    tx.tx.query(sql, params![tx.zone, since]).await?.into_iter().map(read).collect()
}

fn read(row: Row) -> Result<Replica, StoreError> {
    let mut columns = row.columns("loaded_policies");
    let (id, seen_at, policy_set_version_id) = (columns.next()?, columns.next()?, columns.next()?);
    let loaded = match columns.next()? {
        None => None,
        Some(manifest_sha256) => Some(LoadedPolicy {
            policy_set_version_id,
            manifest_sha256,
            loaded_at: columns.next()?,
            error: columns.next()?,
            checked_at: columns.next()?,
        }),
    };
    Ok(Replica { id, seen_at, loaded })
}

/// Forgets a process.
pub async fn forget(tx: &mut DeploymentWrite<'_>, replica: &ReplicaId) -> Result<(), StoreError> {
    for sql in ["DELETE FROM loaded_policies WHERE replica_id = ?1", "DELETE FROM sts_replicas WHERE id = ?1"] {
        tx.tx().append(sql, params![replica]).await?;
    }
    Ok(())
}

/// Forgets every process that was last heard of before `before`, and what was said by one that is not known.
pub async fn forget_unseen(tx: &mut DeploymentWrite<'_>, before: Timestamp) -> Result<usize, StoreError> {
    let gone = tx.tx().append("DELETE FROM sts_replicas WHERE seen_at < ?1", params![before]).await?;
    let sql = "DELETE FROM loaded_policies WHERE replica_id NOT IN (SELECT id FROM sts_replicas)";
    Ok(gone + tx.tx().append(sql, &[]).await?)
}
