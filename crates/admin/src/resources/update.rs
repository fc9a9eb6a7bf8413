//! `PATCH /v1/zones/{zone}/resources/{id}`. What the resource will be is judged as a whole: a scope that a stored
//! operation needs can't be dropped.

use std::sync::Arc;

use caracal_authority::ResourceId;
use caracal_store::ZoneWrite;
use caracal_store::resources::{self, Resource};
use http::{Method, StatusCode};

use super::fields::{Draft, check_identifier};
use super::{View, conflict, existing, operations, routing};
use crate::Admin;
use crate::answer::Changed;
use crate::attribution::changed;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::hand::Hand;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;

pub(crate) const ROUTE: Route = Route {
    method: Method::PATCH,
    path: "/v1/zones/{zone}/resources/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(update(admin, call)))),
    spec: Spec::shows::<View>("resources.update", "Changes a resource.")
        .takes("invalid_resource", |body| Draft::read(body).map(drop))
        .refuses(&[
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
            (404, "resource_not_found"),
            (400, "no_fields"),
        ]),
};

/// What a resource is to become.
pub(super) struct Change {
    pub(super) id: ResourceId,
    pub(super) patch: Draft,
    pub(super) hand: Hand,
}

async fn update(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let patch = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_resource"))?;
    let change = Change { id: call.id("id")?, patch, hand: Hand::of(&admin, &call) };
    let (resource, recorded) = admin
        .store
        .commit(&call.place.zone, change, |tx, change| {
            Box::pin(async move {
                let resource = change.apply(tx).await?;
                let recorded = change.hand.trace.change(tx, StatusCode::OK, None).await?;
                Ok::<_, Refusal>((resource, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&View::from(&resource)))
}

impl Change {
    /// Makes the resource what it is to become, in the commit that records it.
    pub(super) async fn apply(&self, tx: &mut ZoneWrite<'_>) -> Result<Resource, Refusal> {
        let resource = self.resource(tx).await?;
        resources::update(tx, &resource).await.map_err(conflict)?;
        Ok(resource)
    }

    /// The row as it will be, or the first refusal in the contract's order.
    async fn resource(&self, tx: &mut ZoneWrite<'_>) -> Result<Resource, Refusal> {
        let patch = &self.patch;
        let provider = routing::provider(tx, &patch.credential_provider_id).await?;
        let mut resource = existing(tx, &self.id).await?;
        let was_control = resource.identifier == self.hand.control;
        let identifier = patch.identifier.as_ref().unwrap_or(&resource.identifier).clone();
        let is_control = identifier == self.hand.control;
        check_identifier(&identifier, is_control)?;
        self.hand.guard(&resource.identifier, reserved::RESOURCE)?;
        self.hand.guard(&identifier, reserved::RESOURCE)?;
        if (was_control || is_control) && !self.hand.is_global {
            return Err(Refusal::conflict("protected_resource"));
        }
        let is_rerouted = provider.is_some() || patch.upstream_url.is_some();
        if let Some(provider) = provider {
            resource.credential_provider_id = provider;
        }
        if is_rerouted {
            routing::guard_provider(tx, resource.credential_provider_id.as_ref(), self.hand.may_reserve).await?;
        }
        if let Some(upstream_url) = &patch.upstream_url {
            resource.upstream_url.clone_from(upstream_url);
        }
        if !is_control {
            routing::check(resource.credential_provider_id.as_ref(), resource.upstream_url.as_deref())?;
        }
        if let Some(scopes) = &patch.scopes {
            resource.scopes.clone_from(scopes);
        }
        if let Some(operations) = &patch.operations {
            resource.operations = operations::normalise(operations);
        }
        operations::check(&resource.operations, &resource.scopes)?;
        if patch.is_empty() {
            return Err(Refusal::invalid("no_fields"));
        }
        if let Some(name) = &patch.name {
            resource.name.clone_from(name);
        }
        if let Some(enforcement) = patch.operation_enforcement {
            enforcement.clone_into(&mut resource.operation_enforcement);
        }
        if let Some(limits) = patch.limits {
            resource.limits = limits;
        }
        resource.identifier = identifier;
        changed(&mut resource.attribution, &self.hand.by, tx.now());
        Ok(resource)
    }
}
