//! `GET /v1/zones/{zone}/workloads`.

use std::sync::Arc;

use caracal_store::workloads;
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
    path: "/v1/zones/{zone}/workloads",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::shows::<Listing<View>>("workloads.list", "Lists the workloads of a zone, newest first.").in_pages(),
};

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let page = call.query.page()?;
    let mut snapshot = admin.store.snapshot().await?;
    let rows = workloads::list(&mut snapshot.zone(&call.place.zone), &page).await?;
    let shown = rows.iter().map(|row| Ok((row, View::of(row)?))).collect::<Result<Vec<_>, Refusal>>()?;
    let place = |(row, _): &(&workloads::Workload, View<'_>)| (row.attribution.created_at, row.id.to_string());
    Ok(Answer::ok(&Listing::of(&shown, &page, place, |(_, view)| view)))
}
