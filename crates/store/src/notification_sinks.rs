//! Where a zone's approval events are sent (contract: admin-api.md §5.10 and §8). Their secrets are sealed before they come
//! here.
//!
//! A sink is served by one process at a time. [`claim`] moves the moment at which it is due into the future, which nobody
//! else can do from the same moment; [`delivered`], [`failed`] and [`given_up`] move it on from there. A process that is gone leaves a sink
//! that is due again when its time is over, and one that comes back late finds a moment that is not its own.
//!
//! What happens here is upkeep, beside changes of the zone: each function touches the sink's row first, and whoever else
//! does so waits.

use caracal_authority::{NotificationSinkId, Timestamp, ZoneId};

use crate::error::StoreError;
use crate::notification_deliveries::{self, Delivery};
use crate::page::Page;
use crate::tx::{DeploymentRead, ZoneRead, ZoneWrite};
use crate::value::{Bind, Row, params};

/// A sink.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: NotificationSinkId,
    /// Display name.
    pub name: String,
    /// Where to.
    pub url: String,
    /// Of which types.
    pub event_types: Vec<String>,
    /// The sealed secret that signs what is sent.
    pub secret: Vec<u8>,
    /// Whether anything is sent. While it is not, `position` stays.
    pub active: bool,
    /// The last event of the zone's chain that was looked at.
    pub position: i64,
    /// When there is something to do; none while nothing is.
    pub due_at: Option<Timestamp>,
    /// Failed attempts since the last success.
    pub consecutive_failures: i64,
    /// When it last took something.
    pub last_success_at: Option<Timestamp>,
    /// When it last did not.
    pub last_failure_at: Option<Timestamp>,
    /// Why it last did not.
    pub last_error: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When an operator last changed it.
    pub updated_at: Timestamp,
}

const COLUMNS: &str = "zone_id, id, name, url, event_types, secret, active, position, due_at, consecutive_failures, \
                       last_success_at, last_failure_at, last_error, created_at, updated_at";

fn read(row: Row) -> Result<Sink, StoreError> {
    let mut columns = row.columns("notification_sinks");
    Ok(Sink {
        zone_id: columns.next()?,
        id: columns.next()?,
        name: columns.next()?,
        url: columns.next()?,
        event_types: columns.json()?,
        secret: columns.next()?,
        active: columns.next()?,
        position: columns.next()?,
        due_at: columns.next()?,
        consecutive_failures: columns.next()?,
        last_success_at: columns.next()?,
        last_failure_at: columns.next()?,
        last_error: columns.next()?,
        created_at: columns.next()?,
        updated_at: columns.next()?,
    })
}

/// The sink.
pub async fn lookup(tx: &mut ZoneRead<'_>, id: &NotificationSinkId) -> Result<Option<Sink>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM notification_sinks WHERE zone_id = ?1 AND id = ?2");
    tx.tx.query_one(&sql, params![tx.zone, id]).await?.map(read).transpose()
}

/// Sinks of the zone, newest first.
pub async fn list(tx: &mut ZoneRead<'_>, page: &Page) -> Result<Vec<Sink>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM notification_sinks WHERE zone_id = ?1
           AND (created_at, id) < (?2, ?3) ORDER BY created_at DESC, id DESC LIMIT ?4"
    );
    let rows = tx.tx.query(&sql, params![tx.zone, page.at(), page.id(), page.limit()]).await?;
    rows.into_iter().map(read).collect()
}

/// How many the zone has.
pub async fn count(tx: &mut ZoneRead<'_>) -> Result<i64, StoreError> {
    let sql = "SELECT count(*) FROM notification_sinks WHERE zone_id = ?1";
    match tx.tx.query_one(sql, params![tx.zone]).await? {
        Some(row) => row.columns("notification_sinks").next(),
        None => Ok(0),
    }
}

/// Adds a sink.
pub async fn add(tx: &mut ZoneWrite<'_>, row: &Sink) -> Result<(), StoreError> {
    let sql = "INSERT INTO notification_sinks (zone_id, id, name, url, event_types, secret, active, position, due_at,
                 consecutive_failures, last_success_at, last_failure_at, last_error, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
    let (zone, types) = (tx.zone.clone(), crate::json_text(&row.event_types));
    let params = params![
        zone,
        row.id,
        row.name,
        row.url,
        types,
        row.secret,
        row.active,
        row.position,
        row.due_at,
        row.consecutive_failures,
        row.last_success_at,
        row.last_failure_at,
        row.last_error,
        row.created_at,
        row.updated_at
    ];
    tx.tx.append(sql, params).await.map(|_| ())
}

