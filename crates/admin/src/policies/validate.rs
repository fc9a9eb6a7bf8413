//! `POST /v1/policies/validate`: the text check without storing anything. A read for every token, and, being a POST, on
//! record all the same (policy.md §10.7): in the chain of the token's zone, or in the one of what has no zone.

use std::sync::Arc;

use caracal_policy::text;
use http::{Method, StatusCode};

use super::{bad_text, content};
use crate::Admin;
use crate::answer::Changed;
use crate::gate::{Anywhere, Call, Needs, Reach, Route, Run};
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/policies/validate",
    needs: Needs::Read,
    reach: Reach::Catalogue(Run::Change(|admin, call| Box::pin(validate(admin, call)))),
};

async fn validate(admin: Arc<Admin>, mut call: Call<Anywhere>) -> Result<Changed, Refusal> {
    let content = content(call.body.take())?;
    let validation = text::check(&content).map(|checked| checked.validation()).map_err(|defect| {
        let mut refusal = bad_text(&defect);
        refusal.problem = refusal.problem.member("valid", false);
        refusal
    })?;
    let trace = call.trace;
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
