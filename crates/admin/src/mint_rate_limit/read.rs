//! `GET /v1/mint-rate-limit`.

use std::sync::Arc;

use caracal_store::mint_limit;
use http::Method;

use super::View;
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Anywhere, Call, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/mint-rate-limit",
    needs: Needs::Read,
    reach: Reach::Zones(Run::Read(|admin, call| Box::pin(read(admin, call)))),
    spec: Spec::shows::<View>("mint_rate_limit.read", "Shows how many mandates a zone may be given per minute."),
};

async fn read(admin: Arc<Admin>, _: Call<Anywhere>) -> Result<Answer, Refusal> {
    let mut snapshot = admin.store.snapshot().await?;
    let limit = mint_limit::find(&mut snapshot.deployment()).await?;
    Ok(Answer::ok(&View::of(limit.as_ref(), admin.config.mint_rate_ceiling)))
}
