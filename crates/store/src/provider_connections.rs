//! Accounts at providers (contract: sts.md §10.4, admin-api.md §5.5). Their tokens are sealed before they come here.
//!
//! A refresh is one process's at a time, by a lease in the row: [`claim_refresh`] takes it, [`extend_refresh`] keeps it,
//! [`store_refreshed`] or [`refresh_failed`] gives it back, and a holder that is gone loses it when its time is over. The lease only saves
//! requests; what keeps a late writer from undoing a newer one's work is `version`.

use caracal_authority::{ConnectionId, ProviderId, Timestamp, ZoneId};

use crate::ahead::by_id;
use crate::error::StoreError;
use crate::page::Page;
use crate::tx::{ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// The subject of an account that all of a zone share.
pub const SHARED_SUBJECT: &str = "caracal:shared";

/// An account.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: ConnectionId,
    /// Whose it is, or [`SHARED_SUBJECT`].
    pub subject_id: String,
    /// Where it is.
    pub provider_id: ProviderId,
    /// `active`, `revoked` or `expired`. At most one of a provider and subject is active.
    pub status: String,
    /// The sealed access token.
    pub access_token: Vec<u8>,
    /// The sealed refresh token; without one it can't be renewed.
    pub refresh_token: Option<Vec<u8>>,
    /// When the access token runs out, if that is known.
    pub expires_at: Option<Timestamp>,
    /// When it was last renewed.
    pub refreshed_at: Option<Timestamp>,
    /// Moves with every change of the tokens.
    pub version: i64,
    /// Until when somebody is about to renew it.
    pub lease_until: Option<Timestamp>,
    /// When that last failed, unless it was renewed since.
    pub refresh_failed_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Sealed tokens, and for how long the access token is good.
#[derive(Debug, Clone)]
pub struct SealedTokens {
    /// The sealed access token.
    pub access_token: Vec<u8>,
    /// The sealed refresh token.
    pub refresh_token: Option<Vec<u8>>,
    /// When the access token runs out, if that is known.
    pub expires_at: Option<Timestamp>,
}

/// Which accounts to list; empty fields admit all.
#[derive(Debug, Clone, Default)]
pub struct ConnectionFilter {
    /// At this provider.
    pub provider_id: Option<String>,
    /// Of this subject.
    pub subject_id: Option<String>,
    /// In this state.
    pub status: Option<String>,
}

pub(crate) const COLUMNS: &str = "zone_id, id, subject_id, provider_id, status, access_token, refresh_token, expires_at, refreshed_at, \
                       version, lease_until, refresh_failed_at, created_at, updated_at";

fn read(row: Row) -> Result<Connection, StoreError> {
    let mut columns = row.columns("provider_connections");
    Ok(Connection {
        zone_id: columns.next()?,
        id: columns.next()?,
        subject_id: columns.next()?,
        provider_id: columns.next()?,
        status: columns.next()?,
        access_token: columns.next()?,
        refresh_token: columns.next()?,
        expires_at: columns.next()?,
        refreshed_at: columns.next()?,
        version: columns.next()?,
        lease_until: columns.next()?,
        refresh_failed_at: columns.next()?,
        created_at: columns.next()?,
        updated_at: columns.next()?,
    })
}

/// The account, whatever its state.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &ConnectionId) -> Result<Option<Connection>, StoreError> {
    let sql = by_id("provider_connections", COLUMNS);
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// The active account of exactly this subject.
pub async fn find_active(
    tx: &mut ZoneRead<'_>,
    provider: &ProviderId,
    subject: &str,
) -> Result<Option<Connection>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM provider_connections
         WHERE zone_id = ?1 AND provider_id = ?2 AND subject_id = ?3 AND status = 'active'"
    );
    tx.tx.query_one(&sql, params![tx.zone, provider, subject]).await?.map(read).transpose()
}

/// The account that `subject` uses: its own, else the one that all share, newest first.
pub async fn find_usable(
    tx: &mut ZoneRead<'_>,
    provider: &ProviderId,
    subject: &str,
) -> Result<Option<Connection>, StoreError> {
    let sql = find_usable_sql();
    tx.tx.query_one(&sql, params![tx.zone, provider, subject, SHARED_SUBJECT]).await?.map(read).transpose()
}

pub(crate) fn find_usable_sql() -> String {
    format!(
        "SELECT {COLUMNS} FROM provider_connections
         WHERE zone_id = ?1 AND provider_id = ?2 AND subject_id IN (?3, ?4) AND status = 'active'
         ORDER BY CASE WHEN subject_id = ?3 THEN 0 ELSE 1 END, created_at DESC, id DESC LIMIT 1"
    )
}

/// Accounts of the zone, newest first.
pub async fn list(
    tx: &mut ZoneRead<'_>,
    filter: &ConnectionFilter,
    page: &Page,
) -> Result<Vec<Connection>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM provider_connections WHERE zone_id = ?1
           AND (created_at, id) < (?2, ?3)
           AND (?4 = '' OR provider_id = ?4) AND (?5 = '' OR subject_id = ?5) AND (?6 = '' OR status = ?6)
         ORDER BY created_at DESC, id DESC LIMIT ?7"
    );
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (provider, subject, status) = (text(&filter.provider_id), text(&filter.subject_id), text(&filter.status));
    let rows =
        tx.tx.query(&sql, params![tx.zone, page.at(), page.id(), provider, subject, status, page.limit()]).await?;
    rows.into_iter().map(read).collect()
}

