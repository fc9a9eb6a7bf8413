//! Rows of the management chain: who changed what. Append and read only. Only the `ledger` room calls [`append`].

use caracal_authority::Timestamp;

use crate::effects::{ChainHead, ChainKind};
use crate::error::StoreError;
use crate::evidence::{ChainRow, Head};
use crate::page::Page;
use crate::tx::{DeploymentRead, DeploymentWrite, Tx, ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// The chain of records that belong to no zone.
pub const ZONELESS_CHAIN: &str = "(none)";

/// One management record as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminEvidenceRow {
    /// The zone's id, or [`ZONELESS_CHAIN`].
    pub chain: String,
    /// Position in the chain, from 1.
    pub chain_seq: i64,
    /// The record's id.
    pub id: String,
    /// The request.
    pub request_id: String,
    /// Who, as an id.
    pub actor_id: Option<String>,
    /// Who, as a name.
    pub actor_name: Option<String>,
    /// With which scope.
    pub actor_scope: Option<String>,
    /// `<METHOD> <path without query>`.
    pub action: String,
    /// The method.
    pub method: String,
    /// The path without query.
    pub path: String,
    /// The zone it concerns.
    pub zone_id: Option<String>,
    /// The kind of object.
    pub entity_type: Option<String>,
    /// The object.
    pub entity_id: Option<String>,
    /// Status of the answer.
    pub status_code: i64,
    /// Canonical JSON text.
    pub payload: Option<String>,
    /// When, in microseconds since 1970.
    pub occurred_at: i64,
    /// Content hash, lower-case hex.
    pub content_sha256: String,
    /// The previous row's content hash; none for the first.
    pub prev_content_sha256: Option<String>,
    /// Keyed hash over both, lower-case hex; empty without a key.
    pub chain_hmac: String,
    /// Name of the key; none without one, and on rows from before keys had names.
    pub key_id: Option<String>,
}

const COLUMNS: &str = "chain, chain_seq, id, request_id, actor_id, actor_name, actor_scope, action, method, path, zone_id, \
                       entity_type, entity_id, status_code, payload, occurred_at, content_sha256, prev_content_sha256, \
                       chain_hmac, key_id";

fn read(row: Row) -> Result<AdminEvidenceRow, StoreError> {
    let mut columns = row.columns("admin_audit_events");
    Ok(AdminEvidenceRow {
        chain: columns.next()?,
        chain_seq: columns.next()?,
        id: columns.next()?,
        request_id: columns.next()?,
        actor_id: columns.next()?,
        actor_name: columns.next()?,
        actor_scope: columns.next()?,
        action: columns.next()?,
        method: columns.next()?,
        path: columns.next()?,
        zone_id: columns.next()?,
        entity_type: columns.next()?,
        entity_id: columns.next()?,
        status_code: columns.next()?,
        payload: columns.next()?,
        occurred_at: columns.next()?,
        content_sha256: columns.next()?,
        prev_content_sha256: columns.next()?,
        chain_hmac: columns.next()?,
        key_id: columns.next()?,
    })
}

/// Head of the zone's management chain; none when it is empty.
pub async fn head(tx: &mut ZoneRead<'_>) -> Result<Option<Head>, StoreError> {
    let chain = tx.zone.as_str().to_owned();
    head_of(tx.tx, &chain).await
}

/// Head of the chain of records without a zone; none when it is empty.
pub async fn zoneless_head(tx: &mut DeploymentRead<'_>) -> Result<Option<Head>, StoreError> {
    head_of(tx.tx(), ZONELESS_CHAIN).await
}

/// Appends one link to the zone's management chain. `row.chain` must be the zone.
pub async fn append(tx: &mut ZoneWrite<'_>, row: &AdminEvidenceRow) -> Result<(), StoreError> {
    let chain = tx.zone.as_str().to_owned();
    append_to(tx.tx, &chain, row).await
}

/// Appends one link to the chain of records without a zone.
pub async fn append_zoneless(tx: &mut DeploymentWrite<'_>, row: &AdminEvidenceRow) -> Result<(), StoreError> {
    append_to(tx.tx(), ZONELESS_CHAIN, row).await
}

/// Rows of one management chain from position `from` on, in chain order, `limit` at most: for the verifier.
pub async fn list_chain(
    tx: &mut DeploymentRead<'_>,
    chain: &str,
    from: i64,
    limit: i64,
) -> Result<Vec<ChainRow<AdminEvidenceRow>>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM admin_audit_events WHERE chain = ?1 AND chain_seq >= ?2 ORDER BY chain_seq LIMIT ?3"
    );
    let rows = tx.tx().query(&sql, params![chain, from, limit]).await?;
    Ok(rows.into_iter().map(|row| ChainRow::read(row, read)).collect())
}

