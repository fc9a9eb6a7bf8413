//! The working limit of mints that operators set (contract: sts.md §12, admin-api.md §5.11). One for the deployment.

use caracal_authority::Timestamp;
use serde::{Deserialize, Serialize};

use crate::deployment;
use crate::error::StoreError;
use crate::tx::{DeploymentRead, DeploymentWrite};

const NAME: &str = "mint_rate_limit";

/// The limit that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MintLimit {
    /// Mints per minute, zone, resource and application; at least 1.
    pub per_minute: u32,
    /// Who set it.
    pub updated_by: String,
    /// When.
    pub updated_at: Timestamp,
}

/// As it lies in the store; the time in microseconds, as everywhere there.
#[derive(Serialize, Deserialize)]
struct Stored {
    per_minute: u32,
    updated_by: String,
    updated_at: i64,
}

/// The limit, if one was ever set.
pub async fn find(tx: &mut DeploymentRead<'_>) -> Result<Option<MintLimit>, StoreError> {
    let Some(text) = deployment::lookup(tx, NAME).await? else { return Ok(None) };
    let stored: Option<Stored> = serde_json::from_str(&text).ok().filter(|stored: &Stored| stored.per_minute > 0);
    let Stored { per_minute, updated_by, updated_at } = stored.ok_or_else(|| StoreError::Corrupt {
        table: "deployment",
        what: format!("`{NAME}` does not hold a limit; set it again"),
    })?;
    Ok(Some(MintLimit { per_minute, updated_by, updated_at: Timestamp::from_micros(updated_at) }))
}

/// Sets the limit, as of now.
pub async fn set(tx: &mut DeploymentWrite<'_>, per_minute: u32, by: &str) -> Result<MintLimit, StoreError> {
    let limit = MintLimit { per_minute, updated_by: by.to_owned(), updated_at: tx.now() };
    let stored = Stored { per_minute, updated_by: by.to_owned(), updated_at: limit.updated_at.as_micros() };
    deployment::put(tx, NAME, &crate::json_text(&stored)).await?;
    Ok(limit)
}
