//! `GET /v1/zones/{zone}/approvals`: newest first, by state, tier, principal and time.

use std::sync::Arc;

use caracal_authority::Timestamp;
use caracal_authority::approval::HoldState;
use caracal_store::approvals::{self, ApprovalFilter};
use http::Method;

use super::{View, names, views};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::page::{Listing, Query};
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/approvals",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::shows::<Listing<View>>("approvals.list", "Lists the approvals of a zone, newest first.")
        .asks(|query| query.page().and(filter(query)).map(drop)),
};

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let page = call.query.page()?;
    let filter = filter(&call.query)?;
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(&call.place.zone);
    let rows = approvals::list(&mut tx, &filter, &page).await?;
    let shown = views(&mut tx, rows).await?;
    let place = |view: &View| (view.created_at, view.id.to_string());
    Ok(Answer::ok(&Listing::of(&shown, &page, place, |view| view)))
}

fn filter(query: &Query) -> Result<ApprovalFilter, Refusal> {
    // Inclusive to the end of the millisecond that is shown: who asks for an hold's own time is shown that hold.
    let end = |until: Timestamp| until.plus(std::time::Duration::from_micros(999));
    Ok(ApprovalFilter {
        state: query.choice("state", &names())?.and_then(HoldState::parse),
        tier: query.bounded("tier", 1, 64)?.map(str::to_owned),
        principal: query.bounded("principal", 1, 128)?.map(str::to_owned),
        since: query.instant("since")?,
        until: query.instant("until")?.map(end),
    })
}
