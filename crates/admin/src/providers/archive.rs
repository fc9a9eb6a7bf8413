//! `DELETE /v1/zones/{zone}/providers/{id}`: it is archived and its secrets are gone. Resources that name it can be granted
//! nothing until they name another.

use std::sync::Arc;

use caracal_authority::ProviderId;
use caracal_custody::{SealedSecrets, provider_secret_ref};
use caracal_store::providers;
use http::{Method, StatusCode};

use super::existing;
use crate::Admin;
use crate::answer::Changed;
use crate::custody;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;

pub(crate) const ROUTE: Route = Route {
    method: Method::DELETE,
    path: "/v1/zones/{zone}/providers/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(archive(admin, call)))),
    spec: Spec::removes("providers.archive", "Archives a credential provider, and deletes its secrets.")
        .refuses(&[(404, "provider_not_found"), (409, "reserved_namespace")]),
};

struct Change {
    id: ProviderId,
    by: String,
    may_reserve: bool,
    reference: String,
    sealed: SealedSecrets,
    trace: Arc<Trace>,
}

async fn archive(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let id: ProviderId = call.id("id")?;
    let reference = provider_secret_ref(&call.place.zone, &id);
    let change = Change {
        id,
        by: call.caller.actor(),
        may_reserve: call.caller.is_bootstrap(),
        reference: reference.clone(),
        sealed: admin.sealed.clone(),
        trace: call.trace,
    };
    let recorded = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                let provider = existing(tx, &change.id).await?;
                reserved::guard(change.may_reserve, &provider.identifier, reserved::PROVIDER)?;
                providers::archive(tx, &change.id, &change.by).await?;
                change.sealed.remove(tx, &change.reference).await?;
                change.trace.change(tx, StatusCode::NO_CONTENT, None).await
            })
        })
        .await?;
    custody::forget(&admin.sealed, &reference).await;
    Ok(recorded.empty())
}
