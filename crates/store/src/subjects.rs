//! Subjects: whose authority a zone's records hold (contract: admin-api.md §5.8). A subject has no row of its own; it is
//! there because records name it.

use caracal_authority::record::SubjectKind;
use caracal_authority::{AgentSessionId, ApplicationId, ConnectionId, ProviderId, Timestamp};

use crate::asked::Asked;
use crate::error::StoreError;
use crate::page::Page;
use crate::records::Provenance;
use crate::tx::ZoneRead;
use crate::value::{Bind, Row, params};

/// A subject, as its records tell.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its id.
    pub id: String,
    /// Whether an identity provider vouched for it.
    pub is_user: bool,
    /// The name of the application it is, if it is one of the zone's.
    pub application_name: Option<String>,
    /// Records.
    pub total: i64,
    /// Of them those that are alive.
    pub active: i64,
    /// Of them those that were revoked.
    pub revoked: i64,
    /// When its first record was made.
    pub first_seen: Timestamp,
    /// When its newest record was made.
    pub last_seen: Timestamp,
    /// When one of its records was last revoked.
    pub last_revoked: Option<Timestamp>,
    /// Who vouched for it last.
    pub provenance: Option<Provenance>,
}

/// Which subjects to list; empty fields admit all.
#[derive(Debug, Clone, Default)]
pub struct SubjectFilter {
    /// Exactly this one.
    pub id: Option<String>,
    /// Users, or applications.
    pub kind: Option<SubjectKind>,
    /// A part of the id or of the application's name, in whatever case; `%` and `_` stand for any text and character.
    pub search: Option<String>,
}

impl SubjectFilter {
    fn pattern(&self) -> Option<String> {
        // A backslash is the escape of both engines, and means itself here.
        self.search.as_ref().map(|part| format!("%{}%", part.to_lowercase().replace('\\', "\\\\")))
    }
}

/// Subjects of the zone, seen last first.
pub async fn list(tx: &mut ZoneRead<'_>, filter: &SubjectFilter, page: &Page) -> Result<Vec<Subject>, StoreError> {
    let (now, kind, pattern) = (tx.now(), filter.kind.map(SubjectKind::as_str), filter.pattern());
    let (at, limit) = (page.at(), page.limit());
    let mut of_records = Asked::beside(params![tx.zone, now, at, page.id(), limit]);
    of_records.and("subject_id = {}", filter.id.bind());
    let mut asked = Asked::beside(of_records.params());
    asked.and("CASE WHEN s.is_user = 1 THEN 'user' ELSE 'application' END = {}", kind.bind());
    asked.and(r"(lower(s.subject_id) LIKE {} ESCAPE '\' OR lower(a.name) LIKE {} ESCAPE '\')", pattern.bind());
    let sql = format!(
        "SELECT s.subject_id, s.is_user, a.name, s.total, s.active, s.revoked, s.first_seen, s.last_seen, s.last_revoked,
          (SELECT p.provenance FROM authority_records p
           WHERE p.zone_id = ?1 AND p.created_at = s.vouched_at AND p.subject_id = s.subject_id AND p.provenance IS NOT NULL
           ORDER BY p.id DESC LIMIT 1)
        FROM (SELECT subject_id, max(CASE WHEN kind = 'user' THEN 1 ELSE 0 END) AS is_user, count(*) AS total,
                sum(CASE WHEN status = 'active' AND expires_at > ?2 THEN 1 ELSE 0 END) AS active,
                sum(CASE WHEN status = 'revoked' THEN 1 ELSE 0 END) AS revoked,
                min(created_at) AS first_seen, max(created_at) AS last_seen, max(revoked_at) AS last_revoked,
                max(CASE WHEN provenance IS NOT NULL THEN created_at END) AS vouched_at
              FROM authority_records WHERE zone_id = ?1{}
              GROUP BY subject_id) s
        LEFT JOIN applications a ON a.zone_id = ?1 AND a.id = s.subject_id
        WHERE (s.last_seen, s.subject_id) < (?3, ?4){}
        ORDER BY s.last_seen DESC, s.subject_id DESC LIMIT ?5",
        of_records.conditions(),
        asked.conditions()
    );
    tx.tx.query(&sql, asked.params()).await?.into_iter().map(read).collect()
}

fn read(row: Row) -> Result<Subject, StoreError> {
    let mut columns = row.columns("authority_records");
    Ok(Subject {
        id: columns.next()?,
        is_user: columns.next()?,
        application_name: columns.next()?,
        total: columns.next()?,
        active: columns.next()?,
        revoked: columns.next()?,
        first_seen: columns.next()?,
        last_seen: columns.next()?,
        last_revoked: columns.next()?,
        provenance: columns.json_or_null()?,
    })
}

/// Whether the zone ever had a record of this subject.
pub async fn is_known(tx: &mut ZoneRead<'_>, subject: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM authority_records WHERE zone_id = ?1 AND subject_id = ?2 LIMIT 1";
    Ok(tx.tx.query_one(sql, params![tx.zone, subject]).await?.is_some())
}

