//! `POST /v1/zones/{zone}/workloads/{id}/rotate-secret`: a hard cut-over. The old secret stops with the commit, and goes on
//! working if anything of the change fails.

use std::sync::Arc;

use caracal_authority::WorkloadId;
use caracal_store::workloads;
use http::{Method, StatusCode};

use super::secret::NewSecret;
use super::{WithSecret, existing, missing};
use crate::Admin;
use crate::answer::Changed;
use crate::attribution::changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/workloads/{id}/rotate-secret",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(rotate(admin, call)))),
    spec: Spec::shows::<WithSecret>(
        "workloads.rotate_secret",
        "Gives a workload another secret, and shows it. The old one stops at once.",
    )
    .refuses(&[
        (404, "workload_not_found"),
        (502, "secret_backend_unavailable"),
        (503, "secret_hashing_unavailable"),
    ]),
};

struct Change {
    id: WorkloadId,
    secret: Arc<NewSecret>,
    by: String,
    trace: Arc<Trace>,
}

async fn rotate(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let (id, zone): (WorkloadId, _) = (call.id("id")?, call.place.zone.clone());
    let mut snapshot = admin.store.snapshot().await?;
    existing(&mut snapshot.zone(&zone), &id).await?;
    drop(snapshot);
    let secret = Arc::new(NewSecret::draw(&admin, &zone, &id).await?);
    let change = Change { id, secret: secret.clone(), by: call.caller.actor(), trace: call.trace };
    let committing = admin.store.commit(&zone, change, |tx, change| {
        Box::pin(async move {
            let mut workload = existing(tx, &change.id).await?;
            workload.secret_hash.clone_from(&change.secret.hash);
            changed(&mut workload.attribution, &change.by, tx.now());
            if !workloads::update(tx, &workload).await? {
                return Err(missing());
            }
            change.secret.keep(tx).await?;
            let recorded = change.trace.change(tx, StatusCode::OK, None).await?;
            Ok::<_, Refusal>((workload, recorded))
        })
    });
    let (workload, recorded) = secret.staged(committing).await?;
    Ok(recorded.answer(&WithSecret::of(&workload, secret.value.expose())?))
}
