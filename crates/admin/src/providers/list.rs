//! `GET /v1/zones/{zone}/providers`.

use std::sync::Arc;

use caracal_store::providers::{self, Provider};
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
    path: "/v1/zones/{zone}/providers",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::shows::<Listing<View>>("providers.list", "Lists the credential providers of a zone, newest first.")
        .asks(|query| query.page().and(query.archived()).map(drop)),
};

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let page = call.query.page()?;
    let archived = call.query.archived()?;
    let mut snapshot = admin.store.snapshot().await?;
    let rows = providers::list(&mut snapshot.zone(&call.place.zone), archived, &page).await?;
    let place = |row: &Provider| (row.attribution.created_at, row.id.to_string());
    Ok(Answer::ok(&Listing::of(&rows, &page, place, View::from)))
}
