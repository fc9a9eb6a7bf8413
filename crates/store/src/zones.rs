//! Zones: the tenants.

use caracal_authority::{Timestamp, ZoneId};

use crate::attribution::Attribution;
use crate::error::StoreError;
use crate::page::Page;
use crate::tx::{DeploymentRead, DeploymentWrite, ZoneRead};
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

/// The transaction's zone, archived or not.
pub async fn lookup(tx: &mut ZoneRead<'_>) -> Result<Option<Zone>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM zones WHERE id = ?1");
    tx.tx.query_one(&sql, params![tx.zone]).await?.map(read).transpose()
}

/// Zones that are not archived, newest first.
pub async fn list(tx: &mut DeploymentRead<'_>, page: &Page) -> Result<Vec<Zone>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM zones WHERE archived_at IS NULL AND (created_at < ?1 OR (created_at = ?1 AND id < ?2))
         ORDER BY created_at DESC, id DESC LIMIT ?3"
    );
    tx.tx
        .query(&sql, params![page.at(), page.id(), page.limit()])
        .await?
        .into_iter()
        .map(read)
        .collect()
}

/// Whether some zone, archived or not, has this slug.
pub async fn slug_is_taken(tx: &mut DeploymentRead<'_>, slug: &str) -> Result<bool, StoreError> {
    Ok(tx
        .tx
        .query_one("SELECT 1 FROM zones WHERE slug = ?1", params![slug])
        .await?
        .is_some())
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
    tx.tx.execute(sql, params).await.map(|_| ())
}
