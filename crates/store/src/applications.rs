//! Applications: the clients that authenticate at the STS.

use caracal_authority::{ApplicationId, Timestamp, ZoneId};

use crate::ahead::by_id;
use crate::attribution::{Attribution, archive_row};
use crate::error::StoreError;
use crate::page::{Page, archival};
use crate::tx::{DeploymentRead, DeploymentWrite, ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// An application.
#[derive(Debug, Clone)]
pub struct Application {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: ApplicationId,
    /// Display name.
    pub name: String,
    /// `managed` or `dcr`.
    pub registration_method: String,
    /// Capability markers of the `control:` and similar namespaces.
    pub traits: Vec<String>,
    /// Argon2id hash of the client secret, never the secret.
    pub secret_hash: Option<String>,
    /// When it stops to exist, for self-registered ones.
    pub expires_at: Option<Timestamp>,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
    /// Who made it.
    pub attribution: Attribution,
}

impl Application {
    /// Whether it exists for the outside at `now`: neither archived nor expired.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.archived_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

pub(crate) const COLUMNS: &str = "zone_id, id, name, registration_method, traits, secret_hash, expires_at, archived_at, \
                                  created_by, created_via_operator, updated_by, updated_via_operator, created_at, updated_at";

pub(crate) fn read(row: Row) -> Result<Application, StoreError> {
    let mut columns = row.columns("applications");
    Ok(Application {
        zone_id: columns.next()?,
        id: columns.next()?,
        name: columns.next()?,
        registration_method: columns.next()?,
        traits: columns.json()?,
        secret_hash: columns.next()?,
        expires_at: columns.next()?,
        archived_at: columns.next()?,
        attribution: Attribution::read(&mut columns)?,
    })
}

/// The application, archived or not.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &ApplicationId) -> Result<Option<Application>, StoreError> {
    let sql = by_id("applications", COLUMNS);
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// The application in whatever zone it is. For the proof of possession that names the right zone
/// (contract: sts.md §3.4) and for control keys (§3.5); nothing of it may be told to a caller without that proof.
pub async fn find_in_any_zone(
    tx: &mut DeploymentRead<'_>,
    id: &ApplicationId,
) -> Result<Option<Application>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM applications WHERE id = ?1");
    tx.tx().query_one(&sql, params![id]).await?.map(read).transpose()
}

/// Adds an application.
pub async fn add(tx: &mut ZoneWrite<'_>, application: &Application) -> Result<(), StoreError> {
    let sql = "INSERT INTO applications (zone_id, id, name, registration_method, traits, secret_hash, expires_at,
                 archived_at, created_by, created_via_operator, updated_by, updated_via_operator, created_at, updated_at,
                 name_key)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, ?8, ?9, NULL, NULL, ?10, NULL, ?11)";
    let zone = tx.zone.clone();
    let (traits, name_key) = (crate::json_text(&application.traits), name_key(&application.name));
    let by = &application.attribution;
    let params = params![
        zone,
        application.id,
        application.name,
        application.registration_method,
        traits,
        application.secret_hash,
        application.expires_at,
        by.created_by,
        by.created_via_operator,
        by.created_at,
        name_key
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// What two names that differ only in case have in common.
fn name_key(name: &str) -> String {
    name.to_lowercase()
}

/// Applications of the zone, archived ones or the others, newest first.
pub async fn list(tx: &mut ZoneRead<'_>, archived: bool, page: &Page) -> Result<Vec<Application>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM applications WHERE zone_id = ?1 AND {} AND (created_at, id) < (?2, ?3)
         ORDER BY created_at DESC, id DESC LIMIT ?4",
        archival(archived)
    );
    tx.tx.query(&sql, params![tx.zone, page.at(), page.id(), page.limit()]).await?.into_iter().map(read).collect()
}

/// A managed application that is not archived and has this name in whatever case, other than `except`.
pub async fn find_managed_by_name(
    tx: &mut ZoneRead<'_>,
    name: &str,
    except: Option<&ApplicationId>,
) -> Result<Option<Application>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM applications WHERE zone_id = ?1 AND name_key = ?2 AND archived_at IS NULL
           AND registration_method = 'managed' AND (CAST(?3 AS TEXT) IS NULL OR id <> ?3) ORDER BY created_at LIMIT 1"
    );
    tx.tx.query_one(&sql, params![tx.zone, name_key(name), except]).await?.map(read).transpose()
}

/// Stores name, traits, secret hash and last change of an application that is there.
pub async fn update(tx: &mut ZoneWrite<'_>, application: &Application) -> Result<(), StoreError> {
    let sql = "UPDATE applications SET name = ?3, name_key = ?4, traits = ?5, secret_hash = ?6, updated_by = ?7,
                 updated_via_operator = ?8, updated_at = ?9 WHERE zone_id = ?1 AND id = ?2";
    let zone = tx.zone.clone();
    let (traits, name_key) = (crate::json_text(&application.traits), name_key(&application.name));
    let by = &application.attribution;
    let params = params![
        zone,
        application.id,
        application.name,
        name_key,
        traits,
        application.secret_hash,
        by.updated_by,
        by.updated_via_operator,
        by.updated_at
    ];
    tx.tx.execute(sql, params).await.map(|_| ())
}

/// Archives an application; `false` when it is not there or archived already.
pub async fn archive(tx: &mut ZoneWrite<'_>, id: &ApplicationId, by: &str) -> Result<bool, StoreError> {
    archive_row(tx, "applications", id.as_str(), by).await
}

/// Archives applications of any zone that ended by themselves at `before` or earlier, `limit` at most; says how many. It takes
/// nothing away: what has ended authenticates nobody.
pub async fn archive_ended(tx: &mut DeploymentWrite<'_>, before: Timestamp, limit: i64) -> Result<usize, StoreError> {
    let now = tx.now();
    let sql = "UPDATE applications SET archived_at = ?2, updated_at = ?2 WHERE id IN
                 (SELECT id FROM applications WHERE expires_at <= ?1 AND archived_at IS NULL ORDER BY expires_at LIMIT ?3)";
    tx.tx().append(sql, params![before, now, limit]).await
}
