//! Holds: requests that wait for a human (contract: sts.md §7, admin-api.md §5.9).
//!
//! Every change is a single statement with its conditions in it, so of two callers that race exactly one is told that it
//! did it; and the index over live holds makes the hold of a request single, whoever asks at the same time.

use std::collections::{BTreeSet, HashMap};

use caracal_authority::approval::{Approver, Binding, Consumed, Hold, HoldState, Privacy};
use caracal_authority::{
    AgentSessionId, ApplicationId, ApprovalId, AuthorityRecordId, EdgeId, OutboxId, Timestamp, ZoneId,
};
use serde_json::{Map, Value};

use crate::ahead::by_id;
use crate::error::StoreError;
use crate::outbox;
use crate::page::Page;
use crate::tx::{DeploymentRead, DeploymentWrite, ZoneRead, ZoneWrite};
use crate::value::{Bind, Param, Row, params};

/// The topic on which a decision wakes those who wait for it, in whichever process they do.
pub const DECIDED: &str = "caracal.approvals.decided";

/// A hold.
#[derive(Debug, Clone)]
pub struct ApprovalRow {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id, unique in the deployment.
    pub id: ApprovalId,
    /// For whom authority was asked.
    pub principal_id: String,
    /// `application`, `user` or `workload`.
    pub principal_kind: String,
    /// The authority record it was asked with.
    pub record_id: Option<AuthorityRecordId>,
    /// The application that asked.
    pub application_id: Option<ApplicationId>,
    /// The governed session it was asked for.
    pub agent_session_id: Option<AgentSessionId>,
    /// The delegation it was asked through.
    pub delegation_edge_id: Option<EdgeId>,
    /// Records that stand behind the request.
    pub requesting: Vec<AuthorityRecordId>,
    /// Names of the tiers, joined; may be empty.
    pub tier: String,
    /// `operator`, `subject` or `any`.
    pub approver_class: String,
    /// `identified`, `pseudonymous` or `anonymous`.
    pub privacy_mode: String,
    /// The one person who may approve as the subject.
    pub subject_anchor: Option<String>,
    /// What an approval is good for, 64 hexadecimal digits.
    pub binding: String,
    /// What was asked, for who decides.
    pub metadata: Map<String, Value>,
    /// When it was raised.
    pub created_at: Timestamp,
    /// First instant at which it is over.
    pub expires_at: Timestamp,
    /// When it was approved.
    pub approved_at: Option<Timestamp>,
    /// When it was rejected.
    pub rejected_at: Option<Timestamp>,
    /// Who decided, as far as the hold's privacy allows.
    pub approver_id: Option<String>,
    /// The record of the user who decided.
    pub approver_record_id: Option<AuthorityRecordId>,
    /// What they said of it.
    pub decision_reason: Option<String>,
    /// When it was spent.
    pub consumed_at: Option<Timestamp>,
    /// The record that it was spent on.
    pub consumed_record_id: Option<AuthorityRecordId>,
}

impl ApprovalRow {
    /// What a decision needs to know of it. Marks that no sequence of events leaves behind are corruption.
    pub fn facts(&self) -> Result<Hold, StoreError> {
        let corrupt = |what: &str| StoreError::Corrupt {
            table: "approvals",
            what: format!("approval {} of zone {}: {what}", self.id, self.zone_id),
        };
        if self.approved_at.is_some() && self.rejected_at.is_some() {
            return Err(corrupt("both approved and rejected"));
        }
        if self.consumed_at.is_some() && self.approved_at.is_none() {
            return Err(corrupt("spent without an approval"));
        }
        if self.consumed_record_id.is_some() && self.consumed_at.is_none() {
            return Err(corrupt("spent at no time"));
        }
        let labels = self.metadata.get("agent_labels").and_then(Value::as_array);
        let labels = labels.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Hold {
            id: self.id.clone(),
            zone: self.zone_id.clone(),
            principal: self.principal_id.clone(),
            record: self.record_id.clone(),
            application: self.application_id.clone(),
            session: self.agent_session_id.clone(),
            delegation: self.delegation_edge_id.clone(),
            labels,
            requesting: self.requesting.clone(),
            tier: self.tier.clone(),
            approver: Approver::parse(&self.approver_class).ok_or_else(|| corrupt("unknown class of approver"))?,
            privacy: Privacy::parse(&self.privacy_mode).ok_or_else(|| corrupt("unknown privacy"))?,
            subject_anchor: self.subject_anchor.clone(),
            binding: Binding::parse(&self.binding).map_err(|_| corrupt("unusable binding"))?,
            expires_at: self.expires_at,
            approved_at: self.approved_at,
            rejected_at: self.rejected_at,
            consumed: self.consumed_at.map(|at| Consumed { at, record: self.consumed_record_id.clone() }),
        })
    }
}

