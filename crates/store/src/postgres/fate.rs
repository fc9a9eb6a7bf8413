//! What became of a commit whose answer was lost. The server remembers how each transaction ended, so a new connection
//! can ask. A process that is gone is no longer running it; one that was only cut off from us is told to stop first.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::pool::Pool;

/// How long is asked before nobody knows.
const ASKING: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// How often a transaction may be found still running before its server process is told to stop.
const PATIENCE: u32 = 10;

pub(super) enum Fate {
    Committed,
    RolledBack,
    Unknown,
}

/// The fate of `transaction`, which server process `backend` ran.
pub(super) async fn of(pool: &Arc<Pool>, transaction: i64, backend: Option<i32>) -> Fate {
    let asking = async {
        let mut running = 0;
        loop {
            match ask(pool, transaction).await.as_deref() {
                Some("committed") => return Fate::Committed,
                Some("aborted") => return Fate::RolledBack,
                Some("in progress") => {
                    running += 1;
                    if let Some(backend) = backend.filter(|_| running == PATIENCE) {
                        stop(pool, backend).await;
                    }
                }
                _ => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    timeout(ASKING, asking).await.unwrap_or(Fate::Unknown)
}

async fn ask(pool: &Arc<Pool>, transaction: i64) -> Option<String> {
    let connection = pool.connect().await.ok()?;
    let text = transaction.to_string();
    let row = connection.client.query_one("SELECT pg_xact_status(CAST(CAST($1 AS text) AS xid8))", &[&text]).await;
    row.ok()?.try_get(0).ok()?
}

/// A login may stop its own processes.
async fn stop(pool: &Arc<Pool>, backend: i32) {
    if let Ok(connection) = pool.connect().await {
        let _ = connection.client.execute("SELECT pg_terminate_backend($1)", &[&backend]).await;
    }
}
