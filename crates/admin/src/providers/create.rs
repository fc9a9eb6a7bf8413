//! `POST /v1/zones/{zone}/providers`. The row and the sealed document are one change.

use std::sync::Arc;

use caracal_authority::ProviderId;
use caracal_broker::SecretDocument;
use caracal_custody::provider_secret_ref;
use caracal_http::Problem;
use caracal_store::providers::{self, Provider};
use caracal_store::{Attribution, ZoneWrite};
use http::Method;
use serde_json::json;

use super::config::{self, Config, Secrets};
use super::{Draft, View, asks_an_endpoint, check, conflict, identifier};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::custody::{Keeps, staged};
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::hand::Hand;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;
use crate::reserved;
use crate::zones::require_live_zone;

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/providers",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(create(admin, call)))),
    spec: Spec::creates::<View>("providers.create", "Creates a credential provider, and seals its secrets.")
        .takes("invalid_provider", |body| {
            Draft::read(body.clone())?;
            body.require("kind");
            Ok(())
        })
        .refuses(&[
            (404, "zone_not_found"),
            (400, "invalid_provider_identifier"),
            (400, "invalid_provider_config"),
            (400, "provider_check_unsupported"),
            (429, "provider_test_rate_limited"),
            (422, "provider_check_failed"),
            (409, "reserved_namespace"),
            (409, "provider_identifier_conflict"),
            (502, "secret_backend_unavailable"),
        ]),
};

/// A provider that is about to be.
pub(super) struct New {
    pub(super) id: ProviderId,
    pub(super) name: Option<String>,
    pub(super) identifier: Option<String>,
    pub(super) kind: &'static str,
    pub(super) config: Config,
    /// Whether its endpoint has answered as it should.
    pub(super) checked: bool,
}

async fn create(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let draft = Draft::read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_provider"))?;
    let (Some(kind), true) = (draft.kind, draft.name.is_some() || draft.identifier.is_some()) else {
        return Err(Refusal::invalid("invalid_provider").describe("kind is required, and one of name and identifier"));
    };
    if let Some(identifier) = &draft.identifier {
        identifier::check(identifier)?;
    }
    let config = config::read(kind, &draft.config.unwrap_or_default(), Secrets::Required)?;
    if draft.check {
        // Nothing is there yet, and if it is not as it should be nothing will be.
        check::require_endpoint(kind)?;
        admin.limits.check(&call.place.zone, call.now).await?;
        let secrets = SecretDocument::read(Some(&config.document()?)).ok_or_else(Problem::internal)?;
        let checked = check::run(&admin, &call.place.zone, kind, &config.public, &secrets).await;
        if !checked.is_ok() {
            return Err(Refusal::unprocessable("provider_check_failed").details(json!({"check": checked.to_json()})));
        }
    }
    let new = New {
        id: fresh(call.now)?,
        name: draft.name,
        identifier: draft.identifier,
        kind,
        config,
        checked: draft.check,
    };
    let reference = provider_secret_ref(&call.place.zone, &new.id);
    let document = new.config.document()?;
    let keeps = if new.config.has_secrets() { Keeps::This(document.expose()) } else { Keeps::AsItIs };
    let hand = Hand::of(&admin, &call);
    let committing = admin.store.commit(&call.place.zone, (new, hand), |tx, (new, hand)| {
        Box::pin(async move {
            require_live_zone(tx).await?;
            let provider = add(tx, hand, new).await?;
            let recorded = hand.trace.creation(tx, provider.id.as_str(), &View::from(&provider)).await?;
            Ok::<_, Refusal>((provider, recorded))
        })
    });
    let (provider, recorded) = staged(&admin.sealed, &reference, keeps, committing).await?;
    Ok(recorded.answer(&View::from(&provider)))
}

/// Adds the provider with what is sealed for it, in the commit that records it.
pub(super) async fn add(tx: &mut ZoneWrite<'_>, hand: &Hand, new: &New) -> Result<Provider, Refusal> {
    let identifier = match (&new.identifier, &new.name) {
        (Some(identifier), _) => identifier.clone(),
        (None, name) => identifier::generate(tx, name.as_deref().unwrap_or_default()).await?,
    };
    hand.guard(&identifier, reserved::PROVIDER)?;
    let provider = Provider {
        zone_id: tx.zone().clone(),
        id: new.id.clone(),
        name: new.name.clone().unwrap_or_else(|| identifier.clone()),
        identifier,
        kind: new.kind.to_owned(),
        config: new.config.public.clone(),
        secret_config_keys: new.config.secret_keys(),
        // Unless it was checked, nobody has seen it answer yet.
        connectivity_failed_at: (asks_an_endpoint(new.kind) && !new.checked).then(|| tx.now()),
        archived_at: None,
        attribution: Attribution::created(&hand.by, tx.now()),
    };
    providers::add(tx, &provider).await.map_err(conflict)?;
    if new.config.has_secrets() {
        let reference = provider_secret_ref(&provider.zone_id, &provider.id);
        hand.sealed.put(tx, &reference, new.config.document()?.expose()).await?;
    }
    Ok(provider)
}
