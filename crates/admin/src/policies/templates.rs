//! `GET /v1/policy-templates`: a bare array (contract: policy.md §9).

use std::sync::Arc;

use caracal_policy::{TEMPLATES, Template};
use http::Method;

use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Anywhere, Call, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/policy-templates",
    needs: Needs::Read,
    reach: Reach::Catalogue(Run::Read(|admin, call| Box::pin(templates(admin, call)))),
    spec: Spec::shows::<Vec<Template>>("policies.templates", "Lists documents to start from."),
};

async fn templates(_admin: Arc<Admin>, _call: Call<Anywhere>) -> Result<Answer, Refusal> {
    Ok(Answer::ok(&TEMPLATES))
}
