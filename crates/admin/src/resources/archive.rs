//! `DELETE /v1/zones/{zone}/resources/{id}`: it is archived, and what was lent or granted for it ends with the same commit
//! (README D19). The control resource is there for as long as Control is.

use std::sync::Arc;

use caracal_authority::ResourceId;
use caracal_store::ZoneWrite;
use caracal_store::resources::{self, Resource};
use http::{Method, StatusCode};

use super::existing;
use crate::Admin;
use crate::answer::Changed;
use crate::endings::{self, Ended};
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::hand::Hand;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;

pub(crate) const ROUTE: Route = Route {
    method: Method::DELETE,
    path: "/v1/zones/{zone}/resources/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(archive(admin, call)))),
    spec: Spec::removes("resources.archive", "Archives a resource.").refuses(&[
        (404, "resource_not_found"),
        (409, "protected_resource"),
        (409, "reserved_namespace"),
    ]),
};

const REASON: &str = "resource_archived";

async fn archive(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let (id, hand): (ResourceId, _) = (call.id("id")?, Hand::of(&admin, &call));
    let recorded = admin
        .store
        .commit(&call.place.zone, (id, hand), |tx, (id, hand)| {
            Box::pin(async move {
                let resource = existing(tx, id).await?;
                let ended = end(tx, hand, &resource).await?;
                hand.trace.telling(ended).change(tx, StatusCode::NO_CONTENT, None).await
            })
        })
        .await?;
    Ok(recorded.empty())
}

/// Archives the resource, in the commit that records it.
pub(crate) async fn end(tx: &mut ZoneWrite<'_>, hand: &Hand, resource: &Resource) -> Result<Ended, Refusal> {
    if resource.identifier == hand.control {
        return Err(Refusal::conflict("protected_resource"));
    }
    hand.guard(&resource.identifier, reserved::RESOURCE)?;
    resources::archive(tx, &resource.id, &hand.by).await?;
    endings::of_resource(tx, resource, REASON).await
}
