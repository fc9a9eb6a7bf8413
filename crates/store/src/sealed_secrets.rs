//! The built-in secret backend: sealed envelopes by reference. Never a plaintext.

use crate::error::StoreError;
use crate::tx::{ZoneRead, ZoneWrite};
use crate::value::{Bind, params};

pub(crate) const LOOKUP: &str = "SELECT envelope FROM sealed_secrets WHERE zone_id = ?1 AND reference = ?2";

/// Reference and envelope of the secret documents of the provider behind the resource named at ?2.
pub(crate) const OF_A_RESOURCE: &str = "SELECT reference, envelope FROM sealed_secrets WHERE zone_id = ?1
    AND reference IN (SELECT 'zones/' || r.zone_id || '/providers/' || r.credential_provider_id || '/secretConfig'
      FROM resources r WHERE r.zone_id = ?1 AND r.archived_at IS NULL AND (r.identifier = ?2 OR r.id = ?2))";

/// The envelope stored under `reference`.
pub async fn lookup(tx: &mut ZoneRead<'_>, reference: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let row = tx.tx.query_one(LOOKUP, params![tx.zone, reference]).await?;
    row.map(|row| row.columns("sealed_secrets").next()).transpose()
}

/// Stores an envelope under `reference`, replacing the one that was there.
pub async fn put(tx: &mut ZoneWrite<'_>, reference: &str, envelope: &[u8]) -> Result<(), StoreError> {
    let sql = "INSERT INTO sealed_secrets (zone_id, reference, envelope, updated_at) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (zone_id, reference) DO UPDATE SET envelope = excluded.envelope, updated_at = excluded.updated_at";
    let (zone, now) = (tx.zone.clone(), tx.now());
    tx.tx.execute(sql, params![zone, reference, envelope, now]).await.map(|_| ())
}

/// Removes the envelope under `reference`, if there is one.
pub async fn remove(tx: &mut ZoneWrite<'_>, reference: &str) -> Result<(), StoreError> {
    let zone = tx.zone.clone();
    let sql = "DELETE FROM sealed_secrets WHERE zone_id = ?1 AND reference = ?2";
    tx.tx.execute(sql, params![zone, reference]).await.map(|_| ())
}
