//! `DELETE /v1/zones/{zone}/policies/{id}`: the policy is archived and its name free. Sets are not touched: what is
//! active goes on deciding.

use std::sync::Arc;

use caracal_authority::PolicyId;
use caracal_store::policies;
use http::{Method, StatusCode};

use super::existing;
use crate::Admin;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;

pub(crate) const ROUTE: Route = Route {
    method: Method::DELETE,
    path: "/v1/zones/{zone}/policies/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(archive(admin, call)))),
    spec: Spec::removes("policies.archive", "Archives a policy.")
        .refuses(&[(404, "policy_not_found"), (409, "reserved_namespace")]),
};

struct Change {
    id: PolicyId,
    by: String,
    may_reserve: bool,
    trace: Arc<Trace>,
}

async fn archive(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let change = Change {
        id: call.id("id")?,
        by: call.caller.actor(),
        may_reserve: call.caller.is_bootstrap(),
        trace: call.trace,
    };
    let recorded = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                let policy = existing(tx, &change.id).await?;
                reserved::guard(change.may_reserve, &policy.name, reserved::NAME)?;
                policies::archive(tx, &change.id, &change.by).await?;
                change.trace.change(tx, StatusCode::NO_CONTENT, None).await
            })
        })
        .await?;
    Ok(recorded.empty())
}
