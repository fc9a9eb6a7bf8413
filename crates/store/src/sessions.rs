//! Governed agent sessions. A session *runs* until it has ended: its status is active or suspended.

use std::time::Duration;

use caracal_authority::session::{Lease, Life, Lifecycle, SessionFacts, SessionStatus};
use caracal_authority::{AgentSessionId, ApplicationId, AuthorityRecordId, Timestamp, ZoneId};
use serde_json::{Map, Value};

use crate::ahead::by_id;
use crate::error::StoreError;
use crate::tx::{ZoneRead, ZoneWrite};
use crate::value::{Bind, Param, Row, params};

/// Until when a suspended service holds its slot.
pub(crate) fn for_ever() -> Timestamp {
    Timestamp::from_micros(i64::MAX)
}

/// A governed session.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: AgentSessionId,
    /// The application it runs as.
    pub application_id: ApplicationId,
    /// The session it runs under.
    pub parent_id: Option<AgentSessionId>,
    /// The authority record it is anchored to.
    pub subject_record_id: AuthorityRecordId,
    /// `task` or `service`.
    pub lifecycle: String,
    /// Labels, in the order given: the roles of `policy.md`.
    pub labels: Vec<String>,
    /// Free members.
    pub metadata: Map<String, Value>,
    /// `active`, `suspended`, `terminated` or `expired`.
    pub status: String,
    /// 0 for a root.
    pub depth: i64,
    /// Lifetime of a task, none for a service.
    pub ttl_seconds: Option<i64>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it last did something.
    pub last_active_at: Timestamp,
    /// A service's last heartbeat.
    pub last_heartbeat_at: Option<Timestamp>,
    /// When a service's lease ends.
    pub heartbeat_deadline_at: Option<Timestamp>,
    /// 0 for a task; fences holders of a service's lease.
    pub lease_generation: i64,
    /// When it ended.
    pub terminated_at: Option<Timestamp>,
    /// Why.
    pub termination_reason: Option<String>,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl SessionRow {
    /// The row as decisions see it. A combination of columns that no transition writes is corruption.
    pub fn facts(&self) -> Result<SessionFacts, StoreError> {
        let corrupt =
            |what: &str| StoreError::Corrupt { table: "agent_sessions", what: format!("`{}`: {what}", self.id) };
        let life = match (self.lifecycle.as_str(), self.ttl_seconds, self.heartbeat_deadline_at) {
            ("task", Some(ttl), None) if self.lease_generation == 0 => {
                Life::Task { ttl_seconds: u32::try_from(ttl).map_err(|_| corrupt("impossible ttl"))? }
            }
            ("service", None, Some(deadline)) if self.lease_generation >= 1 => {
                Life::Service(Lease { generation: self.lease_generation.unsigned_abs(), deadline })
            }
            _ => return Err(corrupt("neither a task nor a service")),
        };
        Ok(SessionFacts {
            id: self.id.clone(),
            zone: self.zone_id.clone(),
            application: self.application_id.clone(),
            parent: self.parent_id.clone(),
            subject_record: self.subject_record_id.clone(),
            labels: self.labels.clone(),
            depth: u8::try_from(self.depth).map_err(|_| corrupt("impossible depth"))?,
            status: SessionStatus::parse(&self.status).ok_or_else(|| corrupt("unknown status"))?,
            started_at: self.started_at,
            life,
        })
    }

    /// [`SessionFacts::holds_capacity`] as an instant, so that an index can count: the session holds a slot before it.
    fn capacity_until(&self) -> Option<Timestamp> {
        match (self.status.as_str(), self.ttl_seconds) {
            ("active" | "suspended", Some(ttl)) => Some(self.started_at.plus(Duration::from_secs(ttl.unsigned_abs()))),
            ("active", None) => self.heartbeat_deadline_at,
            ("suspended", None) => Some(for_ever()),
            _ => None,
        }
    }
}

pub(crate) const COLUMNS: &str = "zone_id, id, application_id, parent_id, subject_record_id, lifecycle, labels, metadata, \
                                  status, depth, ttl_seconds, started_at, last_active_at, last_heartbeat_at, \
                                  heartbeat_deadline_at, lease_generation, terminated_at, termination_reason, updated_at";

pub(crate) fn read(row: Row) -> Result<SessionRow, StoreError> {
    let mut columns = row.columns("agent_sessions");
    Ok(SessionRow {
        zone_id: columns.next()?,
        id: columns.next()?,
        application_id: columns.next()?,
        parent_id: columns.next()?,
        subject_record_id: columns.next()?,
        lifecycle: columns.next()?,
        labels: columns.json()?,
        metadata: columns.json()?,
        status: columns.next()?,
        depth: columns.next()?,
        ttl_seconds: columns.next()?,
        started_at: columns.next()?,
        last_active_at: columns.next()?,
        last_heartbeat_at: columns.next()?,
        heartbeat_deadline_at: columns.next()?,
        lease_generation: columns.next()?,
        terminated_at: columns.next()?,
        termination_reason: columns.next()?,
        updated_at: columns.next()?,
    })
}

