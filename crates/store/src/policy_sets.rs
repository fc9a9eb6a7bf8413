//! Policy sets, their immutable versions, and which one is active in a zone.

use caracal_authority::{OutboxId, PolicySetId, PolicySetVersionId, PolicyVersionId, Timestamp, ZoneId};

use crate::attribution::Attribution;
use crate::error::StoreError;
use crate::page::Page;
use crate::tx::{DeploymentRead, ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// Topic that says that what decides in a zone has changed.
pub const INVALIDATED: &str = "caracal.policy.invalidate";

/// A policy set.
#[derive(Debug, Clone)]
pub struct PolicySet {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: PolicySetId,
    /// Unique among the zone's live sets.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
    /// The version that decides in the zone, if this set is the active one.
    pub active_version_id: Option<PolicySetVersionId>,
    /// Who made it.
    pub attribution: Attribution,
}

/// An immutable manifest.
#[derive(Debug, Clone)]
pub struct PolicySetVersion {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: PolicySetVersionId,
    /// The set it belongs to.
    pub policy_set_id: PolicySetId,
    /// Counts from 1 within the set.
    pub version: i64,
    /// The policy versions it is made of, in order.
    pub manifest: Vec<PolicyVersionId>,
    /// Lower-case hex SHA-256 of the manifest text (contract: policy.md §10.2).
    pub manifest_sha256: String,
    /// The input schema of its documents.
    pub schema_version: String,
    /// Who made it.
    pub created_by: Option<String>,
    /// Whether that was the assistant on someone's behalf.
    pub created_via_operator: bool,
    /// When.
    pub created_at: Timestamp,
}

/// What decides in a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivePolicySet {
    /// The set.
    pub policy_set_id: PolicySetId,
    /// Its version.
    pub version_id: PolicySetVersionId,
    /// The version's manifest hash: the key under which its bundle may be remembered.
    pub manifest_sha256: String,
    /// Since when.
    pub activated_at: Timestamp,
}

pub(crate) const COLUMNS: &str = "s.zone_id, s.id, s.name, s.description, s.archived_at, a.version_id, s.created_by, \
                                  s.created_via_operator, s.updated_by, s.updated_via_operator, s.created_at, s.updated_at";
pub(crate) const FROM: &str =
    "policy_sets s LEFT JOIN active_policy_sets a ON a.zone_id = s.zone_id AND a.policy_set_id = s.id";
pub(crate) const VERSION_COLUMNS: &str = "zone_id, id, policy_set_id, version, manifest_json, manifest_sha256, \
                                          schema_version, created_by, created_via_operator, created_at";

pub(crate) fn read(row: Row) -> Result<PolicySet, StoreError> {
    let mut columns = row.columns("policy_sets");
    Ok(PolicySet {
        zone_id: columns.next()?,
        id: columns.next()?,
        name: columns.next()?,
        description: columns.next()?,
        archived_at: columns.next()?,
        active_version_id: columns.next()?,
        attribution: Attribution::read(&mut columns)?,
    })
}

pub(crate) fn read_version(row: Row) -> Result<PolicySetVersion, StoreError> {
    let mut columns = row.columns("policy_set_versions");
    Ok(PolicySetVersion {
        zone_id: columns.next()?,
        id: columns.next()?,
        policy_set_id: columns.next()?,
        version: columns.next()?,
        manifest: columns.json()?,
        manifest_sha256: columns.next()?,
        schema_version: columns.next()?,
        created_by: columns.next()?,
        created_via_operator: columns.next()?,
        created_at: columns.next()?,
    })
}

/// The set, archived or not.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &PolicySetId) -> Result<Option<PolicySet>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE s.zone_id = ?1 AND s.id = ?2");
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// The version, in this zone.
pub async fn lookup_version(
    tx: &mut ZoneRead<'_>,
    id: &PolicySetVersionId,
) -> Result<Option<PolicySetVersion>, StoreError> {
    let sql = format!("SELECT {VERSION_COLUMNS} FROM policy_set_versions WHERE zone_id = ?1 AND id = ?2");
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read_version).transpose()
}

/// The zone whose version this is. Ids of versions are drawn by us and not drawn twice.
pub async fn find_zone_of_version(
    tx: &mut DeploymentRead<'_>,
    id: &PolicySetVersionId,
) -> Result<Option<ZoneId>, StoreError> {
    let row = tx.tx().query_one("SELECT zone_id FROM policy_set_versions WHERE id = ?1", params![id]).await?;
    row.map(|row| row.columns("policy_set_versions").next()).transpose()
}

pub(crate) const FIND_ACTIVE: &str = "SELECT a.policy_set_id, a.version_id, v.manifest_sha256, a.activated_at
    FROM active_policy_sets a JOIN policy_set_versions v ON v.zone_id = a.zone_id AND v.id = a.version_id
    WHERE a.zone_id = ?1";

