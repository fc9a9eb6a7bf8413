//! Policies and their immutable versions.

use caracal_authority::{PolicyId, PolicyVersionId, Timestamp, ZoneId};

use crate::attribution::Attribution;
use crate::error::StoreError;
use crate::page::Page;
use crate::tx::{ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// A policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: PolicyId,
    /// Unique among the zone's live policies.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
    /// Who made it.
    pub attribution: Attribution,
}

/// An immutable snapshot of one policy document.
#[derive(Debug, Clone)]
pub struct PolicyVersion {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: PolicyVersionId,
    /// The policy it belongs to.
    pub policy_id: PolicyId,
    /// Counts from 1 within the policy.
    pub version: i64,
    /// The document exactly as received.
    pub content: String,
    /// Lower-case hex SHA-256 of `content`.
    pub content_sha256: String,
    /// The input schema it was written for.
    pub schema_version: String,
    /// Who made it.
    pub created_by: Option<String>,
    /// Whether that was the assistant on someone's behalf.
    pub created_via_operator: bool,
    /// When.
    pub created_at: Timestamp,
}

pub(crate) const COLUMNS: &str = "zone_id, id, name, description, archived_at, created_by, created_via_operator, \
                                  updated_by, updated_via_operator, created_at, updated_at";
pub(crate) const VERSION_COLUMNS: &str = "zone_id, id, policy_id, version, content, content_sha256, schema_version, \
                                          created_by, created_via_operator, created_at";

pub(crate) fn read(row: Row) -> Result<Policy, StoreError> {
    let mut columns = row.columns("policies");
    Ok(Policy {
        zone_id: columns.next()?,
        id: columns.next()?,
        name: columns.next()?,
        description: columns.next()?,
        archived_at: columns.next()?,
        attribution: Attribution::read(&mut columns)?,
    })
}

pub(crate) fn read_version(row: Row) -> Result<PolicyVersion, StoreError> {
    let mut columns = row.columns("policy_versions");
    Ok(PolicyVersion {
        zone_id: columns.next()?,
        id: columns.next()?,
        policy_id: columns.next()?,
        version: columns.next()?,
        content: columns.next()?,
        content_sha256: columns.next()?,
        schema_version: columns.next()?,
        created_by: columns.next()?,
        created_via_operator: columns.next()?,
        created_at: columns.next()?,
    })
}

/// The policy, archived or not.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &PolicyId) -> Result<Option<Policy>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM policies WHERE zone_id = ?1 AND id = ?2");
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// The version, in this zone.
pub async fn lookup_version(tx: &mut ZoneRead<'_>, id: &PolicyVersionId) -> Result<Option<PolicyVersion>, StoreError> {
    let sql = format!("SELECT {VERSION_COLUMNS} FROM policy_versions WHERE zone_id = ?1 AND id = ?2");
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read_version).transpose()
}

