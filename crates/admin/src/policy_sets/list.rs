//! `GET /v1/zones/{zone}/policy-sets`: all but archived ones.

use std::sync::Arc;

use caracal_store::policy_sets::{self, LatestSetVersion, PolicySet};
use http::Method;
use serde::Serialize;

use super::{LatestView, View};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::page::Listing;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/policy-sets",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list(admin, call)))),
    spec: Spec::shows::<Listing<Item>>("policy_sets.list", "Lists the policy sets of a zone, newest first.").in_pages(),
};

described! {
    #[derive(Serialize)]
    struct Item<'a> {
        #[serde(flatten)]
        set: View<'a>,
        latest_version: Option<LatestView<'a>>,
    }
}

impl<'a> From<&'a (PolicySet, Option<LatestSetVersion>)> for Item<'a> {
    fn from((set, latest): &'a (PolicySet, Option<LatestSetVersion>)) -> Self {
        Self { set: set.into(), latest_version: latest.as_ref().map(LatestView::from) }
    }
}

async fn list(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let page = call.query.page()?;
    let mut snapshot = admin.store.snapshot().await?;
    let rows = policy_sets::list(&mut snapshot.zone(&call.place.zone), &page).await?;
    let place = |row: &(PolicySet, _)| (row.0.attribution.created_at, row.0.id.to_string());
    Ok(Answer::ok(&Listing::of(&rows, &page, place, Item::from)))
}
