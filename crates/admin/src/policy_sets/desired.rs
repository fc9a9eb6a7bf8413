//! Policy sets of a document (contract: control-cli-deploy.md §3.1). Beyond its name, a set may say of which `policies` it is,
//! by their names; then it gets a version of the newest of each. Nothing is activated by a document: what decides in a zone
//! changes by a call that says so.

use caracal_authority::{PolicyVersionId, ZoneId};
use caracal_policy::ContentSha256;
use caracal_store::policy_sets::{self, PolicySet};
use caracal_store::{ZoneRead, ZoneWrite, policies};
use serde_json::{Value, json};

use super::create::{self, Draft};
use super::{add_version, bundle};
use crate::admin::fresh;
use crate::desired_state::{Did, Import, Judged, Kind, Object, State};
use crate::input::{Fields, Text};
use crate::problem::Refusal;

const MEMBERS: [(&str, &str); 2] = [("name", "name"), ("description", "description")];
const POLICIES: &str = "policies";
const MAX_ENTRIES: usize = 256;

/// The set as a document has it. Its policies are named when its newest version is of their newest versions; `active` is
/// for people.
pub(crate) async fn spec(tx: &mut ZoneRead<'_>, set: &PolicySet, state: &State) -> Result<Value, Refusal> {
    let mut spec = json!({"name": set.name, "description": set.description});
    let latest = state.sets.get(&set.name).and_then(|(_, latest)| latest.as_ref());
    if let Some(latest) = latest
        && let Some(version) = policy_sets::lookup_version(tx, &latest.id).await?
    {
        let names = state.names_of_latest();
        let named: Option<Vec<&str>> = version.manifest.iter().map(|id| names.get(id.as_str()).copied()).collect();
        if let Some(named) = named {
            spec[POLICIES] = json!(named);
        }
    }
    if set.active_version_id.is_some() {
        spec["active"] = true.into();
    }
    Ok(spec)
}

/// The names of the policies that the set is to be of, if it says.
fn named(object: &Object) -> Result<Option<Vec<String>>, Refusal> {
    let read = || {
        let mut fields = Fields::of(Some(Value::Object(object.body(&[(POLICIES, POLICIES)]))))?;
        fields.texts(POLICIES, (1, MAX_ENTRIES), Text::exact(1, usize::MAX))
    };
    read().map_err(|mismatch| mismatch.refuse("invalid_body"))
}

/// Names and texts of the policies that the set will be of: as the document has them, else as the zone does. What is in
/// neither is left out, for the import to say so.
pub(crate) async fn documents(
    tx: &mut ZoneRead<'_>,
    state: &State,
    objects: &[Object],
    set: &Object,
) -> Result<Vec<(String, String)>, Refusal> {
    let mut documents = Vec::new();
    for name in named(set).ok().flatten().unwrap_or_default() {
        let declared = objects.iter().find(|object| object.kind == Kind::Policy && object.identity == name);
        let content = match (declared, state.policies.get(&name)) {
            (Some(policy), _) => policy.spec.get("content").and_then(Value::as_str).map(str::to_owned),
            (None, Some((_, Some(latest)))) => {
                policies::lookup_version(tx, &latest.id).await?.map(|version| version.content)
            }
            (None, _) => None,
        };
        documents.extend(content.map(|content| (name, content)));
    }
    Ok(documents)
}

/// Whether the documents can decide together.
pub(crate) async fn judge(zone: &ZoneId, documents: Vec<(String, String)>) -> Result<Judged, Refusal> {
    let content_sha256 = documents.iter().map(|(_, content)| ContentSha256::of(content).to_string()).collect();
    let defect = if documents.is_empty() { None } else { bundle::check_together(zone, documents).await? };
    Ok(Judged { content_sha256, defect })
}

/// Makes the set what the document says.
pub(crate) async fn settle(
    tx: &mut ZoneWrite<'_>,
    import: &Import,
    state: &mut State,
    object: &Object,
) -> Result<(Did, String), Refusal> {
    let hand = &import.hand;
    let mut draft =
        Draft::read(Some(Value::Object(object.body(&MEMBERS)))).map_err(|mismatch| mismatch.refuse("invalid_body"))?;
    draft.name.clone_from(&object.identity);
    let manifest = match named(object)? {
        Some(names) => Some(manifest(tx, import, state, object, &names).await?),
        None => None,
    };
    let Some((set, latest)) = state.sets.get(&object.identity) else {
        let set = create::add(tx, hand, &fresh(tx.now())?, &draft).await?;
        if let Some(manifest) = &manifest {
            add_version::add(tx, &hand.by, &set.id, &fresh(tx.now())?, manifest).await?;
        }
        return Ok((Did::Create, set.id.to_string()));
    };
    let set = set.id.clone();
    let Some(manifest) = manifest else { return Ok((Did::Nothing, set.to_string())) };
    let stands = match latest {
        Some(latest) => policy_sets::lookup_version(tx, &latest.id).await?.is_some_and(|row| row.manifest == manifest),
        None => false,
    };
    if stands {
        return Ok((Did::Nothing, set.to_string()));
    }
    add_version::add(tx, &hand.by, &set, &fresh(tx.now())?, &manifest).await?;
    Ok((Did::Update(vec![POLICIES]), set.to_string()))
}

/// The newest version of each named policy, if they can decide together.
async fn manifest(
    tx: &mut ZoneWrite<'_>,
    import: &Import,
    state: &State,
    object: &Object,
    names: &[String],
) -> Result<Vec<PolicyVersionId>, Refusal> {
    let (mut manifest, mut hashes) = (Vec::new(), Vec::new());
    for name in names {
        let Some((_, Some(latest))) = state.policies.get(name) else {
            return Err(Refusal::missing("policy_not_found").describe(format!("there is no policy {name:?}")));
        };
        manifest.push(latest.id.clone());
        hashes.push(latest.content_sha256.clone());
    }
    let ids: Vec<String> = manifest.iter().map(PolicyVersionId::to_string).collect();
    bundle::contract(tx, &ids).await?;
    match import.judged.get(&object.identity) {
        Some(judged) if judged.content_sha256 == hashes => match &judged.defect {
            None => Ok(manifest),
            Some(defect) => Err(Refusal::unprocessable("invalid_policy_bundle").describe(defect.clone())),
        },
        _ => Err(Refusal::conflict("import_overtaken").describe("a policy of the set changed meanwhile; try again")),
    }
}
