//! The outbox: messages that leave with the change that caused them.
//!
//! The committing writer hands them to every observer of its own process before it answers. For everybody else they wait
//! here for the relay, which publishes them in the order of [`list_due`] and removes what was sent.

use caracal_authority::{OutboxId, Timestamp, ZoneId};

use crate::effects::Message;
use crate::error::StoreError;
use crate::signing_keys::WITHDRAWN;
use crate::tx::{DeploymentRead, DeploymentWrite, ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// What became of a message.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    /// The message's id.
    pub id: OutboxId,
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its topic.
    pub topic: String,
    /// Its fields, in order.
    pub fields: Vec<(String, String)>,
    /// Failed deliveries.
    pub attempts: i64,
    /// Why the last one failed.
    pub last_error: Option<String>,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it was given up, until somebody asks for another try.
    pub dead_at: Option<Timestamp>,
}

/// Topics whose messages overtake all others: they take authority away (difference D27).
const URGENT: [&str; 3] = ["caracal.sessions.revoke", "caracal.delegations.invalidate", WITHDRAWN];

/// Adds a message unless its topic already has one with the same dedupe key. Says whether it was added.
///
/// Field values must be free of control characters: the streams' signature is over lines (contract:
/// audit-and-streams.md W16).
pub async fn add(
    tx: &mut ZoneWrite<'_>,
    id: OutboxId,
    topic: &str,
    dedupe_key: &str,
    fields: Vec<(String, String)>,
) -> Result<bool, StoreError> {
    if fields.iter().any(|(name, value)| name.chars().chain(value.chars()).any(char::is_control)) {
        return Err(StoreError::Statement { reason: format!("a message on `{topic}` has a control character") });
    }
    let (zone, now) = (tx.zone.clone(), tx.now());
    let payload = crate::json_text(&fields);
    let urgency = i64::from(!URGENT.contains(&topic));
    let sql = "INSERT INTO outbox (id, zone_id, topic, dedupe_key, payload, attempts, created_at, urgency)
               VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7) ON CONFLICT (topic, dedupe_key) DO NOTHING";
    let params = params![id, zone, topic, dedupe_key, payload, now, urgency];
    let added = tx.tx.append(sql, params).await? == 1;
    if added {
        let message =
            Message { id, zone, topic: topic.to_owned(), dedupe_key: dedupe_key.to_owned(), fields, created_at: now };
        tx.tx.effects.messages.push(message);
    }
    Ok(added)
}

const COLUMNS: &str = "id, zone_id, topic, payload, attempts, last_error, created_at, dead_at";

fn read(row: Row) -> Result<OutboxRow, StoreError> {
    let mut columns = row.columns("outbox");
    Ok(OutboxRow {
        id: columns.next()?,
        zone_id: columns.next()?,
        topic: columns.next()?,
        fields: columns.json()?,
        attempts: columns.next()?,
        last_error: columns.next()?,
        created_at: columns.next()?,
        dead_at: columns.next()?,
    })
}

/// One message of the zone.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &OutboxId) -> Result<Option<OutboxRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM outbox WHERE zone_id = ?1 AND id = ?2");
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// The zone's newest message on `topic` whose dedupe key starts with `prefix`.
pub async fn find_newest(tx: &mut ZoneRead<'_>, topic: &str, prefix: &str) -> Result<Option<OutboxRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM outbox WHERE zone_id = ?1 AND topic = ?2 AND substr(dedupe_key, 1, length(?3)) = ?3
         ORDER BY created_at DESC, id DESC LIMIT 1"
    );
    tx.tx.query_one(&sql, params![tx.zone, topic, prefix]).await?.map(read).transpose()
}

/// A message that waits to be sent.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The message.
    pub message: Message,
    /// How often it was refused before.
    pub attempts: i64,
}

