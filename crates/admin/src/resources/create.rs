//! `POST /v1/zones/{zone}/resources`.

use std::sync::Arc;

use caracal_authority::ResourceId;
use caracal_store::providers;
use caracal_store::resources::{self, Operation, Resource};
use caracal_store::{Attribution, StoreError, ZoneWrite};
use http::{Method, StatusCode};

use super::fields::{Draft, check_identifier};
use super::{View, conflict, operations, routing};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
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
            (400, "resource_verification_unsupported"),
            (409, "provider_identifier_conflict"),
        ]),
};

const SCHEME: &str = "resource://";

struct Change {
    id: ResourceId,
    draft: Draft,
    operations: Vec<Operation>,
    /// The control resource's identifier.
    control: String,
    /// Resources the zone may have; 0 is any number.
    limit: u32,
    by: String,
    may_reserve: bool,
    is_global: bool,
    trace: Arc<Trace>,
}

async fn create(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let draft = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_resource"))?;
    if draft.scopes.is_none() || (draft.name.is_none() && draft.identifier.is_none()) {
        let what = "scopes are required, and one of name and identifier";
        return Err(Refusal::invalid("invalid_resource").describe(what));
    }
    let change = Change {
        id: fresh(call.now)?,
        operations: operations::normalise(draft.operations.as_deref().unwrap_or_default()),
        draft,
        control: admin.config.control_audience.clone(),
        limit: admin.config.max_resources_per_zone,
        by: call.caller.actor(),
        may_reserve: call.caller.is_bootstrap(),
        is_global: call.caller.is_global(),
        trace: call.trace,
    };
    let (resource, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                require_live_zone(tx).await?;
                let resource = change.resource(tx).await?;
                resources::add(tx, &resource).await.map_err(conflict)?;
                let recorded = change.trace.change(tx, StatusCode::CREATED, Some(change.id.as_str())).await?;
                Ok::<_, Refusal>((resource, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&View::from(&resource)))
}

impl Change {
    /// The row, or the first refusal in the contract's order.
    async fn resource(&self, tx: &mut ZoneWrite<'_>) -> Result<Resource, Refusal> {
        let draft = &self.draft;
        let identifier = self.identifier(tx).await?;
        let is_control = identifier == self.control;
        check_identifier(&identifier, is_control)?;
        reserved::guard(self.may_reserve, &identifier, reserved::RESOURCE)?;
        if is_control && !self.is_global {
            return Err(Refusal::conflict("protected_resource"));
        }
        let mut provider = routing::provider(tx, &draft.credential_provider_id).await?.flatten();
        routing::guard_provider(tx, provider.as_ref(), self.may_reserve).await?;
        let upstream_url = draft.upstream_url.clone().flatten();
        if is_control {
            if provider.is_none() {
                provider = Some(self.built_in_provider(tx).await?);
            }
        } else {
            routing::check(provider.as_ref(), upstream_url.as_deref())?;
        }
        let scopes = draft.scopes.clone().unwrap_or_default();
        operations::check(&self.operations, &scopes)?;
        if self.limit > 0 && resources::count_live(tx).await? >= i64::from(self.limit) {
            return Err(Refusal::conflict("resource_quota_exceeded"));
        }
        if let (true, Some(provider)) = (draft.check, &provider) {
            refuse_check(tx, provider).await?;
        }
        Ok(Resource {
            zone_id: tx.zone().clone(),
            id: self.id.clone(),
            name: draft.name.clone().unwrap_or_else(|| identifier.clone()),
            identifier,
            upstream_url,
            scopes,
            credential_provider_id: provider,
            operations: self.operations.clone(),
            operation_enforcement: draft.operation_enforcement.unwrap_or("enforced").to_owned(),
            limits: draft.limits.unwrap_or_default(),
            archived_at: None,
            attribution: Attribution::created(&self.by, tx.now()),
        })
    }

    /// The identifier as given, or made from the name: never one that was used before, for approvals and policies may
    /// still speak of the old resource.
    async fn identifier(&self, tx: &mut ZoneWrite<'_>) -> Result<String, Refusal> {
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
        let provider = built_in_none(tx.zone(), &self.by, tx.now())?;
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

/// `check` asks to probe the upstream before anything is created, which only makes sense where the upstream verifies
/// mandates itself. This build does not probe, and says so rather than pretend; for other kinds `check` means nothing.
async fn refuse_check(tx: &mut ZoneWrite<'_>, provider: &caracal_authority::ProviderId) -> Result<(), Refusal> {
    match providers::lookup(tx, provider).await? {
        Some(provider) if provider.kind == "caracal_mandate" => {
            Err(Refusal::invalid("resource_verification_unsupported")
                .describe("this build does not probe upstreams yet; create the resource without check"))
        }
        _ => Ok(()),
    }
}
