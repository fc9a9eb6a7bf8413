//! `DELETE /v1/zones/{zone}/subject-issuers/{id}`: from now on nobody is taken in under it, and its issuer is free.
//! Authority that was minted under it lives on.

use std::sync::Arc;

use caracal_authority::SubjectIssuerId;
use caracal_store::subject_issuers;
use http::{Method, StatusCode};

use super::missing;
use crate::Admin;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::DELETE,
    path: "/v1/zones/{zone}/subject-issuers/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(archive(admin, call)))),
    spec: Spec::removes("subject_issuers.archive", "Archives the registration of an issuer.")
        .refuses(&[(404, "subject_issuer_not_found")]),
};

struct Change {
    id: SubjectIssuerId,
    by: String,
    trace: Arc<Trace>,
}

async fn archive(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let change = Change { id: call.id("id")?, by: call.caller.actor(), trace: call.trace };
    let recorded = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                if !subject_issuers::archive(tx, &change.id, &change.by).await? {
                    return Err(missing());
                }
                change.trace.change(tx, StatusCode::NO_CONTENT, None).await
            })
        })
        .await?;
    Ok(recorded.empty())
}
