//! Topics with groups, kept in the store: the embedded engine of the room `stream`, which says what they are for.
//!
//! A commit that adds an entry makes it durable; a commit that hands entries to a consumer notes whose they are until
//! they are acknowledged. So a process that dies in between has lost nothing: what it held is found among the pending.
//! Two who work on one group or one topic wait for each other at its row, which each changes before it reads.

use crate::error::StoreError;
use crate::tx::{DeploymentRead, DeploymentWrite};
use crate::value::{Bind, Row, params};

/// Bits of a position that count within its millisecond.
const NUMBER_BITS: u32 = 20;

/// The position of an entry by the two numbers of its id; none when there can be no such entry.
pub fn position(millis: u64, number: u64) -> Option<i64> {
    let millis = i64::try_from(millis).ok().filter(|millis| *millis < 1 << (63 - NUMBER_BITS))?;
    let number = i64::try_from(number).ok().filter(|number| *number < 1 << NUMBER_BITS)?;
    Some((millis << NUMBER_BITS) | number)
}

/// The two numbers of an entry's id.
pub fn id_of(position: i64) -> (u64, u64) {
    let position = position.unsigned_abs();
    (position >> NUMBER_BITS, position & ((1 << NUMBER_BITS) - 1))
}

/// An entry of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its place in the topic.
    pub position: i64,
    /// Names and values, in order; none when what is stored there is no such list.
    pub fields: Option<Vec<(String, String)>>,
}

/// An entry in the hands of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The entry.
    pub entry: StreamEntry,
    /// How often it was handed out, this time included.
    pub deliveries: i64,
}

/// What was handed out and not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The entry's place.
    pub position: i64,
    /// Microseconds since it was handed out.
    pub idle_micros: i64,
    /// How often it was.
    pub deliveries: i64,
}

/// A group and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRow {
    /// Its name.
    pub name: String,
    /// Entries handed out and not acknowledged.
    pub pending: i64,
    /// The oldest of them.
    pub oldest_pending: Option<i64>,
    /// Entries not handed out yet.
    pub lag: i64,
}

fn entry(row: Row) -> Result<StreamEntry, StoreError> {
    let mut columns = row.columns("stream_entries");
    let position = columns.next()?;
    let fields: String = columns.next()?;
    // One row that is not ours to read must not hold up all behind it.
    Ok(StreamEntry { position, fields: serde_json::from_str(&fields).ok() })
}

/// Adds an entry behind all others of its topic.
pub async fn add(tx: &mut DeploymentWrite<'_>, topic: &str, fields: &[(String, String)]) -> Result<i64, StoreError> {
    let now = u64::try_from(tx.now().as_micros() / 1_000).ok().and_then(|millis| position(millis, 0)).unwrap_or(0);
    let sql = "INSERT INTO stream_topics (topic, position) VALUES (?1, ?2)
               ON CONFLICT (topic) DO UPDATE SET
                 position = CASE WHEN stream_topics.position < ?2 THEN ?2 ELSE stream_topics.position + 1 END
               RETURNING position";
    let row = tx.tx().query_one(sql, params![topic, now]).await?;
    let row = row.ok_or_else(|| StoreError::Statement { reason: "a topic has no position".to_owned() })?;
    let position: i64 = row.columns("stream_topics").next()?;
    let sql = "INSERT INTO stream_entries (topic, position, fields) VALUES (?1, ?2, ?3)";
    tx.tx().append(sql, params![topic, position, crate::json_text(fields)]).await?;
    Ok(position)
}

