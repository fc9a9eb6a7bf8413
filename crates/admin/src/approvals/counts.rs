//! `GET /v1/zones/{zone}/approvals/counts`: how many there are of each state.

use std::sync::Arc;

use caracal_store::approvals;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::names;
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::Definitions;
use crate::openapi::spec::{Content, Spec};
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/approvals/counts",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(counts(admin, call)))),
    spec: Spec::of("approvals.counts", "Counts the approvals of each state.", StatusCode::OK, Content::Json(schema)),
};

fn schema(_: &mut Definitions) -> Value {
    let properties: Map<String, Value> =
        names().into_iter().map(|name| (name.to_owned(), json!({"type": "integer", "minimum": 0}))).collect();
    json!({"type": "object", "properties": properties, "required": names()})
}

async fn counts(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let mut snapshot = admin.store.snapshot().await?;
    let found = approvals::count_by_state(&mut snapshot.zone(&call.place.zone)).await?;
    let mut counts: Map<String, Value> = names().into_iter().map(|name| (name.to_owned(), 0.into())).collect();
    counts.extend(found.into_iter().map(|(state, count)| (state.as_str().to_owned(), count.into())));
    Ok(Answer::ok(&counts))
}
