//! `DELETE /v1/zones/{zone}/policy-sets/{id}`: the set is archived. If it decided, nothing does any more, from this very
//! commit on: the zone denies everything.

use std::sync::Arc;

use caracal_authority::{OutboxId, PolicySetId};
use caracal_store::{ZoneWrite, policy_sets};
use http::{Method, StatusCode};

use super::announce;
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::hand::Hand;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::DELETE,
    path: "/v1/zones/{zone}/policy-sets/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(archive(admin, call)))),
    spec: Spec::removes("policy_sets.archive", "Archives a policy set.").refuses(&[(404, "policy_set_not_found")]),
};

async fn archive(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let (set, message, hand): (PolicySetId, OutboxId, _) = (call.id("id")?, fresh(call.now)?, Hand::of(&admin, &call));
    let recorded = admin
        .store
        .commit(&call.place.zone, (set, message, hand), |tx, (set, message, hand)| {
            Box::pin(async move {
                end(tx, hand, set, message).await?;
                hand.trace.change(tx, StatusCode::NO_CONTENT, None).await
            })
        })
        .await?;
    Ok(recorded.empty())
}

/// Archives the set, in the commit that records it. `message` is the one that says that nothing decides any more.
pub(crate) async fn end(
    tx: &mut ZoneWrite<'_>,
    hand: &Hand,
    set: &PolicySetId,
    message: &OutboxId,
) -> Result<(), Refusal> {
    if !policy_sets::archive(tx, set, &hand.by).await? {
        return Err(Refusal::missing("policy_set_not_found"));
    }
    if policy_sets::deactivate(tx, set).await? {
        announce(tx, message, set, None).await?;
    }
    Ok(())
}