/// Entries of the topic behind `after`, oldest first, `limit` at most.
pub async fn list(
    tx: &mut DeploymentRead<'_>,
    topic: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<StreamEntry>, StoreError> {
    let sql =
        "SELECT position, fields FROM stream_entries WHERE topic = ?1 AND position > ?2 ORDER BY position LIMIT ?3";
    tx.tx().query(sql, params![topic, after, limit]).await?.into_iter().map(entry).collect()
}

/// One entry.
pub async fn lookup(
    tx: &mut DeploymentRead<'_>,
    topic: &str,
    position: i64,
) -> Result<Option<StreamEntry>, StoreError> {
    let sql = "SELECT position, fields FROM stream_entries WHERE topic = ?1 AND position = ?2";
    tx.tx().query_one(sql, params![topic, position]).await?.map(entry).transpose()
}

/// Removes one entry, and says whether it was there.
pub async fn remove(tx: &mut DeploymentWrite<'_>, topic: &str, position: i64) -> Result<bool, StoreError> {
    let sql = "DELETE FROM stream_entries WHERE topic = ?1 AND position = ?2";
    Ok(tx.tx().append(sql, params![topic, position]).await? == 1)
}

/// How many entries the topic has.
pub async fn count(tx: &mut DeploymentRead<'_>, topic: &str) -> Result<i64, StoreError> {
    let row = tx.tx().query_one("SELECT count(*) FROM stream_entries WHERE topic = ?1", params![topic]).await?;
    row.map_or(Ok(0), |row| row.columns("stream_entries").next())
}

/// Makes a group that is handed everything the topic has, or only what comes. One that is there stays as it is.
pub async fn add_group(
    tx: &mut DeploymentWrite<'_>,
    topic: &str,
    group: &str,
    from_start: bool,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO stream_groups (topic, name, position)
               VALUES (?1, ?2, CASE WHEN ?3 = 1 THEN 0
                               ELSE COALESCE((SELECT position FROM stream_topics WHERE topic = ?1), 0) END)
               ON CONFLICT (topic, name) DO NOTHING";
    tx.tx().append(sql, params![topic, group, from_start]).await.map(|_| ())
}

/// Whether something waits to be handed to the group; none when there is no such group.
pub async fn has_news(tx: &mut DeploymentRead<'_>, topic: &str, group: &str) -> Result<Option<bool>, StoreError> {
    let sql =
        "SELECT CASE WHEN EXISTS (SELECT 1 FROM stream_entries e WHERE e.topic = g.topic AND e.position > g.position)
                      THEN 1 ELSE 0 END
               FROM stream_groups g WHERE g.topic = ?1 AND g.name = ?2";
    tx.tx().query_one(sql, params![topic, group]).await?.map(|row| row.columns("stream_groups").next()).transpose()
}

/// Hands the group's next entries, `limit` at most, to a consumer; none when there is no such group.
pub async fn deliver(
    tx: &mut DeploymentWrite<'_>,
    topic: &str,
    group: &str,
    consumer: &str,
    limit: i64,
) -> Result<Option<Vec<Delivered>>, StoreError> {
    // Changed before anything is read: another who hands out in this group waits here.
    let sql = "UPDATE stream_groups SET position = position WHERE topic = ?1 AND name = ?2 RETURNING position";
    let Some(row) = tx.tx().query_one(sql, params![topic, group]).await? else { return Ok(None) };
    let after: i64 = row.columns("stream_groups").next()?;
    let entries = list(tx, topic, after, limit).await?;
    let Some(last) = entries.last().map(|entry| entry.position) else { return Ok(Some(Vec::new())) };
    let now = tx.now();
    for entry in &entries {
        let sql = "INSERT INTO stream_pending (topic, group_name, position, consumer, delivered_at, deliveries)
                   VALUES (?1, ?2, ?3, ?4, ?5, 1)";
        tx.tx().append(sql, params![topic, group, entry.position, consumer, now]).await?;
    }
    let sql = "UPDATE stream_groups SET position = ?3 WHERE topic = ?1 AND name = ?2";
    tx.tx().append(sql, params![topic, group, last]).await?;
    Ok(Some(entries.into_iter().map(|entry| Delivered { entry, deliveries: 1 }).collect()))
}

/// What the group's consumers hold, behind `after`, in the order of the topic, `limit` at most.
pub async fn list_pending(
    tx: &mut DeploymentRead<'_>,
    topic: &str,
    group: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<Pending>, StoreError> {
    let now = tx.now();
    let sql = "SELECT position, ?4 - delivered_at, deliveries FROM stream_pending
               WHERE topic = ?1 AND group_name = ?2 AND position > ?3 ORDER BY position LIMIT ?5";
    let mut pending = Vec::new();
    for row in tx.tx().query(sql, params![topic, group, after, now, limit]).await? {
        let mut columns = row.columns("stream_pending");
        let (position, idle_micros, deliveries) = (columns.next()?, columns.next()?, columns.next()?);
        pending.push(Pending { position, idle_micros, deliveries });
    }
    Ok(pending)
}

/// Hands what another consumer holds to this one, unless somebody was quicker. An entry that is gone is held no longer.
pub async fn claim(
    tx: &mut DeploymentWrite<'_>,
    topic: &str,
    group: &str,
    consumer: &str,
    seen: &Pending,
) -> Result<Option<Delivered>, StoreError> {
    let now = tx.now();
    let sql = "UPDATE stream_pending SET consumer = ?4, delivered_at = ?5, deliveries = deliveries + 1
               WHERE topic = ?1 AND group_name = ?2 AND position = ?3 AND deliveries = ?6";
    if tx.tx().append(sql, params![topic, group, seen.position, consumer, now, seen.deliveries]).await? == 0 {
        return Ok(None);
    }
    let Some(entry) = lookup(tx, topic, seen.position).await? else {
        acknowledge(tx, topic, group, seen.position).await?;
        return Ok(None);
    };
    Ok(Some(Delivered { entry, deliveries: seen.deliveries + 1 }))
}

/// Notes that a consumer is still at work on what it holds.
pub async fn keep(
    tx: &mut DeploymentWrite<'_>,
    topic: &str,
    group: &str,
    consumer: &str,
    position: i64,
) -> Result<(), StoreError> {
    let now = tx.now();
    let sql = "UPDATE stream_pending SET delivered_at = ?5
               WHERE topic = ?1 AND group_name = ?2 AND position = ?3 AND consumer = ?4";
    tx.tx().append(sql, params![topic, group, position, consumer, now]).await.map(|_| ())
}

/// Takes an entry from whoever holds it, and says whether anybody did.
pub async fn acknowledge(
    tx: &mut DeploymentWrite<'_>,
    topic: &str,
    group: &str,
    position: i64,
) -> Result<bool, StoreError> {
    let sql = "DELETE FROM stream_pending WHERE topic = ?1 AND group_name = ?2 AND position = ?3";
    Ok(tx.tx().append(sql, params![topic, group, position]).await? == 1)
}

/// Lets go of many entries at once. One that the group does not hold is nobody's.
pub async fn acknowledge_all(
    tx: &mut DeploymentWrite<'_>,
    topic: &str,
    group: &str,
    positions: &[i64],
) -> Result<(), StoreError> {
    // Few enough for any engine to have a parameter each.
    for some in positions.chunks(500) {
        let marks: Vec<String> = (3..3 + some.len()).map(|index| format!("?{index}")).collect();
        let sql = format!(
            "DELETE FROM stream_pending WHERE topic = ?1 AND group_name = ?2 AND position IN ({})",
            marks.join(", ")
        );
        let mut bound = params![topic, group].to_vec();
        bound.extend(some.iter().map(Bind::bind));
        tx.tx().append(&sql, &bound).await?;
    }
    Ok(())
}

/// Notes that the group has handled a message.
pub async fn remember(
    tx: &mut DeploymentWrite<'_>,
    topic: &str,
    group: &str,
    identity: &str,
) -> Result<(), StoreError> {
    let now = tx.now();
    let sql = "INSERT INTO stream_handled (topic, group_name, identity, handled_at) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (topic, group_name, identity) DO NOTHING";
    tx.tx().append(sql, params![topic, group, identity, now]).await.map(|_| ())
}

/// Whether the group has handled a message.
pub async fn is_handled(
    tx: &mut DeploymentRead<'_>,
    topic: &str,
    group: &str,
    identity: &str,
) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM stream_handled WHERE topic = ?1 AND group_name = ?2 AND identity = ?3";
    Ok(tx.tx().query_one(sql, params![topic, group, identity]).await?.is_some())
}

/// Forgets all that the group has handled but the newest `keep`.
pub async fn purge_handled(
    tx: &mut DeploymentWrite<'_>,
    topic: &str,
    group: &str,
    keep: i64,
) -> Result<usize, StoreError> {
    let sql = "DELETE FROM stream_handled WHERE topic = ?1 AND group_name = ?2 AND handled_at <= (
                 SELECT handled_at FROM stream_handled WHERE topic = ?1 AND group_name = ?2
                 ORDER BY handled_at DESC LIMIT 1 OFFSET ?3)";
    tx.tx().append(sql, params![topic, group, keep]).await
}

