//! Zones: the tenants.

use caracal_authority::{Timestamp, ZoneId};

use crate::attribution::Attribution;
use crate::error::StoreError;
use crate::page::Page;
use crate::tx::{DeploymentRead, DeploymentWrite, ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// A zone.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Its id.
    pub id: ZoneId,
    /// Display name.
    pub name: String,
    /// Unique in the deployment, archived zones included.
    pub slug: String,
    /// Whether applications may register themselves.
    pub dcr_enabled: bool,
    /// Whether changes made through the assistant are marked.
    pub operator_coauthor_badge: bool,
    /// Whether the assistant acts under governance here.
    pub operator_governed: bool,
    /// Who made it.
    pub attribution: Attribution,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
}

const COLUMNS: &str = "id, name, slug, dcr_enabled, operator_coauthor_badge, operator_governed, archived_at, \
                       created_by, created_via_operator, updated_by, updated_via_operator, created_at, updated_at";

fn read(row: Row) -> Result<Zone, StoreError> {
    let mut columns = row.columns("zones");
    Ok(Zone {
        id: columns.next()?,
        name: columns.next()?,
        slug: columns.next()?,
        dcr_enabled: columns.next()?,
        operator_coauthor_badge: columns.next()?,
        operator_governed: columns.next()?,
        archived_at: columns.next()?,
        attribution: Attribution::read(&mut columns)?,
    })
}

pub(crate) fn lookup_sql() -> String {
    format!("SELECT {COLUMNS} FROM zones WHERE id = ?1")
}

/// The transaction's zone, archived or not.
pub async fn lookup(tx: &mut ZoneRead<'_>) -> Result<Option<Zone>, StoreError> {
    tx.tx.query_one(&lookup_sql(), params![tx.zone]).await?.map(read).transpose()
}

/// Zones that are not archived, newest first.
pub async fn list(tx: &mut DeploymentRead<'_>, page: &Page) -> Result<Vec<Zone>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM zones WHERE archived_at IS NULL AND (created_at, id) < (?1, ?2)
         ORDER BY created_at DESC, id DESC LIMIT ?3"
    );
    tx.tx().query(&sql, params![page.at(), page.id(), page.limit()]).await?.into_iter().map(read).collect()
}

/// Whether some zone, archived or not, has this slug.
pub async fn slug_is_taken(tx: &mut DeploymentRead<'_>, slug: &str) -> Result<bool, StoreError> {
    Ok(tx.tx().query_one("SELECT 1 FROM zones WHERE slug = ?1", params![slug]).await?.is_some())
}

/// Adds a zone. Conflicts on `zones.slug`.
pub async fn add(tx: &mut DeploymentWrite<'_>, zone: &Zone) -> Result<(), StoreError> {
    let sql = "INSERT INTO zones (id, name, slug, dcr_enabled, operator_coauthor_badge, operator_governed, archived_at,
                 created_by, created_via_operator, updated_by, updated_via_operator, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, ?7, ?8, NULL, NULL, ?9, ?9)";
    let by = &zone.attribution;
    let params = params![
        zone.id,
        zone.name,
        zone.slug,
        zone.dcr_enabled,
        zone.operator_coauthor_badge,
        zone.operator_governed,
        by.created_by,
        by.created_via_operator,
        by.created_at
    ];
    tx.tx().append(sql, params).await.map(|_| ())
}

/// What a listing of zones leaves out.
#[derive(Debug, Clone)]
pub struct ZoneFilter {
    /// Zones whose lower-case name starts so are left out.
    pub hidden_name_prefix: String,
    /// Zones whose slug starts so are left out.
    pub hidden_slug_prefix: String,
    /// Only zones that belong to this console account.
    pub owner: Option<String>,
}

/// Zones that are not archived and that `filter` lets through, newest first.
pub async fn list_visible(
    tx: &mut DeploymentRead<'_>,
    filter: &ZoneFilter,
    page: &Page,
) -> Result<Vec<Zone>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM zones WHERE archived_at IS NULL
           AND (created_at, id) < (?1, ?2)
           AND substr(lower(name), 1, length(?3)) <> ?3 AND substr(slug, 1, length(?4)) <> ?4
           AND (CAST(?5 AS TEXT) IS NULL OR EXISTS (SELECT 1 FROM zone_owners o WHERE o.zone_id = zones.id AND o.account = ?5))
         ORDER BY created_at DESC, id DESC LIMIT ?6"
    );
    tx.tx()
        .query(
            &sql,
            params![
                page.at(),
                page.id(),
                filter.hidden_name_prefix,
                filter.hidden_slug_prefix,
                filter.owner,
                page.limit()
            ],
        )
        .await?
        .into_iter()
        .map(read)
        .collect()
}

/// Slugs of any zone, archived or not, that are `base` or start with `base-`. `base` is free of `%` and `_`.
pub async fn list_slugs(tx: &mut DeploymentRead<'_>, base: &str) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT slug FROM zones WHERE slug = ?1 OR slug LIKE ?2";
    let rows = tx.tx().query(sql, params![base, format!("{base}-%")]).await?;
    rows.into_iter().map(|row| row.columns("zones").next()).collect()
}

/// The console account that the transaction's zone belongs to, if any.
pub async fn find_owner(tx: &mut ZoneRead<'_>) -> Result<Option<String>, StoreError> {
    let sql = "SELECT account FROM zone_owners WHERE zone_id = ?1";
    let row = tx.tx.query_one(sql, params![tx.zone]).await?;
    row.map(|row| row.columns("zone_owners").next()).transpose()
}

/// Gives the transaction's zone, which has no owner yet, to a console account.
pub async fn give_to(tx: &mut ZoneWrite<'_>, account: &str) -> Result<(), StoreError> {
    let zone = tx.zone.clone();
    let sql = "INSERT INTO zone_owners (zone_id, account) VALUES (?1, ?2)";
    tx.tx.append(sql, params![zone, account]).await.map(|_| ())
}

/// Stores name, slug, settings and last change of the transaction's zone. Conflicts on `zones.slug`.
pub async fn update(tx: &mut ZoneWrite<'_>, zone: &Zone) -> Result<(), StoreError> {
    let sql = "UPDATE zones SET name = ?2, slug = ?3, dcr_enabled = ?4, operator_coauthor_badge = ?5,
                 operator_governed = ?6, updated_by = ?7, updated_via_operator = ?8, updated_at = ?9 WHERE id = ?1";
    let (id, by) = (tx.zone.clone(), &zone.attribution);
    let params = params![
        id,
        zone.name,
        zone.slug,
        zone.dcr_enabled,
        zone.operator_coauthor_badge,
        zone.operator_governed,
        by.updated_by,
        by.updated_via_operator,
        by.updated_at
    ];
    tx.tx.execute(sql, params).await.map(|_| ())
}

/// Archives the transaction's zone; `false` when it is not there or archived already.
pub async fn archive(tx: &mut ZoneWrite<'_>, by: &str) -> Result<bool, StoreError> {
    let (id, now) = (tx.zone.clone(), tx.now());
    let sql = "UPDATE zones SET archived_at = ?2, updated_at = ?2, updated_by = ?3, updated_via_operator = 0
               WHERE id = ?1 AND archived_at IS NULL";
    Ok(tx.tx.execute(sql, params![id, now, by]).await? == 1)
}
