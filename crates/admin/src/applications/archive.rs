//! `DELETE /v1/zones/{zone}/applications/{id}`: it is archived, its name is free, and all authority that it asked for ends with
//! the same commit (README D19).

use std::sync::Arc;

use caracal_authority::ApplicationId;
use caracal_custody::application_secret_ref;
use caracal_store::ZoneWrite;
use caracal_store::applications::{self, Application};
use caracal_store::holdings::Holder;
use http::{Method, StatusCode};

use super::existing;
use crate::Admin;
use crate::answer::Changed;
use crate::custody;
use crate::endings::{self, Ended};
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::hand::Hand;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;

pub(crate) const ROUTE: Route = Route {
    method: Method::DELETE,
    path: "/v1/zones/{zone}/applications/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(archive(admin, call)))),
    spec: Spec::removes("applications.archive", "Archives an application, and ends what acts through it.")
        .refuses(&[(404, "application_not_found"), (409, "reserved_namespace")]),
};

const REASON: &str = "application_archived";

async fn archive(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let (id, hand): (ApplicationId, _) = (call.id("id")?, Hand::of(&admin, &call));
    let reference = application_secret_ref(&call.place.zone, &id);
    let recorded = admin
        .store
        .commit(&call.place.zone, (id, hand), |tx, (id, hand)| {
            Box::pin(async move {
                let application = existing(tx, id).await?;
                let ended = end(tx, hand, &application).await?;
                hand.trace.telling(ended).change(tx, StatusCode::NO_CONTENT, None).await
            })
        })
        .await?;
    // A copy that stays behind in a backend opens nothing any more: nobody authenticates as what is archived.
    custody::forget(&admin.sealed, &reference).await;
    Ok(recorded.empty())
}

/// Archives the application, in the commit that records it.
pub(crate) async fn end(tx: &mut ZoneWrite<'_>, hand: &Hand, application: &Application) -> Result<Ended, Refusal> {
    hand.guard(&application.name, reserved::NAME)?;
    applications::archive(tx, &application.id, &hand.by).await?;
    hand.sealed.remove(tx, &application_secret_ref(&application.zone_id, &application.id)).await?;
    endings::of_holder(tx, Holder::Client(&application.id), REASON.into()).await
}
