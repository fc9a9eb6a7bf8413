//! Rows of the evidence ledger. Append and read only; the storage refuses change and removal. Only the `ledger` room
//! calls [`append`]: it alone writes chain columns.

use caracal_authority::{ApplicationId, MetadataKey, ResourceId, Timestamp, ZoneId};

use crate::effects::{ChainHead, ChainKind};
use crate::error::StoreError;
use crate::page::Page;
use crate::tx::{DeploymentRead, ZoneRead, ZoneWrite};
use crate::value::{Bind, Param, Row, Value, params};

/// One event as stored: text columns hold exactly the bytes that the content hash covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceRow {
    /// The zone, which selects the chain. Text, so that a damaged row can still be read and named.
    pub zone_id: String,
    /// Position in the zone's chain, from 1.
    pub chain_seq: i64,
    /// The event's id.
    pub id: String,
    /// Its type.
    pub event_type: String,
    /// The request it belongs to.
    pub request_id: String,
    /// `allow`, `deny`, …
    pub decision: String,
    /// Empty when unknown.
    pub policy_set_id: String,
    /// Empty when unknown.
    pub policy_set_version_id: String,
    /// Empty when unknown.
    pub manifest_sha: String,
    /// How the evaluation ended.
    pub evaluation_status: String,
    /// Canonical JSON text.
    pub determining_policies: String,
    /// Canonical JSON text.
    pub diagnostics: String,
    /// Canonical JSON text.
    pub metadata: String,
    /// When it happened, in microseconds since 1970.
    pub occurred_at: i64,
    /// When it was stored, in microseconds since 1970.
    pub ingested_at: i64,
    /// Content hash, lower-case hex.
    pub content_sha256: String,
    /// The previous row's content hash; none for the first.
    pub prev_content_sha256: Option<String>,
    /// Keyed hash over both, lower-case hex; empty without a key.
    pub chain_hmac: String,
    /// Name of the key; none without one, and on rows from before keys had names.
    pub key_id: Option<String>,
}

/// The newest link of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its position.
    pub chain_seq: i64,
    /// Its content hash.
    pub content_sha256: String,
    /// Name of the key that it is sealed with, where that was noted.
    pub key_id: Option<String>,
}

/// What a listing is narrowed to. Every member that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct EvidenceFilter {
    /// Not before this instant.
    pub since: Option<Timestamp>,
    /// Before this instant.
    pub until: Option<Timestamp>,
    /// Exactly this request.
    pub request_id: Option<String>,
    /// Exactly this decision.
    pub decision: Option<String>,
    /// One of these types; empty means any.
    pub event_types: Vec<String>,
    /// Metadata `application_id`.
    pub application_id: Option<String>,
    /// Metadata `agent_session_id`.
    pub agent_session_id: Option<String>,
    /// Metadata `session_id`: the authority record.
    pub authority_record_id: Option<String>,
    /// An element of metadata `agent_labels`.
    pub label: Option<String>,
}

const COLUMNS: &str = "zone_id, chain_seq, id, event_type, request_id, decision, policy_set_id, policy_set_version_id, \
                       manifest_sha, evaluation_status, determining_policies, diagnostics, metadata, occurred_at, \
                       ingested_at, content_sha256, prev_content_sha256, chain_hmac, key_id";

fn read(row: Row) -> Result<EvidenceRow, StoreError> {
    let mut columns = row.columns("audit_events");
    Ok(EvidenceRow {
        zone_id: columns.next()?,
        chain_seq: columns.next()?,
        id: columns.next()?,
        event_type: columns.next()?,
        request_id: columns.next()?,
        decision: columns.next()?,
        policy_set_id: columns.next()?,
        policy_set_version_id: columns.next()?,
        manifest_sha: columns.next()?,
        evaluation_status: columns.next()?,
        determining_policies: columns.next()?,
        diagnostics: columns.next()?,
        metadata: columns.next()?,
        occurred_at: columns.next()?,
        ingested_at: columns.next()?,
        content_sha256: columns.next()?,
        prev_content_sha256: columns.next()?,
        chain_hmac: columns.next()?,
        key_id: columns.next()?,
    })
}

