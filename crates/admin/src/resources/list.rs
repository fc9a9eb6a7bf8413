//! `GET /v1/zones/{zone}/resources`. Zone tokens do not see the control resource.

use std::sync::Arc;

use caracal_store::resources::{self, Resource, ResourceFilter};
use http::Method;

use super::View;
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::page::Listing;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/resources",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::shows::<Listing<View>>("resources.list", "Lists the resources of a zone, newest first.")
        .asks(|query| query.page().and(query.archived()).map(drop)),
};

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let page = call.query.page()?;
    let archived = call.query.archived()?;
    let hidden = (!call.caller.is_global()).then(|| admin.config.control_audience.clone());
    let mut snapshot = admin.store.snapshot().await?;
    let filter = ResourceFilter { archived, hidden };
    let rows = resources::list(&mut snapshot.zone(&call.place.zone), &filter, &page).await?;
    let place = |row: &Resource| (row.attribution.created_at, row.id.to_string());
    Ok(Answer::ok(&Listing::of(&rows, &page, place, View::from)))
}
