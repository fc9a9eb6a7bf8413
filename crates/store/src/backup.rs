//! Copies of the embedded store, and what has to happen before a copy may be a store again.
//!
//! A copy is taken beside a running system: one read transaction is held open over all of it, so that it is the store
//! at one instant, and a reader never makes the writer of a write-ahead log wait. What it costs is that the log can't
//! start over meanwhile and grows.
//!
//! An older store is the most convenient forgery there is: a delegation that was revoked after the copy was made is in
//! force in it, and a mandate that was used is unused (threat T17). So a copy carries a mark, and a marked database is
//! refused as a store, whoever put it in its place. The mark leaves only in a transaction, and whoever removes it is
//! meant to end, in the same one, everything that was alive in the copy ([`end_authority`]).

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;

use caracal_authority::{Timestamp, ZoneId};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::clock::Clock;
use crate::directory;
use crate::error::{OpenError, StoreError};
use crate::sqlite::SqliteOptions;
use crate::store::Store;
use crate::tx::{DeploymentRead, DeploymentWrite, ZoneWrite};
use crate::value::{Bind, params};

/// Pages copied between two words of progress: 4 MiB.
const PAGES: i32 = 1_024;
/// Name of the mark among the settings of the deployment.
const MARK: &str = "copied_for_backup_at";

/// Copies the store of a directory, running or not, to the new file `to`, and marks the copy. Everything that was
/// acknowledged before the call is in it. `progress` hears how many pages are done, of how many. Returns the version of
/// the copy's schema.
///
/// A store that nobody uses is kept locked meanwhile: one that started now would write past what is being read.
pub fn copy(
    options: &SqliteOptions,
    to: &Path,
    now: Timestamp,
    mut progress: impl FnMut(u64, u64),
) -> Result<i64, OpenError> {
    let (source, _held) = directory::open_to_copy(options)?;
    let from = options.database();
    let read = directory::engine(&from);
    // Held for the whole copy: without it each step would see another state, and start over after every commit.
    source.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1").map_err(&read)?;
    let mut file = OpenOptions::new();
    file.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    file.open(to).map_err(directory::unusable(to))?;
    let written = directory::engine(to);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(to, flags).map_err(&written)?;
    // Half a copy is thrown away whatever it looks like; a whole one is synced by who keeps it.
    copy.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF").map_err(&written)?;
    {
        let backup = Backup::new(&source, &mut copy).map_err(&written)?;
        loop {
            let step = backup.step(PAGES).map_err(&written)?;
            let at = backup.progress();
            let (all, left) = (u64::try_from(at.pagecount).unwrap_or(0), u64::try_from(at.remaining).unwrap_or(0));
            progress(all.saturating_sub(left), all);
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                _ => {
                    let reason = "the database is locked by another program".to_owned();
                    return Err(OpenError::Engine { path: from.clone(), reason });
                }
            }
        }
    }
    // One file, complete in itself; the next writer chooses its log anew.
    copy.pragma_update(None, "journal_mode", "DELETE").map_err(&written)?;
    let marked = "INSERT INTO deployment (name, value) VALUES (?1, ?2)
                  ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    copy.execute(marked, (MARK, now.to_millis_text())).map_err(&written)?;
    let schema =
        copy.query_one("SELECT max(version) FROM schema_migrations", [], |row| row.get(0)).map_err(&written)?;
    copy.close().map_err(|(_, error)| written(error))?;
    Ok(schema)
}