/// The zone's head; none for an empty chain.
pub async fn head(tx: &mut ZoneRead<'_>) -> Result<Option<Head>, StoreError> {
    let sql = "SELECT chain_seq, content_sha256, key_id FROM audit_heads WHERE zone_id = ?1";
    let Some(row) = tx.tx.query_one(sql, params![tx.zone]).await? else {
        return Ok(None);
    };
    let mut columns = row.columns("audit_heads");
    Ok(Some(Head { chain_seq: columns.next()?, content_sha256: columns.next()?, key_id: columns.next()? }))
}

/// Appends one link and moves the head. Conflicts when the position is taken or the event is already there.
pub async fn append(tx: &mut ZoneWrite<'_>, row: &EvidenceRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit_events (zone_id, chain_seq, id, event_type, request_id, decision, policy_set_id,
                 policy_set_version_id, manifest_sha, evaluation_status, determining_policies, diagnostics, metadata,
                 occurred_at, ingested_at, content_sha256, prev_content_sha256, chain_hmac, key_id)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";
    let zone = tx.zone.clone();
    let params = params![
        zone,
        row.chain_seq,
        row.id,
        row.event_type,
        row.request_id,
        row.decision,
        row.policy_set_id,
        row.policy_set_version_id,
        row.manifest_sha,
        row.evaluation_status,
        row.determining_policies,
        row.diagnostics,
        row.metadata,
        row.occurred_at,
        row.ingested_at,
        row.content_sha256,
        row.prev_content_sha256,
        row.chain_hmac,
        row.key_id
    ];
    tx.tx.append(sql, params).await?;
    let sql = "INSERT INTO audit_heads (zone_id, chain_seq, content_sha256, key_id) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (zone_id) DO UPDATE SET chain_seq = excluded.chain_seq,
                 content_sha256 = excluded.content_sha256, key_id = excluded.key_id";
    tx.tx.append(sql, params![zone, row.chain_seq, row.content_sha256, row.key_id]).await?;
    tx.tx.effects.heads.push(ChainHead {
        kind: ChainKind::Evidence,
        chain: zone.as_str().to_owned(),
        chain_seq: row.chain_seq,
        content_sha256: row.content_sha256.clone(),
    });
    Ok(())
}

/// A row of a chain, or what could be made out of one that was damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainRow<R> {
    /// Every column has its type.
    Read(R),
    /// Some column does not.
    Unreadable {
        /// Its position, if that can be read.
        chain_seq: Option<i64>,
        /// Its id, if that can be read.
        id: Option<String>,
        /// What is wrong.
        what: String,
    },
}

impl<R> ChainRow<R> {
    /// Reads one row whose second and third selected columns are its position and its id.
    pub(crate) fn read(row: Row, read: impl Fn(Row) -> Result<R, StoreError>) -> Self {
        let chain_seq = match row.values.get(1) {
            Some(Value::Int(chain_seq)) => Some(*chain_seq),
            _ => None,
        };
        let id = match row.values.get(2) {
            Some(Value::Text(id)) => Some(id.clone()),
            _ => None,
        };
        match read(row) {
            Ok(row) => Self::Read(row),
            Err(error) => Self::Unreadable { chain_seq, id, what: error.to_string() },
        }
    }
}

/// The zone's rows from position `from` on, in chain order, `limit` at most: for the verifier.
pub async fn list_chain(
    tx: &mut ZoneRead<'_>,
    from: i64,
    limit: i64,
) -> Result<Vec<ChainRow<EvidenceRow>>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM audit_events WHERE zone_id = ?1 AND chain_seq >= ?2 ORDER BY chain_seq LIMIT ?3"
    );
    let rows = tx.tx.query(&sql, params![tx.zone, from, limit]).await?;
    Ok(rows.into_iter().map(|row| ChainRow::read(row, read)).collect())
}

/// Rows of the zone behind position `after` and up to `through`, in chain order, `limit` at most.
pub async fn list_between(
    tx: &mut ZoneRead<'_>,
    after: i64,
    through: i64,
    limit: i64,
) -> Result<Vec<EvidenceRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM audit_events WHERE zone_id = ?1 AND chain_seq > ?2 AND chain_seq <= ?3
         ORDER BY chain_seq LIMIT ?4"
    );
    tx.tx.query(&sql, params![tx.zone, after, through, limit]).await?.into_iter().map(read).collect()
}

