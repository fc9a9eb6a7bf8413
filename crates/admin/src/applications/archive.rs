//! `DELETE /v1/zones/{zone}/applications/{id}`: it is archived, its name is free, and all authority that it asked for ends with
//! the same commit (README D19).

use std::sync::Arc;

use caracal_authority::ApplicationId;
use caracal_custody::{SealedSecrets, application_secret_ref};
use caracal_store::applications;
use caracal_store::holdings::Holder;
use http::{Method, StatusCode};

use super::existing;
use crate::Admin;
use crate::answer::Changed;
use crate::custody;
use crate::endings;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
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

struct Change {
    id: ApplicationId,
    by: String,
    may_reserve: bool,
    reference: String,
    sealed: SealedSecrets,
    trace: Arc<Trace>,
}

async fn archive(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let id: ApplicationId = call.id("id")?;
    let reference = application_secret_ref(&call.place.zone, &id);
    let change = Change {
        id,
        by: call.caller.actor(),
        may_reserve: call.caller.is_bootstrap(),
        reference: reference.clone(),
        sealed: admin.sealed.clone(),
        trace: call.trace,
    };
    let recorded = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                let application = existing(tx, &change.id).await?;
                reserved::guard(change.may_reserve, &application.name, reserved::NAME)?;
                applications::archive(tx, &change.id, &change.by).await?;
                change.sealed.remove(tx, &change.reference).await?;
                let ended = endings::of_holder(tx, Holder::Client(&change.id), REASON.into()).await?;
                change.trace.telling(ended).change(tx, StatusCode::NO_CONTENT, None).await
            })
        })
        .await?;
    // A copy that stays behind in a backend opens nothing any more: nobody authenticates as what is archived.
    custody::forget(&admin.sealed, &reference).await;
    Ok(recorded.empty())
}