/// Stores what an operator changes: name, address, types, and whether it is active. Says whether it was there.
pub async fn update(tx: &mut ZoneWrite<'_>, row: &Sink) -> Result<bool, StoreError> {
    let sql = "UPDATE notification_sinks SET name = ?3, url = ?4, event_types = ?5, active = ?6, updated_at = ?7
               WHERE zone_id = ?1 AND id = ?2";
    let (zone, now, types) = (tx.zone.clone(), tx.now(), crate::json_text(&row.event_types));
    Ok(tx.tx.append(sql, params![zone, row.id, row.name, row.url, types, row.active, now]).await? == 1)
}

/// Forgets failures: they were those of another address.
pub async fn forget_failures(tx: &mut ZoneWrite<'_>, id: &NotificationSinkId) -> Result<(), StoreError> {
    let sql =
        "UPDATE notification_sinks SET consecutive_failures = 0, last_error = NULL WHERE zone_id = ?1 AND id = ?2";
    let zone = tx.zone.clone();
    tx.tx.append(sql, params![zone, id]).await.map(|_| ())
}

/// Puts another sealed secret in place of the one that is there. Says whether the sink was there.
pub async fn replace_secret(
    tx: &mut ZoneWrite<'_>,
    id: &NotificationSinkId,
    secret: &[u8],
) -> Result<bool, StoreError> {
    let sql = "UPDATE notification_sinks SET secret = ?3, updated_at = ?4 WHERE zone_id = ?1 AND id = ?2";
    let (zone, now) = (tx.zone.clone(), tx.now());
    Ok(tx.tx.append(sql, params![zone, id, secret, now]).await? == 1)
}

/// Removes a sink with its deliveries, and says whether it was there.
pub async fn remove(tx: &mut ZoneWrite<'_>, id: &NotificationSinkId) -> Result<bool, StoreError> {
    let zone = tx.zone.clone();
    // The sink first: whoever is about to add deliveries to it has done so then, or finds it gone.
    let removed =
        tx.tx.append("DELETE FROM notification_sinks WHERE zone_id = ?1 AND id = ?2", params![zone, id]).await?;
    tx.tx.append("DELETE FROM notification_deliveries WHERE zone_id = ?1 AND sink_id = ?2", params![zone, id]).await?;
    Ok(removed == 1)
}

/// Sinks of a zone that have looked at its chain up to the same place, while the chain goes on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Behind {
    /// The zone.
    pub zone_id: ZoneId,
    /// The place.
    pub position: i64,
}

/// Where active sinks are behind their chains, behind `after`, `limit` at most, over all zones.
pub async fn list_behind(
    tx: &mut DeploymentRead<'_>,
    after: Option<&Behind>,
    limit: i64,
) -> Result<Vec<Behind>, StoreError> {
    let sql = "SELECT DISTINCT s.zone_id, s.position FROM notification_sinks s
               JOIN audit_heads h ON h.zone_id = s.zone_id AND h.chain_seq > s.position
               WHERE s.active = 1 AND (s.zone_id > ?1 OR (s.zone_id = ?1 AND s.position > ?2))
               ORDER BY s.zone_id, s.position LIMIT ?3";
    let (zone, position) = after.map_or(("", -1), |after| (after.zone_id.as_str(), after.position));
    let rows = tx.tx().query(sql, params![zone, position, limit]).await?;
    rows.into_iter()
        .map(|row| {
            let mut columns = row.columns("notification_sinks");
            Ok(Behind { zone_id: columns.next()?, position: columns.next()? })
        })
        .collect()
}

/// The zone's active sinks that have looked at its chain up to `position`.
pub async fn list_at(tx: &mut ZoneRead<'_>, position: i64) -> Result<Vec<Sink>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM notification_sinks WHERE zone_id = ?1 AND position = ?2 AND active = 1 ORDER BY id"
    );
    tx.tx.query(&sql, params![tx.zone, position]).await?.into_iter().map(read).collect()
}

/// Moves a sink from `from` on to `to`, with a delivery for each event in between that it wants. `false`: it is not active,
/// or somebody else has moved it; then nothing was added.
pub async fn advance(
    tx: &mut ZoneWrite<'_>,
    id: &NotificationSinkId,
    (from, to): (i64, i64),
    deliveries: &[Delivery],
) -> Result<bool, StoreError> {
    let sql = "UPDATE notification_sinks SET position = ?4, due_at = COALESCE(due_at, ?5)
               WHERE zone_id = ?1 AND id = ?2 AND position = ?3 AND active = 1";
    // Nothing to send is nothing to be due for.
    let (zone, due) = (tx.zone.clone(), (!deliveries.is_empty()).then(|| tx.now()));
    if tx.tx.append(sql, params![zone, id, from, to, due]).await? != 1 {
        return Ok(false);
    }
    for delivery in deliveries {
        notification_deliveries::add(tx, delivery).await?;
    }
    Ok(true)
}

/// Which sinks to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Those whose last attempt succeeded, and new ones.
    Well,
    /// Those that failed last.
    Failing,
}

/// A sink that has something to do.
#[derive(Debug, Clone)]
pub struct Due {
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its id.
    pub id: NotificationSinkId,
    /// Since when.
    pub due_at: Timestamp,
}

