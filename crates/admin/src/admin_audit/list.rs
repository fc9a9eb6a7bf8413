//! `GET /v1/zones/{zone}/admin-audit`: the zone's management chain, newest first, as JSON or CSV.

use std::sync::Arc;

use caracal_store::admin_evidence;
use http::Method;

use super::{Asked, View};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::Chosen;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/admin-audit",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::in_files::<Chosen<View>>(
        "admin_audit.list",
        "Lists what was done to a zone through this API, newest first, as JSON or as a CSV file.",
    )
    .asks(|query| Asked::of(query).map(drop)),
};

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let asked = Asked::of(&call.query)?;
    let mut snapshot = admin.store.snapshot().await?;
    let rows = admin_evidence::list(&mut snapshot.zone(&call.place.zone), &asked.filter, &asked.page).await?;
    drop(snapshot);
    asked.answer(&rows, call.place.zone.as_str())
}
