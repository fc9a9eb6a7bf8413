//! `GET /v1/zones/{zone}/workloads/{id}/secret`: shows the secret once more, to a token that may write (difference D12).

use std::sync::Arc;

use caracal_custody::workload_secret_ref;
use caracal_ledger::{Metadata, MetadataKey};
use http::Method;
use serde::Serialize;

use super::existing;
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reveal::Reveal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/workloads/{id}/secret",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(reveal(admin, call)))),
    spec: Spec::shows::<Revealed>("workloads.reveal_secret", "Shows the secret of a workload, once that is on record.")
        .refuses(&[
            (404, "workload_not_found"),
            (404, "workload_secret_not_stored"),
            (502, "secret_backend_unavailable"),
            (500, "audit_unavailable"),
        ]),
};

described! {
    #[derive(Serialize)]
    struct Revealed<'s> {
        secret: &'s str,
    }
}

async fn reveal(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let (id, zone) = (call.id("id")?, &call.place.zone);
    let mut snapshot = admin.store.snapshot().await?;
    let workload = existing(&mut snapshot.zone(zone), &id).await?;
    let reveal = Reveal {
        zone,
        reference: &workload_secret_ref(zone, &id),
        missing: "workload_secret_not_stored",
        metadata: Metadata::new()
            .with(MetadataKey::Credential, "workload_secret")
            .with(MetadataKey::WorkloadId, workload.id.as_str())
            .with(MetadataKey::WorkloadName, workload.name.as_str())
            .with(MetadataKey::Actor, call.caller.actor()),
        request_id: call.trace.request_id(),
        now: call.now,
    };
    let secret = reveal.secret(&admin, snapshot).await?;
    Ok(Answer::ok(&Revealed { secret: secret.expose() }))
}
