//! `GET /v1/admin-audit`: what was changed or refused that belongs to no zone, newest first, as JSON or CSV.

use std::sync::Arc;

use caracal_store::admin_evidence;
use http::Method;

use super::{Asked, View};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Anywhere, Call, Needs, Reach, Route, Run};
use crate::openapi::shape::Chosen;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/admin-audit",
    needs: Needs::Read,
    reach: Reach::Deployment(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::in_files::<Chosen<View>>(
        "admin_audit.list_zoneless",
        "Lists what was done through this API to what belongs to no zone, newest first.",
    )
    .asks(|query| Asked::of(query).map(drop)),
};

async fn list(admin: Arc<Admin>, call: Call<Anywhere>) -> Result<Answer, Refusal> {
    let asked = Asked::of(&call.query)?;
    let mut snapshot = admin.store.snapshot().await?;
    let rows = admin_evidence::list_zoneless(&mut snapshot.deployment(), &asked.filter, &asked.page).await?;
    drop(snapshot);
    asked.answer(&rows, "deployment")
}
