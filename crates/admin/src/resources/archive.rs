//! `DELETE /v1/zones/{zone}/resources/{id}`: it is archived, and what was lent or granted for it ends with the same commit
//! (README D19). The control resource is there for as long as Control is.

use std::sync::Arc;

use caracal_authority::ResourceId;
use caracal_store::resources;
use http::{Method, StatusCode};

use super::existing;
use crate::Admin;
use crate::answer::Changed;
use crate::endings;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
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

struct Change {
    id: ResourceId,
    control: String,
    by: String,
    may_reserve: bool,
    trace: Arc<Trace>,
}

async fn archive(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let change = Change {
        id: call.id("id")?,
        control: admin.config.control_audience.clone(),
        by: call.caller.actor(),
        may_reserve: call.caller.is_bootstrap(),
        trace: call.trace,
    };
    let recorded = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                let resource = existing(tx, &change.id).await?;
                if resource.identifier == change.control {
                    return Err(Refusal::conflict("protected_resource"));
                }
                reserved::guard(change.may_reserve, &resource.identifier, reserved::RESOURCE)?;
                resources::archive(tx, &change.id, &change.by).await?;
                let ended = endings::of_resource(tx, &resource, REASON).await?;
                change.trace.telling(ended).change(tx, StatusCode::NO_CONTENT, None).await
            })
        })
        .await?;
    Ok(recorded.empty())
}
