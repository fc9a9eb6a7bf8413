//! `DELETE /v1/zones/{zone}/policies/{id}`: the policy is archived and its name free. Sets are not touched: what is
//! active goes on deciding.

use std::sync::Arc;

use caracal_authority::PolicyId;
use caracal_store::ZoneWrite;
use caracal_store::policies::{self, Policy};
use http::{Method, StatusCode};

use super::existing;
use crate::Admin;
use crate::answer::Changed;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::hand::Hand;
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

async fn archive(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let (id, hand): (PolicyId, _) = (call.id("id")?, Hand::of(&admin, &call));
    let recorded = admin
        .store
        .commit(&call.place.zone, (id, hand), |tx, (id, hand)| {
            Box::pin(async move {
                let policy = existing(tx, id).await?;
                end(tx, hand, &policy).await?;
                hand.trace.change(tx, StatusCode::NO_CONTENT, None).await
            })
        })
        .await?;
    Ok(recorded.empty())
}

/// Archives the policy, in the commit that records it.
pub(crate) async fn end(tx: &mut ZoneWrite<'_>, hand: &Hand, policy: &Policy) -> Result<(), Refusal> {
    hand.guard(&policy.name, reserved::NAME)?;
    policies::archive(tx, &policy.id, &hand.by).await?;
    Ok(())
}
