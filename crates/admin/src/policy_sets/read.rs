//! `GET /v1/zones/{zone}/policy-sets/{id}`.

use std::sync::Arc;

use http::Method;

use super::{View, existing};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/policy-sets/{id}",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(read(admin, call)))),
    spec: Spec::shows::<View>("policy_sets.read", "Shows a policy set.").refuses(&[(404, "policy_set_not_found")]),
};

async fn read(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let id = call.id("id")?;
    let mut snapshot = admin.store.snapshot().await?;
    let set = existing(&mut snapshot.zone(&call.place.zone), &id, "policy_set_not_found").await?;
    Ok(Answer::ok(&View::from(&set)))
}
