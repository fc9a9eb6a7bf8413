//! `PUT /v1/mint-rate-limit`.

use std::sync::Arc;

use caracal_store::mint_limit;
use http::{Method, StatusCode};

use super::View;
use crate::Admin;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Anywhere, Call, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::PUT,
    path: "/v1/mint-rate-limit",
    needs: Needs::Write,
    reach: Reach::Zones(Run::Change(|admin, call| Box::pin(set(admin, call)))),
    spec: Spec::shows::<View>("mint_rate_limit.set", "Sets how many mandates a zone may be given per minute.")
        .takes("invalid_body", |body| asked(body).map(drop))
        .refuses(&[(400, "rate_limit_above_ceiling")]),
};

struct Change {
    per_minute: u32,
    by: String,
    trace: Arc<Trace>,
}

async fn set(admin: Arc<Admin>, mut call: Call<Anywhere>) -> Result<Changed, Refusal> {
    let ceiling = admin.config.mint_rate_ceiling;
    let asked = asked(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_body"))?;
    let per_minute = u32::try_from(asked).ok().filter(|asked| *asked <= ceiling).ok_or_else(|| {
        let why =
            format!("the limit can be {ceiling} at most: raise STS_MINT_RATE_LIMIT_PER_MIN of every process first");
        Refusal::invalid("rate_limit_above_ceiling").describe(why).member("max_per_minute", ceiling)
    })?;
    let change = Change { per_minute, by: call.caller.actor(), trace: call.trace };
    let (limit, recorded) = admin
        .store
        .commit_deployment(change, |tx, change| {
            Box::pin(async move {
                let limit = mint_limit::set(tx, change.per_minute, &change.by).await?;
                let recorded = change.trace.zoneless_change(tx, StatusCode::OK).await?;
                Ok::<_, Refusal>((limit, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&View::of(Some(&limit), ceiling)))
}

fn asked(body: impl Into<Body>) -> Result<u64, Mismatch> {
    let mut fields = Fields::of(body)?;
    let limit = fields.required_count("limit_per_minute")?;
    fields.nothing_else()?;
    Ok(limit)
}
