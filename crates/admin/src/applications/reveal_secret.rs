//! `GET /v1/zones/{zone}/applications/{id}/client-secret`: shows the secret once more, to a token that may write (difference
//! D12). Applications that registered themselves have no copy: to this route they are absent.

use std::sync::Arc;

use caracal_custody::application_secret_ref;
use caracal_ledger::{Metadata, MetadataKey};
use http::Method;
use serde::Serialize;

use super::{existing, missing, traits};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;
use crate::reveal::Reveal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/applications/{id}/client-secret",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(reveal(admin, call)))),
    spec: Spec::shows::<Revealed>(
        "applications.reveal_secret",
        "Shows the secret of a managed application, once that is on record.",
    )
    .refuses(&[
        (404, "application_not_found"),
        (404, "client_secret_not_stored"),
        (409, "reserved_namespace"),
        (403, "trait_forbidden"),
        (502, "secret_backend_unavailable"),
        (500, "audit_unavailable"),
    ]),
};

described! {
    #[derive(Serialize)]
    struct Revealed<'s> {
        client_secret: &'s str,
    }
}

async fn reveal(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let (id, zone) = (call.id("id")?, &call.place.zone);
    let mut snapshot = admin.store.snapshot().await?;
    let application = existing(&mut snapshot.zone(zone), &id).await?;
    if application.registration_method != "managed" {
        return Err(missing());
    }
    // Who has the secret can be the application, so what guards a change of it guards this, too.
    reserved::guard(call.caller.is_bootstrap(), &application.name, reserved::NAME)?;
    traits::guard_secret(&application.traits, call.caller.is_global())?;
    let reveal = Reveal {
        zone,
        reference: &application_secret_ref(zone, &id),
        missing: "client_secret_not_stored",
        metadata: Metadata::new()
            .with(MetadataKey::Credential, "application_client_secret")
            .with(MetadataKey::ApplicationId, application.id.as_str())
            .with(MetadataKey::ApplicationName, application.name.as_str())
            .with(MetadataKey::Actor, call.caller.actor()),
        request_id: call.trace.request_id(),
        now: call.now,
    };
    let secret = reveal.secret(&admin, snapshot).await?;
    Ok(Answer::ok(&Revealed { client_secret: secret.expose() }))
}
