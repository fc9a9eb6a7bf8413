//! What agents ask of services, and what becomes of it. No decision about authority reads these rows.

use caracal_authority::invocation::InvocationStatus;
use caracal_authority::{AgentSessionId, ApplicationId, InvocationId, ServiceId, Timestamp, ZoneId};
use serde_json::{Map, Value};

use crate::ahead::by_id;
use crate::error::StoreError;
use crate::tx::{DeploymentRead, ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// An invocation.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: InvocationId,
    /// What is asked.
    pub service_id: ServiceId,
    /// Whose service that is: who does the work.
    pub service_application_id: ApplicationId,
    /// Who asks: the source session's application, or the service's own.
    pub acting_application_id: ApplicationId,
    /// The session on whose behalf.
    pub source_session_id: Option<AgentSessionId>,
    /// The session that it is for.
    pub target_session_id: Option<AgentSessionId>,
    /// What is to be done.
    pub method: String,
    /// With what.
    pub params: Value,
    /// Free members.
    pub metadata: Map<String, Value>,
    /// Where it is.
    pub status: InvocationStatus,
    /// Attempts begun.
    pub attempts: i64,
    /// Attempts at most.
    pub max_attempts: i64,
    /// Pause between two attempts, in milliseconds.
    pub backoff_ms: i64,
    /// Whether that pause was asked for. One that is only assumed holds nobody up.
    pub backoff_named: bool,
    /// How long an attempt may take, in milliseconds.
    pub timeout_ms: i64,
    /// Until when the running or last attempt had to be over.
    pub deadline_at: Option<Timestamp>,
    /// When its worker was last asked to stop.
    pub cancel_requested_at: Option<Timestamp>,
    /// When the last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<Map<String, Value>>,
    /// When it was asked.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

const COLUMNS: &str = "zone_id, id, service_id, service_application_id, acting_application_id, source_session_id, \
                       target_session_id, method, params, metadata, status, attempts, max_attempts, backoff_ms, \
                       timeout_ms, deadline_at, cancel_requested_at, started_at, completed_at, error, created_at, \
                       updated_at, backoff_named";

fn read(row: Row) -> Result<Invocation, StoreError> {
    let mut columns = row.columns("invocations");
    Ok(Invocation {
        zone_id: columns.next()?,
        id: columns.next()?,
        service_id: columns.next()?,
        service_application_id: columns.next()?,
        acting_application_id: columns.next()?,
        source_session_id: columns.next()?,
        target_session_id: columns.next()?,
        method: columns.next()?,
        params: columns.json()?,
        metadata: columns.json()?,
        status: status(&columns.next::<String>()?)?,
        attempts: columns.next()?,
        max_attempts: columns.next()?,
        backoff_ms: columns.next()?,
        timeout_ms: columns.next()?,
        deadline_at: columns.next()?,
        cancel_requested_at: columns.next()?,
        started_at: columns.next()?,
        completed_at: columns.next()?,
        error: columns.json_or_null()?,
        created_at: columns.next()?,
        updated_at: columns.next()?,
        backoff_named: columns.next()?,
    })
}

fn status(text: &str) -> Result<InvocationStatus, StoreError> {
    let corrupt = || StoreError::Corrupt { table: "invocations", what: format!("unknown status `{text}`") };
    InvocationStatus::parse(text).ok_or_else(corrupt)
}

/// One invocation.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &InvocationId) -> Result<Option<Invocation>, StoreError> {
    let sql = by_id("invocations", COLUMNS);
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// Which invocations to list; all that is set has to hold.
#[derive(Debug, Clone, Default)]
pub struct InvocationFilter {
    /// Only what this application asked or does the work for.
    pub party: Option<ApplicationId>,
    /// Only in this state.
    pub status: Option<InvocationStatus>,
    /// Only of this service.
    pub service: Option<ServiceId>,
    /// Only from or for this session.
    pub session: Option<AgentSessionId>,
}

/// Invocations, newest first, `limit` at most, only those with an id below `before`.
pub async fn list(
    tx: &mut ZoneRead<'_>,
    filter: &InvocationFilter,
    before: Option<&InvocationId>,
    limit: i64,
) -> Result<Vec<Invocation>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM invocations
         WHERE zone_id = ?1
           AND (CAST(?2 AS TEXT) IS NULL OR service_application_id = ?2 OR acting_application_id = ?2)
           AND (CAST(?3 AS TEXT) IS NULL OR status = ?3)
           AND (CAST(?4 AS TEXT) IS NULL OR service_id = ?4)
           AND (CAST(?5 AS TEXT) IS NULL OR source_session_id = ?5 OR target_session_id = ?5)
           AND (CAST(?6 AS TEXT) IS NULL OR id < ?6) ORDER BY id DESC LIMIT ?7"
    );
    let status = filter.status.map(|status| status.as_str().to_owned());
    let params = params![tx.zone, filter.party, status, filter.service, filter.session, before, limit];
    tx.tx.query(&sql, params).await?.into_iter().map(read).collect()
}