/// The content hash of the event of that id and instant, in microseconds since 1970; none when there is no such event.
pub async fn find_by_identity(tx: &mut ZoneRead<'_>, id: &str, occurred_at: i64) -> Result<Option<String>, StoreError> {
    let sql = "SELECT content_sha256 FROM audit_events WHERE zone_id = ?1 AND id = ?2 AND occurred_at = ?3";
    let row = tx.tx.query_one(sql, params![tx.zone, id, occurred_at]).await?;
    row.map(|row| row.columns("audit_events").next()).transpose()
}

/// Every zone that has evidence or a note of where it ends, whether or not the zone itself is still known.
pub async fn list_chains(tx: &mut DeploymentRead<'_>) -> Result<Vec<ZoneId>, StoreError> {
    let rows = tx
        .tx()
        .query("SELECT DISTINCT zone_id FROM audit_events UNION SELECT zone_id FROM audit_heads ORDER BY zone_id", &[])
        .await?;
    rows.into_iter().map(|row| row.columns("audit_events").next()).collect()
}

/// Most events that [`find_by_request`] returns.
pub const MAX_OF_REQUEST: i64 = 1_000;

/// The events of one request, oldest first. Callers choose request ids and may use one for everything they do, so no
/// more than [`MAX_OF_REQUEST`] are returned: denials before others, then the oldest, so that no crowd hides a denial.
pub async fn find_by_request(tx: &mut ZoneRead<'_>, request_id: &str) -> Result<Vec<EvidenceRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM (SELECT * FROM audit_events WHERE zone_id = ?1 AND request_id = ?2
         ORDER BY CASE WHEN decision = 'deny' THEN 0 ELSE 1 END, occurred_at, chain_seq LIMIT ?3) AS kept
         ORDER BY occurred_at, chain_seq"
    );
    tx.tx.query(&sql, params![tx.zone, request_id, MAX_OF_REQUEST]).await?.into_iter().map(read).collect()
}

/// Whether the request has an event of this type. Callers choose request ids: that one has events says nothing of which.
pub async fn has_of_request(tx: &mut ZoneRead<'_>, request_id: &str, event_type: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM audit_events WHERE zone_id = ?1 AND request_id = ?2 AND event_type = ?3 LIMIT 1";
    Ok(tx.tx.query_one(sql, params![tx.zone, request_id, event_type]).await?.is_some())
}

/// Events newest first, by time and id.
pub async fn list(tx: &mut ZoneRead<'_>, filter: &EvidenceFilter, page: &Page) -> Result<Vec<EvidenceRow>, StoreError> {
    let zone = tx.zone.clone();
    let start = "(occurred_at, id) < (?2, ?3)";
    let bound = vec![zone.bind(), Param::Int(page.at()), Param::Text(page.id())];
    let (sql, bound) = narrowed(tx, start, bound, filter, "occurred_at DESC, id DESC", page.limit());
    tx.tx.query(&sql, &bound).await?.into_iter().map(read).collect()
}

/// Events in chain order behind position `after`, `limit` at most.
pub async fn search(
    tx: &mut ZoneRead<'_>,
    filter: &EvidenceFilter,
    after: i64,
    limit: i64,
) -> Result<Vec<EvidenceRow>, StoreError> {
    let zone = tx.zone.clone();
    let bound = vec![zone.bind(), Param::Int(after)];
    let (sql, bound) = narrowed(tx, "chain_seq > ?2", bound, filter, "chain_seq", limit);
    tx.tx.query(&sql, &bound).await?.into_iter().map(read).collect()
}

/// Events in chain order behind position `after` and up to position `to`, `limit` at most.
pub async fn search_up_to(
    tx: &mut ZoneRead<'_>,
    filter: &EvidenceFilter,
    (after, to): (i64, i64),
    limit: i64,
) -> Result<Vec<EvidenceRow>, StoreError> {
    let zone = tx.zone.clone();
    let bound = vec![zone.bind(), Param::Int(after), Param::Int(to)];
    let (sql, bound) = narrowed(tx, "chain_seq > ?2 AND chain_seq <= ?3", bound, filter, "chain_seq", limit);
    tx.tx.query(&sql, &bound).await?.into_iter().map(read).collect()
}

