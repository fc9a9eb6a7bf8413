//! Resources (contract: admin-api.md §5.6; README D18).

pub(crate) mod archive;
pub(crate) mod create;
pub(crate) mod desired;
mod fields;
pub(crate) mod list;
mod operations;
pub(crate) mod read;
mod routing;
pub(crate) mod test;
pub(crate) mod update;
mod verification;

use caracal_authority::{ProviderId, ResourceId, Timestamp, ZoneId};
use caracal_store::resources::{self, CallLimits, Operation, Resource};
use caracal_store::{StoreError, ZoneRead};
use serde::Serialize;

use self::fields::check_identifier;
use crate::attribution::Attributed;
use crate::openapi::shape::described;
use crate::problem::Refusal;

described! {
    /// A resource as answers show it.
    #[derive(Serialize)]
    pub(crate) struct View<'a> {
        id: &'a ResourceId,
        zone_id: &'a ZoneId,
        name: &'a str,
        identifier: &'a str,
        upstream_url: Option<&'a str>,
        scopes: &'a [String],
        credential_provider_id: Option<&'a ProviderId>,
        operations: &'a [Operation],
        operation_enforcement: &'a str,
        #[serde(skip_serializing_if = "CallLimits::is_empty")]
        limits: CallLimits,
        #[serde(flatten)]
        by: Attributed<'a>,
        archived_at: Option<Timestamp>,
    }
}

impl<'a> From<&'a Resource> for View<'a> {
    fn from(resource: &'a Resource) -> Self {
        Self {
            id: &resource.id,
            zone_id: &resource.zone_id,
            name: &resource.name,
            identifier: &resource.identifier,
            upstream_url: resource.upstream_url.as_deref(),
            scopes: &resource.scopes,
            credential_provider_id: resource.credential_provider_id.as_ref(),
            operations: &resource.operations,
            operation_enforcement: &resource.operation_enforcement,
            limits: resource.limits,
            by: (&resource.attribution).into(),
            archived_at: resource.archived_at,
        }
    }
}

/// The resource, if it is there and not archived.
async fn existing(tx: &mut ZoneRead<'_>, id: &ResourceId) -> Result<Resource, Refusal> {
    let found = resources::lookup(tx, id).await?.filter(|resource| resource.archived_at.is_none());
    found.ok_or_else(|| Refusal::missing("resource_not_found"))
}

fn conflict(error: StoreError) -> Refusal {
    if error.is_conflict_on("resources.identifier") {
        Refusal::conflict("resource_identifier_conflict")
    } else {
        error.into()
    }
}
