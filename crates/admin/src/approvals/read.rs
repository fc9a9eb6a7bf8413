//! `GET /v1/zones/{zone}/approvals/{id}`.

use std::sync::Arc;

use http::Method;

use super::{MISSING, View, existing, views};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/approvals/{id}",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(read(admin, call)))),
    spec: Spec::shows::<View>("approvals.read", "Shows an approval.").refuses(&[(404, "approval_not_found")]),
};

async fn read(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let id = call.id("id")?;
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(&call.place.zone);
    let row = existing(&mut tx, &id).await?;
    let shown = views(&mut tx, vec![row]).await?.pop();
    Ok(Answer::ok(&shown.ok_or_else(|| Refusal::missing(MISSING))?))
}
