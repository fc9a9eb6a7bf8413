//! Per-zone signing keys: the public half in clear, the private half sealed.

use std::time::Duration;

use caracal_authority::{KeyId, Timestamp, ZoneId};

use crate::error::StoreError;
use crate::tx::{DeploymentRead, ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// The topic that says that keys were withdrawn, one message for each (contract: audit-and-streams.md §6.1).
pub const WITHDRAWN: &str = "caracal.keys.invalidate";

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

/// Whether the zone still has the key, whatever its turn is. A key that was withdrawn it has no more.
pub async fn exists(tx: &mut ZoneRead<'_>, kid: &str) -> Result<bool, StoreError> {
    for row in tx.tx.query(TURNS, params![tx.zone]).await? {
        if row.columns("signing_keys").next::<String>()? == kid {
            return Ok(true);
        }
    }
    Ok(false)
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

/// How long it is remembered which keys were withdrawn: far longer than anybody keeps a key in memory.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Removes every key of the zone for good, and remembers that they were withdrawn. Says which. Takes authority away: a
/// decision that was made before and would be signed by one of them is not committed any more.
pub async fn withdraw_all(tx: &mut ZoneWrite<'_>) -> Result<Vec<KeyId>, StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let withdrawn: Vec<KeyId> = list(tx).await?.into_iter().map(|key| key.kid).collect();
    for kid in &withdrawn {
        let sql = "INSERT INTO withdrawn_keys (zone_id, kid, withdrawn_at) VALUES (?1, ?2, ?3)";
        tx.tx.append(sql, params![zone, kid, now]).await?;
    }
    let sql = "DELETE FROM withdrawn_keys WHERE zone_id = ?1 AND withdrawn_at < ?2";
    tx.tx.append(sql, params![zone, now.minus(REMEMBERED)]).await?;
    tx.tx.execute("DELETE FROM signing_keys WHERE zone_id = ?1", params![zone]).await?;
    Ok(withdrawn)
}

/// Keys of all zones that were withdrawn at or after `since`.
pub async fn list_withdrawn(tx: &mut DeploymentRead<'_>, since: Timestamp) -> Result<Vec<(ZoneId, KeyId)>, StoreError> {
    let sql = "SELECT zone_id, kid FROM withdrawn_keys WHERE withdrawn_at >= ?1 ORDER BY zone_id, kid";
    let rows = tx.tx().query(sql, params![since]).await?;
    rows.into_iter()
        .map(|row| {
            let mut columns = row.columns("withdrawn_keys");
            Ok((columns.next()?, columns.next()?))
        })
        .collect()
}
