//! What operators look at when they ask what is going on in a zone: authority records and sessions as lists, and the
//! zone in numbers (contract: admin-api.md §5.1, §5.12). Nothing here is read by a decision.

use std::time::Duration;

use caracal_authority::record::{RecordStatus, SubjectKind};
use caracal_authority::{ApplicationId, Timestamp};

use crate::asked::Asked;
use crate::error::StoreError;
use crate::page::Page;
use crate::records::{self, Provenance, RecordRow};
use crate::sessions::{self, SessionRow};
use crate::tx::ZoneRead;
use crate::value::{Bind, Columns, Row, params};

/// What a record's life has come to at `now`: expiry is not stored, it is a matter of time.
pub fn record_status(record: &RecordRow, now: Timestamp) -> RecordStatus {
    match record.status.as_str() {
        "active" if now < record.expires_at => RecordStatus::Active,
        "active" => RecordStatus::Expired,
        _ => RecordStatus::Revoked,
    }
}

/// Which records to list; empty fields admit all.
#[derive(Debug, Clone, Default)]
pub struct RecordFilter {
    /// This one.
    pub id: Option<String>,
    /// With this status now.
    pub status: Option<RecordStatus>,
    /// Of this subject.
    pub subject_id: Option<String>,
    /// Of users, or of applications.
    pub kind: Option<SubjectKind>,
}

/// Authority records of the zone, newest first.
pub async fn list_records(
    tx: &mut ZoneRead<'_>,
    filter: &RecordFilter,
    page: &Page,
) -> Result<Vec<RecordRow>, StoreError> {
    let (now, at, limit) = (tx.now(), page.at(), page.limit());
    let kind = filter.kind.map(SubjectKind::as_str);
    let mut asked = Asked::beside(params![tx.zone, at, page.id(), limit]);
    match filter.status {
        None => {}
        Some(RecordStatus::Active) => asked.and("status = 'active' AND expires_at > {}", now.bind()),
        Some(RecordStatus::Expired) => asked.and("status = 'active' AND expires_at <= {}", now.bind()),
        Some(RecordStatus::Revoked) => asked.and("status <> {}", "active".bind()),
    }
    asked.and("id = {}", filter.id.bind());
    asked.and("subject_id = {}", filter.subject_id.bind());
    asked.and("kind = {}", kind.bind());
    let sql = format!(
        "SELECT {} FROM authority_records WHERE zone_id = ?1 AND (created_at, id) < (?2, ?3){}
         ORDER BY created_at DESC, id DESC LIMIT ?4",
        records::COLUMNS,
        asked.conditions()
    );
    tx.tx.query(&sql, asked.params()).await?.into_iter().map(records::read).collect()
}

/// Which sessions to list; empty fields admit all.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// With this stored status.
    pub status: Option<String>,
    /// `task` or `service`.
    pub lifecycle: Option<String>,
    /// Of this application.
    pub application_id: Option<String>,
    /// Started directly under this session.
    pub parent_id: Option<String>,
    /// Anchored to a record of this subject.
    pub subject_id: Option<String>,
    /// With this label among its labels.
    pub label: Option<String>,
}

/// A session and whose authority it rides.
#[derive(Debug, Clone)]
pub struct SeenSession {
    /// The session.
    pub session: SessionRow,
    /// Sessions started directly under it, ended ones included.
    pub child_count: i64,
    /// The subject of its record; none when the record is gone.
    pub subject_id: Option<String>,
    /// `user` or `application`.
    pub subject_kind: Option<String>,
    /// Who vouched for the user.
    pub provenance: Option<Provenance>,
}

/// Sessions of the zone, newest first.
pub async fn list_sessions(
    tx: &mut ZoneRead<'_>,
    filter: &SessionFilter,
    page: &Page,
) -> Result<Vec<SeenSession>, StoreError> {
    let columns: Vec<String> = sessions::COLUMNS.split(',').map(|column| format!("s.{}", column.trim())).collect();
    let (at, limit) = (page.at(), page.limit());
    let mut asked = Asked::beside(params![tx.zone, at, page.id(), limit]);
    asked.and("s.status = {}", filter.status.bind());
    asked.and("s.lifecycle = {}", filter.lifecycle.bind());
    asked.and("s.application_id = {}", filter.application_id.bind());
    asked.and("s.parent_id = {}", filter.parent_id.bind());
    asked.and("r.subject_id = {}", filter.subject_id.bind());
    asked.and(&tx.tx.json_array_has("s.labels"), filter.label.bind());
    let sql = format!(
        "SELECT {}, (SELECT count(*) FROM agent_sessions c WHERE c.zone_id = ?1 AND c.parent_id = s.id),
           r.subject_id, r.kind, r.provenance
         FROM agent_sessions s LEFT JOIN authority_records r ON r.zone_id = ?1 AND r.id = s.subject_record_id
         WHERE s.zone_id = ?1 AND (s.started_at, s.id) < (?2, ?3){}
         ORDER BY s.started_at DESC, s.id DESC LIMIT ?4",
        columns.join(", "),
        asked.conditions()
    );
    tx.tx.query(&sql, asked.params()).await?.into_iter().map(read_seen).collect()
}

