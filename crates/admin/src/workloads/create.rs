//! `POST /v1/zones/{zone}/workloads`: a workload with a fresh secret and nothing bound to it.
//!
//! The order of refusals is the contract's; the slow hash comes after everything that can be refused without it, and
//! what is refused by what is stored is judged once more inside the commit.

use std::sync::Arc;

use caracal_authority::WorkloadId;
use caracal_store::Attribution;
use caracal_store::workloads::{self, Bindings, Workload};
use http::Method;

use super::secret::NewSecret;
use super::{INVALID, NAME, View, WithSecret, require_free_name};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::zones::require_live_zone;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/workloads",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(create(admin, call)))),
    spec: Spec::creates::<WithSecret>("workloads.create", "Creates a workload, and shows its secret.")
        .takes(INVALID, |body| name(body).map(drop))
        .refuses(&[
            (404, "zone_not_found"),
            (409, "workload_name_taken"),
            (502, "secret_backend_unavailable"),
            (503, "secret_hashing_unavailable"),
        ]),
};

struct Change {
    name: String,
    id: WorkloadId,
    by: String,
    secret: Arc<NewSecret>,
    trace: Arc<Trace>,
}

fn name(body: impl Into<Body>) -> Result<String, Mismatch> {
    let mut fields = Fields::of(body)?;
    let name = fields.required_text("name", NAME)?;
    fields.nothing_else()?;
    Ok(name)
}

async fn create(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let name = name(call.body.take()).map_err(|mismatch| mismatch.refuse(INVALID))?;
    let zone = call.place.zone.clone();
    let mut snapshot = admin.store.snapshot().await?;
    require_free_name(&mut snapshot.zone(&zone), &name, None).await?;
    drop(snapshot);
    let id: WorkloadId = fresh(call.now)?;
    let secret = Arc::new(NewSecret::draw(&admin, &zone, &id).await?);
    let change = Change { name, id, by: call.caller.actor(), secret: secret.clone(), trace: call.trace };
    let committing = admin.store.commit(&zone, change, |tx, change| {
        Box::pin(async move {
            require_live_zone(tx).await?;
            require_free_name(tx, &change.name, None).await?;
            let workload = Workload {
                zone_id: tx.zone().clone(),
                id: change.id.clone(),
                name: change.name.clone(),
                secret_hash: change.secret.hash.clone(),
                bindings: Bindings::of(&[]),
                attribution: Attribution { updated_at: None, ..Attribution::created(&change.by, tx.now()) },
            };
            workloads::add(tx, &workload).await?;
            change.secret.keep(tx).await?;
            let recorded = change.trace.creation(tx, change.id.as_str(), &View::of(&workload)?).await?;
            Ok::<_, Refusal>((workload, recorded))
        })
    });
    let (workload, recorded) = secret.staged(committing).await?;
    Ok(recorded.answer(&WithSecret::of(&workload, secret.value.expose())?))
}
