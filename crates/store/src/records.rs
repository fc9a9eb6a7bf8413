//! Authority records: one per exchange that granted something; identity and revocation anchor of its mandate.

use caracal_authority::record::{RecordFacts, RecordStatus, SubjectKind};
use caracal_authority::{AgentSessionId, ApplicationId, AuthorityRecordId, EdgeId, Timestamp, ZoneId};
use serde::{Deserialize, Serialize};

use crate::ahead::by_id;
use crate::error::StoreError;
use crate::tx::{ZoneRead, ZoneWrite};
use crate::value::{Bind, Param, Row, Value, params};

/// Who vouched for a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The identity provider's issuer, byte for byte.
    pub iss: String,
}

/// An authority record.
#[derive(Debug, Clone)]
pub struct RecordRow {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id: the mandate's `sid`.
    pub id: AuthorityRecordId,
    /// `application` or `user`.
    pub kind: String,
    /// Whose authority it is: the mandate's `sub`.
    pub subject_id: String,
    /// The application that asked.
    pub client_id: ApplicationId,
    /// `session`, `gateway` or `resource`: the mandate's `use`.
    pub use_class: String,
    /// The mandate's `jti`, unique in the zone.
    pub jti: String,
    /// `active` or `revoked`. Expiry shows in `expires_at`, not here.
    pub status: String,
    /// The record this one descends from; it falls with it.
    pub parent_id: Option<AuthorityRecordId>,
    /// The governed session it was minted for.
    pub agent_session_id: Option<AgentSessionId>,
    /// The delegation it was minted through.
    pub delegation_edge_id: Option<EdgeId>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Why.
    pub revoked_reason: Option<String>,
    /// Who vouched for its subject; a user's record alone has it.
    pub provenance: Option<Provenance>,
}

impl RecordRow {
    /// What a decision needs to know of it. A stored word that is none of ours is corruption, not a default.
    pub fn facts(&self) -> Result<RecordFacts, StoreError> {
        let corrupt = |what: &str| StoreError::Corrupt {
            table: "authority_records",
            what: format!("record {} of zone {}: {what}", self.id, self.zone_id),
        };
        Ok(RecordFacts {
            id: self.id.clone(),
            zone: self.zone_id.clone(),
            kind: SubjectKind::parse(&self.kind).ok_or_else(|| corrupt("unknown kind"))?,
            subject: self.subject_id.clone(),
            client: self.client_id.clone(),
            parent: self.parent_id.clone(),
            status: RecordStatus::parse(&self.status).ok_or_else(|| corrupt("unknown status"))?,
            expires_at: self.expires_at,
        })
    }
}

pub(crate) const COLUMNS: &str = "zone_id, id, kind, subject_id, client_id, use_class, jti, status, parent_id, agent_session_id, \
                       delegation_edge_id, expires_at, created_at, revoked_at, revoked_reason, provenance";

pub(crate) fn read(row: Row) -> Result<RecordRow, StoreError> {
    let mut columns = row.columns("authority_records");
    Ok(RecordRow {
        zone_id: columns.next()?,
        id: columns.next()?,
        kind: columns.next()?,
        subject_id: columns.next()?,
        client_id: columns.next()?,
        use_class: columns.next()?,
        jti: columns.next()?,
        status: columns.next()?,
        parent_id: columns.next()?,
        agent_session_id: columns.next()?,
        delegation_edge_id: columns.next()?,
        expires_at: columns.next()?,
        created_at: columns.next()?,
        revoked_at: columns.next()?,
        revoked_reason: columns.next()?,
        provenance: columns.json_or_null()?,
    })
}

/// One record.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &AuthorityRecordId) -> Result<Option<RecordRow>, StoreError> {
    let sql = by_id("authority_records", COLUMNS);
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// Adds a record. Conflicts on `authority_records.jti` when a `jti` repeats.
pub async fn add(tx: &mut ZoneWrite<'_>, record: &RecordRow) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO authority_records (zone_id, id, kind, subject_id, client_id, use_class, jti, status, parent_id,
                 agent_session_id, delegation_edge_id, expires_at, created_at, revoked_at, revoked_reason, provenance)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'active', ?8, ?9, ?10, ?11, ?12, NULL, NULL, ?13)";
    let zone = tx.zone.clone();
    let provenance = record.provenance.as_ref().map(crate::json_text);
    let params = params![
        zone,
        record.id,
        record.kind,
        record.subject_id,
        record.client_id,
        record.use_class,
        record.jti,
        record.parent_id,
        record.agent_session_id,
        record.delegation_edge_id,
        record.expires_at,
        record.created_at,
        provenance
    ];
    tx.tx.append(sql, params).await?;
    if tx.tx.is_embedded() {
        // In the order of `COLUMNS`. It will be asked for in a moment, when the mandate is presented.
        let values = [
            zone.bind(),
            record.id.bind(),
            record.kind.bind(),
            record.subject_id.bind(),
            record.client_id.bind(),
            record.use_class.bind(),
            record.jti.bind(),
            "active".bind(),
            record.parent_id.bind(),
            record.agent_session_id.bind(),
            record.delegation_edge_id.bind(),
            record.expires_at.bind(),
            record.created_at.bind(),
            Param::Null,
            Param::Null,
            provenance.bind(),
        ];
        let values = values.into_iter().map(Value::from_param).collect();
        tx.tx.touched.added.push((zone, Row { values }));
    }
    Ok(())
}