/// How often an application was granted a resource, and when first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// The zone.
    pub zone_id: ZoneId,
    /// The resource.
    pub resource_id: ResourceId,
    /// The application.
    pub application_id: ApplicationId,
    /// How often.
    pub count: i64,
    /// When first.
    pub first: Timestamp,
}

/// What was granted since `since` of resources that are live, in every zone, by whose first was earliest.
pub async fn count_grants(tx: &mut DeploymentRead<'_>, since: Timestamp) -> Result<Vec<Grants>, StoreError> {
    let tx = tx.tx();
    let (resource, application) =
        (tx.json_member("e.metadata", MetadataKey::Resource), tx.json_member("e.metadata", MetadataKey::ApplicationId));
    // Zone by zone, which is how events can be found by their time.
    let sql = format!(
        "SELECT e.zone_id, r.id, a.id, count(*), min(e.occurred_at) FROM zones z
         JOIN audit_events e ON e.zone_id = z.id AND e.occurred_at >= ?1
           AND e.event_type = 'token_exchange' AND e.decision = 'allow'
         JOIN resources r ON r.zone_id = e.zone_id AND r.archived_at IS NULL AND r.identifier = {resource}
         JOIN applications a ON a.zone_id = e.zone_id AND a.id = {application}
         GROUP BY e.zone_id, r.id, a.id ORDER BY min(e.occurred_at), e.zone_id, r.id, a.id"
    );
    let read = |row: Row| {
        let mut columns = row.columns("audit_events");
        Ok(Grants {
            zone_id: columns.next()?,
            resource_id: columns.next()?,
            application_id: columns.next()?,
            count: columns.next()?,
            first: columns.next()?,
        })
    };
    tx.query(&sql, params![since]).await?.into_iter().map(read).collect()
}

/// The statement for events that satisfy `start` and everything in `filter`, with its parameters. Not a future: one
/// that kept a borrow of the connection could not move between threads.
fn narrowed<'f>(
    tx: &ZoneRead<'_>,
    start: &str,
    mut bound: Vec<Param<'f>>,
    filter: &'f EvidenceFilter,
    order: &str,
    limit: i64,
) -> (String, Vec<Param<'f>>) {
    let mut sql = format!("SELECT {COLUMNS} FROM audit_events WHERE zone_id = ?1 AND {start}");
    let member = |name| format!("{} = {{}}", tx.tx.json_member("metadata", name));
    let conditions: [(String, Param<'f>); 8] = [
        ("occurred_at >= {}".to_owned(), filter.since.bind()),
        ("occurred_at < {}".to_owned(), filter.until.bind()),
        ("request_id = {}".to_owned(), filter.request_id.bind()),
        ("decision = {}".to_owned(), filter.decision.bind()),
        (member(MetadataKey::ApplicationId), filter.application_id.bind()),
        (member(MetadataKey::AgentSessionId), filter.agent_session_id.bind()),
        (member(MetadataKey::SessionId), filter.authority_record_id.bind()),
        (tx.tx.json_array_contains("metadata", MetadataKey::AgentLabels), filter.label.bind()),
    ];
    for (condition, value) in conditions {
        if !matches!(value, Param::Null) {
            bound.push(value);
            sql.push_str(&format!(" AND {}", condition.replace("{}", &format!("?{}", bound.len()))));
        }
    }
    if !filter.event_types.is_empty() {
        let first = bound.len() + 1;
        let marks: Vec<String> = (first..first + filter.event_types.len()).map(|index| format!("?{index}")).collect();
        sql.push_str(&format!(" AND event_type IN ({})", marks.join(", ")));
        bound.extend(filter.event_types.iter().map(Bind::bind));
    }
    bound.push(Param::Int(limit));
    sql.push_str(&format!(" ORDER BY {order} LIMIT ?{}", bound.len()));
    (sql, bound)
}
