//! `DELETE /v1/admin-tokens/{id}`: it stops with the commit, on every replica.

use std::sync::Arc;

use caracal_authority::AdminTokenId;
use caracal_store::admin_tokens;
use http::{Method, StatusCode};

use super::forbid_derived;
use crate::Admin;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Anywhere, Call, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::seed;

pub(crate) const ROUTE: Route = Route {
    method: Method::DELETE,
    path: "/v1/admin-tokens/{admin_token}",
    needs: Needs::Write,
    reach: Reach::Deployment(Run::Change(|admin, call| Box::pin(revoke(admin, call)))),
    spec: Spec::removes("admin_tokens.revoke", "Revokes an admin token.").refuses(&[
        (403, "admin_token_management_forbidden_for_derived_token"),
        (400, "invalid_admin_token_id"),
        (404, "admin_token_not_found"),
        (403, "bootstrap_token_required"),
    ]),
};

struct Change {
    id: AdminTokenId,
    is_bootstrap: bool,
    trace: Arc<Trace>,
}

async fn revoke(admin: Arc<Admin>, call: Call<Anywhere>) -> Result<Changed, Refusal> {
    forbid_derived(&call.caller)?;
    let missing = || Refusal::missing("admin_token_not_found");
    let id = call.id("admin_token").map_err(|_| missing())?;
    let change = Change { id, is_bootstrap: call.caller.is_bootstrap(), trace: call.trace };
    let recorded = admin
        .store
        .commit_deployment(change, |tx, change| {
            Box::pin(async move {
                let missing = || Refusal::missing("admin_token_not_found");
                let found = admin_tokens::lookup(tx, &change.id).await?;
                let token = found.filter(|token| token.revoked_at.is_none()).ok_or_else(missing)?;
                // Else any token that may write could lock the deployment's own operators out, for good.
                if seed::is_of_the_deployment(&token.created_by) && !change.is_bootstrap {
                    return Err(Refusal::forbidden("bootstrap_token_required").describe(
                        "tokens that come with CARACAL_ADMIN_TOKEN are revoked by the bootstrap token alone",
                    ));
                }
                admin_tokens::revoke(tx, &token.id).await?;
                change.trace.zoneless_change(tx, StatusCode::NO_CONTENT).await
            })
        })
        .await?;
    Ok(recorded.empty())
}
