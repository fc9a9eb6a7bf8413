//! `GET /v1/zones/{zone}/workloads/{id}`.

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
    path: "/v1/zones/{zone}/workloads/{id}",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(read(admin, call)))),
    spec: Spec::shows::<View>("workloads.read", "Shows a workload.").refuses(&[(404, "workload_not_found")]),
};

async fn read(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let id = call.id("id")?;
    let mut snapshot = admin.store.snapshot().await?;
    let workload = existing(&mut snapshot.zone(&call.place.zone), &id).await?;
    Ok(Answer::ok(&View::of(&workload)?))
}