fn read_seen(row: Row) -> Result<SeenSession, StoreError> {
    let mut values = row.values;
    let rest = values.split_off(sessions::COLUMNS.split(',').count().min(values.len()));
    let session = sessions::read(Row { values })?;
    let mut columns = Row { values: rest }.columns("agent_sessions");
    Ok(SeenSession {
        session,
        child_count: columns.next()?,
        subject_id: columns.next()?,
        subject_kind: columns.next()?,
        provenance: columns.json_or_null()?,
    })
}

/// A zone in numbers. What is archived counts for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// Applications.
    pub applications: i64,
    /// Of them those whose time is over.
    pub expired_applications: i64,
    /// Of them those whose time is over within a week.
    pub expiring_applications: i64,
    /// Resources.
    pub resources: i64,
    /// Of them those whose operations are not enforced.
    pub unenforced_resources: i64,
    /// Providers.
    pub providers: i64,
    /// Policy sets.
    pub policy_sets: i64,
    /// The name of the set that is active.
    pub active_policy_set: Option<String>,
    /// Records that are alive.
    pub active_records: i64,
    /// Decisions of the last day that allowed.
    pub allowed: i64,
    /// Decisions of the last day that denied.
    pub denied: i64,
}

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The zone in numbers, now.
pub async fn overview(tx: &mut ZoneRead<'_>) -> Result<Overview, StoreError> {
    let now = tx.now();
    let (week, day) = (now.plus(WEEK), now.minus(DAY));
    let mut seen = Overview::default();
    let sql = "SELECT count(*), COALESCE(sum(CASE WHEN expires_at <= ?2 THEN 1 ELSE 0 END), 0),
                 COALESCE(sum(CASE WHEN expires_at > ?2 AND expires_at <= ?3 THEN 1 ELSE 0 END), 0)
               FROM applications WHERE zone_id = ?1 AND archived_at IS NULL";
    if let Some(mut columns) = one(tx.tx.query_one(sql, params![tx.zone, now, week]).await?) {
        seen.applications = columns.next()?;
        seen.expired_applications = columns.next()?;
        seen.expiring_applications = columns.next()?;
    }
    let sql = "SELECT count(*), COALESCE(sum(CASE WHEN operation_enforcement <> 'enforced' THEN 1 ELSE 0 END), 0)
               FROM resources WHERE zone_id = ?1 AND archived_at IS NULL";
    if let Some(mut columns) = one(tx.tx.query_one(sql, params![tx.zone]).await?) {
        seen.resources = columns.next()?;
        seen.unenforced_resources = columns.next()?;
    }
    let sql = "SELECT (SELECT count(*) FROM providers WHERE zone_id = ?1 AND archived_at IS NULL),
                 (SELECT count(*) FROM policy_sets WHERE zone_id = ?1 AND archived_at IS NULL),
                 (SELECT s.name FROM active_policy_sets a JOIN policy_sets s ON s.zone_id = ?1 AND s.id = a.policy_set_id
                  WHERE a.zone_id = ?1),
                 (SELECT count(*) FROM authority_records WHERE zone_id = ?1 AND status = 'active' AND expires_at > ?2)";
    if let Some(mut columns) = one(tx.tx.query_one(sql, params![tx.zone, now]).await?) {
        seen.providers = columns.next()?;
        seen.policy_sets = columns.next()?;
        seen.active_policy_set = columns.next()?;
        seen.active_records = columns.next()?;
    }
    let sql = "SELECT COALESCE(sum(CASE WHEN decision = 'allow' THEN 1 ELSE 0 END), 0),
                 COALESCE(sum(CASE WHEN decision = 'deny' THEN 1 ELSE 0 END), 0)
               FROM audit_events WHERE zone_id = ?1 AND occurred_at >= ?2";
    if let Some(mut columns) = one(tx.tx.query_one(sql, params![tx.zone, day]).await?) {
        seen.allowed = columns.next()?;
        seen.denied = columns.next()?;
    }
    Ok(seen)
}

/// How many self-registered applications of the zone are neither archived nor expired.
pub async fn count_live_registrations(tx: &mut ZoneRead<'_>) -> Result<i64, StoreError> {
    let sql = "SELECT count(*) FROM applications
               WHERE zone_id = ?1 AND registration_method = 'dcr' AND archived_at IS NULL AND expires_at > ?2";
    let now = tx.now();
    one(tx.tx.query_one(sql, params![tx.zone, now]).await?).map_or(Ok(0), |mut columns| columns.next())
}

/// Self-registered applications of the zone that are neither archived nor expired.
pub async fn list_live_registrations(tx: &mut ZoneRead<'_>) -> Result<Vec<ApplicationId>, StoreError> {
    let sql = "SELECT id FROM applications
               WHERE zone_id = ?1 AND registration_method = 'dcr' AND archived_at IS NULL AND expires_at > ?2 ORDER BY id";
    let now = tx.now();
    let rows = tx.tx.query(sql, params![tx.zone, now]).await?;
    rows.into_iter().map(|row| row.columns("applications").next()).collect()
}

fn one(row: Option<Row>) -> Option<Columns> {
    row.map(|row| row.columns("overview"))
}
