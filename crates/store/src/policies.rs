//! Policies and their immutable versions.

use caracal_authority::{PolicyId, PolicyVersionId, Timestamp, ZoneId};

use crate::attribution::Attribution;
use crate::error::StoreError;
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
    tx.tx
        .query_one(&sql, params![tx.zone, id])
        .await?
        .map(read_version)
        .transpose()
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
    tx.tx.execute(sql, params).await.map(|_| ())
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
    tx.tx.execute(sql, params).await.map(|_| ())
}
