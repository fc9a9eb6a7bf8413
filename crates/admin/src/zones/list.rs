//! `GET /v1/zones`: all but archived and system zones; an account sees its own.

use std::sync::Arc;

use caracal_store::zones::{self, ZoneFilter};
use http::Method;

use super::View;
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Anywhere, Call, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::page::Listing;
use crate::problem::Refusal;
use crate::reserved;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones",
    needs: Needs::Read,
    reach: Reach::Zones(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::shows::<Listing<View>>("zones.list", "Lists the zones, newest first.").in_pages(),
};

async fn list(admin: Arc<Admin>, call: Call<Anywhere>) -> Result<Answer, Refusal> {
    let page = call.query.page()?;
    let filter = ZoneFilter {
        hidden_name_prefix: reserved::NAME.to_owned(),
        hidden_slug_prefix: reserved::SLUG.to_owned(),
        owner: call.caller.account().map(str::to_owned),
    };
    let mut snapshot = admin.store.snapshot().await?;
    let rows = zones::list_visible(&mut snapshot.deployment(), &filter, &page).await?;
    let place = |zone: &zones::Zone| (zone.attribution.created_at, zone.id.to_string());
    Ok(Answer::ok(&Listing::of(&rows, &page, place, View::from)))
}
