//! `GET /v1/zones/{zone}/subject-issuers`: those in force.

use std::sync::Arc;

use caracal_store::subject_issuers::{self, SubjectIssuer};
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
    path: "/v1/zones/{zone}/subject-issuers",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::shows::<Listing<View>>(
        "subject_issuers.list",
        "Lists the issuers whose users a zone accepts, newest first.",
    )
    .in_pages(),
};

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let page = call.query.page()?;
    let mut snapshot = admin.store.snapshot().await?;
    let rows = subject_issuers::list(&mut snapshot.zone(&call.place.zone), &page).await?;
    let place = |row: &SubjectIssuer| (row.attribution.created_at, row.id.to_string());
    Ok(Answer::ok(&Listing::of(&rows, &page, place, View::from)))
}
