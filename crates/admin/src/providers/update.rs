//! `PATCH /v1/zones/{zone}/providers/{id}`.
//!
//! `config_json` replaces the whole public part. What happens to the sealed document follows from what came with it:
//! any secret replaces it, none leaves it, and none together with a new `kind` removes it.

use std::sync::Arc;

use caracal_authority::{ProviderId, ZoneId};
use caracal_crypto::SecretBytes;
use caracal_custody::provider_secret_ref;
use caracal_store::ZoneWrite;
use caracal_store::providers::{self, Provider};
use http::{Method, StatusCode};

use super::config::{self, Config, Secrets};
use super::{Draft, View, asks_an_endpoint, conflict, existing, identifier};
use crate::Admin;
use crate::answer::Changed;
use crate::attribution::changed;
use crate::custody::{Keeps, staged};
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::hand::Hand;
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

/// What a provider is to become.
pub(super) struct Change {
    pub(super) id: ProviderId,
    pub(super) patch: Draft,
    pub(super) hand: Hand,
}

async fn update(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let patch = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_provider"))?;
    let (id, hand) = (call.id("id")?, Hand::of(&admin, &call));
    if let Some(identifier) = &patch.identifier {
        identifier::check(identifier)?;
        hand.guard(identifier, reserved::PROVIDER)?;
    }
    if patch.kind.is_some() && patch.config.is_none() {
        return Err(Refusal::invalid("provider_config_required"));
    }
    let change = Change { id, patch, hand };
    let reference = provider_secret_ref(&call.place.zone, &change.id);
    let document = if admin.sealed.is_external() { change.outside(&admin, &call.place.zone).await? } else { None };
    let keeps = match &document {
        Some(document) if !document.expose().is_empty() => Keeps::This(document.expose()),
        Some(_) => Keeps::Nothing,
        None => Keeps::AsItIs,
    };
    let committing = admin.store.commit(&call.place.zone, change, |tx, change| {
        Box::pin(async move {
            let provider = change.apply(tx).await?;
            let recorded = change.hand.trace.change(tx, StatusCode::OK, None).await?;
            Ok::<_, Refusal>((provider, recorded))
        })
    });
    let (provider, recorded) = staged(&admin.sealed, &reference, keeps, committing).await?;
    Ok(recorded.answer(&View::from(&provider)))
}

impl Change {
    /// Makes the provider what it is to become, in the commit that records it.
    pub(super) async fn apply(&self, tx: &mut ZoneWrite<'_>) -> Result<Provider, Refusal> {
        let mut provider = existing(tx, &self.id).await?;
        self.hand.guard(&provider.identifier, reserved::PROVIDER)?;
        let config = self.config(&provider)?;
        let patch = &self.patch;
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
            self.reconfigure(tx, &mut provider, &config).await?;
        }
        changed(&mut provider.attribution, &self.hand.by, tx.now());
        providers::update(tx, &provider).await.map_err(conflict)?;
        Ok(provider)
    }

    /// What has to be staged outside the store: the document, an empty one where it goes, none where it stays. Judged once
    /// more within the change; nothing is staged for what is refused already.
    async fn outside(&self, admin: &Admin, zone: &ZoneId) -> Result<Option<SecretBytes>, Refusal> {
        let mut snapshot = admin.store.snapshot().await?;
        let provider = existing(&mut snapshot.zone(zone), &self.id).await?;
        drop(snapshot);
        self.hand.guard(&provider.identifier, reserved::PROVIDER)?;
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
            self.hand.sealed.put(tx, &reference, config.document()?.expose()).await?;
            provider.secret_config_keys = config.secret_keys();
        } else if self.patch.kind.is_some() {
            self.hand.sealed.remove(tx, &reference).await?;
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
