//! `DELETE /v1/zones/{zone}/workloads/{id}`: it is gone with the commit, and with it what it could be launched with. What
//! it was launched with before, it keeps: rotate that at the providers.

use std::sync::Arc;

use caracal_authority::WorkloadId;
use caracal_custody::{SealedSecrets, workload_secret_ref};
use caracal_store::workloads;
use http::{Method, StatusCode};

use super::missing;
use crate::Admin;
use crate::answer::Changed;
use crate::custody;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::DELETE,
    path: "/v1/zones/{zone}/workloads/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(remove(admin, call)))),
    spec: Spec::removes("workloads.remove", "Deletes a workload and its secret.")
        .refuses(&[(404, "workload_not_found")]),
};

struct Change {
    id: WorkloadId,
    reference: String,
    sealed: SealedSecrets,
    trace: Arc<Trace>,
}

async fn remove(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let id: WorkloadId = call.id("id")?;
    let reference = workload_secret_ref(&call.place.zone, &id);
    let change = Change { id, reference: reference.clone(), sealed: admin.sealed.clone(), trace: call.trace };
    let recorded = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                if !workloads::remove(tx, &change.id).await? {
                    return Err(missing());
                }
                change.sealed.remove(tx, &change.reference).await?;
                change.trace.change(tx, StatusCode::NO_CONTENT, None).await
            })
        })
        .await?;
    custody::forget(&admin.sealed, &reference).await;
    Ok(recorded.empty())
}
