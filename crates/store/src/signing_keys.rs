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
    /// When it was made, and so published.
    pub created_at: Timestamp,
    /// From when on it signs, until a later version does.
    pub signs_from: Timestamp,
}

const COLUMNS: &str = "zone_id, kid, version, public_x, public_y, sealed_private, created_at, signs_from";

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
        signs_from: columns.next()?,
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

/// Asked without a time, so that it can be asked before the store has said what time it is.
pub(crate) const TURNS: &str = "SELECT kid, signs_from FROM signing_keys WHERE zone_id = ?1 ORDER BY version DESC";

/// Id of the key that signs now: the latest version whose time has come.
pub async fn find_signing_id(tx: &mut ZoneRead<'_>) -> Result<Option<KeyId>, StoreError> {
    let now = tx.now();
    for row in tx.tx.query(TURNS, params![tx.zone]).await? {
        let mut columns = row.columns("signing_keys");
        let (kid, signs_from): (KeyId, Timestamp) = (columns.next()?, columns.next()?);
        if signs_from <= now {
            return Ok(Some(kid));
        }
    }
    Ok(None)
}

/// Adds a key. Conflicts on `signing_keys.version` when another was added meanwhile.
pub async fn add(tx: &mut ZoneWrite<'_>, key: &SigningKeyRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO signing_keys
                 (zone_id, kid, version, public_x, public_y, sealed_private, created_at, signs_from)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let zone = tx.zone.clone();
    let SigningKeyRow { kid, version, public_x, public_y, sealed_private, created_at, signs_from, .. } = key;
    let params = params![zone, kid, version, public_x, public_y, sealed_private, created_at, signs_from];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Removes the keys of versions below `version`, and says how many there were. Nothing that is accepted may be signed
/// by one of them.
pub async fn purge_below(tx: &mut ZoneWrite<'_>, version: i64) -> Result<usize, StoreError> {
    let sql = "DELETE FROM signing_keys WHERE zone_id = ?1 AND version < ?2";
    let zone = tx.zone.clone();
    tx.tx.append(sql, params![zone, version]).await
}
