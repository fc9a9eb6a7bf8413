//! `GET /v1/zones/{zone}/grants/{id}`, revoked or not.

use std::sync::Arc;

use caracal_store::grants;
use http::Method;

use super::View;
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/grants/{id}",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(read(admin, call)))),
    spec: Spec::shows::<View>("grants.read", "Shows a grant.").refuses(&[(404, "grant_not_found")]),
};

async fn read(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let id = call.id("id")?;
    let mut snapshot = admin.store.snapshot().await?;
    let found = grants::lookup(&mut snapshot.zone(&call.place.zone), &id).await?;
    let grant = found.ok_or_else(|| Refusal::missing("grant_not_found"))?;
    Ok(Answer::ok(&View::from(&grant)))
}
