//! `PATCH /v1/zones/{zone}/applications/{id}`: name, traits, or a secret that the caller chose.

use std::sync::Arc;

use caracal_authority::ApplicationId;
use caracal_crypto::{Secret, SecretText};
use caracal_store::applications;
use http::{Method, StatusCode};

use super::secret::NewSecret;
use super::{View, existing, require_free_name, traits};
use crate::Admin;
use crate::answer::Changed;
use crate::attribution::changed;
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch, Text};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;

pub(crate) const ROUTE: Route = Route {
    method: Method::PATCH,
    path: "/v1/zones/{zone}/applications/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(update(admin, call)))),
    spec: Spec::shows::<View>("applications.update", "Changes an application: its name, its traits, or its secret.")
        .takes("invalid_application", |body| Patch::read(body).map(drop))
        .refuses(&[
            (409, "reserved_namespace"),
            (403, "trait_count_exceeded"),
            (403, "trait_invalid"),
            (403, "trait_duplicate"),
            (403, "trait_forbidden"),
            (409, "application_name_taken"),
            (404, "application_not_found"),
            (400, "client_secret_not_configured"),
            (400, "no_fields"),
            (502, "secret_backend_unavailable"),
            (503, "secret_hashing_unavailable"),
        ]),
};

struct Patch {
    name: Option<String>,
    client_secret: Option<SecretText>,
    traits: Option<Vec<String>>,
}

impl Patch {
    fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        let name = fields.text("name", Text::trimmed(1, 200))?;
        let client_secret = fields.text("client_secret", Text::exact(32, usize::MAX))?.map(Secret::new);
        let traits = fields.texts("traits", (0, usize::MAX), Text::exact(0, usize::MAX))?;
        fields.nothing_else()?;
        Ok(Self { name, client_secret, traits })
    }

    fn is_empty(&self) -> bool {
        self.name.is_none() && self.client_secret.is_none() && self.traits.is_none()
    }
}

struct Change {
    id: ApplicationId,
    name: Option<String>,
    traits: Option<Vec<String>>,
    secret: Option<Arc<NewSecret>>,
    by: String,
    may_reserve: bool,
    is_global: bool,
    trace: Arc<Trace>,
}

async fn update(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let patch = Patch::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_application"))?;
    let (id, zone): (ApplicationId, _) = (call.id("id")?, call.place.zone.clone());
    let may_reserve = call.caller.is_bootstrap();
    reserved::guard(may_reserve, patch.name.as_deref().unwrap_or_default(), reserved::NAME)?;
    if let Some(traits) = &patch.traits {
        traits::check(traits, call.caller.is_global())?;
    }
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(&zone);
    if let Some(name) = &patch.name {
        require_free_name(&mut tx, name, Some(&id)).await?;
    }
    if patch.client_secret.is_some() {
        let application = existing(&mut tx, &id).await?;
        if application.secret_hash.is_none() {
            return Err(Refusal::invalid("client_secret_not_configured"));
        }
        traits::guard_secret(&application.traits, call.caller.is_global())?;
    }
    if patch.is_empty() {
        return Err(Refusal::invalid("no_fields"));
    }
    let found = existing(&mut tx, &id).await?;
    drop(snapshot);
    let Patch { name, traits, client_secret } = patch;
    let secret = match client_secret {
        None => None,
        Some(secret) => Some(Arc::new(NewSecret::of(&admin, secret).await?)),
    };
    let (by, is_global) = (call.caller.actor(), call.caller.is_global());
    let (target, kept) = (id.clone(), secret.clone());
    let change = Change { id, name, traits, secret, by, may_reserve, is_global, trace: call.trace };
    let committing = admin.store.commit(&zone, change, |tx, change| {
        Box::pin(async move {
            if let Some(name) = &change.name {
                require_free_name(tx, name, Some(&change.id)).await?;
            }
            let mut application = existing(tx, &change.id).await?;
            reserved::guard(change.may_reserve, &application.name, reserved::NAME)?;
            if let Some(name) = &change.name {
                application.name.clone_from(name);
            }
            if let Some(secret) = &change.secret {
                // By the traits it had: giving them up in the same request makes no difference.
                traits::guard_secret(&application.traits, change.is_global)?;
                application.secret_hash = Some(secret.hash.clone());
                if application.registration_method == "managed" {
                    secret.keep(tx, &application.zone_id, &application.id).await?;
                }
            }
            if let Some(traits) = &change.traits {
                application.traits.clone_from(traits);
            }
            changed(&mut application.attribution, &change.by, tx.now());
            applications::update(tx, &application).await?;
            let recorded = change.trace.change(tx, StatusCode::OK, None).await?;
            Ok::<_, Refusal>((application, recorded))
        })
    });
    let is_managed = found.registration_method == "managed";
    let (application, recorded) = match kept {
        Some(secret) => secret.staged(&zone, &target, is_managed, committing).await?,
        None => committing.await?,
    };
    Ok(recorded.answer(&View::of(&application, is_global)))
}
