//! `PATCH /v1/zones/{zone}/providers/{id}`.
//!
//! `config_json` replaces the whole public part. What happens to the sealed document follows from what came with it:
//! any secret replaces it, none leaves it, and none together with a new `kind` removes it.

use std::sync::Arc;

use caracal_authority::{ProviderId, ZoneId};
use caracal_crypto::SecretBytes;
use caracal_custody::{SealedSecrets, provider_secret_ref};
use caracal_store::ZoneWrite;
use caracal_store::providers::{self, Provider};
use http::{Method, StatusCode};

use super::config::{self, Config, Secrets};
use super::{Draft, View, asks_an_endpoint, conflict, existing, identifier};
use crate::Admin;
use crate::answer::Changed;
use crate::attribution::changed;
use crate::custody::{Keeps, staged};
use crate::evidence::Trace;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;

pub(crate) const ROUTE: Route = Route {
    method: Method::PATCH,
    path: "/v1/zones/{zone}/providers/{id}",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(update(admin, call)))),
    spec: Spec::shows::<View>(
        "providers.update",
        "Changes a credential provider; a configuration replaces the whole one.",
    )
    .takes("invalid_provider", |body| Draft::read(body).map(drop))
    .refuses(&[
        (400, "invalid_provider_identifier"),
        (409, "reserved_namespace"),
        (400, "provider_config_required"),
        (404, "provider_not_found"),
        (400, "invalid_provider_config"),
        (400, "no_fields"),
        (409, "provider_identifier_conflict"),
        (502, "secret_backend_unavailable"),
    ]),
};

struct Change {
    id: ProviderId,
    patch: Draft,
    sealed: SealedSecrets,
    by: String,
    may_reserve: bool,
    trace: Arc<Trace>,
}

async fn update(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let patch = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_provider"))?;
    let (id, may_reserve) = (call.id("id")?, call.caller.is_bootstrap());
    if let Some(identifier) = &patch.identifier {
        identifier::check(identifier)?;
        reserved::guard(may_reserve, identifier, reserved::PROVIDER)?;
    }
    if patch.kind.is_some() && patch.config.is_none() {
        return Err(Refusal::invalid("provider_config_required"));
    }
    let (sealed, by) = (admin.sealed.clone(), call.caller.actor());
    let change = Change { id, patch, sealed, by, may_reserve, trace: call.trace };
    let reference = provider_secret_ref(&call.place.zone, &change.id);
    let document = if admin.sealed.is_external() { change.outside(&admin, &call.place.zone).await? } else { None };
    let keeps = match &document {
        Some(document) if !document.expose().is_empty() => Keeps::This(document.expose()),
        Some(_) => Keeps::Nothing,
        None => Keeps::AsItIs,
    };
    let committing = admin.store.commit(&call.place.zone, change, |tx, change| {
        Box::pin(async move {
            let mut provider = existing(tx, &change.id).await?;
            reserved::guard(change.may_reserve, &provider.identifier, reserved::PROVIDER)?;
            let config = change.config(&provider)?;
            let patch = &change.patch;
            if config.is_none() && patch.name.is_none() && patch.identifier.is_none() {
                return Err(Refusal::invalid("no_fields"));
            }
            if let Some(name) = &patch.name {
                provider.name.clone_from(name);
            }
            if let Some(identifier) = &patch.identifier {
                provider.identifier.clone_from(identifier);
            }
            if let Some(config) = config {
                change.reconfigure(tx, &mut provider, &config).await?;
            }
            changed(&mut provider.attribution, &change.by, tx.now());
            providers::update(tx, &provider).await.map_err(conflict)?;
            let recorded = change.trace.change(tx, StatusCode::OK, None).await?;
            Ok::<_, Refusal>((provider, recorded))
        })
    });
    let (provider, recorded) = staged(&admin.sealed, &reference, keeps, committing).await?;
    Ok(recorded.answer(&View::from(&provider)))
}

impl Change {
    /// What has to be staged outside the store: the document, an empty one where it goes, none where it stays. Judged once
    /// more within the change; nothing is staged for what is refused already.
    async fn outside(&self, admin: &Admin, zone: &ZoneId) -> Result<Option<SecretBytes>, Refusal> {
        let mut snapshot = admin.store.snapshot().await?;
        let provider = existing(&mut snapshot.zone(zone), &self.id).await?;
        drop(snapshot);
        reserved::guard(self.may_reserve, &provider.identifier, reserved::PROVIDER)?;
        let Some(config) = self.config(&provider)? else { return Ok(None) };
        if config.has_secrets() {
            return config.document().map(Some);
        }
        Ok(self.patch.kind.map(|_| SecretBytes::new(Vec::new())))
    }

    /// The new configuration, judged by the kind the provider will have.
    fn config(&self, provider: &Provider) -> Result<Option<Config>, Refusal> {
        let Some(config) = &self.patch.config else { return Ok(None) };
        let (kind, secrets) = match self.patch.kind {
            Some(kind) => (kind, Secrets::Required),
            None => (provider.kind.as_str(), Secrets::MayStay(&provider.secret_config_keys)),
        };
        config::read(kind, config, secrets).map(Some)
    }

    async fn reconfigure(
        &self,
        tx: &mut ZoneWrite<'_>,
        provider: &mut Provider,
        config: &Config,
    ) -> Result<(), Refusal> {
        provider.config.clone_from(&config.public);
        let reference = provider_secret_ref(&provider.zone_id, &provider.id);
        if config.has_secrets() {
            self.sealed.put(tx, &reference, config.document()?.expose()).await?;
            provider.secret_config_keys = config.secret_keys();
        } else if self.patch.kind.is_some() {
            self.sealed.remove(tx, &reference).await?;
            provider.secret_config_keys.clear();
        }
        if let Some(kind) = self.patch.kind {
            kind.clone_into(&mut provider.kind);
            if !asks_an_endpoint(kind) {
                provider.connectivity_failed_at = None;
            }
        }
        Ok(())
    }
}
