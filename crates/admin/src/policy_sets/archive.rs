//! `DELETE /v1/zones/{zone}/policy-sets/{id}`: the set is archived. If it decided, nothing does any more, from this very
//! commit on: the zone denies everything.

use std::sync::Arc;

use caracal_authority::{OutboxId, PolicySetId};
use caracal_store::policy_sets;
use http::{Method, StatusCode};

use super::announce;
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::DELETE,
    path: "/v1/zones/{zone}/policy-sets/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(archive(admin, call)))),
    spec: Spec::removes("policy_sets.archive", "Archives a policy set.").refuses(&[(404, "policy_set_not_found")]),
};

struct Change {
    set: PolicySetId,
    message: OutboxId,
    by: String,
    trace: Arc<Trace>,
}

async fn archive(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let change = Change { set: call.id("id")?, message: fresh(call.now)?, by: call.caller.actor(), trace: call.trace };
    let recorded = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                if !policy_sets::archive(tx, &change.set, &change.by).await? {
                    return Err(Refusal::missing("policy_set_not_found"));
                }
                if policy_sets::deactivate(tx, &change.set).await? {
                    announce(tx, &change.message, &change.set, None).await?;
                }
                change.trace.change(tx, StatusCode::NO_CONTENT, None).await
            })
        })
        .await?;
    Ok(recorded.empty())
}
