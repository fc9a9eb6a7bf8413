//! Resources of a document (contract: control-cli-deploy.md §3.1). A document may name a resource's provider by
//! `credential_provider`, its identifier, which is the same in every zone; an export does.

use std::collections::BTreeSet;

use caracal_authority::ProviderId;
use caracal_store::ZoneWrite;
use caracal_store::providers;
use caracal_store::resources::{Operation, Resource};
use serde_json::{Map, Value, json};

use super::create::{New, require_scopes};
use super::fields::Draft;
use super::update::Change;
use super::{check_identifier, operations};
use crate::admin::fresh;
use crate::desired_state::{Did, Import, Object, State};
use crate::problem::Refusal;
use crate::providers::built_in_none;

/// The members that a document and a request share.
const MEMBERS: [(&str, &str); 8] = [
    ("identifier", "identifier"),
    ("name", "name"),
    ("scopes", "scopes"),
    ("upstream_url", "upstream_url"),
    ("credential_provider_id", "credential_provider_id"),
    ("operations", "operations"),
    ("operation_enforcement", "operation_enforcement"),
    ("limits", "limits"),
];
const BY_NAME: &str = "credential_provider";

/// The resource as a document has it.
pub(crate) fn spec(resource: &Resource, state: &State) -> Value {
    let provider = resource.credential_provider_id.as_ref();
    let mut spec = json!({
        "identifier": resource.identifier,
        "name": resource.name,
        "scopes": resource.scopes,
        "upstream_url": resource.upstream_url,
        BY_NAME: provider.and_then(|id| state.provider_names.get(id.as_str())),
        "operations": resource.operations,
        "operation_enforcement": resource.operation_enforcement,
    });
    if !resource.limits.is_empty() {
        spec["limits"] = json!(resource.limits);
    }
    spec
}

/// Makes the resource what the document says.
pub(crate) async fn settle(
    tx: &mut ZoneWrite<'_>,
    import: &Import,
    state: &mut State,
    object: &Object,
) -> Result<(Did, String), Refusal> {
    let hand = &import.hand;
    if object.identity == hand.control {
        return Err(Refusal::conflict("protected_resource"));
    }
    check_identifier(&object.identity, false)?;
    let mut body = object.body(&MEMBERS);
    body.insert("identifier".to_owned(), object.identity.as_str().into());
    name_provider(tx, import, state, object, &mut body).await?;
    let mut draft = Draft::read(Some(Value::Object(body))).map_err(|mismatch| mismatch.refuse("invalid_resource"))?;
    let Some(resource) = state.resources.get(&object.identity) else {
        require_scopes(&draft)?;
        let new = New { id: fresh(tx.now())?, draft, limit: import.max_resources, hand: hand.clone() };
        let resource = new.add(tx).await?;
        let id = resource.id.to_string();
        state.resources.insert(object.identity.clone(), resource);
        return Ok((Did::Create, id));
    };
    let (id, drift) = (resource.id.clone(), drift(&draft, resource));
    if !drift.is_empty() {
        draft.identifier = None;
        let resource = Change { id: id.clone(), patch: draft, hand: hand.clone() }.apply(tx).await?;
        state.resources.insert(object.identity.clone(), resource);
    }
    Ok((Did::update(drift), id.to_string()))
}

/// Puts the id of the provider that the spec names by its identifier into the request.
async fn name_provider(
    tx: &mut ZoneWrite<'_>,
    import: &Import,
    state: &mut State,
    object: &Object,
    body: &mut Map<String, Value>,
) -> Result<(), Refusal> {
    let id = match object.spec.get(BY_NAME) {
        None => return Ok(()),
        Some(_) if object.says("credential_provider_id") => {
            return Err(Refusal::invalid("invalid_resource")
                .describe("credential_provider and credential_provider_id say the same in two ways; give one"));
        }
        Some(Value::Null) => None,
        Some(Value::String(identifier)) => {
            let known = state.provider_of(identifier);
            Some(match known {
                Some(id) => id,
                None => built_in(tx, import, state, identifier).await?,
            })
        }
        Some(_) => return Err(Refusal::invalid("invalid_resource").describe("credential_provider: expected a string")),
    };
    body.insert("credential_provider_id".to_owned(), id.map_or(Value::Null, |id| id.as_str().into()));
    Ok(())
}

/// Every zone may have the built-in provider; where it is named, it is.
async fn built_in(
    tx: &mut ZoneWrite<'_>,
    import: &Import,
    state: &mut State,
    identifier: &str,
) -> Result<ProviderId, Refusal> {
    let provider = built_in_none(tx.zone(), &import.hand.by, tx.now())?;
    if identifier != provider.identifier {
        return Err(Refusal::missing("provider_not_found"));
    }
    providers::add(tx, &provider).await?;
    state.provider_names.insert(provider.id.to_string(), provider.identifier.clone());
    Ok(provider.id)
}

/// In which respects the resource is not what the document says.
fn drift(draft: &Draft, resource: &Resource) -> Vec<&'static str> {
    let scopes = |scopes: &[String]| scopes.iter().cloned().collect::<BTreeSet<_>>();
    let key = |operation: &Operation| (operation.method.clone(), operation.path.clone(), operation.scope.clone());
    let calls = |operations: &[Operation]| operations.iter().map(key).collect::<BTreeSet<_>>();
    let provider = resource.credential_provider_id.as_ref().map(ProviderId::as_str);
    let enforcement = resource.operation_enforcement.as_str();
    let differs = [
        ("name", draft.name.as_ref().is_some_and(|name| *name != resource.name)),
        ("scopes", draft.scopes.as_ref().is_some_and(|wanted| scopes(wanted) != scopes(&resource.scopes))),
        ("upstream_url", draft.upstream_url.as_ref().is_some_and(|url| *url != resource.upstream_url)),
        (
            "credential_provider_id",
            draft.credential_provider_id.as_ref().is_some_and(|wanted| wanted.as_deref() != provider),
        ),
        (
            "operations",
            draft
                .operations
                .as_ref()
                .is_some_and(|wanted| calls(&operations::normalise(wanted)) != calls(&resource.operations)),
        ),
        ("operation_enforcement", draft.operation_enforcement.is_some_and(|wanted| wanted != enforcement)),
        ("limits", draft.limits.is_some_and(|limits| limits != resource.limits)),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}
