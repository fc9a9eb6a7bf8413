//! Events on their way to sinks (contract: admin-api.md §5.10 and §8). Each refers to an event of the zone's chain, which
//! is read there when it is sent. Their states move only together with their sink: see [`crate::notification_sinks`].

use caracal_authority::{NotificationDeliveryId, NotificationSinkId, Timestamp, ZoneId};

use crate::error::StoreError;
use crate::notification_sinks::Failure;
use crate::page::Page;
use crate::tx::{DeploymentRead, DeploymentWrite, ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// One event for one sink.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id, the same for all attempts.
    pub id: NotificationDeliveryId,
    /// The sink.
    pub sink_id: NotificationSinkId,
    /// The event's position in the zone's chain.
    pub event_seq: i64,
    /// The event's id.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// Attempts so far.
    pub attempts: i64,
    /// Not tried before.
    pub available_at: Timestamp,
    /// When the sink took it.
    pub delivered_at: Option<Timestamp>,
    /// When it was given up.
    pub abandoned_at: Option<Timestamp>,
    /// What the last attempt was answered with, if with anything.
    pub response_status: Option<i64>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

const COLUMNS: &str = "zone_id, id, sink_id, event_seq, event_id, event_type, attempts, available_at, delivered_at, \
                       abandoned_at, response_status, last_error, created_at";
const OPEN: &str = "delivered_at IS NULL AND abandoned_at IS NULL";

fn read(row: Row) -> Result<Delivery, StoreError> {
    let mut columns = row.columns("notification_deliveries");
    Ok(Delivery {
        zone_id: columns.next()?,
        id: columns.next()?,
        sink_id: columns.next()?,
        event_seq: columns.next()?,
        event_id: columns.next()?,
        event_type: columns.next()?,
        attempts: columns.next()?,
        available_at: columns.next()?,
        delivered_at: columns.next()?,
        abandoned_at: columns.next()?,
        response_status: columns.next()?,
        last_error: columns.next()?,
        created_at: columns.next()?,
    })
}

/// Deliveries to a sink, newest first; none of one that is not there.
pub async fn list(tx: &mut ZoneRead<'_>, sink: &NotificationSinkId, page: &Page) -> Result<Vec<Delivery>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM notification_deliveries WHERE zone_id = ?1 AND sink_id = ?2
           AND (created_at, id) < (?3, ?4) ORDER BY created_at DESC, id DESC LIMIT ?5"
    );
    let rows = tx.tx.query(&sql, params![tx.zone, sink, page.at(), page.id(), page.limit()]).await?;
    rows.into_iter().map(read).collect()
}

/// How many deliveries to a sink are open; `most` stands for that many and more.
pub async fn count_open(tx: &mut ZoneRead<'_>, sink: &NotificationSinkId, most: i64) -> Result<i64, StoreError> {
    let sql = format!(
        "SELECT count(*) FROM (SELECT 1 FROM notification_deliveries WHERE zone_id = ?1 AND sink_id = ?2 AND {OPEN}
         LIMIT ?3) AS open"
    );
    match tx.tx.query_one(&sql, params![tx.zone, sink, most]).await? {
        Some(row) => row.columns("notification_deliveries").next(),
        None => Ok(0),
    }
}

/// How many deliveries of the whole deployment are open, and since when the oldest is.
pub async fn backlog(tx: &mut DeploymentRead<'_>) -> Result<(i64, Option<Timestamp>), StoreError> {
    let sql = format!("SELECT count(*), min(created_at) FROM notification_deliveries WHERE {OPEN}");
    let row = tx.tx().query_one(&sql, &[]).await?;
    let row = row.ok_or_else(|| StoreError::Statement { reason: "a count has no row".to_owned() })?;
    let mut columns = row.columns("notification_deliveries");
    Ok((columns.next()?, columns.next()?))
}

/// What is to be sent to a sink next: no other is before it was taken or given up.
pub(crate) async fn find_oldest_open(
    tx: &mut ZoneRead<'_>,
    sink: &NotificationSinkId,
) -> Result<Option<Delivery>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM notification_deliveries WHERE zone_id = ?1 AND sink_id = ?2 AND {OPEN}
         ORDER BY event_seq LIMIT 1"
    );
    tx.tx.query_one(&sql, params![tx.zone, sink]).await?.map(read).transpose()
}

pub(crate) async fn add(tx: &mut ZoneWrite<'_>, row: &Delivery) -> Result<(), StoreError> {
    let sql = "INSERT INTO notification_deliveries (zone_id, id, sink_id, event_seq, event_id, event_type, attempts,
                 available_at, delivered_at, abandoned_at, response_status, last_error, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    let zone = tx.zone.clone();
    let params = params![
        zone,
        row.id,
        row.sink_id,
        row.event_seq,
        row.event_id,
        row.event_type,
        row.attempts,
        row.available_at,
        row.delivered_at,
        row.abandoned_at,
        row.response_status,
        row.last_error,
        row.created_at
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

pub(crate) async fn deliver(
    tx: &mut ZoneWrite<'_>,
    id: &NotificationDeliveryId,
    status: i64,
) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE notification_deliveries SET delivered_at = ?3, response_status = ?4, attempts = attempts + 1
         WHERE zone_id = ?1 AND id = ?2 AND {OPEN}"
    );
    let (zone, now) = (tx.zone.clone(), tx.now());
    tx.tx.append(&sql, params![zone, id, now, status]).await.map(|_| ())
}

pub(crate) async fn fail(
    tx: &mut ZoneWrite<'_>,
    id: &NotificationDeliveryId,
    failure: &Failure,
) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE notification_deliveries SET attempts = attempts + 1, available_at = ?3, abandoned_at = ?4,
           response_status = ?5, last_error = ?6
         WHERE zone_id = ?1 AND id = ?2 AND {OPEN}"
    );
    let (zone, now) = (tx.zone.clone(), tx.now());
    let (next, abandoned) = (failure.retry_at.unwrap_or(now), failure.retry_at.is_none().then_some(now));
    tx.tx.append(&sql, params![zone, id, next, abandoned, failure.status, failure.error]).await.map(|_| ())
}

pub(crate) async fn give_up(
    tx: &mut ZoneWrite<'_>,
    id: &NotificationDeliveryId,
    error: &str,
) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE notification_deliveries SET abandoned_at = ?3, last_error = ?4 WHERE zone_id = ?1 AND id = ?2 AND {OPEN}"
    );
    let (zone, now) = (tx.zone.clone(), tx.now());
    tx.tx.append(&sql, params![zone, id, now, error]).await.map(|_| ())
}

/// Removes deliveries that were over before `before`, `limit` at most, and says how many.
pub async fn purge_settled(tx: &mut DeploymentWrite<'_>, before: Timestamp, limit: i64) -> Result<usize, StoreError> {
    let sql = "DELETE FROM notification_deliveries WHERE (zone_id, id) IN (
                 SELECT zone_id, id FROM notification_deliveries
                 WHERE COALESCE(delivered_at, abandoned_at) < ?1 ORDER BY COALESCE(delivered_at, abandoned_at) LIMIT ?2)";
    tx.tx().append(sql, params![before, limit]).await
}
