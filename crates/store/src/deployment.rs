//! Settings of the deployment itself: named text values.

use caracal_authority::Timestamp;
use rusqlite::Connection;

use crate::error::StoreError;
use crate::tx::{DeploymentRead, DeploymentWrite};
use crate::value::{Bind, params};

/// The value called `name`.
pub async fn lookup(tx: &mut DeploymentRead<'_>, name: &str) -> Result<Option<String>, StoreError> {
    let row = tx.tx().query_one("SELECT value FROM deployment WHERE name = ?1", params![name]).await?;
    row.map(|row| row.columns("deployment").next()).transpose()
}

/// Sets the value called `name`.
pub async fn put(tx: &mut DeploymentWrite<'_>, name: &str, value: &str) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO deployment (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    tx.tx().execute(sql, params![name, value]).await.map(|_| ())
}

/// Under what name an embedded store keeps the time it has seen: a clock that was set back is known by it at the next start.
const LATEST: &str = "latest_commit_at";

/// What [`note_time`] has noted.
pub(crate) fn latest(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let mut asked = connection.prepare("SELECT CAST(value AS INTEGER) FROM deployment WHERE name = ?1")?;
    let mut rows = asked.query([LATEST])?;
    rows.next()?.map(|row| row.get(0).map(Timestamp::from_micros)).transpose()
}

/// Notes, as part of a commit, what time it is. A program that trusts a clock set back takes nothing from it.
pub(crate) fn note_time(connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    let sql = "INSERT INTO deployment (name, value) VALUES (?1, CAST(?2 AS TEXT)) ON CONFLICT (name)
               DO UPDATE SET value = CAST(max(CAST(value AS INTEGER), ?2) AS TEXT)";
    connection.prepare_cached(sql)?.execute((LATEST, now.as_micros())).map(drop)
}