pub(crate) const COLUMNS: &str = "zone_id, id, principal_id, principal_kind, record_id, application_id, agent_session_id, \
    delegation_edge_id, requesting, tier, approver_class, privacy_mode, subject_anchor, binding, metadata, created_at, \
    expires_at, approved_at, rejected_at, approver_id, approver_record_id, decision_reason, consumed_at, consumed_record_id";

fn read(row: Row) -> Result<ApprovalRow, StoreError> {
    let mut columns = row.columns("approvals");
    Ok(ApprovalRow {
        zone_id: columns.next()?,
        id: columns.next()?,
        principal_id: columns.next()?,
        principal_kind: columns.next()?,
        record_id: {
            let id: String = columns.next()?;
            let parsed = (!id.is_empty()).then(|| AuthorityRecordId::parse(&id)).transpose();
            parsed.map_err(|_| StoreError::Corrupt { table: "approvals", what: "record_id is no id".to_owned() })?
        },
        application_id: columns.next()?,
        agent_session_id: columns.next()?,
        delegation_edge_id: columns.next()?,
        requesting: columns.json()?,
        tier: columns.next()?,
        approver_class: columns.next()?,
        privacy_mode: columns.next()?,
        subject_anchor: columns.next()?,
        binding: columns.next()?,
        metadata: columns.json()?,
        created_at: columns.next()?,
        expires_at: columns.next()?,
        approved_at: columns.next()?,
        rejected_at: columns.next()?,
        approver_id: columns.next()?,
        approver_record_id: columns.next()?,
        decision_reason: columns.next()?,
        consumed_at: columns.next()?,
        consumed_record_id: columns.next()?,
    })
}

/// Values of one statement. Shorter lists are filled up, so that there is one statement and not one for each length.
const AT_ONCE: usize = 64;

/// The places of `count` parameters, the first of which is number `first`.
fn places(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("?{number}")).collect::<Vec<_>>().join(", ")
}

fn record_text(id: Option<&AuthorityRecordId>) -> &str {
    id.map_or("", AuthorityRecordId::as_str)
}

/// One hold of the zone.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &ApprovalId) -> Result<Option<ApprovalRow>, StoreError> {
    let sql = by_id("approvals", COLUMNS);
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// The holds of these ids, whichever zones they are of; those that are not there are left out. For whoever knows the id
/// and nothing else.
pub async fn find_anywhere(tx: &mut DeploymentRead<'_>, ids: &[ApprovalId]) -> Result<Vec<ApprovalRow>, StoreError> {
    let sql = |count| format!("SELECT {COLUMNS} FROM approvals WHERE id IN ({})", places(1, count));
    let mut found = Vec::new();
    for chunk in ids.chunks(AT_ONCE) {
        let mut params: Vec<Param<'_>> = chunk.iter().map(Bind::bind).collect();
        let count = if params.len() == 1 { 1 } else { AT_ONCE };
        params.resize(count, Param::Text(""));
        for row in tx.tx().query(&sql(count), &params).await? {
            found.push(read(row)?);
        }
    }
    Ok(found)
}

/// The live hold that answers for a request: not spent, and not over.
pub async fn find_live(
    tx: &mut ZoneRead<'_>,
    principal: &str,
    record: Option<&AuthorityRecordId>,
    binding: &str,
) -> Result<Option<ApprovalRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM approvals WHERE zone_id = ?1 AND principal_id = ?2 AND record_id = ?3 AND binding = ?4
           AND is_live = 1 AND expires_at > ?5"
    );
    let (record, now) = (record_text(record), tx.now());
    tx.tx.query_one(&sql, params![tx.zone, principal, record, binding, now]).await?.map(read).transpose()
}

/// How many holds of this principal answer for something: `at_most` are counted.
pub async fn count_live(tx: &mut ZoneRead<'_>, principal: &str, at_most: i64) -> Result<i64, StoreError> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM approvals WHERE zone_id = ?1 AND principal_id = ?2 AND is_live = 1
                 AND expires_at > ?3 LIMIT ?4) AS live";
    let now = tx.now();
    let row = tx.tx.query_one(sql, params![tx.zone, principal, now, at_most]).await?;
    row.map_or(Ok(0), |row| row.columns("approvals").next())
}

