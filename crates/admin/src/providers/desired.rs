//! Providers of a document (contract: control-cli-deploy.md §3.1). Secrets make no difference: they are taken when something
//! else is written with them, and stay sealed where they are not given.

use caracal_store::ZoneWrite;
use caracal_store::providers::Provider;
use serde_json::{Value, json};

use super::config::{self, Secrets};
use super::create::{self, New};
use super::update::Change;
use super::{Draft, identifier};
use crate::admin::fresh;
use crate::desired_state::{Did, Import, Kind, Object, State};
use crate::problem::Refusal;

/// What a document calls the members of a request.
const MEMBERS: [(&str, &str); 4] =
    [("identifier", "identifier"), ("name", "name"), ("kind", "kind"), ("config", "config_json")];

/// The provider as a document has it. `secret_config_keys` is for people: an import ignores it.
pub(crate) fn spec(provider: &Provider) -> Value {
    let mut spec = json!({
        "identifier": provider.identifier,
        "name": provider.name,
        "kind": provider.kind,
        "config": provider.config,
    });
    if !provider.secret_config_keys.is_empty() {
        spec["secret_config_keys"] = json!(provider.secret_config_keys);
    }
    spec
}

/// Whether the object is a provider that comes with a secret.
pub(crate) fn holds_secrets(object: &Object) -> bool {
    let config = object.spec.get("config").and_then(Value::as_object);
    let is_secret = |key: &String| config::is_secret(key);
    object.kind == Kind::IdentityProvider && config.is_some_and(|config| config.keys().any(is_secret))
}

/// Makes the provider what the document says.
pub(crate) async fn settle(
    tx: &mut ZoneWrite<'_>,
    import: &Import,
    state: &mut State,
    object: &Object,
) -> Result<(Did, String), Refusal> {
    let body = object.body(&MEMBERS);
    let draft = Draft::read(Some(Value::Object(body))).map_err(|mismatch| mismatch.refuse("invalid_provider"))?;
    let identity = &object.identity;
    identifier::check(identity)?;
    let hand = &import.hand;
    let Some(provider) = state.providers.get(identity) else {
        // The built-in one, which is nobody's to configure.
        if state.provider_of(identity).is_some() {
            return Err(Refusal::conflict("provider_identifier_conflict"));
        }
        let kind = draft.kind.ok_or_else(|| Refusal::invalid("invalid_provider").describe("kind is required"))?;
        let config = config::read(kind, &draft.config.unwrap_or_default(), Secrets::Required)?;
        let (name, identifier) = (draft.name, Some(identity.clone()));
        let new = New { id: fresh(tx.now())?, name, identifier, kind, config, checked: false };
        let provider = create::add(tx, hand, &new).await?;
        let id = provider.id.to_string();
        state.know(provider);
        return Ok((Did::Create, id));
    };
    let id = provider.id.clone();
    let mut drift = Vec::new();
    let name = draft.name.filter(|name| *name != provider.name);
    if name.is_some() {
        drift.push("name");
    }
    let kind = draft.kind.filter(|kind| *kind != provider.kind);
    if kind.is_some() {
        drift.push("kind");
    }
    if kind.is_some() && draft.config.is_none() {
        return Err(Refusal::invalid("provider_config_required"));
    }
    if let Some(config) = &draft.config {
        let secrets = if kind.is_some() { Secrets::Required } else { Secrets::MayStay(&provider.secret_config_keys) };
        // As it would be stored, so that what is filled in is no difference.
        let read = config::read(kind.unwrap_or(&provider.kind), config, secrets)?;
        if read.public != provider.config {
            drift.push("config");
        }
    }
    if !drift.is_empty() {
        let is_reconfigured = kind.is_some() || drift.contains(&"config");
        let config = draft.config.filter(|_| is_reconfigured);
        let patch = Draft { name, identifier: None, kind, config, check: false };
        let change = Change { id: id.clone(), patch, hand: hand.clone() };
        state.know(change.apply(tx).await?);
    }
    Ok((Did::update(drift), id.to_string()))
}