/// Adds a policy without versions. Conflicts on `policies.name`.
pub async fn add(tx: &mut ZoneWrite<'_>, policy: &Policy) -> Result<(), StoreError> {
    let sql = "INSERT INTO policies (zone_id, id, name, description, archived_at, created_by, created_via_operator,
                 updated_by, updated_via_operator, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, NULL, ?5, ?6, NULL, NULL, ?7, ?7)";
    let zone = tx.zone.clone();
    let by = &policy.attribution;
    let params = params![
        zone,
        policy.id,
        policy.name,
        policy.description,
        by.created_by,
        by.created_via_operator,
        by.created_at
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Adds a version; its number must be the next of its policy. Conflicts on `policy_versions.version`.
pub async fn add_version(tx: &mut ZoneWrite<'_>, version: &PolicyVersion) -> Result<(), StoreError> {
    let sql = "INSERT INTO policy_versions (zone_id, id, policy_id, version, content, content_sha256, schema_version,
                 created_by, created_via_operator, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let zone = tx.zone.clone();
    let params = params![
        zone,
        version.id,
        version.policy_id,
        version.version,
        version.content,
        version.content_sha256,
        version.schema_version,
        version.created_by,
        version.created_via_operator,
        version.created_at
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Which version of a policy is the newest, without its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatestVersion {
    /// Its id.
    pub id: PolicyVersionId,
    /// Its number.
    pub version: i64,
    /// Its content hash.
    pub content_sha256: String,
}

/// Policies that are not archived with their newest versions, newest policy first.
pub async fn list(tx: &mut ZoneRead<'_>, page: &Page) -> Result<Vec<(Policy, Option<LatestVersion>)>, StoreError> {
    let sql = "SELECT p.zone_id, p.id, p.name, p.description, p.archived_at, p.created_by, p.created_via_operator,
                 p.updated_by, p.updated_via_operator, p.created_at, p.updated_at, v.id, v.version, v.content_sha256
               FROM policies p LEFT JOIN policy_versions v ON v.zone_id = p.zone_id AND v.policy_id = p.id
                 AND v.version = (SELECT max(n.version) FROM policy_versions n
                                  WHERE n.zone_id = p.zone_id AND n.policy_id = p.id)
               WHERE p.zone_id = ?1 AND p.archived_at IS NULL
                 AND (p.created_at, p.id) < (?2, ?3)
               ORDER BY p.created_at DESC, p.id DESC LIMIT ?4";
    let rows = tx.tx.query(sql, params![tx.zone, page.at(), page.id(), page.limit()]).await?;
    let read = |row: Row| {
        let mut columns = row.columns("policies");
        let policy = Policy {
            zone_id: columns.next()?,
            id: columns.next()?,
            name: columns.next()?,
            description: columns.next()?,
            archived_at: columns.next()?,
            attribution: Attribution::read(&mut columns)?,
        };
        let latest = match columns.next()? {
            None => None,
            Some(id) => Some(LatestVersion { id, version: columns.next()?, content_sha256: columns.next()? }),
        };
        Ok((policy, latest))
    };
    rows.into_iter().map(read).collect()
}

/// All versions of a policy, newest number first.
pub async fn list_versions(tx: &mut ZoneRead<'_>, policy: &PolicyId) -> Result<Vec<PolicyVersion>, StoreError> {
    let sql = format!(
        "SELECT {VERSION_COLUMNS} FROM policy_versions WHERE zone_id = ?1 AND policy_id = ?2 ORDER BY version DESC"
    );
    tx.tx.query(&sql, params![tx.zone, policy]).await?.into_iter().map(read_version).collect()
}

/// The highest version number of a policy; 0 when it has none.
pub async fn highest_version(tx: &mut ZoneRead<'_>, policy: &PolicyId) -> Result<i64, StoreError> {
    let sql = "SELECT max(version) FROM policy_versions WHERE zone_id = ?1 AND policy_id = ?2";
    match tx.tx.query_one(sql, params![tx.zone, policy]).await? {
        Some(row) => Ok(row.columns("policy_versions").next::<Option<i64>>()?.unwrap_or(0)),
        None => Ok(0),
    }
}

/// Whether another zone has this version. The one statement that looks out of its zone: the contract tells a version of
/// another zone from one that does not exist (policy.md §10.1). It says yes or no and no more.
pub async fn version_is_elsewhere(tx: &mut ZoneRead<'_>, id: &PolicyVersionId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM policy_versions WHERE id = ?1 AND zone_id <> ?2 LIMIT 1";
    Ok(!tx.tx.query_everywhere(sql, params![id, tx.zone]).await?.is_empty())
}

/// Archives a policy and says whether it was there and live. Its versions stay, and decide wherever they did.
pub async fn archive(tx: &mut ZoneWrite<'_>, id: &PolicyId, by: &str) -> Result<bool, StoreError> {
    let sql = "UPDATE policies SET archived_at = ?3, updated_by = ?4, updated_via_operator = 0, updated_at = ?3
               WHERE zone_id = ?1 AND id = ?2 AND archived_at IS NULL";
    let (zone, now) = (tx.zone.clone(), tx.now());
    Ok(tx.tx.append(sql, params![zone, id, now, by]).await? > 0)
}