/// Adds a hold, unless there is one that answers for the request; then that one is returned. One that is over makes
/// room for it.
pub async fn add(tx: &mut ZoneWrite<'_>, row: &ApprovalRow) -> Result<Option<ApprovalRow>, StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let record = record_text(row.record_id.as_ref());
    let displace = "UPDATE approvals SET is_live = 0 WHERE zone_id = ?1 AND principal_id = ?2 AND record_id = ?3
                      AND binding = ?4 AND is_live = 1 AND expires_at <= ?5";
    tx.tx.append(displace, params![zone, row.principal_id, record, row.binding, now]).await?;
    let sql =
        "INSERT INTO approvals (zone_id, id, principal_id, principal_kind, record_id, application_id, agent_session_id,
                 delegation_edge_id, requesting, tier, approver_class, privacy_mode, subject_anchor, binding, metadata,
                 created_at, expires_at, is_live)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, 1)
               ON CONFLICT (zone_id, principal_id, record_id, binding) WHERE is_live = 1 DO NOTHING";
    let (requesting, metadata) = (crate::json_text(&row.requesting), crate::json_text(&row.metadata));
    let params = params![
        zone,
        row.id,
        row.principal_id,
        row.principal_kind,
        record,
        row.application_id,
        row.agent_session_id,
        row.delegation_edge_id,
        requesting,
        row.tier,
        row.approver_class,
        row.privacy_mode,
        row.subject_anchor,
        row.binding,
        metadata,
        row.created_at,
        row.expires_at
    ];
    if tx.tx.append(sql, params).await? == 1 {
        return Ok(None);
    }
    let found = find_live(tx, &row.principal_id, row.record_id.as_ref(), &row.binding).await?;
    let reason = "a hold was neither added nor found".to_owned();
    found.map(Some).ok_or(StoreError::Statement { reason })
}

/// What somebody said.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Yes or no.
    pub approved: bool,
    /// Who said it, as far as the hold's privacy allows.
    pub approver: String,
    /// The record of a user who said it.
    pub approver_record: Option<AuthorityRecordId>,
    /// Why.
    pub reason: Option<String>,
    /// The message that wakes those who wait.
    pub message: OutboxId,
}

/// Decides a hold that waits, and wakes those who wait for it with the same commit. `false`: it was decided, spent or
/// over before, and nothing changed.
pub async fn decide(tx: &mut ZoneWrite<'_>, id: &ApprovalId, verdict: &Verdict) -> Result<bool, StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let sql = "UPDATE approvals SET approved_at = ?3, rejected_at = ?4, approver_id = ?5, approver_record_id = ?6,
                 decision_reason = ?7
               WHERE zone_id = ?1 AND id = ?2 AND approved_at IS NULL AND rejected_at IS NULL AND consumed_at IS NULL
                 AND expires_at > ?8";
    let (approved_at, rejected_at) = if verdict.approved { (Some(now), None) } else { (None, Some(now)) };
    let params =
        params![zone, id, approved_at, rejected_at, verdict.approver, verdict.approver_record, verdict.reason, now];
    if tx.tx.append(sql, params).await? == 0 {
        return Ok(false);
    }
    let state = if verdict.approved { HoldState::Approved } else { HoldState::Rejected };
    let fields = [("zone_id", zone.as_str()), ("approval_id", id.as_str()), ("state", state.as_str())];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    outbox::add(tx, verdict.message.clone(), DECIDED, id.as_str(), fields).await?;
    Ok(true)
}

/// Spends an approved hold on a record. `false`: it was spent, is over, or was never approved, and nothing changed. The
/// binding is asked for again, so that no caller can have looked at another hold.
pub async fn consume(
    tx: &mut ZoneWrite<'_>,
    id: &ApprovalId,
    binding: &Binding,
    record: Option<&AuthorityRecordId>,
) -> Result<bool, StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let sql = "UPDATE approvals SET consumed_at = ?4, consumed_record_id = ?5, is_live = 0
               WHERE zone_id = ?1 AND id = ?2 AND binding = ?3 AND approved_at IS NOT NULL AND approver_id IS NOT NULL
                 AND rejected_at IS NULL AND consumed_at IS NULL AND expires_at > ?4";
    Ok(tx.tx.append(sql, params![zone, id, binding.as_str(), now, record]).await? == 1)
}

/// Which holds to list.
#[derive(Debug, Clone, Default)]
pub struct ApprovalFilter {
    /// Only those in this state now.
    pub state: Option<HoldState>,
    /// Only those of this tier.
    pub tier: Option<String>,
    /// Only those of this principal.
    pub principal: Option<String>,
    /// Only those raised at or after this instant.
    pub since: Option<Timestamp>,
    /// Only those raised at or before this instant.
    pub until: Option<Timestamp>,
}

