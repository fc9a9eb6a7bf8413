//! The tokens that come with the deployment's admin token (contract: admin-api.md §2.1; README D22).
//!
//! Every start stores the digests of the configured token and of the three the console derives from it, and revokes
//! their predecessors: a changed admin token ends the whole old family. A token that was revoked through the API stays
//! revoked, also when the process starts again with the same value.

use caracal_authority::AdminTokenId;
use caracal_crypto::chance::{ChanceUnavailable, uuid_v7};
use caracal_crypto::fast_hash::{ConsoleToken, token_digest};
use caracal_store::StoreError;
use caracal_store::admin_tokens::{self, AdminToken};

use crate::Admin;

/// `created_by` of the bootstrap token.
pub(crate) const BOOTSTRAP: &str = "env-bootstrap";
const DERIVED: [&str; 3] = ["env-derived", "env-derived-write", "env-derived-approve"];

/// Whether a token with this `created_by` is one of the console's.
pub(crate) fn is_derived(created_by: &str) -> bool {
    DERIVED.contains(&created_by)
}

/// Whether a token with this `created_by` comes with the deployment's admin token: it, and what is derived from it.
pub(crate) fn is_of_the_deployment(created_by: &str) -> bool {
    created_by == BOOTSTRAP || is_derived(created_by)
}

/// Why the tokens were not seeded. None of them was.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The store failed.
    #[error("the admin tokens could not be stored")]
    Store(#[from] StoreError),
    /// No randomness for an id.
    #[error(transparent)]
    Chance(#[from] ChanceUnavailable),
}

impl Admin {
    /// Makes sure that the configured admin token and those derived from it are known, and their predecessors are not.
    /// Does nothing when none is configured. Call it before serving, on every start.
    pub async fn seed(&self) -> Result<(), SeedError> {
        let Some(token) = &self.config.bootstrap_token else { return Ok(()) };
        let mut family = vec![("bootstrap", "write", BOOTSTRAP, token_digest(&self.token_key, token.expose()))];
        for derived in ConsoleToken::ALL {
            let (name, capability, created_by) = match derived {
                ConsoleToken::ReadOnly => ("console-read-only", "read", DERIVED[0]),
                ConsoleToken::Write => ("console-write", "write", DERIVED[1]),
                ConsoleToken::Approve => ("console-approve", "approve", DERIVED[2]),
            };
            let value = derived.derive(token.expose());
            family.push((name, capability, created_by, token_digest(&self.token_key, value.expose())));
        }
        let now = self.store.now();
        let mut rows = Vec::with_capacity(family.len());
        for (name, capability, created_by, digest) in family {
            let id = AdminTokenId::parse(&uuid_v7(now)?.to_string())
                .map_err(|error| StoreError::Statement { reason: error.to_string() })?;
            let row = AdminToken {
                id,
                name: name.to_owned(),
                scope: "global".to_owned(),
                capability: capability.to_owned(),
                zone_id: None,
                created_by: created_by.to_owned(),
                created_at: now,
                last_used_at: None,
                revoked_at: None,
                expires_at: None,
            };
            rows.push((row, digest));
        }
        let seeded: Result<(), StoreError> = self
            .store
            .commit_deployment(rows, |tx, rows| {
                Box::pin(async move {
                    for (row, digest) in rows {
                        if admin_tokens::find_by_digest(tx, digest).await?.is_none() {
                            admin_tokens::add(tx, row, digest).await?;
                        }
                        admin_tokens::revoke_predecessors(tx, &row.created_by, digest).await?;
                    }
                    Ok(())
                })
            })
            .await;
        Ok(seeded?)
    }
}
