//! Forward-only migrations. Each is applied once, in order, inside one transaction, and remembered with the hash of
//! its text, so that a store written by a newer or an altered binary is recognised and left alone.

use std::path::Path;

use ring::digest;
use rusqlite::Connection;

use crate::clock::Clock;
use crate::error::OpenError;

struct Migration {
    version: i64,
    name: &'static str,
    /// Text for every engine; `{int}`, `{blob}`, `{table}` and `{wide}` stand for what the dialects spell differently.
    shared: &'static str,
    /// What only SQLite needs.
    sqlite: &'static str,
}

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "base",
    shared: include_str!("migrations/0001_base.sql"),
    sqlite: include_str!("migrations/0001_base.sqlite.sql"),
}];

/// The schema version this binary writes.
pub fn known_version() -> i64 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

impl Migration {
    fn sqlite_text(&self) -> String {
        let shared = self
            .shared
            .replace("{int}", "INTEGER")
            .replace("{blob}", "BLOB")
            .replace("{table}", "STRICT, WITHOUT ROWID")
            .replace("{wide}", "STRICT");
        format!("{shared}\n{}", self.sqlite)
    }

    fn checksum(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.shared.as_bytes());
        context.update(&[0]);
        context.update(self.sqlite.as_bytes());
        context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Refuses what this binary must not touch: a store of a newer version, or one whose applied migrations are not the
/// ones this binary carries. Changes nothing.
pub(crate) fn verify(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    applied(connection, path).map(|_| ())
}

/// Applies to a recognised or new database what it lacks. The caller holds the data directory's lock.
pub(crate) fn apply(connection: &mut Connection, path: &Path, clock: &dyn Clock) -> Result<(), OpenError> {
    let engine = |error: rusqlite::Error| OpenError::Engine { path: path.to_owned(), reason: error.to_string() };
    connection
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_migrations (
               version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL
             ) STRICT",
        )
        .map_err(engine)?;
    let applied = applied(connection, path)?;
    for migration in MIGRATIONS.get(applied..).unwrap_or_default() {
        let transaction = connection.transaction().map_err(engine)?;
        transaction.execute_batch(&migration.sqlite_text()).map_err(engine)?;
        transaction
            .execute(
                "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)",
                (migration.version, migration.name, migration.checksum(), clock.now().as_micros()),
            )
            .map_err(engine)?;
        transaction.commit().map_err(engine)?;
    }
    Ok(())
}

/// How many of [`MIGRATIONS`] are applied: always the first ones, in order and unaltered.
fn applied(connection: &Connection, path: &Path) -> Result<usize, OpenError> {
    let engine = |error: rusqlite::Error| OpenError::Engine { path: path.to_owned(), reason: error.to_string() };
    let applied: Vec<(i64, String)> = {
        let mut statement =
            connection.prepare("SELECT version, checksum FROM schema_migrations ORDER BY version").map_err(engine)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(engine)?;
        rows.collect::<Result<_, _>>().map_err(engine)?
    };
    if let Some((found, _)) = applied.last().filter(|(version, _)| *version > known_version()) {
        return Err(OpenError::Newer { path: path.to_owned(), found: *found, known: known_version() });
    }
    for (index, (version, checksum)) in applied.iter().enumerate() {
        let ours = MIGRATIONS.get(index).is_some_and(|ours| ours.version == *version && ours.checksum() == *checksum);
        if !ours {
            return Err(OpenError::Altered { path: path.to_owned(), version: *version });
        }
    }
    Ok(applied.len())
}