/// One session.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &AgentSessionId) -> Result<Option<SessionRow>, StoreError> {
    let sql = by_id("agent_sessions", COLUMNS);
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// Adds a session.
pub async fn add(tx: &mut ZoneWrite<'_>, session: &SessionRow) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO agent_sessions (zone_id, id, application_id, parent_id, subject_record_id, lifecycle, labels,
                 metadata, status, depth, ttl_seconds, started_at, last_active_at, last_heartbeat_at,
                 heartbeat_deadline_at, lease_generation, terminated_at, termination_reason, updated_at, capacity_until)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";
    let zone = tx.zone.clone();
    let capacity_until = session.capacity_until();
    let (labels, metadata) = (crate::json_text(&session.labels), crate::json_text(&session.metadata));
    let params = params![
        zone,
        session.id,
        session.application_id,
        session.parent_id,
        session.subject_record_id,
        session.lifecycle,
        labels,
        metadata,
        session.status,
        session.depth,
        session.ttl_seconds,
        session.started_at,
        session.last_active_at,
        session.last_heartbeat_at,
        session.heartbeat_deadline_at,
        session.lease_generation,
        session.terminated_at,
        session.termination_reason,
        session.updated_at,
        capacity_until
    ];
    tx.tx.append(sql, params).await?;
    if capacity_until.is_some() {
        let sql = "INSERT INTO session_counts (zone_id, application_id, running) VALUES (?1, ?2, 1)
                   ON CONFLICT (zone_id, application_id) DO UPDATE SET running = session_counts.running + 1";
        for counted in ["", session.application_id.as_str()] {
            tx.tx.append(sql, params![zone, counted]).await?;
        }
    }
    Ok(())
}

/// Ends a running session; `false` when it has ended before.
pub async fn end(
    tx: &mut ZoneWrite<'_>,
    id: &AgentSessionId,
    status: SessionStatus,
    reason: &str,
) -> Result<bool, StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let sql = "UPDATE agent_sessions SET status = ?3, termination_reason = ?4, terminated_at = ?5, updated_at = ?5,
                 capacity_until = NULL
               WHERE zone_id = ?1 AND id = ?2 AND capacity_until IS NOT NULL";
    let ended = tx.tx.execute(sql, params![zone, id, status.as_str(), reason, now]).await? == 1;
    if ended {
        let sql = "UPDATE session_counts SET running = running - 1 WHERE zone_id = ?1 AND application_id IN
                     ('', (SELECT application_id FROM agent_sessions WHERE zone_id = ?1 AND id = ?2))";
        tx.tx.append(sql, params![zone, id]).await?;
    }
    Ok(ended)
}

/// Whose sessions to count.
#[derive(Debug, Clone, Copy)]
pub enum Among<'a> {
    /// All of the zone.
    Zone,
    /// Those of one application.
    Application(&'a ApplicationId),
    /// Those started directly under one session.
    ChildrenOf(&'a AgentSessionId),
}

/// Whether at least `limit` sessions hold a slot now. Exact, and counts only where there may be that many.
pub async fn holding_reaches(tx: &mut ZoneRead<'_>, among: Among<'_>, limit: i64) -> Result<bool, StoreError> {
    let counted = match among {
        Among::Zone => Some(""),
        Among::Application(application) => Some(application.as_str()),
        Among::ChildrenOf(_) => None,
    };
    if let Some(counted) = counted {
        let sql = "SELECT running FROM session_counts WHERE zone_id = ?1 AND application_id = ?2";
        let row = tx.tx.query_one(sql, params![tx.zone, counted]).await?;
        let running: i64 = row.map_or(Ok(0), |row| row.columns("session_counts").next())?;
        if running < limit {
            return Ok(false);
        }
    }
    Ok(count_holding_capacity(tx, among, limit).await? >= limit)
}

/// How many sessions hold a slot now; counting stops at `at_most`.
pub async fn count_holding_capacity(tx: &mut ZoneRead<'_>, among: Among<'_>, at_most: i64) -> Result<i64, StoreError> {
    let (condition, id) = match among {
        Among::Zone => ("?2 = ''", ""),
        Among::Application(application) => ("application_id = ?2", application.as_str()),
        Among::ChildrenOf(parent) => ("parent_id = ?2", parent.as_str()),
    };
    let sql = format!(
        "SELECT count(*) FROM (SELECT 1 FROM agent_sessions
           WHERE zone_id = ?1 AND {condition} AND capacity_until > ?3 LIMIT ?4) counted"
    );
    let now = tx.now();
    let row = tx.tx.query_one(&sql, params![tx.zone, id, now, at_most]).await?;
    row.map_or(Ok(0), |row| row.columns("agent_sessions").next())
}

