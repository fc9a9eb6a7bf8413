//! `POST /v1/zones/{zone}/resources/{id}/test`: whether the upstream turns down a mandate that nobody issued. Changes
//! nothing; that it was asked is on record.

use std::sync::Arc;

use caracal_authority::ResourceId;
use http::{Method, StatusCode};

use super::existing;
use super::verification::{self, Checked};
use crate::Admin;
use crate::answer::Changed;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/resources/{id}/test",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(test(admin, call)))),
    spec: Spec::shows::<Checked>(
        "resources.test",
        "Tries out whether an upstream turns down a mandate that nobody issued.",
    )
    .refuses(&[
        (404, "resource_not_found"),
        (400, "resource_verification_unsupported"),
        (429, "resource_test_rate_limited"),
        (503, "service_unconfigured"),
    ]),
};

async fn test(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let (id, zone): (ResourceId, _) = (call.id("id")?, call.place.zone.clone());
    let mut snapshot = admin.store.snapshot().await?;
    let tx = &mut snapshot.zone(&zone);
    let resource = existing(tx, &id).await?;
    if admin.is_control(&resource.identifier) && !call.caller.is_global() {
        return Err(Refusal::missing("resource_not_found"));
    }
    if !verification::is_up_to_the_upstream(tx, resource.credential_provider_id.as_ref()).await? {
        return Err(verification::unsupported());
    }
    drop(snapshot);
    let checked = verification::check(&admin, &zone, &resource, call.now).await?;
    let recorded = admin
        .store
        .commit(&zone, call.trace, |tx, trace| Box::pin(async move { trace.change(tx, StatusCode::OK, None).await }))
        .await?;
    Ok(recorded.answer(&checked))
}
