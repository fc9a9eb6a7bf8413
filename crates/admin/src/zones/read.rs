//! `GET /v1/zones/{zone}`.

use std::sync::Arc;

use http::Method;

use super::{View, live};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(read(admin, call)))),
    spec: Spec::shows::<View>("zones.read", "Shows a zone.").refuses(&[(404, "zone_not_found")]),
};

async fn read(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let mut snapshot = admin.store.snapshot().await?;
    let zone = live(&mut snapshot.zone(&call.place.zone)).await?;
    Ok(Answer::ok(&View::from(&zone)))
}
