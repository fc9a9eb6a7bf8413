//! Settings of the deployment itself: named text values.

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