/// Active accounts at providers: the subject's, or everybody's.
pub async fn list_active_connections(
    tx: &mut ZoneRead<'_>,
    subject: Option<&str>,
) -> Result<Vec<ConnectionId>, StoreError> {
    let mut asked = Asked::beside(params![tx.zone]);
    asked.and("subject_id = {}", subject.bind());
    let sql = format!(
        "SELECT id FROM provider_connections WHERE zone_id = ?1 AND status = 'active'{} ORDER BY id",
        asked.conditions()
    );
    let rows = tx.tx.query(&sql, asked.params()).await?;
    rows.into_iter().map(|row| row.columns("provider_connections").next()).collect()
}

/// A session that acts for a subject.
#[derive(Debug, Clone)]
pub struct Governed {
    /// The session.
    pub id: AgentSessionId,
    /// The application it runs as.
    pub application_id: ApplicationId,
    /// That application's name.
    pub application_name: Option<String>,
    /// `task` or `service`.
    pub lifecycle: String,
    /// Its stored status.
    pub status: String,
    /// When it started.
    pub started_at: Timestamp,
}

/// An account of a subject at a provider.
#[derive(Debug, Clone)]
pub struct Connected {
    /// The account.
    pub id: ConnectionId,
    /// Where it is.
    pub provider_id: ProviderId,
    /// That provider's name.
    pub provider_name: Option<String>,
    /// `active`, `revoked` or `expired`.
    pub status: String,
    /// When its access token runs out, if that is known.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What surrounds a subject.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Sessions that act for it and run.
    pub running_sessions: i64,
    /// Sessions that ever acted for it.
    pub sessions: i64,
    /// Of them the newest.
    pub recent: Vec<Governed>,
    /// Approvals that wait on its behalf.
    pub pending_approvals: i64,
    /// Approvals that were ever asked for on its behalf and are still kept.
    pub approvals: i64,
    /// Its newest accounts.
    pub connections: Vec<Connected>,
}

const RECENT_SESSIONS: i64 = 5;
const RECENT_CONNECTIONS: i64 = 10;

/// What surrounds `subject` now.
pub async fn surroundings(tx: &mut ZoneRead<'_>, subject: &str) -> Result<Surroundings, StoreError> {
    let now = tx.now();
    let sql = "SELECT count(*), COALESCE(sum(CASE WHEN s.capacity_until IS NULL THEN 0 ELSE 1 END), 0)
               FROM agent_sessions s JOIN authority_records r ON r.zone_id = ?1 AND r.id = s.subject_record_id
               WHERE s.zone_id = ?1 AND r.subject_id = ?2";
    let (sessions, running_sessions) = two(tx.tx.query_one(sql, params![tx.zone, subject]).await?)?;
    let sql = "SELECT s.id, s.application_id, a.name, s.lifecycle, s.status, s.started_at FROM agent_sessions s
               JOIN authority_records r ON r.zone_id = ?1 AND r.id = s.subject_record_id
               LEFT JOIN applications a ON a.zone_id = ?1 AND a.id = s.application_id
               WHERE s.zone_id = ?1 AND r.subject_id = ?2 ORDER BY s.started_at DESC, s.id DESC LIMIT ?3";
    let rows = tx.tx.query(sql, params![tx.zone, subject, RECENT_SESSIONS]).await?;
    let recent = rows.into_iter().map(governed).collect::<Result<_, _>>()?;
    let sql =
        "SELECT count(*), COALESCE(sum(CASE WHEN approved_at IS NULL AND rejected_at IS NULL AND consumed_at IS NULL
                 AND expires_at > ?3 THEN 1 ELSE 0 END), 0)
               FROM approvals WHERE zone_id = ?1 AND (principal_id = ?2 OR subject_anchor = ?2)";
    let (approvals, pending_approvals) = two(tx.tx.query_one(sql, params![tx.zone, subject, now]).await?)?;
    let sql = "SELECT c.id, c.provider_id, p.name, c.status, c.expires_at, c.created_at FROM provider_connections c
               LEFT JOIN providers p ON p.zone_id = ?1 AND p.id = c.provider_id
               WHERE c.zone_id = ?1 AND c.subject_id = ?2 ORDER BY c.created_at DESC, c.id DESC LIMIT ?3";
    let rows = tx.tx.query(sql, params![tx.zone, subject, RECENT_CONNECTIONS]).await?;
    let connections = rows.into_iter().map(connected).collect::<Result<_, _>>()?;
    Ok(Surroundings { running_sessions, sessions, recent, pending_approvals, approvals, connections })
}

fn two(row: Option<Row>) -> Result<(i64, i64), StoreError> {
    let Some(row) = row else { return Ok((0, 0)) };
    let mut columns = row.columns("subjects");
    Ok((columns.next()?, columns.next()?))
}

fn governed(row: Row) -> Result<Governed, StoreError> {
    let mut columns = row.columns("agent_sessions");
    Ok(Governed {
        id: columns.next()?,
        application_id: columns.next()?,
        application_name: columns.next()?,
        lifecycle: columns.next()?,
        status: columns.next()?,
        started_at: columns.next()?,
    })
}

fn connected(row: Row) -> Result<Connected, StoreError> {
    let mut columns = row.columns("provider_connections");
    Ok(Connected {
        id: columns.next()?,
        provider_id: columns.next()?,
        provider_name: columns.next()?,
        status: columns.next()?,
        expires_at: columns.next()?,
        created_at: columns.next()?,
    })
}
