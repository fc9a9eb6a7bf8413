//! Admin tokens (contract: admin-api.md §2.3; README D12, D22; threat T12).
//!
//! Whoever holds a token that may write can make others, and that is the way in which one foothold would grow: into the
//! right to approve, into a token that outlives it, into the end of the token that the operators themselves depend on.
//! So a token makes only tokens that can do what it can, for no longer than it lives; and those of the deployment's own
//! family are revoked by the bootstrap token alone.

pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod revoke;

use caracal_authority::{AdminTokenId, Timestamp, ZoneId};
use caracal_store::admin_tokens::AdminToken;
use serde::Serialize;

use crate::gate::Caller;
use crate::openapi::shape::described;
use crate::problem::Refusal;
use crate::seed;

described! {
    /// What every answer about a token has. Its digest is in none.
    #[derive(Serialize)]
    struct Core<'a> {
        id: &'a AdminTokenId,
        name: &'a str,
        scope: &'a str,
        capability: &'a str,
        zone_id: Option<&'a ZoneId>,
        created_by: &'a str,
        created_at: Timestamp,
        expires_at: Option<Timestamp>,
    }
}

impl<'a> From<&'a AdminToken> for Core<'a> {
    fn from(token: &'a AdminToken) -> Self {
        Self {
            id: &token.id,
            name: &token.name,
            scope: &token.scope,
            capability: &token.capability,
            zone_id: token.zone_id.as_ref(),
            created_by: &token.created_by,
            created_at: token.created_at,
            expires_at: token.expires_at,
        }
    }
}

/// The console's tokens speak for accounts, and an account has no business with the deployment's tokens. Reached where no
/// admin token is configured any more, so that no account can be proven either.
fn forbid_derived(caller: &Caller) -> Result<(), Refusal> {
    if seed::is_derived(&caller.token().created_by) {
        return Err(Refusal::forbidden("admin_token_management_forbidden_for_derived_token"));
    }
    Ok(())
}
