//! `GET /v1/zones/{zone}/dcr-status`: whether applications may register themselves, and how many that did are alive.

use std::sync::Arc;

use caracal_authority::ZoneId;
use caracal_store::oversight;
use http::Method;
use serde::Serialize;

use super::live;
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/dcr-status",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(dcr_status(admin, call)))),
    spec: Spec::shows::<Status>(
        "zones.dcr_status",
        "Tells whether applications may register themselves in a zone, and how many live ones did.",
    )
    .refuses(&[(404, "zone_not_found")]),
};

described! {
    #[derive(Serialize)]
    struct Status<'a> {
        id: &'a ZoneId,
        dcr_enabled: bool,
        live_dcr_applications: i64,
    }
}

async fn dcr_status(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(&call.place.zone);
    let zone = live(&mut tx).await?;
    let live_dcr_applications = oversight::count_live_registrations(&mut tx).await?;
    Ok(Answer::ok(&Status { id: &zone.id, dcr_enabled: zone.dcr_enabled, live_dcr_applications }))
}
