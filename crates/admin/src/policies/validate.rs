//! `POST /v1/policies/validate`: the text check without storing anything, and then the bundle check of the document by
//! itself: what no set could serve is not called valid (policy.md §7.1, last sentence). A read for every token, and, being a
//! POST, on record all the same (policy.md §10.7): in the chain of the token's zone, or in the one of what has no zone.

use std::sync::Arc;

use caracal_policy::text::{self, Validation};
use http::{Method, StatusCode};

use super::{bad_document, bad_text, content, invalid_body};
use crate::Admin;
use crate::answer::Changed;
use crate::gate::{Anywhere, Call, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::policy_sets::bundle;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/policies/validate",
    needs: Needs::Read,
    reach: Reach::Catalogue(Run::Change(|admin, call| Box::pin(validate(admin, call)))),
    spec: Spec::shows::<Validation>(
        "policies.validate",
        "Tells whether a text is a policy document that could be served.",
    )
    .takes("invalid_body", |body| content(body).map(drop))
    .refuses(&[(422, "invalid_rego"), (503, "policy_verification_unavailable")]),
};

async fn validate(admin: Arc<Admin>, mut call: Call<Anywhere>) -> Result<Changed, Refusal> {
    let content = content(call.body.take()).map_err(invalid_body)?;
    let not_valid = |mut refusal: Refusal| {
        refusal.problem = refusal.problem.member("valid", false);
        refusal
    };
    let validation =
        text::check(&content).map(|checked| checked.validation()).map_err(|defect| not_valid(bad_text(&defect)))?;
    let trace = call.trace;
    if let Err(defect) = bundle::check_alone(trace.chain(), content.clone()).await? {
        return Err(not_valid(bad_document(&defect)));
    }
    let recorded = match trace.chain().cloned() {
        Some(zone) => {
            admin
                .store
                .commit(&zone, trace, |tx, trace| Box::pin(async move { trace.change(tx, StatusCode::OK, None).await }))
                .await?
        }
        None => {
            admin
                .store
                .commit_deployment(trace, |tx, trace| {
                    Box::pin(async move { trace.zoneless_change(tx, StatusCode::OK).await })
                })
                .await?
        }
    };
    Ok(recorded.answer(&validation))
}
