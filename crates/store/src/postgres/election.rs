//! Jobs that one process does at a time. Who does one holds a lock of the server's in a session of its own: the lock goes
//! away with the process, its machine or the way to it, and another takes it.
//!
//! A process that was cut off learns that only when it looks. So a job looks before each piece of work, and whatever it
//! does must be harmless when its successor does it again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::lanes::number;
use super::pool::{Connection, Pool};
use super::wire::Failure;
use crate::error::StoreError;

/// How long the server may take to say that the session is alive.
const LOOK: Duration = Duration::from_secs(2);

/// The session that holds the lock.
pub(crate) struct Seat {
    connection: Connection,
}

impl Seat {
    /// Takes the seat of `job` if it is free.
    pub(super) async fn take(pool: &Arc<Pool>, job: &str) -> Result<Option<Self>, StoreError> {
        let connection = pool.connect().await.map_err(|failure| failure.error)?;
        let lock = number(&format!("job {job}"));
        let row = connection.client.query_one("SELECT pg_try_advisory_lock($1)", &[&lock]).await;
        let taken = row.and_then(|row| row.try_get(0));
        let taken: bool = taken.map_err(|error| Failure::of(&error, &connection.constraints).error)?;
        Ok(taken.then_some(Self { connection }))
    }

    /// Whether the server still knows the session.
    pub(crate) async fn holds(&self) -> bool {
        matches!(timeout(LOOK, self.connection.client.batch_execute("SELECT 1")).await, Ok(Ok(())))
    }
}
