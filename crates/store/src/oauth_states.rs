//! Consents under way at a provider's authorization endpoint (contract: admin-api.md §5.5). Who comes back with a state
//! has it consumed, whatever follows.

use caracal_authority::{ProviderId, Timestamp, ZoneId};

use crate::error::StoreError;
use crate::tx::{DeploymentRead, DeploymentWrite, ZoneWrite};
use crate::value::{Bind, Row, params};

/// A consent that was begun.
#[derive(Debug, Clone)]
pub struct OauthState {
    /// The zone in which it was begun.
    pub zone_id: ZoneId,
    /// SHA-256 of the state, in hex. The state itself is kept nowhere.
    pub digest: String,
    /// Whose account it is to be.
    pub subject_id: String,
    /// At which provider.
    pub provider_id: ProviderId,
    /// The sealed verifier of its code challenge.
    pub verifier: Vec<u8>,
    /// Until when it can be finished.
    pub expires_at: Timestamp,
    /// When it was begun.
    pub created_at: Timestamp,
}

/// Adds one.
pub async fn add(tx: &mut ZoneWrite<'_>, row: &OauthState) -> Result<(), StoreError> {
    let sql = "INSERT INTO oauth_states (zone_id, digest, subject_id, provider_id, verifier, expires_at, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let zone = tx.zone.clone();
    let params =
        params![zone, row.digest, row.subject_id, row.provider_id, row.verifier, row.expires_at, row.created_at];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// The one of this state, in whatever zone it was begun: what comes back says where, and may say it wrongly.
pub async fn find_in_any_zone(tx: &mut DeploymentRead<'_>, digest: &str) -> Result<Option<OauthState>, StoreError> {
    let sql = "SELECT zone_id, digest, subject_id, provider_id, verifier, expires_at, created_at
               FROM oauth_states WHERE digest = ?1";
    let read = |row: Row| {
        let mut columns = row.columns("oauth_states");
        Ok(OauthState {
            zone_id: columns.next()?,
            digest: columns.next()?,
            subject_id: columns.next()?,
            provider_id: columns.next()?,
            verifier: columns.next()?,
            expires_at: columns.next()?,
            created_at: columns.next()?,
        })
    };
    tx.tx().query_one(sql, params![digest]).await?.map(read).transpose()
}

/// Takes one away. `false`: somebody else was faster.
pub async fn consume(tx: &mut DeploymentWrite<'_>, row: &OauthState) -> Result<bool, StoreError> {
    let sql = "DELETE FROM oauth_states WHERE zone_id = ?1 AND digest = ?2";
    Ok(tx.tx().append(sql, params![row.zone_id, row.digest]).await? == 1)
}

/// Removes those that could be finished until `before`, `limit` at most, and says how many.
pub async fn purge_expired(tx: &mut DeploymentWrite<'_>, before: Timestamp, limit: i64) -> Result<usize, StoreError> {
    let sql = "DELETE FROM oauth_states WHERE (zone_id, digest) IN (
                 SELECT zone_id, digest FROM oauth_states WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)";
    tx.tx().append(sql, params![before, limit]).await
}
