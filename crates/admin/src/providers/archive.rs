//! `DELETE /v1/zones/{zone}/providers/{id}`: it is archived and its secrets are gone. Resources that name it can be granted
//! nothing until they name another.

use std::sync::Arc;

use caracal_authority::ProviderId;
use caracal_custody::provider_secret_ref;
use caracal_store::ZoneWrite;
use caracal_store::providers::{self, Provider};
use http::{Method, StatusCode};

use super::existing;
use crate::Admin;
use crate::answer::Changed;
use crate::custody;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::hand::Hand;
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

async fn archive(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let (id, hand): (ProviderId, _) = (call.id("id")?, Hand::of(&admin, &call));
    let reference = provider_secret_ref(&call.place.zone, &id);
    let recorded = admin
        .store
        .commit(&call.place.zone, (id, hand), |tx, (id, hand)| {
            Box::pin(async move {
                let provider = existing(tx, id).await?;
                end(tx, hand, &provider).await?;
                hand.trace.change(tx, StatusCode::NO_CONTENT, None).await
            })
        })
        .await?;
    custody::forget(&admin.sealed, &reference).await;
    Ok(recorded.empty())
}

/// Archives the provider, in the commit that records it.
pub(crate) async fn end(tx: &mut ZoneWrite<'_>, hand: &Hand, provider: &Provider) -> Result<(), Refusal> {
    hand.guard(&provider.identifier, reserved::PROVIDER)?;
    providers::archive(tx, &provider.id, &hand.by).await?;
    Ok(hand.sealed.remove(tx, &provider_secret_ref(&provider.zone_id, &provider.id)).await?)
}
