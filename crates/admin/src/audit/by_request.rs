//! `GET /v1/zones/{zone}/audit/by-request/{request}`: all that one request left behind, oldest first; a bare array.

use std::sync::Arc;

use caracal_store::evidence::{self, EvidenceRow};
use http::Method;

use super::View;
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/audit/by-request/{request}",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(by_request(admin, call)))),
    spec: Spec::shows::<Vec<View>>("audit.by_request", "Lists the events of one request, oldest first.")
        .refuses(&[(404, "request_not_found")]),
};

async fn by_request(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let rows = events(&admin, &call).await?;
    Ok(Answer::ok(&rows.iter().map(View::from).collect::<Vec<_>>()))
}

/// The events of the request that the path names; 404 when there are none.
pub(super) async fn events(admin: &Admin, call: &Call<InZone>) -> Result<Vec<EvidenceRow>, Refusal> {
    let request: String = call.id("request")?;
    let mut snapshot = admin.store.snapshot().await?;
    let rows = evidence::find_by_request(&mut snapshot.zone(&call.place.zone), &request).await?;
    if rows.is_empty() { Err(Refusal::missing("request_not_found")) } else { Ok(rows) }
}
