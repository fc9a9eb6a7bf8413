//! What a server must be like, the migrations, and what a login may do.
//!
//! Two roles share the work. An owner migrates: `caracal migrate`. Everything else works as `caracal_runtime`, which can
//! add evidence but not change it, and which row-level security confines to the zone that a statement names. A login
//! of a running system is a member of that role and nothing more; in production a more powerful one is refused,
//! because a statement smuggled in could leave the role again.

use std::collections::HashMap;
use std::path::PathBuf;

use tokio_postgres::Client;

use super::options::PostgresOptions;
use super::wire::{Constraints, whole};
use super::{RUNTIME_ROLE, pool, tls};
use crate::clock::{Clock, SystemClock};
use crate::error::OpenError;
use crate::migrations::{self, Dialect, Migration};

/// PostgreSQL 14: the oldest release that is still maintained.
const OLDEST: i32 = 140_000;
const RIGHTS: &str = include_str!("rights.sql");
/// "CRCLMIGR": one migrates at a time.
const MIGRATION_LOCK: i64 = 0x4352_434C_4D49_4752;

/// What a migration did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationReport {
    /// The database, without login.
    pub place: String,
    /// The schema's version before; 0 of an empty database.
    pub from: i64,
    /// The version that this binary needs.
    pub to: i64,
    /// Names of the migrations that were applied, or are missing.
    pub migrations: Vec<&'static str>,
}

impl PostgresOptions {
    /// Brings the schema up to date. Safe when several processes do so at once.
    pub async fn apply_migrations(&self) -> Result<MigrationReport, OpenError> {
        let client = self.owner().await?;
        inspect(&client, self).await?;
        self.migrate_with(&client).await
    }

    /// Says what a migration would do, and changes nothing.
    pub async fn missing_migrations(&self) -> Result<MigrationReport, OpenError> {
        let client = self.owner().await?;
        inspect(&client, self).await?;
        let applied = applied(&client, self).await?;
        Ok(self.report(applied))
    }

    /// A connection as the login itself.
    pub(super) async fn owner(&self) -> Result<Client, OpenError> {
        let tls = tls::connector(self.root_certificates.as_deref()).map_err(|reason| self.refused(reason))?;
        pool::connect(self, &tls).await.map_err(|reason| self.refused(reason))
    }

    fn report(&self, applied: usize) -> MigrationReport {
        let all = migrations::all();
        let from = applied.checked_sub(1).and_then(|last| all.get(last)).map_or(0, |migration| migration.version);
        let migrations = all.iter().skip(applied).map(|migration| migration.name).collect();
        MigrationReport { place: self.place(), from, to: migrations::known_version(), migrations }
    }

    async fn migrate_with(&self, client: &Client) -> Result<MigrationReport, OpenError> {
        let failed = |error: tokio_postgres::Error| self.refused(whole(&error));
        // Held by the session: whoever waits finds the work done.
        client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await.map_err(failed)?;
        let migrated = self.migrate_locked(client).await;
        let released = client.execute("SELECT pg_advisory_unlock($1)", &[&MIGRATION_LOCK]).await;
        let report = migrated?;
        released.map_err(failed)?;
        Ok(report)
    }

    async fn migrate_locked(&self, client: &Client) -> Result<MigrationReport, OpenError> {
        let applied = applied(client, self).await?;
        for migration in migrations::all().iter().skip(applied) {
            let failed = |error: tokio_postgres::Error| {
                self.refused(format!(
                    "migration {} ({}) failed and left nothing: {}",
                    migration.version,
                    migration.name,
                    whole(&error)
                ))
            };
            client.batch_execute(&transaction(migration)).await.map_err(failed)?;
            tracing::info!(version = migration.version, name = migration.name, "migrated");
        }
        Ok(self.report(applied))
    }

    pub(super) fn refused(&self, reason: String) -> OpenError {
        OpenError::Server { server: self.place(), reason }
    }
}

/// A migration, the note that it was applied, and the rights on what there is then: all or nothing.
fn transaction(migration: &Migration) -> String {
    let (version, name, checksum) = (migration.version, migration.name, migration.checksum(Dialect::Postgres));
    let text = migration.text(Dialect::Postgres);
    let now = SystemClock.now().as_micros();
    format!(
        "BEGIN;
         CREATE TABLE IF NOT EXISTS schema_migrations (
           version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL);
         {text};
         INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES ({version}, '{name}', '{checksum}', {now});
         {RIGHTS}
         COMMIT"
    )
}

/// Everything that has to hold before a system runs on this server.
pub(super) async fn prepare(client: &Client, options: &PostgresOptions) -> Result<(), OpenError> {
    inspect(client, options).await?;
    let behind = options.report(applied(client, options).await?);
    if !behind.migrations.is_empty() {
        if !options.migrate || options.refuse_powerful_login || !may_migrate(client, options).await? {
            return Err(options.refused(format!(
                "has schema {}, this version needs {}; run `caracal migrate` with a login that owns the database",
                behind.from, behind.to
            )));
        }
        options.migrate_with(client).await?;
    }
    check_login(client, options).await
}

