//! Forward-only migrations. Each is applied once, in order, inside one transaction, and remembered with the hash of
//! its text, so that a store written by a newer or an altered binary is recognised and left alone.

use std::path::Path;

use ring::digest;
use rusqlite::Connection;

use crate::clock::Clock;
use crate::error::OpenError;

/// How SQL is spelled on an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

pub(crate) struct Migration {
    pub(crate) version: i64,
    pub(crate) name: &'static str,
    /// Text for every engine; `{int}`, `{blob}`, `{table}` and `{wide}` stand for what the dialects spell differently.
    shared: &'static str,
    /// What only SQLite needs.
    sqlite: &'static str,
    /// What only PostgreSQL needs.
    postgres: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "base",
        shared: include_str!("migrations/0001_base.sql"),
        sqlite: include_str!("migrations/0001_base.sqlite.sql"),
        postgres: include_str!("migrations/0001_base.postgres.sql"),
    },
    Migration {
        version: 2,
        name: "outbox",
        shared: include_str!("migrations/0002_outbox.sql"),
        sqlite: include_str!("migrations/0002_outbox.sqlite.sql"),
        postgres: include_str!("migrations/0002_outbox.postgres.sql"),
    },
    Migration {
        version: 3,
        name: "streams",
        shared: include_str!("migrations/0003_streams.sql"),
        sqlite: include_str!("migrations/0003_streams.sqlite.sql"),
        postgres: "",
    },
    Migration {
        version: 4,
        name: "signing_keys",
        shared: include_str!("migrations/0004_signing_keys.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 5,
        name: "admin_audit_ids",
        shared: include_str!("migrations/0005_admin_audit_ids.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 6,
        name: "approvals",
        shared: include_str!("migrations/0006_approvals.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 7,
        name: "subject_issuers",
        shared: include_str!("migrations/0007_subject_issuers.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 8,
        name: "provider_connections",
        shared: include_str!("migrations/0008_provider_connections.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 9,
        name: "counts",
        shared: include_str!("migrations/0009_counts.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 10,
        name: "withdrawn_keys",
        shared: include_str!("migrations/0010_withdrawn_keys.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 11,
        name: "workloads",
        shared: include_str!("migrations/0011_workloads.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 12,
        name: "policy_operations",
        shared: include_str!("migrations/0012_policy_operations.sql"),
        sqlite: include_str!("migrations/0012_policy_operations.sqlite.sql"),
        postgres: include_str!("migrations/0012_policy_operations.postgres.sql"),
    },
    Migration {
        version: 13,
        name: "transparency",
        shared: include_str!("migrations/0013_transparency.sql"),
        sqlite: include_str!("migrations/0013_transparency.sqlite.sql"),
        postgres: include_str!("migrations/0013_transparency.postgres.sql"),
    },
    Migration {
        version: 14,
        name: "evidence_upkeep",
        shared: include_str!("migrations/0014_evidence_upkeep.sql"),
        sqlite: include_str!("migrations/0014_evidence_upkeep.sqlite.sql"),
        postgres: include_str!("migrations/0014_evidence_upkeep.postgres.sql"),
    },
    Migration {
        version: 15,
        name: "agent_services",
        shared: include_str!("migrations/0015_agent_services.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 16,
        name: "call_limits",
        shared: include_str!("migrations/0016_call_limits.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 17,
        name: "notifications",
        shared: include_str!("migrations/0017_notifications.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 18,
        name: "leases",
        shared: include_str!("migrations/0018_leases.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 19,
        name: "management",
        shared: include_str!("migrations/0019_management.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 20,
        name: "last_commits",
        shared: "",
        sqlite: "",
        postgres: include_str!("migrations/0020_last_commits.postgres.sql"),
    },
    Migration {
        version: 21,
        name: "invocation_pauses",
        shared: include_str!("migrations/0021_invocation_pauses.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 22,
        name: "listings",
        shared: include_str!("migrations/0022_listings.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 23,
        name: "evidence_identity",
        shared: include_str!("migrations/0023_evidence_identity.sql"),
        sqlite: "",
        postgres: "",
    },
    Migration {
        version: 24,
        name: "statistics",
        shared: "",
        sqlite: include_str!("migrations/0024_statistics.sqlite.sql"),
        postgres: "",
    },
    Migration {
        version: 25,
        name: "audit_key_ids",
        shared: include_str!("migrations/0025_audit_key_ids.sql"),
        sqlite: "",
        postgres: "",
    },
];

/// The schema version this binary writes.
pub fn known_version() -> i64 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// All of them, in order.
pub(crate) fn all() -> &'static [Migration] {
    MIGRATIONS
}

impl Migration {
    pub(crate) fn text(&self, dialect: Dialect) -> String {
        let (spelling, own): ([(&str, &str); 5], &str) = match dialect {
            Dialect::Sqlite => (
                [
                    ("{int}", "INTEGER"),
                    ("{blob}", "BLOB"),
                    ("{table}", "STRICT, WITHOUT ROWID"),
                    ("{wide}", "STRICT"),
                    ("", ""),
                ],
                self.sqlite,
            ),
            // Text is ordered by its bytes on both engines, whatever language the database was made for.
            Dialect::Postgres => (
                [
                    ("{int}", "BIGINT"),
                    ("{blob}", "BYTEA"),
                    ("{table}", ""),
                    ("{wide}", ""),
                    (" TEXT", " TEXT COLLATE \"C\""),
                ],
                self.postgres,
            ),
        };
        let mut text = self.shared.to_owned();
        for (placeholder, spelled) in spelling.iter().filter(|(placeholder, _)| !placeholder.is_empty()) {
            text = text.replace(placeholder, spelled);
        }
        format!("{text}\n{own}")
    }

    pub(crate) fn checksum(&self, dialect: Dialect) -> String {
        let own = match dialect {
            Dialect::Sqlite => self.sqlite,
            Dialect::Postgres => self.postgres,
        };
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.shared.as_bytes());
        context.update(&[0]);
        context.update(own.as_bytes());
        context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Refuses what this binary must not touch: a store of a newer version, or one whose applied migrations are not the
/// ones this binary carries. Changes nothing.
pub(crate) fn verify(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    applied(connection, path).map(|_| ())
}

/// Lets an older store be read by this version's statements without changing it: what came later is there, and empty.
pub(crate) fn show_as_current(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    const KEY_IDS: i64 = 25;
    let engine = |error: rusqlite::Error| OpenError::Engine { path: path.to_owned(), reason: error.to_string() };
    let applied = applied(connection, path)?;
    if MIGRATIONS.iter().take(applied).any(|migration| migration.version == KEY_IDS) {
        return Ok(());
    }
    let mut views = String::new();
    for table in ["audit_events", "audit_heads", "admin_audit_events", "admin_audit_heads", "audit_anchors"] {
        if connection.table_exists(None, table).map_err(engine)? {
            views += &format!("CREATE TEMP VIEW {table} AS SELECT *, NULL AS key_id FROM main.{table};");
        }
    }
    // They are this connection's own, and it is kept from everything else.
    let batch = format!("PRAGMA query_only=OFF; {views} PRAGMA query_only=ON");
    connection.execute_batch(&batch).map_err(engine)
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
        transaction.execute_batch(&migration.text(Dialect::Sqlite)).map_err(engine)?;
        transaction
            .execute(
                "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)",
                (migration.version, migration.name, migration.checksum(Dialect::Sqlite), clock.now().as_micros()),
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
    check(&applied, path, Dialect::Sqlite)
}

/// How many migrations the versions and checksums found at `path` stand for.
pub(crate) fn check(applied: &[(i64, String)], path: &Path, dialect: Dialect) -> Result<usize, OpenError> {
    if let Some((found, _)) = applied.last().filter(|(version, _)| *version > known_version()) {
        return Err(OpenError::Newer { path: path.to_owned(), found: *found, known: known_version() });
    }
    for (index, (version, checksum)) in applied.iter().enumerate() {
        let ours =
            MIGRATIONS.get(index).is_some_and(|ours| ours.version == *version && ours.checksum(dialect) == *checksum);
        if !ours {
            return Err(OpenError::Altered { path: path.to_owned(), version: *version });
        }
    }
    Ok(applied.len())
}