/// Active sinks that are due, longest first, `limit` at most.
pub async fn list_due(tx: &mut DeploymentRead<'_>, health: Health, limit: i64) -> Result<Vec<Due>, StoreError> {
    let failures = match health {
        Health::Well => "= 0",
        Health::Failing => "> 0",
    };
    let sql = format!(
        "SELECT zone_id, id, due_at FROM notification_sinks
         WHERE due_at <= ?1 AND active = 1 AND consecutive_failures {failures} ORDER BY due_at, zone_id, id LIMIT ?2"
    );
    let now = tx.now();
    let rows = tx.tx().query(&sql, params![now, limit]).await?;
    rows.into_iter()
        .map(|row| {
            let mut columns = row.columns("notification_sinks");
            Ok(Due { zone_id: columns.next()?, id: columns.next()?, due_at: columns.next()? })
        })
        .collect()
}

/// What a process that claimed a sink has to do.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The sink, which is due at the end of the lease.
    pub sink: Sink,
    /// Its oldest open delivery.
    pub delivery: Delivery,
}

/// Makes the caller the one that serves a sink which was due at `due_at`, until `until`. `None`: somebody else does, or
/// there is nothing to do.
pub async fn claim(
    tx: &mut ZoneWrite<'_>,
    id: &NotificationSinkId,
    due_at: Timestamp,
    until: Timestamp,
) -> Result<Option<Claimed>, StoreError> {
    if !move_due(tx, id, due_at, Some(until)).await? {
        return Ok(None);
    }
    let Some(sink) = lookup(tx, id).await? else { return Ok(None) };
    match notification_deliveries::find_oldest_open(tx, id).await? {
        Some(delivery) => Ok(Some(Claimed { sink, delivery })),
        None => {
            move_due(tx, id, until, None).await?;
            Ok(None)
        }
    }
}

async fn move_due(
    tx: &mut ZoneWrite<'_>,
    id: &NotificationSinkId,
    from: Timestamp,
    to: Option<Timestamp>,
) -> Result<bool, StoreError> {
    let sql = "UPDATE notification_sinks SET due_at = ?4 WHERE zone_id = ?1 AND id = ?2 AND due_at = ?3 AND active = 1";
    let zone = tx.zone.clone();
    Ok(tx.tx.append(sql, params![zone, id, from, to]).await? == 1)
}

/// The sink took the delivery. `false`: the lease that ends at `lease` is somebody else's by now; the delivery is done all
/// the same.
pub async fn delivered(
    tx: &mut ZoneWrite<'_>,
    delivery: &Delivery,
    lease: Timestamp,
    status: i64,
) -> Result<bool, StoreError> {
    let sql = "UPDATE notification_sinks SET due_at = ?4, last_success_at = ?4, consecutive_failures = 0
               WHERE zone_id = ?1 AND id = ?2 AND due_at = ?3";
    let (zone, now) = (tx.zone.clone(), tx.now());
    let held = tx.tx.append(sql, params![zone, delivery.sink_id, lease, now]).await? == 1;
    notification_deliveries::deliver(tx, &delivery.id, status).await?;
    Ok(held)
}

/// An attempt that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What was answered, if anything was.
    pub status: Option<i64>,
    /// What an operator is told.
    pub error: String,
    /// When it is tried again; never, if none.
    pub retry_at: Option<Timestamp>,
}

/// The sink did not take the delivery. `false`: the lease is somebody else's by now, and nothing was changed.
pub async fn failed(
    tx: &mut ZoneWrite<'_>,
    delivery: &Delivery,
    lease: Timestamp,
    failure: &Failure,
) -> Result<bool, StoreError> {
    let sql = "UPDATE notification_sinks SET due_at = ?4, last_failure_at = ?5, last_error = ?6,
                 consecutive_failures = consecutive_failures + 1
               WHERE zone_id = ?1 AND id = ?2 AND due_at = ?3";
    let (zone, now) = (tx.zone.clone(), tx.now());
    let next = failure.retry_at.unwrap_or(now);
    if tx.tx.append(sql, params![zone, delivery.sink_id, lease, next, now, failure.error]).await? != 1 {
        return Ok(false);
    }
    notification_deliveries::fail(tx, &delivery.id, failure).await?;
    Ok(true)
}

/// Nothing can be sent for the delivery, through no fault of the sink. `false`: the lease is somebody else's by now, and
/// nothing was changed.
pub async fn given_up(
    tx: &mut ZoneWrite<'_>,
    delivery: &Delivery,
    lease: Timestamp,
    error: &str,
) -> Result<bool, StoreError> {
    let now = tx.now();
    if !move_due(tx, &delivery.sink_id, lease, Some(now)).await? {
        return Ok(false);
    }
    notification_deliveries::give_up(tx, &delivery.id, error).await?;
    Ok(true)
}