/// Whether a running session is anchored to `record`.
pub async fn is_anchor(tx: &mut ZoneRead<'_>, record: &AuthorityRecordId) -> Result<bool, StoreError> {
    let index = tx.tx.by_index("agent_sessions_running_by_record");
    let sql = format!(
        "SELECT 1 FROM agent_sessions {index}
         WHERE zone_id = ?1 AND subject_record_id = ?2 AND capacity_until IS NOT NULL LIMIT 1"
    );
    Ok(tx.tx.query_one(&sql, params![tx.zone, record]).await?.is_some())
}

/// Suspends an active session; `false` when it was not active. Its lease stays as it is.
pub async fn suspend(tx: &mut ZoneWrite<'_>, id: &AgentSessionId) -> Result<bool, StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let sql = "UPDATE agent_sessions SET status = 'suspended', updated_at = ?3,
                 capacity_until = CASE WHEN lifecycle = 'service' THEN ?4 ELSE capacity_until END
               WHERE zone_id = ?1 AND id = ?2 AND status = 'active'";
    Ok(tx.tx.execute(sql, params![zone, id, now, for_ever()]).await? == 1)
}

/// Makes a suspended session active again; `false` when it was not suspended. A service gets a lease of this length.
pub async fn resume(tx: &mut ZoneWrite<'_>, id: &AgentSessionId, lease: Duration) -> Result<bool, StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let deadline = now.plus(lease);
    let sql = "UPDATE agent_sessions SET status = 'active', updated_at = ?3,
                 heartbeat_deadline_at = CASE WHEN lifecycle = 'service' THEN ?4 ELSE heartbeat_deadline_at END,
                 capacity_until = CASE WHEN lifecycle = 'service' THEN ?4 ELSE capacity_until END
               WHERE zone_id = ?1 AND id = ?2 AND status = 'suspended'";
    Ok(tx.tx.append(sql, params![zone, id, now, deadline]).await? == 1)
}

/// Running sessions directly under `parent`.
pub async fn list_running_children(
    tx: &mut ZoneRead<'_>,
    parent: &AgentSessionId,
) -> Result<Vec<SessionRow>, StoreError> {
    let index = tx.tx.by_index("agent_sessions_running_by_parent");
    let sql = format!(
        "SELECT {COLUMNS} FROM agent_sessions {index}
         WHERE zone_id = ?1 AND parent_id = ?2 AND capacity_until IS NOT NULL ORDER BY id"
    );
    tx.tx.query(&sql, params![tx.zone, parent]).await?.into_iter().map(read).collect()
}

/// Which sessions to list; empty fields admit all.
#[derive(Debug, Clone, Copy, Default)]
pub struct SessionFilter<'f> {
    /// With this stored status.
    pub status: Option<SessionStatus>,
    /// Tasks, or services.
    pub lifecycle: Option<Lifecycle>,
    /// Of this application.
    pub application: Option<&'f ApplicationId>,
    /// Started directly under this session.
    pub parent: Option<&'f AgentSessionId>,
    /// With exactly this label.
    pub label: Option<&'f str>,
}

/// Sessions, newest first, `limit` at most, only those with an id below `before`.
pub async fn list(
    tx: &mut ZoneRead<'_>,
    filter: &SessionFilter<'_>,
    before: Option<&AgentSessionId>,
    limit: i64,
) -> Result<Vec<SessionRow>, StoreError> {
    let label = tx.tx.json_array_has("labels");
    let (status, lifecycle) = (filter.status.map(SessionStatus::as_str), filter.lifecycle.map(Lifecycle::as_str));
    let conditions = [
        ("id < {}", before.bind()),
        ("status = {}", status.bind()),
        ("lifecycle = {}", lifecycle.bind()),
        ("application_id = {}", filter.application.bind()),
        ("parent_id = {}", filter.parent.bind()),
        (label.as_str(), filter.label.bind()),
    ];
    let mut sql = format!("SELECT {COLUMNS} FROM agent_sessions WHERE zone_id = ?1");
    let zone = tx.zone.clone();
    let mut bound = vec![zone.bind()];
    for (condition, value) in conditions {
        if !matches!(value, Param::Null) {
            bound.push(value);
            sql.push_str(&format!(" AND {}", condition.replace("{}", &format!("?{}", bound.len()))));
        }
    }
    bound.push(Param::Int(limit));
    sql.push_str(&format!(" ORDER BY id DESC LIMIT ?{}", bound.len()));
    tx.tx.query(&sql, &bound).await?.into_iter().map(read).collect()
}

/// Tasks that still run although their time is up, longest overdue first, `limit` at most.
pub async fn list_lapsed_tasks(tx: &mut ZoneRead<'_>, limit: i64) -> Result<Vec<SessionRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM agent_sessions
         WHERE zone_id = ?1 AND capacity_until <= ?2 AND lifecycle = 'task' ORDER BY capacity_until LIMIT ?3"
    );
    let now = tx.now();
    tx.tx.query(&sql, params![tx.zone, now, limit]).await?.into_iter().map(read).collect()
}
