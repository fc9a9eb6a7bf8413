//! Whether a manifest can decide (contract: policy.md §7.3 and §10.1; README D31).
//!
//! Two questions, in this order. The contract check: do the versions exist, here, once, in one supported schema, and
//! does each pass the text check? The bundle check: do the documents say one thing together? Both speak of immutable
//! rows, so their answer can't change before the commit that relies on it.

use std::collections::HashSet;

use caracal_authority::{PolicyVersionId, ZoneId};
use caracal_policy::{Bundle, BundleDefect, Document, Evaluators, text};
use caracal_store::policies::{self, PolicyVersion};
use caracal_store::{Store, ZoneRead};
use http::StatusCode;
use serde_json::json;
use tokio::sync::oneshot;

use crate::policies::SCHEMA;
use crate::problem::Refusal;

/// Reads the versions that a manifest names and judges them.
pub(super) async fn check(store: &Store, zone: &ZoneId, manifest: &[String]) -> Result<Vec<PolicyVersionId>, Refusal> {
    let documents = read(store, zone, manifest).await?;
    let ids = documents.iter().map(|document| document.id.clone()).collect();
    judge_versions(zone, documents).await.ok_or_else(unavailable)?.map(|()| ids)
}

fn unavailable() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "policy_verification_unavailable")
}

/// The same for a version that passed before: that nobody can judge it just now does not keep it from being activated,
/// because that is how a zone gets rid of one that occupies its evaluators (contract: policy.md §10.3).
pub(super) async fn check_again(store: &Store, zone: &ZoneId, manifest: &[String]) -> Result<(), Refusal> {
    let documents = read(store, zone, manifest).await?;
    judge_versions(zone, documents).await.unwrap_or(Ok(()))
}

async fn read(store: &Store, zone: &ZoneId, manifest: &[String]) -> Result<Vec<PolicyVersion>, Refusal> {
    let mut snapshot = store.snapshot().await?;
    contract(&mut snapshot.zone(zone), manifest).await
}

async fn judge_versions(zone: &ZoneId, versions: Vec<PolicyVersion>) -> Option<Result<(), Refusal>> {
    let documents = versions.into_iter().map(|version| (version.id.to_string(), version.content)).collect();
    Some(judge(zone.as_str(), documents).await?.map_err(|defects| invalid_bundle(&defects)))
}

/// Whether one document by itself, which is not stored yet, can be read and evaluated. What its data say is judged with the
/// documents it will stand beside.
pub(crate) async fn check_alone(zone: Option<&ZoneId>, content: String) -> Result<Result<(), BundleDefect>, Refusal> {
    let judged =
        judge(zone.map_or("", ZoneId::as_str), vec![(String::new(), content)]).await.ok_or_else(unavailable)?;
    let defect = judged.err().into_iter().flatten().find(|defect| !defect.kind.is_for_a_set());
    Ok(defect.map_or(Ok(()), Err))
}

/// What keeps documents that are not stored yet from deciding together, if anything does. They are named for the messages.
pub(super) async fn check_together(zone: &ZoneId, documents: Vec<(String, String)>) -> Result<Option<String>, Refusal> {
    let judged = judge(zone.as_str(), documents).await.ok_or_else(unavailable)?;
    Ok(judged.err().map(|defects| defects.first().map(ToString::to_string).unwrap_or_default()))
}

/// The bundle check of documents with their ids. `None` if nobody could make it.
///
/// Up to 64 MiB of text, and documents that must be evaluated: on a thread that serves nobody else, in the zone's turn.
async fn judge(zone: &str, documents: Vec<(String, String)>) -> Option<Result<(), Vec<BundleDefect>>> {
    let (sender, built) = oneshot::channel();
    let build = move || {
        if sender.is_closed() {
            return;
        }
        let documents: Vec<Document<'_>> =
            documents.iter().map(|(policy_version_id, content)| Document { policy_version_id, content }).collect();
        let _ = sender.send(Bundle::build(&documents).map(drop));
    };
    Evaluators::of_process().submit(zone, build).ok()?;
    built.await.ok()
}

/// The contract check: the versions of a manifest, if they may stand in it.
pub(super) async fn contract(tx: &mut ZoneRead<'_>, manifest: &[String]) -> Result<Vec<PolicyVersion>, Refusal> {
    if manifest.is_empty() {
        return Err(invalid_contract("the manifest is empty"));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = manifest.iter().find(|id| !seen.insert(id.as_str())) {
        return Err(invalid_contract(format!("duplicate policy version {}", shown(twice))));
    }
    let mut documents = Vec::with_capacity(manifest.len());
    let (mut unknown, mut foreign) = (Vec::new(), None);
    for name in manifest {
        // What is no id is no version either.
        let Ok(id) = PolicyVersionId::parse(name) else {
            unknown.push(shown(name));
            continue;
        };
        match policies::lookup_version(tx, &id).await? {
            Some(version) => documents.push(version),
            None if policies::version_is_elsewhere(tx, &id).await? => foreign = foreign.or(Some(id)),
            None => unknown.push(shown(name)),
        }
    }
    if !unknown.is_empty() {
        unknown.truncate(8);
        return Err(invalid_contract(format!("missing policy versions: {}", unknown.join(", "))));
    }
    if let Some(id) = foreign {
        return Err(invalid_contract(format!("policy version {id} belongs to a different zone")));
    }
    let schema = documents.first().map(|first| first.schema_version.clone()).unwrap_or_default();
    for document in &documents {
        if document.schema_version != schema {
            let what = format!("policy version {} does not match policy set schema {schema}", document.id);
            return Err(invalid_contract(what));
        }
        if document.schema_version != SCHEMA {
            return Err(invalid_contract("unsupported_schema_version"));
        }
        if let Err(defect) = text::check(&document.content) {
            return Err(invalid_contract(format!("policy version {}: {}", document.id, defect.code)).details(json!({
                "policy_version_id": document.id,
                "line": defect.at.line,
                "column": defect.at.column,
                "message": defect.code.explanation(),
            })));
        }
    }
    Ok(documents)
}

/// As much of a name that a caller made up as helps to find it.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

fn invalid_contract(what: impl Into<String>) -> Refusal {
    Refusal::unprocessable("invalid_policy_contract").describe(what)
}

/// Every defect with its place; the first is also the description.
fn invalid_bundle(defects: &[BundleDefect]) -> Refusal {
    let first = defects.first().map(ToString::to_string).unwrap_or_default();
    let all: Vec<_> = defects
        .iter()
        .map(|defect| {
            json!({
                "policy_version_id": defect.policy_version_id,
                "line": defect.at.line,
                "column": defect.at.column,
                "code": defect.kind.code(),
                "message": defect.kind.to_string(),
            })
        })
        .collect();
    Refusal::unprocessable("invalid_policy_bundle").describe(first).details(json!({ "defects": all }))
}
