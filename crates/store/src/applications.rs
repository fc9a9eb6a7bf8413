//! Applications: the clients that authenticate at the STS.

use caracal_authority::{ApplicationId, Timestamp, ZoneId};

use crate::attribution::Attribution;
use crate::error::StoreError;
use crate::tx::{DeploymentRead, ZoneRead, ZoneWrite};
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
    let sql = format!("SELECT {COLUMNS} FROM applications WHERE zone_id = ?1 AND id = ?2");
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// The application in whatever zone it is. For the proof of possession that names the right zone
/// (contract: sts.md §3.4) and for control keys (§3.5); nothing of it may be told to a caller without that proof.
pub async fn find_in_any_zone(
    tx: &mut DeploymentRead<'_>,
    id: &ApplicationId,
) -> Result<Option<Application>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM applications WHERE id = ?1");
    tx.tx.query_one(&sql, params![id]).await?.map(read).transpose()
}

/// Adds an application.
pub async fn add(tx: &mut ZoneWrite<'_>, application: &Application) -> Result<(), StoreError> {
    let sql = "INSERT INTO applications (zone_id, id, name, registration_method, traits, secret_hash, expires_at,
                 archived_at, created_by, created_via_operator, updated_by, updated_via_operator, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, ?8, ?9, NULL, NULL, ?10, NULL)";
    let zone = tx.zone.clone();
    let traits = crate::json_text(&application.traits);
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
        by.created_at
    ];
    tx.tx.execute(sql, params).await.map(|_| ())
}
