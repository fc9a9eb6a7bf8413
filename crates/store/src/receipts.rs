//! Idempotency receipts: what a key already brought about. Keys are stored as keyed digests only.

use std::time::Duration;

use caracal_authority::{AdminTokenId, ApplicationId, Timestamp};
use serde_json::Value;

use crate::error::StoreError;
use crate::tx::{DeploymentRead, DeploymentWrite, ZoneRead, ZoneWrite};
use crate::value::{Bind, params};

/// Largest answer kept for replay, in bytes.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// In whose scope a key is unique. Operations of applications and of admin tokens have different names, so the two never
/// meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyScope {
    /// An application's.
    Application(ApplicationId),
    /// An admin token's.
    AdminToken(AdminTokenId),
}

impl KeyScope {
    fn as_str(&self) -> &str {
        match self {
            Self::Application(id) => id.as_str(),
            Self::AdminToken(id) => id.as_str(),
        }
    }
}

/// A receipt. Its identity is zone, operation, scope and key.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The operation, for example `session.start.v2`.
    pub operation: String,
    /// In whose scope the key is unique.
    pub scope: KeyScope,
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

impl Receipt {
    /// The answer it keeps.
    pub fn answer(&self) -> Result<Value, StoreError> {
        let corrupt =
            || StoreError::Corrupt { table: "idempotency_receipts", what: format!("of `{}`", self.entity_id) };
        serde_json::from_str(&self.response).map_err(|_| corrupt())
    }
}

/// A request under a key: all that the store needs to know of it, the key itself not included.
#[derive(Debug, Clone)]
pub struct Keyed {
    /// The operation.
    pub operation: String,
    /// In whose scope the key is unique.
    pub scope: KeyScope,
    /// Digests of the key: under the current digest key, then under the previous one.
    pub key_digests: Vec<String>,
    /// What makes two requests the same.
    pub request_digest: String,
    /// Whether a client library made the key up.
    pub generated: bool,
    /// For how long the answer is remembered.
    pub retention: Duration,
    /// So many explicit keys are remembered in one scope.
    pub most_explicit: u32,
}

/// Why a request with a well-formed key does not execute.
#[derive(Debug, thiserror::Error)]
pub enum KeyRefused {
    /// Something else was asked under this key before.
    #[error("the idempotency key was used for a different request")]
    Conflict,
    /// Too many explicit keys are remembered in this scope.
    #[error("too many idempotency keys are remembered for this caller")]
    TooMany,
    /// The answer is too large to be remembered.
    #[error("the answer is too large to be remembered under an idempotency key")]
    AnswerTooLarge,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Keyed {
    /// What is known of the key: the receipt of an equal request, or nothing and room for one.
    pub async fn find_receipt(&self, tx: &mut ZoneRead<'_>) -> Result<Option<Receipt>, KeyRefused> {
        if let Some(receipt) = find_live(tx, &self.operation, &self.scope, &self.key_digests).await? {
            let same = receipt.request_digest == self.request_digest;
            return if same { Ok(Some(receipt)) } else { Err(KeyRefused::Conflict) };
        }
        if !self.generated {
            let most = i64::from(self.most_explicit);
            if count_live_explicit(tx, &self.operation, &self.scope, most).await? >= most {
                return Err(KeyRefused::TooMany);
            }
        }
        Ok(None)
    }

    /// Adds the receipt, in the transaction of the effect.
    pub async fn add_receipt(
        &self,
        tx: &mut ZoneWrite<'_>,
        entity: &str,
        status: u16,
        answer: &Value,
    ) -> Result<(), KeyRefused> {
        let response = answer.to_string();
        if response.len() > MAX_RESPONSE_BYTES {
            return Err(KeyRefused::AnswerTooLarge);
        }
        let now = tx.now();
        let receipt = Receipt {
            operation: self.operation.clone(),
            scope: self.scope.clone(),
            key_digest: self.key_digests.first().cloned().unwrap_or_default(),
            request_digest: self.request_digest.clone(),
            entity_id: entity.to_owned(),
            generated: self.generated,
            status: i64::from(status),
            response,
            created_at: now,
            expires_at: now.plus(self.retention),
        };
        Ok(add(tx, &receipt).await?)
    }
}

/// The live receipt for a key under any of `key_digests` (the current and the previous digest key).
pub async fn find_live(
    tx: &mut ZoneRead<'_>,
    operation: &str,
    scope: &KeyScope,
    key_digests: &[String],
) -> Result<Option<Receipt>, StoreError> {
    let sql = "SELECT operation, key_digest, request_digest, entity_id, generated, status, response,
                 created_at, expires_at FROM idempotency_receipts
               WHERE zone_id = ?1 AND operation = ?2 AND application_id = ?3 AND key_digest = ?4 AND expires_at > ?5";
    for digest in key_digests {
        let now = tx.now();
        let Some(row) = tx.tx.query_one(sql, params![tx.zone, operation, scope.as_str(), digest, now]).await? else {
            continue;
        };
        let mut columns = row.columns("idempotency_receipts");
        return Ok(Some(Receipt {
            operation: columns.next()?,
            scope: scope.clone(),
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
    scope: &KeyScope,
    at_most: i64,
) -> Result<i64, StoreError> {
    let now = tx.now();
    let sql = "SELECT count(*) FROM (SELECT 1 FROM idempotency_receipts
                 WHERE zone_id = ?1 AND operation = ?2 AND application_id = ?3 AND generated = 0 AND expires_at > ?4
                 LIMIT ?5) counted";
    let row = tx.tx.query_one(sql, params![tx.zone, operation, scope.as_str(), now, at_most]).await?;
    row.map_or(Ok(0), |row| row.columns("idempotency_receipts").next())
}

/// Adds a receipt in the transaction of its effect, replacing an expired one.
pub async fn add(tx: &mut ZoneWrite<'_>, receipt: &Receipt) -> Result<(), StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let stale = "DELETE FROM idempotency_receipts
                 WHERE zone_id = ?1 AND operation = ?2 AND application_id = ?3 AND key_digest = ?4 AND expires_at <= ?5";
    let key = params![zone, receipt.operation, receipt.scope.as_str(), receipt.key_digest, now];
    tx.tx.append(stale, key).await?;
    let sql =
        "INSERT INTO idempotency_receipts (zone_id, operation, application_id, key_digest, request_digest, entity_id,
                 generated, status, response, created_at, expires_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let params = params![
        zone,
        receipt.operation,
        receipt.scope.as_str(),
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