/// Looks through every page and index of a database that nobody uses.
pub fn check_integrity(path: &Path) -> Result<(), OpenError> {
    let connection = directory::open_for_inspection(path)?;
    let first: String =
        connection.query_one("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(directory::engine(path))?;
    if first == "ok" { Ok(()) } else { Err(OpenError::Damaged { path: path.to_owned(), what: first }) }
}

/// Opens a store whether or not it carries the mark of a copy. For whoever turns a copy into a store again.
pub fn open_copy(options: &SqliteOptions, clock: Arc<dyn Clock>) -> Result<Store, OpenError> {
    Store::open_kind(options, clock, directory::Kind::StoreOrCopy)
}

/// Whether the database is a copy that was not turned into a store again.
pub(crate) fn is_marked(connection: &Connection) -> rusqlite::Result<bool> {
    let found = connection.query_row("SELECT 1 FROM deployment WHERE name = ?1", [MARK], |_| Ok(())).optional()?;
    Ok(found.is_some())
}

/// Takes the mark of a copy away. Belongs into the transaction that ends what was alive in the copy.
pub async fn remove_mark(tx: &mut DeploymentWrite<'_>) -> Result<(), StoreError> {
    tx.tx().execute("DELETE FROM deployment WHERE name = ?1", params![MARK]).await.map(|_| ())
}

/// Every zone that is known, or has something alive in it.
pub async fn list_zones(tx: &mut DeploymentRead<'_>) -> Result<Vec<ZoneId>, StoreError> {
    let sql = "SELECT id FROM zones
               UNION SELECT zone_id FROM authority_records WHERE status = 'active'
               UNION SELECT zone_id FROM agent_sessions WHERE status IN ('active', 'suspended')
               UNION SELECT zone_id FROM delegation_edges WHERE status = 'active'
               UNION SELECT zone_id FROM approvals WHERE is_live = 1
               UNION SELECT zone_id FROM provider_connections WHERE status = 'active'
               UNION SELECT zone_id FROM invocations WHERE status IN ('pending', 'running', 'cancel_requested', 'failed')
               ORDER BY 1";
    let rows = tx.tx().query(sql, &[]).await?;
    rows.into_iter().map(|row| row.columns("zones").next()).collect()
}

/// Forgets the admin tokens that are in force: one of them may have been revoked since. The next start puts those in
/// force again that the operator gives it. Says how many there were.
pub async fn forget_admin_tokens(tx: &mut DeploymentWrite<'_>) -> Result<usize, StoreError> {
    tx.tx().execute("DELETE FROM admin_tokens WHERE revoked_at IS NULL", &[]).await
}

/// How much was ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// Authority records.
    pub records: usize,
    /// Governed sessions.
    pub sessions: usize,
    /// Delegations.
    pub edges: usize,
}

/// Ends every record, session, delegation, unspent approval, account at a provider and open invocation of the zone that is
/// not ended, those that only ran out included: whether something ran out is a question to a clock.
///
/// The delegation epoch moves past every number that the store can have told since the copy was made. It rises by one
/// with a change that takes authority away, and less than one such change a second was made since 1970.
pub async fn end_authority(tx: &mut ZoneWrite<'_>, reason: &str) -> Result<Ended, StoreError> {
    let (zone, now) = (tx.zone().clone(), tx.now());
    let records = "UPDATE authority_records SET status = 'revoked', revoked_at = ?2, revoked_reason = ?3
                   WHERE zone_id = ?1 AND status = 'active'";
    let sessions = "UPDATE agent_sessions SET status = 'terminated', terminated_at = ?2, termination_reason = ?3,
                      updated_at = ?2, capacity_until = NULL
                    WHERE zone_id = ?1 AND status IN ('active', 'suspended')";
    let counts = "UPDATE session_counts SET running = 0 WHERE zone_id = ?1";
    let edges = "UPDATE delegation_edges SET status = 'revoked', revoked_at = ?2, edge_version = edge_version + 1
                 WHERE zone_id = ?1 AND status = 'active'";
    let approvals = "UPDATE approvals SET is_live = 0,
                       expires_at = CASE WHEN expires_at > ?2 THEN ?2 ELSE expires_at END
                     WHERE zone_id = ?1 AND consumed_at IS NULL";
    let epoch = "INSERT INTO delegation_epochs (zone_id, epoch) VALUES (?1, ?2)
                 ON CONFLICT (zone_id) DO UPDATE SET epoch = CASE WHEN delegation_epochs.epoch < excluded.epoch
                   THEN excluded.epoch ELSE delegation_epochs.epoch + 1 END";
    let ended = Ended {
        records: tx.tx.execute(records, params![zone, now, reason]).await?,
        sessions: tx.tx.execute(sessions, params![zone, now, reason]).await?,
        edges: tx.tx.execute(edges, params![zone, now]).await?,
    };
    // One of them may have been spent, or rejected, since the copy was made.
    tx.tx.execute(approvals, params![zone, now]).await?;
    // Whoever took an account back meanwhile has no other place to say so than the one that is lost.
    let connections = "UPDATE provider_connections SET status = 'revoked', lease_holder = NULL, lease_until = NULL,
                         updated_at = ?2 WHERE zone_id = ?1 AND status = 'active'";
    tx.tx.execute(connections, params![zone, now]).await?;
    // What somebody may have done since must not be done again by whoever finds it waiting.
    let invocations = "UPDATE invocations SET status = 'canceled', completed_at = ?2, updated_at = ?2
                       WHERE zone_id = ?1 AND status IN ('pending', 'running', 'cancel_requested', 'failed')";
    tx.tx.execute(invocations, params![zone, now]).await?;
    // Whether somebody has finished one of these since is not known either.
    tx.tx.append("DELETE FROM oauth_states WHERE zone_id = ?1", params![zone]).await?;
    tx.tx.execute(counts, params![zone]).await?;
    tx.tx.execute(epoch, params![zone, now.as_seconds()]).await?;
    Ok(ended)
}