/// Refuses a server that can't keep what is promised.
pub(super) async fn inspect(client: &Client, options: &PostgresOptions) -> Result<(), OpenError> {
    let sql = "SELECT CAST(current_setting('server_version_num') AS int), current_setting('server_version'),
                      current_setting('server_encoding'), current_setting('fsync'), pg_is_in_recovery(),
                      current_schema() IS NOT NULL";
    let failed = |error: tokio_postgres::Error| options.refused(whole(&error));
    let row = client.query_one(sql, &[]).await.map_err(failed)?;
    let number: i32 = row.try_get(0).map_err(failed)?;
    let (version, encoding, fsync): (String, String, String) =
        (row.try_get(1).map_err(failed)?, row.try_get(2).map_err(failed)?, row.try_get(3).map_err(failed)?);
    if number < OLDEST {
        return Err(options.refused(format!("is PostgreSQL {version}; 14 or newer is needed")));
    }
    if encoding != "UTF8" {
        return Err(options.refused(format!("encodes text as {encoding}; create the database with ENCODING 'UTF8'")));
    }
    if fsync != "on" {
        let reason = "runs with fsync = off, so evidence could be lost after it was promised; turn it on";
        return Err(options.refused(reason.to_owned()));
    }
    if row.try_get(4).map_err(failed)? {
        return Err(options.refused("is a standby that only reads; name the primary".to_owned()));
    }
    if !row.try_get::<_, bool>(5).map_err(failed)? {
        let reason = "has no schema to work in: search_path of this login names none that exists";
        return Err(options.refused(reason.to_owned()));
    }
    Ok(())
}

/// How many migrations are applied: always the first ones, in order and unaltered.
async fn applied(client: &Client, options: &PostgresOptions) -> Result<usize, OpenError> {
    let failed = |error: tokio_postgres::Error| options.refused(whole(&error));
    let there = client.query_one("SELECT to_regclass('schema_migrations') IS NOT NULL", &[]).await.map_err(failed)?;
    if !there.try_get::<_, bool>(0).map_err(failed)? {
        return Ok(0);
    }
    let rows = client.query("SELECT version, checksum FROM schema_migrations ORDER BY version", &[]).await;
    let rows = rows.map_err(|error| {
        options.refused(format!(
            "its schema can't be read by this login ({}); grant it the role {RUNTIME_ROLE}",
            whole(&error)
        ))
    })?;
    let mut applied = Vec::with_capacity(rows.len());
    for row in rows {
        applied.push((row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?));
    }
    migrations::check(&applied, &PathBuf::from(options.place()), Dialect::Postgres)
}

async fn may_migrate(client: &Client, options: &PostgresOptions) -> Result<bool, OpenError> {
    let sql = "SELECT has_schema_privilege(session_user, current_schema(), 'CREATE')
                 AND NOT EXISTS (SELECT 1 FROM pg_class t WHERE t.oid = to_regclass('schema_migrations')
                                 AND NOT pg_has_role(session_user, t.relowner, 'MEMBER'))";
    let row = client.query_one(sql, &[]).await;
    row.and_then(|row| row.try_get(0)).map_err(|error| options.refused(whole(&error)))
}

async fn check_login(client: &Client, options: &PostgresOptions) -> Result<(), OpenError> {
    let sql = "SELECT session_user::text, EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1),
                      COALESCE((SELECT pg_has_role(session_user, oid, 'MEMBER') FROM pg_roles WHERE rolname = $1), false),
                      (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = session_user)
                        OR has_table_privilege(session_user, 'audit_events', 'UPDATE, DELETE, TRUNCATE')
                        OR has_table_privilege(session_user, 'admin_audit_events', 'UPDATE, DELETE, TRUNCATE')";
    let failed = |error: tokio_postgres::Error| options.refused(whole(&error));
    let row = client.query_one(sql, &[&RUNTIME_ROLE]).await.map_err(failed)?;
    let login: String = row.try_get(0).map_err(failed)?;
    let (there, member, powerful): (bool, bool, bool) =
        (row.try_get(1).map_err(failed)?, row.try_get(2).map_err(failed)?, row.try_get(3).map_err(failed)?);
    if !there {
        let reason = format!("has no role {RUNTIME_ROLE}; run `caracal migrate`");
        return Err(options.refused(reason));
    }
    if !member {
        return Err(options.refused(format!(
            "does not let the login `{login}` work as {RUNTIME_ROLE}; run `GRANT {RUNTIME_ROLE} TO {login}`"
        )));
    }
    if powerful && options.refuse_powerful_login {
        return Err(options.refused(format!(
            "the login `{login}` could change evidence or look past the zones; use one that is a member of \
             {RUNTIME_ROLE} and owns nothing: `CREATE ROLE caracal_app LOGIN PASSWORD '…' IN ROLE {RUNTIME_ROLE}`"
        )));
    }
    Ok(())
}

/// Which columns each unique index is about, so that a conflict can be named as the other engine names it.
pub(super) async fn constraints(client: &Client) -> Result<Constraints, tokio_postgres::Error> {
    let sql = "SELECT i.relname::text, string_agg(t.relname || '.' || a.attname, ', ' ORDER BY k.position)
               FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
                 JOIN pg_namespace n ON n.oid = t.relnamespace
                 CROSS JOIN LATERAL unnest(x.indkey) WITH ORDINALITY AS k (attnum, position)
                 JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum
               WHERE x.indisunique AND n.nspname = current_schema() GROUP BY i.relname";
    let mut constraints = HashMap::new();
    for row in client.query(sql, &[]).await? {
        constraints.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(constraints)
}
