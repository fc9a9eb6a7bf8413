//! `POST /v1/zones/{zone}/policy-sets/{id}/versions`: an immutable manifest, judged before it exists.

use std::sync::Arc;

use caracal_authority::{PolicySetId, PolicySetVersionId, PolicyVersionId, Timestamp};
use caracal_policy::ManifestSha256;
use caracal_store::ZoneWrite;
use caracal_store::policy_sets::{self, PolicySetVersion};
use http::Method;
use serde::Serialize;

use super::{bundle, existing};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch, Text};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::policies::SCHEMA;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/policy-sets/{id}/versions",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(add_version(admin, call)))),
    spec: Spec::creates::<Created>(
        "policy_sets.add_version",
        "Adds a version, which is a list of policy versions, to a policy set.",
    )
    .takes("invalid_body", |body| read(body).map(drop))
    .refuses(&[
        (404, "policy_set_not_found"),
        (422, "invalid_policy_contract"),
        (422, "invalid_policy_bundle"),
        (503, "policy_verification_unavailable"),
    ]),
};

const MAX_ENTRIES: usize = 256;

struct Change {
    set: PolicySetId,
    id: PolicySetVersionId,
    manifest: Vec<PolicyVersionId>,
    by: String,
    trace: Arc<Trace>,
}

described! {
    #[derive(Serialize)]
    struct Created<'a> {
        version_id: &'a PolicySetVersionId,
        id: &'a PolicySetVersionId,
        policy_set_id: &'a PolicySetId,
        version: i64,
        manifest_sha256: &'a str,
        schema_version: &'a str,
        created_at: Timestamp,
    }
}

impl<'a> From<&'a PolicySetVersion> for Created<'a> {
    fn from(version: &'a PolicySetVersion) -> Self {
        Self {
            version_id: &version.id,
            id: &version.id,
            policy_set_id: &version.policy_set_id,
            version: version.version,
            manifest_sha256: &version.manifest_sha256,
            schema_version: &version.schema_version,
            created_at: version.created_at,
        }
    }
}

async fn add_version(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let manifest = read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_body"))?;
    let (set, zone) = (call.id("id")?, call.place.zone.clone());
    let mut snapshot = admin.store.snapshot().await?;
    existing(&mut snapshot.zone(&zone), &set, "policy_set_not_found").await?;
    drop(snapshot);
    let manifest = bundle::check(&admin.store, &zone, &manifest).await?;
    let change = Change { set, id: fresh(call.now)?, manifest, by: call.caller.actor(), trace: call.trace };
    let (version, recorded) = admin
        .store
        .commit(&zone, change, |tx, change| {
            Box::pin(async move {
                existing(tx, &change.set, "policy_set_not_found").await?;
                let version = add(tx, &change.by, &change.set, &change.id, &change.manifest).await?;
                let recorded = change.trace.creation(tx, change.id.as_str(), &Created::from(&version)).await?;
                Ok::<_, Refusal>((version, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&Created::from(&version)))
}

/// Adds the version, in the commit that records it. The manifest has been judged.
pub(super) async fn add(
    tx: &mut ZoneWrite<'_>,
    by: &str,
    set: &PolicySetId,
    id: &PolicySetVersionId,
    manifest: &[PolicyVersionId],
) -> Result<PolicySetVersion, Refusal> {
    let version = PolicySetVersion {
        zone_id: tx.zone().clone(),
        id: id.clone(),
        policy_set_id: set.clone(),
        version: policy_sets::highest_version(tx, set).await? + 1,
        manifest_sha256: ManifestSha256::of(manifest.iter().map(PolicyVersionId::as_str)).to_string(),
        manifest: manifest.to_vec(),
        schema_version: SCHEMA.to_owned(),
        created_by: Some(by.to_owned()),
        created_via_operator: false,
        created_at: tx.now(),
    };
    policy_sets::add_version(tx, &version).await?;
    Ok(version)
}

fn read(body: impl Into<Body>) -> Result<Vec<String>, Mismatch> {
    let mut fields = Fields::of(body)?;
    let entries = fields.objects("manifest", (1, MAX_ENTRIES))?;
    let entries = fields.require("manifest", entries)?;
    let id = |mut entry: Fields| entry.required_text("policy_version_id", Text::exact(1, usize::MAX));
    entries.into_iter().map(id).collect()
}