/// Revokes the record and everything that descends from it; the first reason and time stay. Returns the ids that
/// were active until now, the record itself first.
pub async fn revoke_with_descendants(
    tx: &mut ZoneWrite<'_>,
    id: &AuthorityRecordId,
    reason: &str,
) -> Result<Vec<AuthorityRecordId>, StoreError> {
    let zone = tx.zone.clone();
    // `UNION` drops what was met already, so it ends whatever the parents say.
    let sql = "WITH RECURSIVE family (id) AS (
                 SELECT id FROM authority_records WHERE zone_id = ?1 AND id = ?2
                 UNION SELECT r.id FROM family f CROSS JOIN authority_records r WHERE r.zone_id = ?1 AND r.parent_id = f.id
               )
               SELECT r.id FROM family f CROSS JOIN authority_records r
               WHERE r.zone_id = ?1 AND r.id = f.id AND r.status = 'active' ORDER BY CASE WHEN r.id = ?2 THEN 0 ELSE 1 END, r.id";
    let rows = tx.tx.query(sql, params![zone, id]).await?;
    let ids: Vec<AuthorityRecordId> =
        rows.into_iter().map(|row| row.columns("authority_records").next()).collect::<Result<_, _>>()?;
    revoke_each(tx, &ids, reason).await?;
    Ok(ids)
}

/// Revokes those of the records that are active.
pub async fn revoke_each(tx: &mut ZoneWrite<'_>, ids: &[AuthorityRecordId], reason: &str) -> Result<(), StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    for id in ids {
        let sql = "UPDATE authority_records SET status = 'revoked', revoked_at = ?3, revoked_reason = ?4
                   WHERE zone_id = ?1 AND id = ?2 AND status = 'active'";
        tx.tx.execute(sql, params![zone, id, now, reason]).await?;
    }
    Ok(())
}

/// Active records of the user `subject` and active ones that descend from any of the user's, oldest first, `limit` at
/// most, as far as they end after `after`. Records that applications hold for themselves are none of a user's, whatever
/// their subject is called.
pub async fn list_active_of_user(
    tx: &mut ZoneRead<'_>,
    subject: &str,
    after: Timestamp,
    limit: i64,
) -> Result<Vec<AuthorityRecordId>, StoreError> {
    // Of those that are revoked already what descends is looked for, too: a page before may have revoked them. What is sorted by is
    // no column, so that no engine walks all records of the zone in that order to save itself the sort of these few.
    let sql = "WITH RECURSIVE family (id) AS (
                 SELECT id FROM authority_records
                   WHERE zone_id = ?1 AND subject_id = ?2 AND kind = 'user' AND expires_at > ?3
                 UNION SELECT r.id FROM family f CROSS JOIN authority_records r WHERE r.zone_id = ?1 AND r.parent_id = f.id
               )
               SELECT r.id FROM family f CROSS JOIN authority_records r
               WHERE r.zone_id = ?1 AND r.id = f.id AND r.status = 'active' AND r.expires_at > ?3 ORDER BY r.created_at + 0, r.id LIMIT ?4";
    let rows = tx.tx.query(sql, params![tx.zone, subject, after, limit]).await?;
    rows.into_iter().map(|row| row.columns("authority_records").next()).collect()
}

/// The record and its ancestors, itself first, and itself alone when the zone has none of that id.
pub async fn line(tx: &mut ZoneRead<'_>, id: &AuthorityRecordId) -> Result<Vec<AuthorityRecordId>, StoreError> {
    // `UNION` drops what was met already, so it ends whatever the parents say.
    let sql = "WITH RECURSIVE line (id, parent) AS (
                 SELECT id, parent_id FROM authority_records WHERE zone_id = ?1 AND id = ?2
                 UNION SELECT r.id, r.parent_id FROM line l JOIN authority_records r
                   ON r.zone_id = ?1 AND r.id = l.parent)
               SELECT id FROM line WHERE id <> ?2";
    let mut ids = vec![id.clone()];
    for row in tx.tx.query(sql, params![tx.zone, id]).await? {
        ids.push(row.columns("authority_records").next()?);
    }
    Ok(ids)
}
