//! What is known to be wrong with the ledger, so that it is told once while it stands, and once more when it comes back. One
//! for the deployment, because one process sweeps for all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::deployment;
use crate::error::StoreError;
use crate::tx::{DeploymentRead, DeploymentWrite};
use crate::value::{Bind, params};

const NAME: &str = "ledger_incidents";

/// The incidents that stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Of each chain, by what tells them apart: the request id under which each was recorded.
    pub chains: BTreeMap<String, BTreeMap<String, String>>,
}

impl Standing {
    /// Under which request an incident was recorded; none of one that does not stand.
    pub fn request_of(&self, chain: &str, identity: &str) -> Option<&str> {
        self.chains.get(chain)?.get(identity).map(String::as_str)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.chains.values().map(BTreeMap::len).sum()
    }
}

/// What stands. A note that can't be read counts as none: then everything is told again, and nothing is kept back.
pub async fn find(tx: &mut DeploymentRead<'_>) -> Result<Standing, StoreError> {
    let text = deployment::lookup(tx, NAME).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

/// Notes what stands from now on.
pub async fn set(tx: &mut DeploymentWrite<'_>, standing: &Standing) -> Result<(), StoreError> {
    let text = crate::json_text(standing);
    // Appended as evidence is: nobody's authority depends on it, so no decision has to be made anew.
    let sql =
        "INSERT INTO deployment (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    tx.tx().append(sql, params![NAME, text]).await.map(|_| ())
}