/// Removes entries before `before` that every group was handed and has acknowledged, `limit` at most.
pub async fn purge_entries(
    tx: &mut DeploymentWrite<'_>,
    topic: &str,
    before: i64,
    limit: i64,
) -> Result<usize, StoreError> {
    let mut before = before;
    for sql in [
        "SELECT min(position) FROM stream_groups WHERE topic = ?1",
        "SELECT min(position) FROM stream_pending WHERE topic = ?1",
    ] {
        if let Some(row) = tx.tx().query_one(sql, params![topic]).await?
            && let Some(needed) = row.columns("stream_groups").next::<Option<i64>>()?
        {
            before = before.min(needed);
        }
    }
    let sql = "DELETE FROM stream_entries WHERE topic = ?1 AND position IN (
                 SELECT position FROM stream_entries WHERE topic = ?1 AND position < ?2 ORDER BY position LIMIT ?3)";
    tx.tx().append(sql, params![topic, before, limit]).await
}

/// Removes all entries of the topic but the newest `keep`, whoever may not have read them.
pub async fn purge_oldest(tx: &mut DeploymentWrite<'_>, topic: &str, keep: i64) -> Result<usize, StoreError> {
    let sql = "DELETE FROM stream_entries WHERE topic = ?1 AND position <= (
                 SELECT position FROM stream_entries WHERE topic = ?1 ORDER BY position DESC LIMIT 1 OFFSET ?2)";
    tx.tx().append(sql, params![topic, keep]).await
}

/// The topic's groups, by their names.
pub async fn list_groups(tx: &mut DeploymentRead<'_>, topic: &str) -> Result<Vec<GroupRow>, StoreError> {
    let sql = "SELECT g.name,
                 (SELECT count(*) FROM stream_pending p WHERE p.topic = g.topic AND p.group_name = g.name),
                 (SELECT min(p.position) FROM stream_pending p WHERE p.topic = g.topic AND p.group_name = g.name),
                 (SELECT count(*) FROM stream_entries e WHERE e.topic = g.topic AND e.position > g.position)
               FROM stream_groups g WHERE g.topic = ?1 ORDER BY g.name";
    let mut groups = Vec::new();
    for row in tx.tx().query(sql, params![topic]).await? {
        let mut columns = row.columns("stream_groups");
        groups.push(GroupRow {
            name: columns.next()?,
            pending: columns.next()?,
            oldest_pending: columns.next()?,
            lag: columns.next()?,
        });
    }
    Ok(groups)
}
