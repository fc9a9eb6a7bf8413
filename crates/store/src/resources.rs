//! Resources: what agents call through the Gateway.

use caracal_authority::{ProviderId, ResourceId, Timestamp, ZoneId};
use serde::{Deserialize, Serialize};

use crate::ahead::by_id;
use crate::attribution::{Attribution, archive_row};
use crate::error::StoreError;
use crate::page::{Page, archival};
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

/// What one call of a resource may take, where that differs from the Gateway's own limits. Who does not know a member
/// could not hold to it, so what carries one is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallLimits {
    /// Milliseconds from the end of the upstream request to the head of its response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_timeout_ms: Option<u32>,
    /// Milliseconds of silence within a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_idle_timeout_ms: Option<u32>,
    /// Milliseconds that a response of known length may take from its head to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_timeout_ms: Option<u32>,
    /// Bytes of a request body; the Gateway's own limit holds beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_request_bytes: Option<u64>,
}

impl CallLimits {
    /// Whether the Gateway's own limits hold throughout.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
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
    /// Limits of its calls.
    pub limits: CallLimits,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
    /// Who made it.
    pub attribution: Attribution,
}

pub(crate) const COLUMNS: &str = "zone_id, id, name, identifier, upstream_url, scopes, credential_provider_id, operations, \
                                  operation_enforcement, limits, archived_at, created_by, created_via_operator, updated_by, \
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
        limits: columns.json_or_null()?.unwrap_or_default(),
        archived_at: columns.next()?,
        attribution: Attribution::read(&mut columns)?,
    })
}

/// The resource, archived or not.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &ResourceId) -> Result<Option<Resource>, StoreError> {
    let sql = by_id("resources", COLUMNS);
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

pub(crate) fn find_by_name_sql() -> String {
    format!(
        "SELECT {COLUMNS} FROM resources WHERE zone_id = ?1 AND archived_at IS NULL AND (identifier = ?2 OR id = ?2)
         ORDER BY identifier = ?2 DESC LIMIT 1"
    )
}

/// The live resource that `name` means: by identifier, else by id (contract: sts.md §3.2 `resource`).
pub async fn find_by_name(tx: &mut ZoneRead<'_>, name: &str) -> Result<Option<Resource>, StoreError> {
    tx.tx.query_one(&find_by_name_sql(), params![tx.zone, name]).await?.map(read).transpose()
}

/// Adds a resource. Conflicts on `resources.identifier`.
pub async fn add(tx: &mut ZoneWrite<'_>, resource: &Resource) -> Result<(), StoreError> {
    let sql = "INSERT INTO resources (zone_id, id, name, identifier, upstream_url, scopes, credential_provider_id,
                 operations, operation_enforcement, limits, archived_at, created_by, created_via_operator, updated_by,
                 updated_via_operator, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?13, NULL, ?10, ?11, NULL, NULL, ?12, ?12)";
    let zone = tx.zone.clone();
    let (scopes, operations) = (crate::json_text(&resource.scopes), crate::json_text(&resource.operations));
    let limits = limits_text(&resource.limits);
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
        by.created_at,
        limits
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// What a listing of resources shows.
#[derive(Debug, Clone, Default)]
pub struct ResourceFilter {
    /// The archived ones instead of the others.
    pub archived: bool,
    /// An identifier that is left out.
    pub hidden: Option<String>,
}

/// Resources of the zone that `filter` lets through, newest first.
pub async fn list(tx: &mut ZoneRead<'_>, filter: &ResourceFilter, page: &Page) -> Result<Vec<Resource>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM resources WHERE zone_id = ?1 AND {}
           AND (CAST(?2 AS TEXT) IS NULL OR identifier <> ?2)
           AND (created_at, id) < (?3, ?4) ORDER BY created_at DESC, id DESC LIMIT ?5",
        archival(filter.archived)
    );
    tx.tx
        .query(&sql, params![tx.zone, filter.hidden, page.at(), page.id(), page.limit()])
        .await?
        .into_iter()
        .map(read)
        .collect()
}

/// How many resources of the zone are not archived.
pub async fn count_live(tx: &mut ZoneRead<'_>) -> Result<i64, StoreError> {
    let sql = "SELECT count(*) FROM resources WHERE zone_id = ?1 AND archived_at IS NULL";
    match tx.tx.query_one(sql, params![tx.zone]).await? {
        Some(row) => row.columns("resources").next(),
        None => Ok(0),
    }
}

/// Identifiers that ever were `base` or started with `base-`, archived ones included. `base` is free of `%` and `_`.
pub async fn list_identifiers(tx: &mut ZoneRead<'_>, base: &str) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT identifier FROM resources WHERE zone_id = ?1 AND (identifier = ?2 OR identifier LIKE ?3)";
    let rows = tx.tx.query(sql, params![tx.zone, base, format!("{base}-%")]).await?;
    rows.into_iter().map(|row| row.columns("resources").next()).collect()
}

/// Stores everything that can change of a resource that is there. Conflicts on `resources.identifier`.
pub async fn update(tx: &mut ZoneWrite<'_>, resource: &Resource) -> Result<(), StoreError> {
    let sql = "UPDATE resources SET name = ?3, identifier = ?4, upstream_url = ?5, scopes = ?6,
                 credential_provider_id = ?7, operations = ?8, operation_enforcement = ?9, updated_by = ?10,
                 updated_via_operator = ?11, updated_at = ?12, limits = ?13 WHERE zone_id = ?1 AND id = ?2";
    let zone = tx.zone.clone();
    let (scopes, operations) = (crate::json_text(&resource.scopes), crate::json_text(&resource.operations));
    let limits = limits_text(&resource.limits);
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
        by.updated_by,
        by.updated_via_operator,
        by.updated_at,
        limits
    ];
    tx.tx.execute(sql, params).await.map(|_| ())
}

/// Archives a resource; `false` when it is not there or archived already.
pub async fn archive(tx: &mut ZoneWrite<'_>, id: &ResourceId, by: &str) -> Result<bool, StoreError> {
    archive_row(tx, "resources", id.as_str(), by).await
}

fn limits_text(limits: &CallLimits) -> Option<String> {
    (!limits.is_empty()).then(|| crate::json_text(limits))
}
