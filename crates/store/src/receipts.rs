//! Idempotency receipts: what a key already brought about. Keys are stored as keyed digests only.

use caracal_authority::{ApplicationId, Timestamp};

use crate::error::StoreError;
use crate::tx::{DeploymentRead, DeploymentWrite, ZoneRead, ZoneWrite};
use crate::value::{Bind, params};

/// A receipt. Its identity is zone, operation, application and key.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The operation, for example `session.start.v2`.
    pub operation: String,
    /// The application in whose scope the key is unique.
    pub application_id: ApplicationId,
    /// Keyed digest of the key.
    pub key_digest: String,
    /// Digest of the request.
    pub request_digest: String,
    /// The session, edge or invocation that came of it.
    pub entity_id: String,
    /// Whether a client library made the key up.
    pub generated: bool,
    /// Status of the answer.
    pub status: i64,
    /// Body of the answer, JSON text.
    pub response: String,
    /// When.
    pub created_at: Timestamp,
    /// Until when it counts.
    pub expires_at: Timestamp,
}

/// The live receipt for a key under any of `key_digests` (the current and the previous digest key).
pub async fn find_live(
    tx: &mut ZoneRead<'_>,
    operation: &str,
    application: &ApplicationId,
    key_digests: &[String],
) -> Result<Option<Receipt>, StoreError> {
    let sql = "SELECT operation, application_id, key_digest, request_digest, entity_id, generated, status, response,
                 created_at, expires_at FROM idempotency_receipts
               WHERE zone_id = ?1 AND operation = ?2 AND application_id = ?3 AND key_digest = ?4 AND expires_at > ?5";
    for digest in key_digests {
        let now = tx.now();
        let Some(row) = tx.tx.query_one(sql, params![tx.zone, operation, application, digest, now]).await? else {
            continue;
        };
        let mut columns = row.columns("idempotency_receipts");
        return Ok(Some(Receipt {
            operation: columns.next()?,
            application_id: columns.next()?,
            key_digest: columns.next()?,
            request_digest: columns.next()?,
            entity_id: columns.next()?,
            generated: columns.next()?,
            status: columns.next()?,
            response: columns.next()?,
            created_at: columns.next()?,
            expires_at: columns.next()?,
        }));
    }
    Ok(None)
}

/// Live receipts of explicit keys in one scope, counted up to `at_most`; generated ones never count (difference D29).
pub async fn count_live_explicit(
    tx: &mut ZoneRead<'_>,
    operation: &str,
    application: &ApplicationId,
    at_most: i64,
) -> Result<i64, StoreError> {
    let now = tx.now();
    let sql = "SELECT count(*) FROM (SELECT 1 FROM idempotency_receipts
                 WHERE zone_id = ?1 AND operation = ?2 AND application_id = ?3 AND generated = 0 AND expires_at > ?4
                 LIMIT ?5) counted";
    let row = tx.tx.query_one(sql, params![tx.zone, operation, application, now, at_most]).await?;
    row.map_or(Ok(0), |row| row.columns("idempotency_receipts").next())
}

/// Adds a receipt in the transaction of its effect, replacing an expired one.
pub async fn add(tx: &mut ZoneWrite<'_>, receipt: &Receipt) -> Result<(), StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let stale = "DELETE FROM idempotency_receipts
                 WHERE zone_id = ?1 AND operation = ?2 AND application_id = ?3 AND key_digest = ?4 AND expires_at <= ?5";
    let key = params![zone, receipt.operation, receipt.application_id, receipt.key_digest, now];
    tx.tx.append(stale, key).await?;
    let sql =
        "INSERT INTO idempotency_receipts (zone_id, operation, application_id, key_digest, request_digest, entity_id,
                 generated, status, response, created_at, expires_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let params = params![
        zone,
        receipt.operation,
        receipt.application_id,
        receipt.key_digest,
        receipt.request_digest,
        receipt.entity_id,
        receipt.generated,
        receipt.status,
        receipt.response,
        receipt.created_at,
        receipt.expires_at
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Forgets receipts that ended before `before`, at most `limit`, and says how many.
pub async fn purge_expired(tx: &mut DeploymentWrite<'_>, before: Timestamp, limit: i64) -> Result<usize, StoreError> {
    let sql = "DELETE FROM idempotency_receipts WHERE (zone_id, operation, application_id, key_digest) IN (
                 SELECT zone_id, operation, application_id, key_digest FROM idempotency_receipts
                 WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)";
    tx.tx().append(sql, params![before, limit]).await
}

/// How many receipts there are in the whole deployment, expired ones included, and since when the oldest is there.
pub async fn count_all(tx: &mut DeploymentRead<'_>) -> Result<(i64, Option<Timestamp>), StoreError> {
    let row = tx.tx().query_one("SELECT count(*), min(created_at) FROM idempotency_receipts", &[]).await?;
    let row = row.ok_or_else(|| StoreError::Statement { reason: "a count has no row".to_owned() })?;
    let mut columns = row.columns("idempotency_receipts");
    Ok((columns.next()?, columns.next()?))
}
