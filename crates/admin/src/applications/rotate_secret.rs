//! `POST /v1/zones/{zone}/applications/{id}/rotate-secret`: a hard cut-over. The old secret stops with the commit, and
//! goes on working if anything of the change fails.

use std::sync::Arc;

use caracal_authority::ApplicationId;
use caracal_store::applications;
use http::{Method, StatusCode};

use super::secret::NewSecret;
use super::{WithSecret, existing, traits};
use crate::Admin;
use crate::answer::Changed;
use crate::attribution::changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/applications/{id}/rotate-secret",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(rotate(admin, call)))),
    spec: Spec::shows::<WithSecret>(
        "applications.rotate_secret",
        "Gives an application another secret, and shows it. The old one stops at once.",
    )
    .refuses(&[
        (404, "application_not_found"),
        (409, "reserved_namespace"),
        (403, "trait_forbidden"),
        (502, "secret_backend_unavailable"),
        (503, "secret_hashing_unavailable"),
    ]),
};

struct Change {
    id: ApplicationId,
    secret: Arc<NewSecret>,
    by: String,
    may_reserve: bool,
    is_global: bool,
    trace: Arc<Trace>,
}

async fn rotate(admin: Arc<Admin>, call: Call<InZone>) -> Result<Changed, Refusal> {
    let (id, zone): (ApplicationId, _) = (call.id("id")?, call.place.zone.clone());
    let mut snapshot = admin.store.snapshot().await?;
    let is_global = call.caller.is_global();
    let found = existing(&mut snapshot.zone(&zone), &id).await?;
    traits::guard_secret(&found.traits, is_global)?;
    drop(snapshot);
    let secret = Arc::new(NewSecret::draw(&admin).await?);
    let change = Change {
        id: id.clone(),
        secret: secret.clone(),
        by: call.caller.actor(),
        may_reserve: call.caller.is_bootstrap(),
        is_global,
        trace: call.trace,
    };
    let committing = admin.store.commit(&zone, change, |tx, change| {
        Box::pin(async move {
            let mut application = existing(tx, &change.id).await?;
            reserved::guard(change.may_reserve, &application.name, reserved::NAME)?;
            traits::guard_secret(&application.traits, change.is_global)?;
            application.secret_hash = Some(change.secret.hash.clone());
            if application.registration_method == "managed" {
                change.secret.keep(tx, &application.zone_id, &application.id).await?;
            }
            changed(&mut application.attribution, &change.by, tx.now());
            applications::update(tx, &application).await?;
            let recorded = change.trace.change(tx, StatusCode::OK, None).await?;
            Ok::<_, Refusal>((application, recorded))
        })
    });
    let is_managed = found.registration_method == "managed";
    let (application, recorded) = secret.staged(&zone, &id, is_managed, committing).await?;
    Ok(recorded.answer(&WithSecret::of(&application, secret.value.expose())))
}
