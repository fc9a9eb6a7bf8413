//! `PUT /v1/zones/{zone}/workloads/{id}`: another name, or other bindings in place of all there were.

use std::sync::Arc;

use caracal_authority::WorkloadId;
use caracal_store::workloads::{self, Binding, Bindings};
use http::{Method, StatusCode};

use super::{INVALID, NAME, View, bindings, existing, missing, require_free_name};
use crate::Admin;
use crate::answer::Changed;
use crate::attribution::changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::PUT,
    path: "/v1/zones/{zone}/workloads/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(update(admin, call)))),
    spec: Spec::shows::<View>("workloads.update", "Changes a workload: its name, or all of its bindings.")
        .takes(INVALID, |body| Patch::read(body).map(drop))
        .refuses(&[
            (400, "no_fields"),
            (409, "workload_name_taken"),
            (400, "invalid_credential_env"),
            (400, "duplicate_credential_env"),
            (404, "workload_not_found"),
        ]),
};

struct Patch {
    name: Option<String>,
    bindings: Option<Vec<Binding>>,
}

impl Patch {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        let patch = Self { name: fields.text("name", NAME)?, bindings: bindings::read(&mut fields)? };
        fields.nothing_else()?;
        Ok(patch)
    }
}

struct Change {
    id: WorkloadId,
    patch: Patch,
    by: String,
    trace: Arc<Trace>,
}

async fn update(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let (id, zone): (WorkloadId, _) = (call.id("id")?, call.place.zone.clone());
    let patch = Patch::read(call.body.take()).map_err(|mismatch| mismatch.refuse(INVALID))?;
    if patch.name.is_none() && patch.bindings.is_none() {
        return Err(Refusal::invalid("no_fields").describe("give a name, bindings, or both"));
    }
    if let Some(name) = &patch.name {
        let mut snapshot = admin.store.snapshot().await?;
        require_free_name(&mut snapshot.zone(&zone), name, Some(&id)).await?;
    }
    bindings::check(patch.bindings.as_deref().unwrap_or_default())?;
    let change = Change { id, patch, by: call.caller.actor(), trace: call.trace };
    let (workload, recorded) = admin
        .store
        .commit(&zone, change, |tx, change| {
            Box::pin(async move {
                let mut workload = existing(tx, &change.id).await?;
                if let Some(name) = &change.patch.name {
                    require_free_name(tx, name, Some(&change.id)).await?;
                    workload.name.clone_from(name);
                }
                if let Some(bindings) = &change.patch.bindings {
                    workload.bindings = Bindings::of(bindings);
                }
                changed(&mut workload.attribution, &change.by, tx.now());
                if !workloads::update(tx, &workload).await? {
                    return Err(missing());
                }
                let recorded = change.trace.change(tx, StatusCode::OK, None).await?;
                Ok::<_, Refusal>((workload, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&View::of(&workload)?))
}
