//! What became of a commit whose answer was lost. The server remembers how each transaction ended, so a new connection
//! can ask. A process that is gone is no longer running it; one that was only cut off from us is told to stop first.
//!
//! What the server says about a number is not enough. A crash takes with it the transactions whose log had not reached
//! the disk, and their numbers are given out again: "committed" may be said of somebody else's. So every transaction
//! leaves a row with the name of its connection, and only that row proves a commit. The number tells when to look.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::pool::Pool;

/// How long is asked before nobody knows.
const ASKING: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// How often a transaction may be found still running before its server process is told to stop.
const PATIENCE: u32 = 10;

/// A transaction whose end is not known.
pub(super) struct Sought {
    /// The server's number of it.
    pub(super) transaction: i64,
    /// The name of the connection that ran it.
    pub(super) connection: String,
    /// The server process that ran it.
    pub(super) backend: i32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Committed,
    RolledBack,
    Unknown,
}

/// What one look at the server tells.
enum Seen {
    Ended(Fate),
    Running,
    Nothing,
}

pub(super) async fn of(pool: &Arc<Pool>, sought: &Sought) -> Fate {
    let asking = async {
        let mut running = 0;
        loop {
            match look(pool, sought).await {
                Seen::Ended(fate) => return fate,
                Seen::Running => {
                    running += 1;
                    if running == PATIENCE {
                        stop(pool, sought.backend).await;
                    }
                }
                Seen::Nothing => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    timeout(ASKING, asking).await.unwrap_or(Fate::Unknown)
}

async fn look(pool: &Arc<Pool>, sought: &Sought) -> Seen {
    let Ok(connection) = pool.connect().await else { return Seen::Nothing };
    // In this order: what has ended when the first statement runs can be seen by the second.
    match is_over(&connection.client, sought.transaction).await {
        Some(true) => match left_its_row(&connection.client, sought).await {
            Some(true) => Seen::Ended(Fate::Committed),
            Some(false) => Seen::Ended(Fate::RolledBack),
            None => Seen::Nothing,
        },
        Some(false) => Seen::Running,
        None => Seen::Nothing,
    }
}

/// Whether nobody runs the transaction any more; none if the server does not say.
async fn is_over(client: &Client, transaction: i64) -> Option<bool> {
    let text = transaction.to_string();
    match client.query_one("SELECT pg_xact_status(CAST(CAST($1 AS text) AS xid8))", &[&text]).await {
        Ok(row) => Some(row.try_get::<_, Option<&str>>(0).ok()?? != "in progress"),
        // The number is still to come: the server has crashed, and has never heard of it.
        Err(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => Some(true),
        Err(_) => None,
    }
}

async fn left_its_row(client: &Client, sought: &Sought) -> Option<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM last_commits WHERE connection = $1 AND transaction = $2)";
    client.query_one(sql, &[&sought.connection, &sought.transaction]).await.ok()?.try_get(0).ok()
}

/// A login may stop its own processes.
async fn stop(pool: &Arc<Pool>, backend: i32) {
    if let Ok(connection) = pool.connect().await {
        let _ = connection.client.execute("SELECT pg_terminate_backend($1)", &[&backend]).await;
    }
}
