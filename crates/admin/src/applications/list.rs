//! `GET /v1/zones/{zone}/applications`.

use std::sync::Arc;

use caracal_store::applications::{self, Application};
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
    path: "/v1/zones/{zone}/applications",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::shows::<Listing<View>>("applications.list", "Lists the applications of a zone, newest first.")
        .asks(|query| query.page().and(query.archived()).map(drop)),
};

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let page = call.query.page()?;
    let archived = call.query.archived()?;
    let mut snapshot = admin.store.snapshot().await?;
    let rows = applications::list(&mut snapshot.zone(&call.place.zone), archived, &page).await?;
    let place = |row: &Application| (row.attribution.created_at, row.id.to_string());
    let is_global = call.caller.is_global();
    Ok(Answer::ok(&Listing::of(&rows, &page, place, |row| View::of(row, is_global))))
}
