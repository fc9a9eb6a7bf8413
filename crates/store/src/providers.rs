//! Credential providers: what stands between a resource and its upstream credential.

use caracal_authority::{ProviderId, Timestamp, ZoneId};
use serde_json::{Map, Value};

use crate::ahead::by_id;
use crate::attribution::{Attribution, archive_row};
use crate::error::StoreError;
use crate::page::{Page, archival};
use crate::tx::{ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// A provider. Its secrets are not here: they are sealed, see [`crate::sealed_secrets`].
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: ProviderId,
    /// Display name.
    pub name: String,
    /// `provider://…`, unique among the zone's live providers.
    pub identifier: String,
    /// The kind's wire name.
    pub kind: String,
    /// The public part of its configuration.
    pub config: Map<String, Value>,
    /// Which secrets are sealed for it.
    pub secret_config_keys: Vec<String>,
    /// When its last connectivity check failed.
    pub connectivity_failed_at: Option<Timestamp>,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
    /// Who made it.
    pub attribution: Attribution,
}

pub(crate) const COLUMNS: &str = "zone_id, id, name, identifier, kind, config_json, secret_config_keys, \
                                  connectivity_failed_at, archived_at, created_by, created_via_operator, updated_by, \
                                  updated_via_operator, created_at, updated_at";

pub(crate) fn read(row: Row) -> Result<Provider, StoreError> {
    let mut columns = row.columns("providers");
    Ok(Provider {
        zone_id: columns.next()?,
        id: columns.next()?,
        name: columns.next()?,
        identifier: columns.next()?,
        kind: columns.next()?,
        config: columns.json()?,
        secret_config_keys: columns.json()?,
        connectivity_failed_at: columns.next()?,
        archived_at: columns.next()?,
        attribution: Attribution::read(&mut columns)?,
    })
}

/// The provider, archived or not.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &ProviderId) -> Result<Option<Provider>, StoreError> {
    let sql = by_id("providers", COLUMNS);
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// Adds a provider. Conflicts on `providers.identifier`.
pub async fn add(tx: &mut ZoneWrite<'_>, provider: &Provider) -> Result<(), StoreError> {
    let sql = "INSERT INTO providers (zone_id, id, name, identifier, kind, config_json, secret_config_keys,
                 connectivity_failed_at, archived_at, created_by, created_via_operator, updated_by,
                 updated_via_operator, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL, ?9, ?10, NULL, NULL, ?11, ?11)";
    let zone = tx.zone.clone();
    let (config, keys) = (crate::json_text(&provider.config), crate::json_text(&provider.secret_config_keys));
    let by = &provider.attribution;
    let params = params![
        zone,
        provider.id,
        provider.name,
        provider.identifier,
        provider.kind,
        config,
        keys,
        provider.connectivity_failed_at,
        by.created_by,
        by.created_via_operator,
        by.created_at
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Providers of the zone, archived ones or the others, newest first.
pub async fn list(tx: &mut ZoneRead<'_>, archived: bool, page: &Page) -> Result<Vec<Provider>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM providers WHERE zone_id = ?1 AND {} AND (created_at, id) < (?2, ?3)
         ORDER BY created_at DESC, id DESC LIMIT ?4",
        archival(archived)
    );
    tx.tx.query(&sql, params![tx.zone, page.at(), page.id(), page.limit()]).await?.into_iter().map(read).collect()
}

/// Identifiers of live providers that are `base` or start with `base-`. `base` is free of `%` and `_`.
pub async fn list_identifiers(tx: &mut ZoneRead<'_>, base: &str) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT identifier FROM providers WHERE zone_id = ?1 AND archived_at IS NULL
                 AND (identifier = ?2 OR identifier LIKE ?3)";
    let rows = tx.tx.query(sql, params![tx.zone, base, format!("{base}-%")]).await?;
    rows.into_iter().map(|row| row.columns("providers").next()).collect()
}

/// Stores name, identifier, kind, configuration and last change of a provider that is there. Conflicts on
/// `providers.identifier`.
pub async fn update(tx: &mut ZoneWrite<'_>, provider: &Provider) -> Result<(), StoreError> {
    let sql = "UPDATE providers SET name = ?3, identifier = ?4, kind = ?5, config_json = ?6, secret_config_keys = ?7,
                 connectivity_failed_at = ?8, updated_by = ?9, updated_via_operator = ?10, updated_at = ?11
               WHERE zone_id = ?1 AND id = ?2";
    let zone = tx.zone.clone();
    let (config, keys) = (crate::json_text(&provider.config), crate::json_text(&provider.secret_config_keys));
    let by = &provider.attribution;
    let params = params![
        zone,
        provider.id,
        provider.name,
        provider.identifier,
        provider.kind,
        config,
        keys,
        provider.connectivity_failed_at,
        by.updated_by,
        by.updated_via_operator,
        by.updated_at
    ];
    tx.tx.execute(sql, params).await.map(|_| ())
}

/// Archives a provider; `false` when it is not there or archived already.
pub async fn archive(tx: &mut ZoneWrite<'_>, id: &ProviderId, by: &str) -> Result<bool, StoreError> {
    archive_row(tx, "providers", id.as_str(), by).await
}
