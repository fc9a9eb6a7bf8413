//! `POST /v1/zones/{zone}/policy-sets/{id}/activate`: from this commit on the version decides, and everybody who decides
//! hears of it (contract: policy.md §10.3; README D32). Rolling back is activating an older version.

use std::sync::Arc;

use caracal_authority::{OutboxId, PolicySetId, PolicySetVersionId, PolicyVersionId};
use caracal_store::policy_sets;
use http::{Method, StatusCode};
use serde::Serialize;

use super::{announce, bundle, existing, version_of};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch, Text};
use crate::openapi::shape::Shape;
use crate::openapi::shape::described;
use crate::openapi::spec::{Content, Spec};
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/policy-sets/{id}/activate",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(activate(admin, call)))),
    spec: Spec::of(
        "policy_sets.activate",
        "Puts a version of a policy set in force.",
        StatusCode::ACCEPTED,
        Content::Json(Activated::schema),
    )
    .takes("invalid_body", |body| named(body).map(drop))
    .refuses(&[
        (404, "version_not_found"),
        (422, "invalid_policy_contract"),
        (422, "invalid_policy_bundle"),
        (503, "policy_verification_unavailable"),
    ]),
};

const MISSING: &str = "version_not_found";

struct Change {
    set: PolicySetId,
    version: PolicySetVersionId,
    message: OutboxId,
    by: String,
    trace: Arc<Trace>,
}

described! {
    #[derive(Serialize)]
    struct Activated<'a> {
        activated: bool,
        version_id: &'a PolicySetVersionId,
        outbox_id: &'a OutboxId,
        status_url: String,
    }
}

fn named(body: impl Into<Body>) -> Result<String, Mismatch> {
    Fields::of(body)?.required_text("version_id", Text::exact(1, usize::MAX))
}

async fn activate(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let named = named(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_body"))?;
    // What is no id names no version.
    let version = PolicySetVersionId::parse(&named).map_err(|_| Refusal::missing(MISSING))?;
    let (set, zone): (PolicySetId, _) = (call.id("id")?, call.place.zone.clone());
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(&zone);
    existing(&mut tx, &set, MISSING).await?;
    let manifest = version_of(&mut tx, &set, &version, MISSING).await?.manifest;
    drop(snapshot);
    let manifest: Vec<String> = manifest.iter().map(PolicyVersionId::to_string).collect();
    bundle::check_again(&admin.store, &zone, &manifest).await?;
    let message: OutboxId = fresh(call.now)?;
    let change = Change {
        set: set.clone(),
        version: version.clone(),
        message: message.clone(),
        by: call.caller.actor(),
        trace: call.trace,
    };
    let recorded = admin
        .store
        .commit(&zone, change, |tx, change| {
            Box::pin(async move {
                // The set may have been archived since; its versions, once there, stay.
                existing(tx, &change.set, MISSING).await?;
                version_of(tx, &change.set, &change.version, MISSING).await?;
                policy_sets::activate(tx, &change.set, &change.version).await?;
                policy_sets::note_announcement(tx, &change.message, &change.set, &change.version).await?;
                policy_sets::touch(tx, &change.set, &change.by).await?;
                announce(tx, &change.message, &change.set, Some(&change.version)).await?;
                change.trace.change(tx, StatusCode::ACCEPTED, None).await
            })
        })
        .await?;
    let status_url =
        format!("/v1/zones/{zone}/policy-sets/{set}/activation-status?version_id={version}&outbox_id={message}");
    Ok(recorded.answer(&Activated { activated: true, version_id: &version, outbox_id: &message, status_url }))
}
