//! `GET /v1/zones/{zone}/notification-sinks`.

use std::sync::Arc;

use caracal_store::notification_sinks::{self, Sink};
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
    path: "/v1/zones/{zone}/notification-sinks",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::shows::<Listing<View>>(
        "notification_sinks.list",
        "Lists the notification sinks of a zone, newest first.",
    )
    .in_pages(),
};

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let page = call.query.page()?;
    let mut snapshot = admin.store.snapshot().await?;
    let rows = notification_sinks::list(&mut snapshot.zone(&call.place.zone), &page).await?;
    Ok(Answer::ok(&Listing::of(&rows, &page, |row: &Sink| (row.created_at, row.id.to_string()), View::from)))
}
