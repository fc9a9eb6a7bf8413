//! `GET /v1/audit-retention`.

use std::sync::Arc;

use caracal_store::retention;
use http::Method;

use super::View;
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Anywhere, Call, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/audit-retention",
    needs: Needs::Read,
    reach: Reach::Zones(Run::Read(|admin, call| Box::pin(read(admin, call)))),
    spec: Spec::shows::<View>("audit_retention.read", "Shows for how many days evidence is kept."),
};

async fn read(admin: Arc<Admin>, _: Call<Anywhere>) -> Result<Answer, Refusal> {
    let mut snapshot = admin.store.snapshot().await?;
    let set = retention::find(&mut snapshot.deployment()).await?;
    Ok(Answer::ok(&View::of(set.as_ref(), admin.config.retention_ceiling)))
}
