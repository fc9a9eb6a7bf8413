//! For how many days evidence is kept, as operators set it (contract: admin-api.md §5.11, audit-and-streams.md §5.5). One
//! for the deployment.

use caracal_authority::Timestamp;
use serde::{Deserialize, Serialize};

use crate::deployment;
use crate::error::StoreError;
use crate::tx::{DeploymentRead, DeploymentWrite};

const NAME: &str = "audit_retention";

/// The retention that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRetention {
    /// Days, at least 1.
    pub days: u32,
    /// Who set it.
    pub updated_by: String,
    /// When.
    pub updated_at: Timestamp,
}

/// As it lies in the store; the time in microseconds, as everywhere there.
#[derive(Serialize, Deserialize)]
struct Stored {
    days: u32,
    updated_by: String,
    updated_at: i64,
}

/// The retention, if one was ever set.
pub async fn find(tx: &mut DeploymentRead<'_>) -> Result<Option<AuditRetention>, StoreError> {
    let Some(text) = deployment::lookup(tx, NAME).await? else { return Ok(None) };
    let stored: Option<Stored> = serde_json::from_str(&text).ok().filter(|stored: &Stored| stored.days > 0);
    let Stored { days, updated_by, updated_at } = stored.ok_or_else(|| StoreError::Corrupt {
        table: "deployment",
        what: format!("`{NAME}` does not hold a number of days; set it again"),
    })?;
    Ok(Some(AuditRetention { days, updated_by, updated_at: Timestamp::from_micros(updated_at) }))
}

/// Sets the retention, as of now.
pub async fn set(tx: &mut DeploymentWrite<'_>, days: u32, by: &str) -> Result<AuditRetention, StoreError> {
    let retention = AuditRetention { days, updated_by: by.to_owned(), updated_at: tx.now() };
    let stored = Stored { days, updated_by: by.to_owned(), updated_at: retention.updated_at.as_micros() };
    deployment::put(tx, NAME, &crate::json_text(&stored)).await?;
    Ok(retention)
}
