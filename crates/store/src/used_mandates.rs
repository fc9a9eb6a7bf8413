//! One-shot use: consumed mandates and gateway nonces. Uniqueness is the table's key, so two callers can't both win.

use caracal_authority::Timestamp;

use crate::error::StoreError;
use crate::tx::{DeploymentWrite, ZoneRead, ZoneWrite};
use crate::value::{Bind, params};

/// Marks the mandate `jti` as used. `false`: it already was, nothing changed.
pub async fn consume(
    tx: &mut ZoneWrite<'_>,
    jti: &str,
    request_id: &str,
    expires_at: Timestamp,
) -> Result<bool, StoreError> {
    let sql = "INSERT INTO used_mandates (zone_id, jti, request_id, used_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (zone_id, jti) DO NOTHING";
    let (zone, now) = (tx.zone.clone(), tx.now());
    Ok(tx.tx.append(sql, params![zone, jti, request_id, now, expires_at]).await? == 1)
}

/// Whether the mandate `jti` is used up.
pub async fn is_used(tx: &mut ZoneRead<'_>, jti: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM used_mandates WHERE zone_id = ?1 AND jti = ?2";
    Ok(tx.tx.query_one(sql, params![tx.zone, jti]).await?.is_some())
}

/// Records a gateway nonce. `false`: it was seen before.
pub async fn consume_nonce(
    tx: &mut DeploymentWrite<'_>,
    nonce: &str,
    expires_at: Timestamp,
) -> Result<bool, StoreError> {
    let sql = "INSERT INTO gateway_nonces (nonce, expires_at) VALUES (?1, ?2) ON CONFLICT (nonce) DO NOTHING";
    Ok(tx.tx().append(sql, params![nonce, expires_at]).await? == 1)
}

/// Forgets mandates and nonces that ended before `before`: an expired one is refused for its age anyway.
/// Removes at most `limit` of each and says how many.
pub async fn purge_expired(tx: &mut DeploymentWrite<'_>, before: Timestamp, limit: i64) -> Result<usize, StoreError> {
    let mandates = "DELETE FROM used_mandates WHERE (zone_id, jti) IN (
                      SELECT zone_id, jti FROM used_mandates WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)";
    let nonces = "DELETE FROM gateway_nonces WHERE nonce IN (
                    SELECT nonce FROM gateway_nonces WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)";
    let removed = tx.tx().append(mandates, params![before, limit]).await?;
    Ok(removed + tx.tx().append(nonces, params![before, limit]).await?)
}