/// Adds an account. Conflicts on `provider_connections.active`: there is an active one of this provider and subject.
pub async fn add(tx: &mut ZoneWrite<'_>, row: &Connection) -> Result<(), StoreError> {
    let sql = "INSERT INTO provider_connections (zone_id, id, subject_id, provider_id, status, access_token, refresh_token,
                 expires_at, refreshed_at, version, lease_holder, lease_until, refresh_failed_at, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, NULL, ?11, ?12, ?13, ?14)";
    let zone = tx.zone.clone();
    let params = params![
        zone,
        row.id,
        row.subject_id,
        row.provider_id,
        row.status,
        row.access_token,
        row.refresh_token,
        row.expires_at,
        row.refreshed_at,
        row.version,
        row.lease_until,
        row.refresh_failed_at,
        row.created_at,
        row.updated_at
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Gives an active account other tokens; what was there is forgotten, an asking under way included. `false`: it is not
/// active.
pub async fn replace_tokens(
    tx: &mut ZoneWrite<'_>,
    id: &ConnectionId,
    tokens: &SealedTokens,
) -> Result<bool, StoreError> {
    let sql = "UPDATE provider_connections SET access_token = ?3, refresh_token = ?4, expires_at = ?5, refreshed_at = NULL,
                 refresh_failed_at = NULL, lease_holder = NULL, lease_until = NULL, version = version + 1, updated_at = ?6
               WHERE zone_id = ?1 AND id = ?2 AND status = 'active'";
    let (zone, now) = (tx.zone.clone(), tx.now());
    let params = params![zone, id, tokens.access_token, tokens.refresh_token, tokens.expires_at, now];
    Ok(tx.tx.append(sql, params).await? == 1)
}

/// Ends an active account: `revoked` by somebody, or `expired`. `false`: it is not active.
pub async fn end(tx: &mut ZoneWrite<'_>, id: &ConnectionId, status: &str) -> Result<bool, StoreError> {
    let sql = "UPDATE provider_connections SET status = ?3, lease_holder = NULL, lease_until = NULL, updated_at = ?4
               WHERE zone_id = ?1 AND id = ?2 AND status = 'active'";
    let (zone, now) = (tx.zone.clone(), tx.now());
    Ok(tx.tx.execute(sql, params![zone, id, status, now]).await? == 1)
}

/// Makes `holder` the one that renews the account, until `until`. `false`: another is, or the tokens are no longer those
/// of `version`.
pub async fn claim_refresh(
    tx: &mut ZoneWrite<'_>,
    id: &ConnectionId,
    version: i64,
    holder: &str,
    until: Timestamp,
) -> Result<bool, StoreError> {
    let sql = "UPDATE provider_connections SET lease_holder = ?4, lease_until = ?5
               WHERE zone_id = ?1 AND id = ?2 AND version = ?3 AND status = 'active'
                 AND (lease_until IS NULL OR lease_until <= ?6)";
    let (zone, now) = (tx.zone.clone(), tx.now());
    // It takes nothing away, and a decision that was made before it stays right.
    Ok(tx.tx.append(sql, params![zone, id, version, holder, until, now]).await? == 1)
}

/// Makes the lease of `holder` last until `until`. `false`: it has none any more.
pub async fn extend_refresh(
    tx: &mut ZoneWrite<'_>,
    id: &ConnectionId,
    holder: &str,
    until: Timestamp,
) -> Result<bool, StoreError> {
    let sql = "UPDATE provider_connections SET lease_until = ?4
               WHERE zone_id = ?1 AND id = ?2 AND lease_holder = ?3 AND status = 'active'";
    let zone = tx.zone.clone();
    Ok(tx.tx.append(sql, params![zone, id, holder, until]).await? == 1)
}

/// Stores renewed tokens in place of those of `version`, and gives the lease back. `false`: they are no longer those, or
/// the account is not active any more.
pub async fn store_refreshed(
    tx: &mut ZoneWrite<'_>,
    id: &ConnectionId,
    version: i64,
    tokens: &SealedTokens,
) -> Result<bool, StoreError> {
    let sql = "UPDATE provider_connections SET access_token = ?4, refresh_token = ?5, expires_at = ?6, refreshed_at = ?7,
                 refresh_failed_at = NULL, lease_holder = NULL, lease_until = NULL, version = version + 1, updated_at = ?7
               WHERE zone_id = ?1 AND id = ?2 AND version = ?3 AND status = 'active'";
    let (zone, now) = (tx.zone.clone(), tx.now());
    let params = params![zone, id, version, tokens.access_token, tokens.refresh_token, tokens.expires_at, now];
    Ok(tx.tx.append(sql, params).await? == 1)
}

/// Gives the lease of `holder` back without new tokens, and says so to those who wait.
pub async fn refresh_failed(tx: &mut ZoneWrite<'_>, id: &ConnectionId, holder: &str) -> Result<(), StoreError> {
    let sql = "UPDATE provider_connections SET lease_holder = NULL, lease_until = NULL, refresh_failed_at = ?4
               WHERE zone_id = ?1 AND id = ?2 AND lease_holder = ?3";
    let (zone, now) = (tx.zone.clone(), tx.now());
    tx.tx.append(sql, params![zone, id, holder, now]).await.map(|_| ())
}