/// Messages that are due, `limit` at most: what takes authority away before everything else, and within that in the
/// order in which a zone's changes were made. Behind one that is not due yet, later ones are not held back.
pub async fn list_due(tx: &mut DeploymentRead<'_>, limit: i64) -> Result<Vec<Waiting>, StoreError> {
    let now = tx.now();
    let sql = "SELECT id, zone_id, topic, dedupe_key, payload, created_at, attempts FROM outbox
               WHERE dispatched_at IS NULL AND dead_at IS NULL AND due_at <= ?1
               ORDER BY urgency, position, created_at, id LIMIT ?2";
    let mut waiting = Vec::new();
    for row in tx.tx().query(sql, params![now, limit]).await? {
        let mut columns = row.columns("outbox");
        let message = Message {
            id: columns.next()?,
            zone: columns.next()?,
            topic: columns.next()?,
            dedupe_key: columns.next()?,
            fields: columns.json()?,
            created_at: columns.next()?,
        };
        waiting.push(Waiting { message, attempts: columns.next()? });
    }
    Ok(waiting)
}

/// Removes a message that was sent.
pub async fn remove_sent(tx: &mut DeploymentWrite<'_>, id: &OutboxId) -> Result<(), StoreError> {
    tx.tx().append("DELETE FROM outbox WHERE id = ?1", params![id]).await.map(|_| ())
}

/// Notes that the stream refused a message: it is due again at `due_at`, or dead.
pub async fn note_refusal(
    tx: &mut DeploymentWrite<'_>,
    id: &OutboxId,
    error: &str,
    due_at: Option<Timestamp>,
) -> Result<(), StoreError> {
    let now = tx.now();
    let dead_at = due_at.is_none().then_some(now);
    let sql = "UPDATE outbox SET attempts = attempts + 1, last_error = ?2, due_at = ?3, dead_at = ?4 WHERE id = ?1";
    tx.tx().append(sql, params![id, error, due_at.unwrap_or(now), dead_at]).await.map(|_| ())
}

/// How many messages wait, how many are dead, and since when the oldest of either is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Waiting.
    pub pending: i64,
    /// Dead.
    pub dead: i64,
    /// The oldest that waits.
    pub oldest_pending: Option<Timestamp>,
    /// The oldest that is dead.
    pub oldest_dead: Option<Timestamp>,
}

/// The state of the whole outbox.
pub async fn backlog(tx: &mut DeploymentRead<'_>) -> Result<Backlog, StoreError> {
    let sql = "SELECT COALESCE(sum(CASE WHEN dead_at IS NULL THEN 1 ELSE 0 END), 0),
                      COALESCE(sum(CASE WHEN dead_at IS NULL THEN 0 ELSE 1 END), 0),
                      min(CASE WHEN dead_at IS NULL THEN created_at END),
                      min(CASE WHEN dead_at IS NULL THEN NULL ELSE created_at END)
               FROM outbox WHERE dispatched_at IS NULL";
    let row = tx.tx().query_one(sql, &[]).await?;
    let row = row.ok_or_else(|| StoreError::Statement { reason: "a count has no row".to_owned() })?;
    let mut columns = row.columns("outbox");
    Ok(Backlog {
        pending: columns.next()?,
        dead: columns.next()?,
        oldest_pending: columns.next()?,
        oldest_dead: columns.next()?,
    })
}

/// How many messages are dead.
pub async fn count_dead(tx: &mut DeploymentRead<'_>) -> Result<i64, StoreError> {
    let row = tx.tx().query_one("SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL", &[]).await?;
    row.map_or(Ok(0), |row| row.columns("outbox").next())
}

/// Dead messages of the zone, oldest first, `limit` at most.
pub async fn list_dead(tx: &mut ZoneRead<'_>, limit: i64) -> Result<Vec<OutboxRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM outbox WHERE zone_id = ?1 AND dead_at IS NOT NULL ORDER BY created_at, id LIMIT ?2"
    );
    tx.tx.query(&sql, params![tx.zone, limit]).await?.into_iter().map(read).collect()
}

/// Gives dead messages of the zone another try, all of them or the one named. Says how many there were.
pub async fn requeue(tx: &mut ZoneWrite<'_>, id: Option<&OutboxId>) -> Result<usize, StoreError> {
    let (zone, now) = (tx.zone.clone(), tx.now());
    let sql = "UPDATE outbox SET dead_at = NULL, attempts = 0, due_at = ?2
               WHERE zone_id = ?1 AND dead_at IS NOT NULL AND (CAST(?3 AS TEXT) IS NULL OR id = ?3)";
    tx.tx.append(sql, params![zone, now, id]).await
}