/// What decides in the transaction's zone; `None` denies everything.
pub async fn find_active(tx: &mut ZoneRead<'_>) -> Result<Option<ActivePolicySet>, StoreError> {
    let Some(row) = tx.tx.query_one(FIND_ACTIVE, params![tx.zone]).await? else {
        return Ok(None);
    };
    let mut columns = row.columns("active_policy_sets");
    Ok(Some(ActivePolicySet {
        policy_set_id: columns.next()?,
        version_id: columns.next()?,
        manifest_sha256: columns.next()?,
        activated_at: columns.next()?,
    }))
}

/// Makes `version` the one that decides in the zone, instead of whichever did.
pub async fn activate(
    tx: &mut ZoneWrite<'_>,
    set: &PolicySetId,
    version: &PolicySetVersionId,
) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO active_policy_sets (zone_id, policy_set_id, version_id, activated_at) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (zone_id) DO UPDATE SET policy_set_id = excluded.policy_set_id,
                 version_id = excluded.version_id, activated_at = excluded.activated_at";
    let (zone, now) = (tx.zone.clone(), tx.now());
    tx.tx.execute(sql, params![zone, set, version, now]).await.map(|_| ())
}

/// Lets nothing decide in the zone any more if `set` did: it falls to deny-all. Says whether it did.
pub async fn deactivate(tx: &mut ZoneWrite<'_>, set: &PolicySetId) -> Result<bool, StoreError> {
    let zone = tx.zone.clone();
    let sql = "DELETE FROM active_policy_sets WHERE zone_id = ?1 AND policy_set_id = ?2";
    Ok(tx.tx.execute(sql, params![zone, set]).await? > 0)
}

/// Adds a set. Conflicts on `policy_sets.name`.
pub async fn add(tx: &mut ZoneWrite<'_>, set: &PolicySet) -> Result<(), StoreError> {
    let sql = "INSERT INTO policy_sets (zone_id, id, name, description, archived_at, created_by, created_via_operator,
                 updated_by, updated_via_operator, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, NULL, ?5, ?6, NULL, NULL, ?7, ?7)";
    let zone = tx.zone.clone();
    let by = &set.attribution;
    let params =
        params![zone, set.id, set.name, set.description, by.created_by, by.created_via_operator, by.created_at];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Adds a version; its number must be the next of its set. Conflicts on `policy_set_versions.version`.
pub async fn add_version(tx: &mut ZoneWrite<'_>, version: &PolicySetVersion) -> Result<(), StoreError> {
    let sql = "INSERT INTO policy_set_versions (zone_id, id, policy_set_id, version, manifest_json, manifest_sha256,
                 schema_version, created_by, created_via_operator, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let zone = tx.zone.clone();
    let manifest = crate::json_text(&version.manifest);
    let params = params![
        zone,
        version.id,
        version.policy_set_id,
        version.version,
        manifest,
        version.manifest_sha256,
        version.schema_version,
        version.created_by,
        version.created_via_operator,
        version.created_at
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Which version of a set is the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatestSetVersion {
    /// Its id.
    pub id: PolicySetVersionId,
    /// Its number.
    pub version: i64,
    /// Its manifest hash.
    pub manifest_sha256: String,
}

/// Sets that are not archived with their newest versions, newest set first.
pub async fn list(
    tx: &mut ZoneRead<'_>,
    page: &Page,
) -> Result<Vec<(PolicySet, Option<LatestSetVersion>)>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS}, v.id, v.version, v.manifest_sha256 FROM {FROM}
           LEFT JOIN policy_set_versions v ON v.zone_id = s.zone_id AND v.policy_set_id = s.id
             AND v.version = (SELECT max(n.version) FROM policy_set_versions n
                              WHERE n.zone_id = s.zone_id AND n.policy_set_id = s.id)
         WHERE s.zone_id = ?1 AND s.archived_at IS NULL
           AND (s.created_at, s.id) < (?2, ?3)
         ORDER BY s.created_at DESC, s.id DESC LIMIT ?4"
    );
    let rows = tx.tx.query(&sql, params![tx.zone, page.at(), page.id(), page.limit()]).await?;
    let read = |row: Row| {
        let mut columns = row.columns("policy_sets");
        let set = PolicySet {
            zone_id: columns.next()?,
            id: columns.next()?,
            name: columns.next()?,
            description: columns.next()?,
            archived_at: columns.next()?,
            active_version_id: columns.next()?,
            attribution: Attribution::read(&mut columns)?,
        };
        let latest = match columns.next()? {
            None => None,
            Some(id) => Some(LatestSetVersion { id, version: columns.next()?, manifest_sha256: columns.next()? }),
        };
        Ok((set, latest))
    };
    rows.into_iter().map(read).collect()
}

