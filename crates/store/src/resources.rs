//! Resources: what agents call through the Gateway.

use caracal_authority::{ProviderId, ResourceId, Timestamp, ZoneId};
use serde::{Deserialize, Serialize};

use crate::attribution::Attribution;
use crate::error::StoreError;
use crate::tx::{ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// A declared operation of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Upper-case HTTP method.
    pub method: String,
    /// Absolute path, exact or with `{name}` and a final `**`.
    pub path: String,
    /// The scope it needs.
    pub scope: String,
}

/// A resource.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: ResourceId,
    /// Display name.
    pub name: String,
    /// The name clients use, unique among the zone's live resources, case-sensitive.
    pub identifier: String,
    /// Where the Gateway sends calls.
    pub upstream_url: Option<String>,
    /// Scopes that exist on it.
    pub scopes: Vec<String>,
    /// Where its upstream credential comes from.
    pub credential_provider_id: Option<ProviderId>,
    /// Declared operations.
    pub operations: Vec<Operation>,
    /// `enforced` or `transport_uniform`.
    pub operation_enforcement: String,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
    /// Who made it.
    pub attribution: Attribution,
}

pub(crate) const COLUMNS: &str = "zone_id, id, name, identifier, upstream_url, scopes, credential_provider_id, operations, \
                                  operation_enforcement, archived_at, created_by, created_via_operator, updated_by, \
                                  updated_via_operator, created_at, updated_at";

pub(crate) fn read(row: Row) -> Result<Resource, StoreError> {
    let mut columns = row.columns("resources");
    Ok(Resource {
        zone_id: columns.next()?,
        id: columns.next()?,
        name: columns.next()?,
        identifier: columns.next()?,
        upstream_url: columns.next()?,
        scopes: columns.json()?,
        credential_provider_id: columns.next()?,
        operations: columns.json()?,
        operation_enforcement: columns.next()?,
        archived_at: columns.next()?,
        attribution: Attribution::read(&mut columns)?,
    })
}

/// The resource, archived or not.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &ResourceId) -> Result<Option<Resource>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM resources WHERE zone_id = ?1 AND id = ?2");
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// The live resource that `name` means: by identifier, else by id (contract: sts.md §3.2 `resource`).
pub async fn find_by_name(tx: &mut ZoneRead<'_>, name: &str) -> Result<Option<Resource>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM resources WHERE zone_id = ?1 AND archived_at IS NULL AND (identifier = ?2 OR id = ?2)
         ORDER BY identifier = ?2 DESC LIMIT 1"
    );
    tx.tx
        .query_one(&sql, params![tx.zone, name])
        .await?
        .map(read)
        .transpose()
}

/// Adds a resource. Conflicts on `resources.identifier`.
pub async fn add(tx: &mut ZoneWrite<'_>, resource: &Resource) -> Result<(), StoreError> {
    let sql = "INSERT INTO resources (zone_id, id, name, identifier, upstream_url, scopes, credential_provider_id,
                 operations, operation_enforcement, archived_at, created_by, created_via_operator, updated_by,
                 updated_via_operator, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL, ?10, ?11, NULL, NULL, ?12, ?12)";
    let zone = tx.zone.clone();
    let (scopes, operations) = (
        crate::json_text(&resource.scopes),
        crate::json_text(&resource.operations),
    );
    let by = &resource.attribution;
    let params = params![
        zone,
        resource.id,
        resource.name,
        resource.identifier,
        resource.upstream_url,
        scopes,
        resource.credential_provider_id,
        operations,
        resource.operation_enforcement,
        by.created_by,
        by.created_via_operator,
        by.created_at
    ];
    tx.tx.execute(sql, params).await.map(|_| ())
}
