//! `GET /v1/zones/{zone}/policy-sets/{id}/versions`.

use std::sync::Arc;

use caracal_store::policy_sets::{self, PolicySetVersion};
use http::Method;

use super::{VersionView, existing};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::page::Listing;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/policy-sets/{id}/versions",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(list_versions(admin, call)))),
    spec: Spec::shows::<Listing<VersionView>>(
        "policy_sets.list_versions",
        "Lists the versions of a policy set, newest first.",
    )
    .in_pages()
    .refuses(&[(404, "policy_set_not_found")]),
};

async fn list_versions(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let page = call.query.page()?;
    let id = call.id("id")?;
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(&call.place.zone);
    existing(&mut tx, &id, "policy_set_not_found").await?;
    let rows = policy_sets::list_versions(&mut tx, &id, &page).await?;
    let place = |row: &PolicySetVersion| (row.created_at, row.id.to_string());
    Ok(Answer::ok(&Listing::of(&rows, &page, place, VersionView::from)))
}