/// Versions of a set, newest first.
pub async fn list_versions(
    tx: &mut ZoneRead<'_>,
    set: &PolicySetId,
    page: &Page,
) -> Result<Vec<PolicySetVersion>, StoreError> {
    let sql = format!(
        "SELECT {VERSION_COLUMNS} FROM policy_set_versions WHERE zone_id = ?1 AND policy_set_id = ?2
           AND (created_at, id) < (?3, ?4) ORDER BY created_at DESC, id DESC LIMIT ?5"
    );
    tx.tx
        .query(&sql, params![tx.zone, set, page.at(), page.id(), page.limit()])
        .await?
        .into_iter()
        .map(read_version)
        .collect()
}

/// The highest version number of a set; 0 when it has none.
pub async fn highest_version(tx: &mut ZoneRead<'_>, set: &PolicySetId) -> Result<i64, StoreError> {
    let sql = "SELECT max(version) FROM policy_set_versions WHERE zone_id = ?1 AND policy_set_id = ?2";
    match tx.tx.query_one(sql, params![tx.zone, set]).await? {
        Some(row) => Ok(row.columns("policy_set_versions").next::<Option<i64>>()?.unwrap_or(0)),
        None => Ok(0),
    }
}

/// Stamps a set as changed by `by`.
pub async fn touch(tx: &mut ZoneWrite<'_>, set: &PolicySetId, by: &str) -> Result<(), StoreError> {
    let sql = "UPDATE policy_sets SET updated_by = ?3, updated_via_operator = 0, updated_at = ?4
               WHERE zone_id = ?1 AND id = ?2";
    let (zone, now) = (tx.zone.clone(), tx.now());
    tx.tx.append(sql, params![zone, set, by, now]).await.map(|_| ())
}

/// Archives a set and says whether it was there and live. That it no longer decides is [`deactivate`]'s to see to.
pub async fn archive(tx: &mut ZoneWrite<'_>, set: &PolicySetId, by: &str) -> Result<bool, StoreError> {
    let sql = "UPDATE policy_sets SET archived_at = ?4, updated_by = ?3, updated_via_operator = 0, updated_at = ?4
               WHERE zone_id = ?1 AND id = ?2 AND archived_at IS NULL";
    let (zone, now) = (tx.zone.clone(), tx.now());
    Ok(tx.tx.append(sql, params![zone, set, by, now]).await? > 0)
}

/// Notes that `message` announced the activation of `version`: it may be asked about after it was delivered and its row
/// deleted.
pub async fn note_announcement(
    tx: &mut ZoneWrite<'_>,
    message: &OutboxId,
    set: &PolicySetId,
    version: &PolicySetVersionId,
) -> Result<(), StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let sql = "INSERT INTO policy_announcements (zone_id, outbox_id, policy_set_id, version_id, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    tx.tx.append(sql, params![zone, message, set, version, now]).await.map(|_| ())
}

/// What a message announced, sent and gone or not; `None`: no activation of this zone.
pub async fn find_announced(
    tx: &mut ZoneRead<'_>,
    message: &OutboxId,
) -> Result<Option<(PolicySetId, PolicySetVersionId)>, StoreError> {
    let sql = "SELECT policy_set_id, version_id FROM policy_announcements WHERE zone_id = ?1 AND outbox_id = ?2";
    let Some(row) = tx.tx.query_one(sql, params![tx.zone, message]).await? else { return Ok(None) };
    let mut columns = row.columns("policy_announcements");
    Ok(Some((columns.next()?, columns.next()?)))
}

/// The newest message that announced `version`.
pub async fn find_announcement(
    tx: &mut ZoneRead<'_>,
    set: &PolicySetId,
    version: &PolicySetVersionId,
) -> Result<Option<OutboxId>, StoreError> {
    let sql = "SELECT outbox_id FROM policy_announcements WHERE zone_id = ?1 AND policy_set_id = ?2 AND version_id = ?3
               ORDER BY created_at DESC, outbox_id DESC LIMIT 1";
    match tx.tx.query_one(sql, params![tx.zone, set, version]).await? {
        Some(row) => row.columns("policy_announcements").next(),
        None => Ok(None),
    }
}

/// Every zone in which something decides, with what does.
pub async fn list_active(tx: &mut DeploymentRead<'_>) -> Result<Vec<(ZoneId, PolicySetVersionId)>, StoreError> {
    let rows = tx.tx().query("SELECT zone_id, version_id FROM active_policy_sets ORDER BY zone_id", &[]).await?;
    let read = |row: Row| {
        let mut columns = row.columns("active_policy_sets");
        Ok((columns.next()?, columns.next()?))
    };
    rows.into_iter().map(read).collect()
}
