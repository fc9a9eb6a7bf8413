//! Identity providers whose users a zone takes in (contract: admin-api.md §5.7, sts.md §4).

use caracal_authority::{SubjectIssuerId, Timestamp, ZoneId};

use crate::attribution::{Attribution, archive_row};
use crate::error::StoreError;
use crate::page::Page;
use crate::tx::{ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// A registration.
#[derive(Debug, Clone)]
pub struct SubjectIssuer {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: SubjectIssuerId,
    /// What `iss` of its tokens says, byte for byte; unique among the zone's live registrations.
    pub issuer: String,
    /// Where its keys are published.
    pub jwks_url: String,
    /// What `aud` of its tokens has to contain.
    pub audience: String,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
    /// Who made it.
    pub attribution: Attribution,
}

const COLUMNS: &str = "zone_id, id, issuer, jwks_url, audience, archived_at, created_by, created_via_operator, \
                       updated_by, updated_via_operator, created_at, updated_at";

/// The live registration under the issuer at ?2. Sent ahead of a decision, see [`crate::Named`].
pub(crate) fn find_by_issuer_sql() -> String {
    format!("SELECT {COLUMNS} FROM subject_issuers WHERE zone_id = ?1 AND issuer = ?2 AND archived_at IS NULL")
}

fn read(row: Row) -> Result<SubjectIssuer, StoreError> {
    let mut columns = row.columns("subject_issuers");
    Ok(SubjectIssuer {
        zone_id: columns.next()?,
        id: columns.next()?,
        issuer: columns.next()?,
        jwks_url: columns.next()?,
        audience: columns.next()?,
        archived_at: columns.next()?,
        attribution: Attribution::read(&mut columns)?,
    })
}

/// The registration, archived or not.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &SubjectIssuerId) -> Result<Option<SubjectIssuer>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM subject_issuers WHERE zone_id = ?1 AND id = ?2");
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// The live registration of `issuer`, which is free of U+0000.
pub async fn find_by_issuer(tx: &mut ZoneRead<'_>, issuer: &str) -> Result<Option<SubjectIssuer>, StoreError> {
    tx.tx.query_one(&find_by_issuer_sql(), params![tx.zone, issuer]).await?.map(read).transpose()
}

/// Live registrations of the zone, newest first.
pub async fn list(tx: &mut ZoneRead<'_>, page: &Page) -> Result<Vec<SubjectIssuer>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM subject_issuers WHERE zone_id = ?1 AND archived_at IS NULL
           AND (created_at, id) < (?2, ?3) ORDER BY created_at DESC, id DESC LIMIT ?4"
    );
    let rows = tx.tx.query(&sql, params![tx.zone, page.at(), page.id(), page.limit()]).await?;
    rows.into_iter().map(read).collect()
}

/// How many registrations of the zone are live.
pub async fn count_live(tx: &mut ZoneRead<'_>) -> Result<i64, StoreError> {
    let sql = "SELECT count(*) FROM subject_issuers WHERE zone_id = ?1 AND archived_at IS NULL";
    match tx.tx.query_one(sql, params![tx.zone]).await? {
        Some(row) => row.columns("subject_issuers").next(),
        None => Ok(0),
    }
}

/// Adds a registration. Conflicts on `subject_issuers.issuer`.
pub async fn add(tx: &mut ZoneWrite<'_>, row: &SubjectIssuer) -> Result<(), StoreError> {
    let sql = "INSERT INTO subject_issuers (zone_id, id, issuer, jwks_url, audience, archived_at, created_by,
                 created_via_operator, updated_by, updated_via_operator, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, ?5, NULL, ?6, ?7, NULL, NULL, ?8, ?8)";
    let zone = tx.zone.clone();
    let by = &row.attribution;
    let params = params![
        zone,
        row.id,
        row.issuer,
        row.jwks_url,
        row.audience,
        by.created_by,
        by.created_via_operator,
        by.created_at
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Stores address, audience and last change of a live registration; its issuer stays. Says whether it was there.
pub async fn update(tx: &mut ZoneWrite<'_>, row: &SubjectIssuer) -> Result<bool, StoreError> {
    let sql = "UPDATE subject_issuers SET jwks_url = ?3, audience = ?4, updated_by = ?5, updated_via_operator = ?6,
                 updated_at = ?7 WHERE zone_id = ?1 AND id = ?2 AND archived_at IS NULL";
    let zone = tx.zone.clone();
    let by = &row.attribution;
    let params =
        params![zone, row.id, row.jwks_url, row.audience, by.updated_by, by.updated_via_operator, by.updated_at];
    Ok(tx.tx.execute(sql, params).await? > 0)
}

/// Archives a registration and says whether it was there and live. What was minted under it lives on.
pub async fn archive(tx: &mut ZoneWrite<'_>, id: &SubjectIssuerId, by: &str) -> Result<bool, StoreError> {
    archive_row(tx, "subject_issuers", id.as_str(), by).await
}
