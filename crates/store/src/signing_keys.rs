//! Per-zone signing keys: the public half in clear, the private half sealed.

use caracal_authority::{KeyId, Timestamp, ZoneId};

use crate::error::StoreError;
use crate::tx::{ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// A signing key of a zone.
#[derive(Debug, Clone)]
pub struct SigningKeyRow {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its key id.
    pub kid: KeyId,
    /// Counts from 1 within the zone.
    pub version: i64,
    /// X coordinate, base64url of 32 bytes.
    pub public_x: String,
    /// Y coordinate, base64url of 32 bytes.
    pub public_y: String,
    /// Envelope around the PKCS#8 private key.
    pub sealed_private: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

const COLUMNS: &str = "zone_id, kid, version, public_x, public_y, sealed_private, created_at";

fn read(row: Row) -> Result<SigningKeyRow, StoreError> {
    let mut columns = row.columns("signing_keys");
    Ok(SigningKeyRow {
        zone_id: columns.next()?,
        kid: columns.next()?,
        version: columns.next()?,
        public_x: columns.next()?,
        public_y: columns.next()?,
        sealed_private: columns.next()?,
        created_at: columns.next()?,
    })
}

/// The zone's keys, newest first.
pub async fn list(tx: &mut ZoneRead<'_>) -> Result<Vec<SigningKeyRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM signing_keys WHERE zone_id = ?1 ORDER BY version DESC");
    tx.tx.query(&sql, params![tx.zone]).await?.into_iter().map(read).collect()
}

/// One key of the zone.
pub async fn lookup(tx: &mut ZoneRead<'_>, kid: &KeyId) -> Result<Option<SigningKeyRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM signing_keys WHERE zone_id = ?1 AND kid = ?2");
    tx.tx.query_one(&sql, params![tx.zone, kid]).await?.map(read).transpose()
}

pub(crate) const FIND_NEWEST_ID: &str = "SELECT kid FROM signing_keys WHERE zone_id = ?1 ORDER BY version DESC LIMIT 1";

/// Id of the zone's newest key.
pub async fn find_newest_id(tx: &mut ZoneRead<'_>) -> Result<Option<KeyId>, StoreError> {
    let row = tx.tx.query_one(FIND_NEWEST_ID, params![tx.zone]).await?;
    row.map(|row| row.columns("signing_keys").next()).transpose()
}

/// Adds a key. Conflicts on `signing_keys.version` when another was added meanwhile.
pub async fn add(tx: &mut ZoneWrite<'_>, key: &SigningKeyRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO signing_keys (zone_id, kid, version, public_x, public_y, sealed_private, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let zone = tx.zone.clone();
    let params = params![zone, key.kid, key.version, key.public_x, key.public_y, key.sealed_private, key.created_at];
    tx.tx.append(sql, params).await.map(|_| ())
}
