//! `POST /v1/zones/{zone}/resources`.

use std::sync::Arc;

use caracal_authority::ResourceId;
use caracal_store::providers;
use caracal_store::resources::{self, Resource};
use caracal_store::{Attribution, StoreError, ZoneRead, ZoneWrite};
use http::Method;
use serde_json::json;

use super::fields::{Draft, check_identifier};
use super::{View, conflict, operations, routing, verification};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::hand::Hand;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::providers::built_in_none;
use crate::reserved;
use crate::slug::{first_free, slug};
use crate::zones::require_live_zone;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/resources",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(create(admin, call)))),
    spec: Spec::creates::<View>("resources.create", "Creates a resource.")
        .takes("invalid_resource", |body| {
            Draft::read(body.clone())?;
            body.require("scopes");
            Ok(())
        })
        .refuses(&[
            (404, "zone_not_found"),
            (400, "invalid_resource_identifier"),
            (409, "reserved_namespace"),
            (409, "protected_resource"),
            (404, "provider_not_found"),
            (400, "credential_provider_required"),
            (400, "upstream_url_required"),
            (400, "operation_method_and_path_required"),
            (400, "operation_path_must_be_absolute"),
            (400, "operation_scope_not_in_resource_scopes"),
            (400, "operation_duplicate"),
            (409, "resource_identifier_conflict"),
            (409, "resource_quota_exceeded"),
            (429, "resource_test_rate_limited"),
            (422, "resource_check_failed"),
            (503, "service_unconfigured"),
            (409, "provider_identifier_conflict"),
        ]),
};

const SCHEME: &str = "resource://";

/// A resource that is about to be.
pub(super) struct New {
    pub(super) id: ResourceId,
    pub(super) draft: Draft,
    /// Resources the zone may have; 0 is any number.
    pub(super) limit: u32,
    pub(super) hand: Hand,
}

async fn create(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let draft = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_resource"))?;
    require_scopes(&draft)?;
    let limit = admin.config.max_resources_per_zone;
    let new = New { id: fresh(call.now)?, draft, limit, hand: Hand::of(&admin, &call) };
    if new.draft.check {
        new.check(&admin, &call).await?;
    }
    let (resource, recorded) = admin
        .store
        .commit(&call.place.zone, new, |tx, new| {
            Box::pin(async move {
                require_live_zone(tx).await?;
                let resource = new.add(tx).await?;
                let recorded = new.hand.trace.creation(tx, new.id.as_str(), &View::from(&resource)).await?;
                Ok::<_, Refusal>((resource, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&View::from(&resource)))
}

/// What a new resource can't do without.
pub(super) fn require_scopes(draft: &Draft) -> Result<(), Refusal> {
    if draft.scopes.is_none() || (draft.name.is_none() && draft.identifier.is_none()) {
        let what = "scopes are required, and one of name and identifier";
        return Err(Refusal::invalid("invalid_resource").describe(what));
    }
    Ok(())
}

impl New {
    /// Adds the resource, in the commit that records it.
    pub(super) async fn add(&self, tx: &mut ZoneWrite<'_>) -> Result<Resource, Refusal> {
        let mut resource = self.resource(tx).await?;
        if resource.credential_provider_id.is_none() {
            // The control resource, which no call goes to.
            resource.credential_provider_id = Some(self.built_in_provider(tx).await?);
        }
        resources::add(tx, &resource).await.map_err(conflict)?;
        Ok(resource)
    }

    /// Where the upstream is to verify mandates: nothing is created unless it does. Elsewhere `check` means nothing.
    async fn check(&self, admin: &Admin, call: &Call<InZone>) -> Result<(), Refusal> {
        let zone = &call.place.zone;
        let mut snapshot = admin.store.snapshot().await?;
        let tx = &mut snapshot.zone(zone);
        let resource = self.resource(tx).await?;
        let provider = resource.credential_provider_id.as_ref();
        if !verification::is_up_to_the_upstream(tx, provider).await? || resource.upstream_url.is_none() {
            return Ok(());
        }
        drop(snapshot);
        let checked = verification::check(admin, zone, &resource, call.now).await?;
        if checked.is_guarded() {
            return Ok(());
        }
        Err(Refusal::unprocessable("resource_check_failed").details(json!({"check": checked.to_json()})))
    }

    /// The row, or the first refusal in the contract's order.
    async fn resource(&self, tx: &mut ZoneRead<'_>) -> Result<Resource, Refusal> {
        let draft = &self.draft;
        let identifier = self.identifier(tx).await?;
        let is_control = identifier == self.hand.control;
        check_identifier(&identifier, is_control)?;
        self.hand.guard(&identifier, reserved::RESOURCE)?;
        if is_control && !self.hand.is_global {
            return Err(Refusal::conflict("protected_resource"));
        }
        let provider = routing::provider(tx, &draft.credential_provider_id).await?.flatten();
        routing::guard_provider(tx, provider.as_ref(), self.hand.may_reserve).await?;
        let upstream_url = draft.upstream_url.clone().flatten();
        if !is_control {
            routing::check(provider.as_ref(), upstream_url.as_deref())?;
        }
        let scopes = draft.scopes.clone().unwrap_or_default();
        let operations = operations::normalise(draft.operations.as_deref().unwrap_or_default());
        operations::check(&operations, &scopes)?;
        if self.limit > 0 && resources::count_live(tx).await? >= i64::from(self.limit) {
            return Err(Refusal::conflict("resource_quota_exceeded"));
        }
        Ok(Resource {
            zone_id: tx.zone().clone(),
            id: self.id.clone(),
            name: draft.name.clone().unwrap_or_else(|| identifier.clone()),
            identifier,
            upstream_url,
            scopes,
            credential_provider_id: provider,
            operations,
            operation_enforcement: draft.operation_enforcement.unwrap_or("enforced").to_owned(),
            limits: draft.limits.unwrap_or_default(),
            archived_at: None,
            attribution: Attribution::created(&self.hand.by, tx.now()),
        })
    }

    /// The identifier as given, or made from the name: never one that was used before, for approvals and policies may
    /// still speak of the old resource.
    async fn identifier(&self, tx: &mut ZoneRead<'_>) -> Result<String, Refusal> {
        if let Some(identifier) = &self.draft.identifier {
            return Ok(identifier.clone());
        }
        let name = self.draft.name.as_deref().unwrap_or_default();
        if name.starts_with(SCHEME) {
            return Ok(name.to_owned());
        }
        let base = format!("{SCHEME}{}", slug(name, "resource"));
        let used = resources::list_identifiers(tx, &base).await?;
        first_free(&base, &used).ok_or_else(|| Refusal::conflict("resource_identifier_conflict"))
    }

    async fn built_in_provider(&self, tx: &mut ZoneWrite<'_>) -> Result<caracal_authority::ProviderId, Refusal> {
        let provider = built_in_none(tx.zone(), &self.hand.by, tx.now())?;
        if providers::lookup(tx, &provider.id).await?.is_none() {
            providers::add(tx, &provider).await.map_err(taken)?;
        }
        Ok(provider.id)
    }
}

/// Somebody else's provider has the built-in one's identifier.
fn taken(error: StoreError) -> Refusal {
    if error.is_conflict_on("providers.identifier") {
        Refusal::conflict("provider_identifier_conflict")
            .describe("provider://none is another provider; name a credential_provider_id")
    } else {
        error.into()
    }
}
