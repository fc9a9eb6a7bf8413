//! Every place in the store where something is sealed, so that all of it can be sealed anew when the key-encryption key is
//! replaced (contract: audit-and-streams.md §9.2). What lies under a reference in a backend outside the store is named by
//! rows of ours: [`REFERENCED`].
//!
//! An envelope is a column of raw bytes, and there are raw bytes for little else ([`OPEN`]): a case of the conformance suite compares
//! [`SEALED`] with the schema, so a sealed column that is not listed here does not pass. The one envelope that is text is
//! the deployment's check of its key.

use caracal_authority::ZoneId;

use crate::error::StoreError;
use crate::tx::{DeploymentRead, DeploymentWrite, Tx};
use crate::value::{Bind, params};

/// A column of envelopes in a table of tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// The table.
    pub table: &'static str,
    /// The column beside `zone_id` that makes a row single.
    pub key: &'static str,
    /// The column; absent values are no envelopes.
    pub column: &'static str,
    /// What the envelope is bound to beside zone and key: a column that is not empty text.
    pub bound_to: &'static [&'static str],
}

/// All of them.
pub const SEALED: &[Sealed] = &[
    Sealed { table: "ledger_log_keys", key: "key_id", column: "sealed_private", bound_to: &[] },
    Sealed { table: "notification_sinks", key: "id", column: "secret", bound_to: &[] },
    Sealed { table: "oauth_states", key: "digest", column: "verifier", bound_to: &[] },
    Sealed {
        table: "provider_connections",
        key: "id",
        column: "access_token",
        bound_to: &["provider_id", "subject_id"],
    },
    Sealed {
        table: "provider_connections",
        key: "id",
        column: "refresh_token",
        bound_to: &["provider_id", "subject_id"],
    },
    Sealed { table: "sealed_secrets", key: "reference", column: "envelope", bound_to: &[] },
    Sealed { table: "signing_keys", key: "kid", column: "sealed_private", bound_to: &[] },
];

/// Columns of raw bytes that are no secret: table and column.
pub const OPEN: &[(&str, &str)] = &[("ledger_tiles", "hashes")];

/// Rows that have a secret under a reference: `zones/{zone}/{table}/{id}/{suffix}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Referenced {
    /// The table.
    pub table: &'static str,
    /// The reference's end.
    pub suffix: &'static str,
    /// Which rows have one.
    having: &'static str,
}

/// All of them.
pub const REFERENCED: &[Referenced] = &[
    Referenced { table: "applications", suffix: "clientSecret", having: "secret_hash IS NOT NULL" },
    Referenced { table: "providers", suffix: "secretConfig", having: "secret_config_keys <> '[]'" },
    // Every workload has one.
    Referenced { table: "workloads", suffix: "secret", having: "secret_hash IS NOT NULL" },
];

/// Where in a table a reading goes on: behind this zone and key.
pub type After = (String, String);

/// One envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its zone.
    pub zone: ZoneId,
    /// The value of [`Sealed::key`].
    pub key: String,
    /// The values of [`Sealed::bound_to`].
    pub bound_to: Vec<String>,
    /// The envelope.
    pub envelope: Vec<u8>,
}

impl Found {
    /// Where the next page begins.
    pub fn place(&self) -> After {
        (self.zone.as_str().to_owned(), self.key.clone())
    }
}

/// The next envelopes of a column behind `after`, `limit` at most, over all zones.
pub async fn list(
    tx: &mut DeploymentRead<'_>,
    sealed: &Sealed,
    after: Option<&After>,
    limit: i64,
) -> Result<Vec<Found>, StoreError> {
    let Sealed { table, key, column, bound_to } = *sealed;
    let bound: String = bound_to.iter().map(|name| format!(", {name}")).collect();
    let sql = format!(
        "SELECT zone_id, {key}, {column}{bound} FROM {table}
         WHERE {column} IS NOT NULL AND (zone_id > ?1 OR (zone_id = ?1 AND {key} > ?2))
         ORDER BY zone_id, {key} LIMIT ?3"
    );
    let (zone, last) = after.cloned().unwrap_or_default();
    let rows = tx.tx().query(&sql, params![zone, last, limit]).await?;
    rows.into_iter()
        .map(|row| {
            let mut columns = row.columns(table);
            let (zone, key, envelope) = (columns.next()?, columns.next()?, columns.next()?);
            let bound_to = bound_to.iter().map(|_| columns.next()).collect::<Result<_, _>>()?;
            Ok(Found { zone, key, bound_to, envelope })
        })
        .collect()
}

/// Puts `new` in the place of exactly the envelope that was found. `false`: another lies there by now, or none. It changes
/// what is written, not what is meant, so it takes nothing from anybody's authority.
pub async fn replace(
    tx: &mut DeploymentWrite<'_>,
    sealed: &Sealed,
    found: &Found,
    new: &[u8],
) -> Result<bool, StoreError> {
    let Sealed { table, key, column, .. } = *sealed;
    let sql = format!("UPDATE {table} SET {column} = ?4 WHERE zone_id = ?1 AND {key} = ?2 AND {column} = ?3");
    let params = params![found.zone, found.key, found.envelope, new];
    Ok(tx.tx().append(&sql, params).await? == 1)
}

/// The next rows behind `after` that have a secret under a reference, `limit` at most, over all zones.
pub async fn list_referenced(
    tx: &mut DeploymentRead<'_>,
    referenced: &Referenced,
    after: Option<&After>,
    limit: i64,
) -> Result<Vec<After>, StoreError> {
    let Referenced { table, having, .. } = *referenced;
    let sql = format!(
        "SELECT zone_id, id FROM {table}
         WHERE {having} AND (zone_id > ?1 OR (zone_id = ?1 AND id > ?2)) ORDER BY zone_id, id LIMIT ?3"
    );
    let (zone, last) = after.cloned().unwrap_or_default();
    let rows = tx.tx().query(&sql, params![zone, last, limit]).await?;
    rows.into_iter()
        .map(|row| {
            let mut columns = row.columns(table);
            Ok((columns.next()?, columns.next()?))
        })
        .collect()
}

/// Every column of raw bytes there is, as table and column: for whoever makes sure that none was forgotten.
pub async fn list_raw_columns(tx: &mut DeploymentRead<'_>) -> Result<Vec<(String, String)>, StoreError> {
    let tx: &mut Tx = tx.tx();
    let sql = match tx.is_embedded() {
        true => {
            "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_xinfo(t.name) c
             WHERE t.type = 'table' AND c.type = 'BLOB' ORDER BY t.name, c.name"
        }
        false => {
            "SELECT CAST(t.relname AS text), CAST(a.attname AS text)
             FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace JOIN pg_attribute a ON a.attrelid = t.oid
             WHERE n.nspname = current_schema() AND t.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
               AND a.atttypid = CAST('bytea' AS regtype)
             ORDER BY t.relname, a.attname"
        }
    };
    let rows = tx.query(sql, &[]).await?;
    rows.into_iter()
        .map(|row| {
            let mut columns = row.columns("schema");
            Ok((columns.next()?, columns.next()?))
        })
        .collect()
}