/// Adds an invocation.
pub async fn add(tx: &mut ZoneWrite<'_>, invocation: &Invocation) -> Result<(), StoreError> {
    let sql = "INSERT INTO invocations (zone_id, id, service_id, service_application_id, acting_application_id,
                 source_session_id, target_session_id, method, params, metadata, status, attempts, max_attempts,
                 backoff_ms, timeout_ms, deadline_at, cancel_requested_at, started_at, completed_at, error, created_at,
                 updated_at, backoff_named)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                 ?22, ?23)";
    let zone = tx.zone.clone();
    let (arguments, metadata) = (crate::json_text(&invocation.params), crate::json_text(&invocation.metadata));
    let error = invocation.error.as_ref().map(crate::json_text);
    let params = params![
        zone,
        invocation.id,
        invocation.service_id,
        invocation.service_application_id,
        invocation.acting_application_id,
        invocation.source_session_id,
        invocation.target_session_id,
        invocation.method,
        arguments,
        metadata,
        invocation.status.as_str(),
        invocation.attempts,
        invocation.max_attempts,
        invocation.backoff_ms,
        invocation.timeout_ms,
        invocation.deadline_at,
        invocation.cancel_requested_at,
        invocation.started_at,
        invocation.completed_at,
        error,
        invocation.created_at,
        invocation.updated_at,
        invocation.backoff_named
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Writes down how far an invocation is: its state, attempts, times, error and metadata. What was asked stays.
/// `false` when there is no such invocation.
pub async fn update(tx: &mut ZoneWrite<'_>, invocation: &Invocation) -> Result<bool, StoreError> {
    let sql = "UPDATE invocations SET status = ?3, attempts = ?4, deadline_at = ?5, cancel_requested_at = ?6,
                 started_at = ?7, completed_at = ?8, error = ?9, metadata = ?10, updated_at = ?11
               WHERE zone_id = ?1 AND id = ?2";
    let (zone, now) = (tx.zone.clone(), tx.now());
    let error = invocation.error.as_ref().map(crate::json_text);
    let metadata = crate::json_text(&invocation.metadata);
    let params = params![
        zone,
        invocation.id,
        invocation.status.as_str(),
        invocation.attempts,
        invocation.deadline_at,
        invocation.cancel_requested_at,
        invocation.started_at,
        invocation.completed_at,
        error,
        metadata,
        now
    ];
    Ok(tx.tx.append(sql, params).await? == 1)
}

/// Invocations whose attempt should be over and is not, longest overdue first, `limit` at most.
pub async fn list_overdue(tx: &mut ZoneRead<'_>, limit: i64) -> Result<Vec<Invocation>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM invocations
         WHERE zone_id = ?1 AND status IN ('running', 'cancel_requested') AND deadline_at <= ?2
         ORDER BY deadline_at LIMIT ?3"
    );
    let now = tx.now();
    tx.tx.query(&sql, params![tx.zone, now, limit]).await?.into_iter().map(read).collect()
}

/// Invocations that were asked at `before` or earlier and that nobody has begun, longest waiting first, `limit` at most.
pub async fn list_unstarted(
    tx: &mut ZoneRead<'_>,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<Invocation>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM invocations WHERE zone_id = ?1 AND status = 'pending' AND created_at <= ?2
         ORDER BY created_at LIMIT ?3"
    );
    tx.tx.query(&sql, params![tx.zone, before, limit]).await?.into_iter().map(read).collect()
}

/// The first zone after `after`, in the order of ids, in which such an invocation waits.
pub async fn find_unstarted_zone(
    tx: &mut DeploymentRead<'_>,
    after: Option<&ZoneId>,
    before: Timestamp,
) -> Result<Option<ZoneId>, StoreError> {
    let after = after.map_or("", ZoneId::as_str);
    let sql = "SELECT zone_id FROM invocations WHERE zone_id > ?1 AND status = 'pending' AND created_at <= ?2
               ORDER BY zone_id LIMIT 1";
    let row = tx.tx().query_one(sql, params![after, before]).await?;
    row.map(|row| row.columns("invocations").next()).transpose()
}

/// The first zone after `after`, in the order of ids, in which an attempt is overdue.
pub async fn find_overdue_zone(
    tx: &mut DeploymentRead<'_>,
    after: Option<&ZoneId>,
) -> Result<Option<ZoneId>, StoreError> {
    let after = after.map_or("", ZoneId::as_str);
    let sql = "SELECT zone_id FROM invocations
               WHERE zone_id > ?1 AND status IN ('running', 'cancel_requested') AND deadline_at <= ?2
               ORDER BY zone_id LIMIT 1";
    let now = tx.now();
    let row = tx.tx().query_one(sql, params![after, now]).await?;
    row.map(|row| row.columns("invocations").next()).transpose()
}

/// How many invocations of the whole deployment are in each state that any is in, by the state's name.
pub async fn count_by_status(tx: &mut DeploymentRead<'_>) -> Result<Vec<(InvocationStatus, i64)>, StoreError> {
    let sql = "SELECT status, count(*) FROM invocations GROUP BY status ORDER BY status";
    let mut counts = Vec::new();
    for row in tx.tx().query(sql, &[]).await? {
        let mut columns = row.columns("invocations");
        counts.push((status(&columns.next::<String>()?)?, columns.next()?));
    }
    Ok(counts)
}