/// The name of a hold's state at ?2, in the precedence of [`Hold::state`].
const STATE: &str = "CASE WHEN consumed_at IS NOT NULL THEN 'consumed' WHEN rejected_at IS NOT NULL THEN 'rejected'
    WHEN expires_at <= ?2 THEN 'expired' WHEN approved_at IS NOT NULL THEN 'approved' ELSE 'pending' END";

/// Holds of the zone, newest first.
pub async fn list(tx: &mut ZoneRead<'_>, filter: &ApprovalFilter, page: &Page) -> Result<Vec<ApprovalRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM approvals WHERE zone_id = ?1 AND (created_at, id) < (?3, ?4)
           AND created_at >= ?5 AND created_at <= ?6
           AND (CAST(?7 AS TEXT) IS NULL OR {STATE} = ?7) AND (CAST(?8 AS TEXT) IS NULL OR tier = ?8)
           AND (CAST(?9 AS TEXT) IS NULL OR principal_id = ?9)
         ORDER BY created_at DESC, id DESC LIMIT ?10"
    );
    let (now, at, id, limit) = (tx.now(), page.at(), page.id(), page.limit());
    let since = filter.since.map_or(i64::MIN, Timestamp::as_micros);
    let until = filter.until.map_or(i64::MAX, Timestamp::as_micros);
    let state = filter.state.map(HoldState::as_str);
    let params = params![tx.zone, now, at, id, since, until, state, filter.tier, filter.principal, limit];
    tx.tx.query(&sql, params).await?.into_iter().map(read).collect()
}

/// How many holds of the zone are in each state now; states without any are left out.
pub async fn count_by_state(tx: &mut ZoneRead<'_>) -> Result<Vec<(HoldState, i64)>, StoreError> {
    let sql = format!("SELECT {STATE}, count(*) FROM approvals WHERE zone_id = ?1 GROUP BY 1");
    let now = tx.now();
    let mut counts = Vec::new();
    for row in tx.tx.query(&sql, params![tx.zone, now]).await? {
        let mut columns = row.columns("approvals");
        let name: String = columns.next()?;
        let what = || StoreError::Corrupt { table: "approvals", what: format!("unknown state {name}") };
        counts.push((HoldState::parse(&name).ok_or_else(what)?, columns.next()?));
    }
    Ok(counts)
}

/// How often the same was approved and rejected before: of each of `rows`, itself not counted.
pub async fn count_prior(tx: &mut ZoneRead<'_>, rows: &[ApprovalRow]) -> Result<Vec<(i64, i64)>, StoreError> {
    let bindings: BTreeSet<&str> = rows.iter().map(|row| row.binding.as_str()).collect();
    let bindings: Vec<&str> = bindings.into_iter().collect();
    let sql = format!(
        "SELECT binding, sum(CASE WHEN approved_at IS NULL THEN 0 ELSE 1 END),
                sum(CASE WHEN rejected_at IS NULL THEN 0 ELSE 1 END)
         FROM approvals WHERE zone_id = ?1 AND binding IN ({}) GROUP BY binding",
        places(2, AT_ONCE)
    );
    let mut counts: HashMap<String, (i64, i64)> = HashMap::new();
    for chunk in bindings.chunks(AT_ONCE) {
        let mut params = vec![tx.zone.bind()];
        params.extend(chunk.iter().map(|binding| Param::Text(binding)));
        params.resize(1 + AT_ONCE, Param::Text(""));
        for row in tx.tx.query(&sql, &params).await? {
            let mut columns = row.columns("approvals");
            counts.insert(columns.next()?, (columns.next()?, columns.next()?));
        }
    }
    let prior = |row: &ApprovalRow| {
        let (approved, rejected) = counts.get(&row.binding).copied().unwrap_or_default();
        (approved - i64::from(row.approved_at.is_some()), rejected - i64::from(row.rejected_at.is_some()))
    };
    Ok(rows.iter().map(prior).collect())
}

/// Forgets holds that were over, spent or rejected before `before`; at most `limit`, and says how many.
pub async fn purge_terminal(tx: &mut DeploymentWrite<'_>, before: Timestamp, limit: i64) -> Result<usize, StoreError> {
    let sql = "DELETE FROM approvals WHERE id IN (
                 SELECT id FROM approvals WHERE expires_at < ?1 AND (consumed_at IS NULL OR consumed_at < ?1)
                   AND (rejected_at IS NULL OR rejected_at < ?1) ORDER BY expires_at LIMIT ?2)";
    tx.tx().append(sql, params![before, limit]).await
}
