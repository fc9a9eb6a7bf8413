//! The outbox: messages that leave with the change that caused them. In the embedded engine the committing writer
//! hands them to every observer before it answers, so a committed message is a dispatched one.

use caracal_authority::{OutboxId, Timestamp, ZoneId};

use crate::effects::Message;
use crate::error::StoreError;
use crate::tx::{Engine, ZoneRead, ZoneWrite};
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
    /// When it was handed over.
    pub dispatched_at: Option<Timestamp>,
}

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
    let dispatched_at = match tx.tx.engine {
        Engine::Sqlite(_) => Some(now),
        Engine::Postgres(_) => None,
    };
    let payload = crate::json_text(&fields);
    let sql = "INSERT INTO outbox (id, zone_id, topic, dedupe_key, payload, attempts, created_at, dispatched_at)
               VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7) ON CONFLICT (topic, dedupe_key) DO NOTHING";
    let added = tx.tx.append(sql, params![id, zone, topic, dedupe_key, payload, now, dispatched_at]).await? == 1;
    if added {
        let message =
            Message { id, zone, topic: topic.to_owned(), dedupe_key: dedupe_key.to_owned(), fields, created_at: now };
        tx.tx.effects.messages.push(message);
    }
    Ok(added)
}

const COLUMNS: &str = "id, zone_id, topic, payload, attempts, last_error, created_at, dispatched_at";

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
        dispatched_at: columns.next()?,
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
