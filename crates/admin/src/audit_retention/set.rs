//! `PUT /v1/audit-retention`.

use std::sync::Arc;

use caracal_store::retention;
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
    path: "/v1/audit-retention",
    needs: Needs::Write,
    reach: Reach::Zones(Run::Change(|admin, call| Box::pin(set(admin, call)))),
    spec: Spec::shows::<View>("audit_retention.set", "Sets for how many days evidence is kept.")
        .takes("invalid_body", |body| asked(body).map(drop))
        .refuses(&[(400, "retention_above_limit")]),
};

struct Change {
    days: u32,
    by: String,
    trace: Arc<Trace>,
}

async fn set(admin: Arc<Admin>, mut call: Call<Anywhere>) -> Result<Changed, Refusal> {
    let ceiling = admin.config.retention_ceiling;
    let asked = asked(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_body"))?;
    let days = u32::try_from(asked).ok().filter(|asked| *asked <= ceiling).ok_or_else(|| {
        let why =
            format!("evidence is kept for {ceiling} days at most: raise AUDIT_RETENTION_DAYS of every process first");
        Refusal::invalid("retention_above_limit").describe(why).member("max_days", ceiling)
    })?;
    let change = Change { days, by: call.caller.actor(), trace: call.trace };
    let (set, recorded) = admin
        .store
        .commit_deployment(change, |tx, change| {
            Box::pin(async move {
                let set = retention::set(tx, change.days, &change.by).await?;
                let recorded = change.trace.zoneless_change(tx, StatusCode::OK).await?;
                Ok::<_, Refusal>((set, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&View::of(Some(&set), ceiling)))
}

fn asked(body: impl Into<Body>) -> Result<u64, Mismatch> {
    let mut fields = Fields::of(body)?;
    let days = fields.required_count("retention_days")?;
    fields.nothing_else()?;
    Ok(days)
}
