//! Admin tokens, stored as keyed digests only (difference D22).

use caracal_authority::{AdminTokenId, Timestamp, ZoneId};

use crate::error::StoreError;
use crate::page::Page;
use crate::tx::{DeploymentRead, DeploymentWrite};
use crate::value::{Bind, Row, params};

/// An admin token.
#[derive(Debug, Clone)]
pub struct AdminToken {
    /// Its id.
    pub id: AdminTokenId,
    /// Display name.
    pub name: String,
    /// `global` or `zone`.
    pub scope: String,
    /// `read`, `write` or `approve`.
    pub capability: String,
    /// The zone it is bound to, for scope `zone`.
    pub zone_id: Option<ZoneId>,
    /// Who made it; `env-bootstrap` for the bootstrap token.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// When it was last used, roughly.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it stops by itself.
    pub expires_at: Option<Timestamp>,
}

const COLUMNS: &str =
    "id, name, scope, capability, zone_id, created_by, created_at, last_used_at, revoked_at, expires_at";

fn read(row: Row) -> Result<AdminToken, StoreError> {
    let mut columns = row.columns("admin_tokens");
    Ok(AdminToken {
        id: columns.next()?,
        name: columns.next()?,
        scope: columns.next()?,
        capability: columns.next()?,
        zone_id: columns.next()?,
        created_by: columns.next()?,
        created_at: columns.next()?,
        last_used_at: columns.next()?,
        revoked_at: columns.next()?,
        expires_at: columns.next()?,
    })
}

/// The token with this digest, revoked or not.
pub async fn find_by_digest(tx: &mut DeploymentRead<'_>, digest: &str) -> Result<Option<AdminToken>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM admin_tokens WHERE token_digest = ?1");
    tx.tx().query_one(&sql, params![digest]).await?.map(read).transpose()
}

/// Adds a token. Conflicts on `admin_tokens.token_digest`.
pub async fn add(tx: &mut DeploymentWrite<'_>, token: &AdminToken, digest: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO admin_tokens (id, name, scope, capability, zone_id, token_digest, created_by, created_at,
                 last_used_at, revoked_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL, NULL, ?9)";
    let params = params![
        token.id,
        token.name,
        token.scope,
        token.capability,
        token.zone_id,
        digest,
        token.created_by,
        token.created_at,
        token.expires_at
    ];
    tx.tx().append(sql, params).await.map(|_| ())
}

/// Revokes every live token of `created_by` whose digest is another one: changing the bootstrap token ends the old.
pub async fn revoke_predecessors(
    tx: &mut DeploymentWrite<'_>,
    created_by: &str,
    digest: &str,
) -> Result<usize, StoreError> {
    let now = tx.now();
    let sql = "UPDATE admin_tokens SET revoked_at = ?3
               WHERE created_by = ?1 AND token_digest <> ?2 AND revoked_at IS NULL";
    tx.tx().execute(sql, params![created_by, digest, now]).await
}

/// One token, revoked or not.
pub async fn lookup(tx: &mut DeploymentRead<'_>, id: &AdminTokenId) -> Result<Option<AdminToken>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM admin_tokens WHERE id = ?1");
    tx.tx().query_one(&sql, params![id]).await?.map(read).transpose()
}

/// All tokens, revoked ones included, newest first.
pub async fn list(tx: &mut DeploymentRead<'_>, page: &Page) -> Result<Vec<AdminToken>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM admin_tokens WHERE (created_at, id) < (?1, ?2)
         ORDER BY created_at DESC, id DESC LIMIT ?3"
    );
    tx.tx().query(&sql, params![page.at(), page.id(), page.limit()]).await?.into_iter().map(read).collect()
}

/// Revokes a token; `false` when it was not there or revoked before.
pub async fn revoke(tx: &mut DeploymentWrite<'_>, id: &AdminTokenId) -> Result<bool, StoreError> {
    let now = tx.now();
    let sql = "UPDATE admin_tokens SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL";
    Ok(tx.tx().execute(sql, params![id, now]).await? == 1)
}

/// Revokes every live token that is bound to `zone`; says how many there were.
pub async fn revoke_of_zone(tx: &mut DeploymentWrite<'_>, zone: &ZoneId) -> Result<usize, StoreError> {
    let now = tx.now();
    let sql = "UPDATE admin_tokens SET revoked_at = ?2 WHERE zone_id = ?1 AND revoked_at IS NULL";
    tx.tx().execute(sql, params![zone, now]).await
}

/// Notes when a token was used, unless a later use is known.
pub async fn note_use(tx: &mut DeploymentWrite<'_>, id: &AdminTokenId, at: Timestamp) -> Result<(), StoreError> {
    let sql = "UPDATE admin_tokens SET last_used_at = ?2 WHERE id = ?1 AND (last_used_at IS NULL OR last_used_at < ?2)";
    tx.tx().append(sql, params![id, at]).await.map(|_| ())
}