/// Every management chain that has records or a note of where they end.
pub async fn list_chains(tx: &mut DeploymentRead<'_>) -> Result<Vec<String>, StoreError> {
    let rows = tx
        .tx()
        .query(
            "SELECT DISTINCT chain FROM admin_audit_events UNION SELECT chain FROM admin_audit_heads ORDER BY chain",
            &[],
        )
        .await?;
    rows.into_iter().map(|row| row.columns("admin_audit_events").next()).collect()
}

/// Which records to list; empty fields admit all.
#[derive(Debug, Clone, Default)]
pub struct AdminEvidenceFilter {
    /// Of this instant or later.
    pub since: Option<Timestamp>,
    /// Before this instant.
    pub until: Option<Timestamp>,
    /// By this actor.
    pub actor_id: Option<String>,
    /// About this kind of object.
    pub entity_type: Option<String>,
    /// About this object.
    pub entity_id: Option<String>,
    /// With this method.
    pub method: Option<String>,
}

/// Records of the zone's chain, newest first.
pub async fn list(
    tx: &mut ZoneRead<'_>,
    filter: &AdminEvidenceFilter,
    page: &Page,
) -> Result<Vec<AdminEvidenceRow>, StoreError> {
    let chain = tx.zone.as_str().to_owned();
    list_of(tx.tx, &chain, filter, page).await
}

/// Records that belong to no zone, newest first.
pub async fn list_zoneless(
    tx: &mut DeploymentRead<'_>,
    filter: &AdminEvidenceFilter,
    page: &Page,
) -> Result<Vec<AdminEvidenceRow>, StoreError> {
    list_of(tx.tx(), ZONELESS_CHAIN, filter, page).await
}

async fn list_of(
    tx: &mut Tx,
    chain: &str,
    filter: &AdminEvidenceFilter,
    page: &Page,
) -> Result<Vec<AdminEvidenceRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM admin_audit_events WHERE chain = ?1 AND (occurred_at, id) < (?2, ?3)
           AND (CAST(?4 AS BIGINT) IS NULL OR occurred_at >= ?4) AND (CAST(?5 AS BIGINT) IS NULL OR occurred_at < ?5)
           AND (CAST(?6 AS TEXT) IS NULL OR actor_id = ?6) AND (CAST(?7 AS TEXT) IS NULL OR entity_type = ?7)
           AND (CAST(?8 AS TEXT) IS NULL OR entity_id = ?8) AND (CAST(?9 AS TEXT) IS NULL OR method = ?9)
         ORDER BY occurred_at DESC, id DESC LIMIT ?10"
    );
    let (at, limit) = (page.at(), page.limit());
    let params = params![
        chain,
        at,
        page.id(),
        filter.since,
        filter.until,
        filter.actor_id,
        filter.entity_type,
        filter.entity_id,
        filter.method,
        limit
    ];
    tx.query(&sql, params).await?.into_iter().map(read).collect()
}

async fn head_of(tx: &mut Tx, chain: &str) -> Result<Option<Head>, StoreError> {
    let sql = "SELECT chain_seq, content_sha256, key_id FROM admin_audit_heads WHERE chain = ?1";
    let Some(row) = tx.query_one(sql, params![chain]).await? else {
        return Ok(None);
    };
    let mut columns = row.columns("admin_audit_heads");
    Ok(Some(Head { chain_seq: columns.next()?, content_sha256: columns.next()?, key_id: columns.next()? }))
}

async fn append_to(tx: &mut Tx, chain: &str, row: &AdminEvidenceRow) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO admin_audit_events (chain, chain_seq, id, request_id, actor_id, actor_name, actor_scope, action,
                 method, path, zone_id, entity_type, entity_id, status_code, payload, occurred_at, content_sha256,
                 prev_content_sha256, chain_hmac, key_id)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";
    let params = params![
        chain,
        row.chain_seq,
        row.id,
        row.request_id,
        row.actor_id,
        row.actor_name,
        row.actor_scope,
        row.action,
        row.method,
        row.path,
        row.zone_id,
        row.entity_type,
        row.entity_id,
        row.status_code,
        row.payload,
        row.occurred_at,
        row.content_sha256,
        row.prev_content_sha256,
        row.chain_hmac,
        row.key_id
    ];
    tx.append(sql, params).await?;
    let sql = "INSERT INTO admin_audit_heads (chain, chain_seq, content_sha256, key_id) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (chain) DO UPDATE SET chain_seq = excluded.chain_seq,
                 content_sha256 = excluded.content_sha256, key_id = excluded.key_id";
    tx.append(sql, params![chain, row.chain_seq, row.content_sha256, row.key_id]).await?;
    tx.effects.heads.push(ChainHead {
        kind: ChainKind::Admin,
        chain: chain.to_owned(),
        chain_seq: row.chain_seq,
        content_sha256: row.content_sha256.clone(),
    });
    Ok(())
}
