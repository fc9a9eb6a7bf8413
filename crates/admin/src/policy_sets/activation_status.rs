//! `GET /v1/zones/{zone}/policy-sets/{id}/activation-status`: how far an activation has come (contract: policy.md §10.4).
//!
//! Clients ask until they read `loaded`, and give up at `failed`. So both must be exact: a message that was delivered
//! and whose row is gone reads `dispatched`, and a version is loaded under its own id even when its documents are those
//! that were loaded before.

use std::sync::Arc;

use caracal_authority::{OutboxId, PolicySetId, PolicySetVersionId, Timestamp, ZoneId};
use caracal_store::outbox::{self, OutboxRow};
use caracal_store::{ZoneRead, policy_sets};
use http::Method;
use serde::Serialize;

use super::{INVALIDATE, dedupe_prefix, existing};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::problem::Refusal;
use crate::runtime::RuntimeState;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/policy-sets/{id}/activation-status",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(status(admin, call)))),
};

#[derive(Serialize)]
struct Status<'a> {
    zone_id: &'a ZoneId,
    policy_set_id: &'a PolicySetId,
    version_id: &'a PolicySetVersionId,
    active: bool,
    active_version_id: Option<&'a PolicySetVersionId>,
    manifest_sha256: Option<&'a str>,
    propagation_status: &'static str,
    outbox: Announcement,
    sts: Runtime,
}

#[derive(Serialize)]
struct Announcement {
    id: Option<OutboxId>,
    state: &'static str,
    attempts: i64,
    last_error: Option<String>,
    dispatched_at: Option<Timestamp>,
}

#[derive(Serialize, Default)]
struct Runtime {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    loaded: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone_id: Option<ZoneId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_set_version_id: Option<PolicySetVersionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loaded_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

async fn status(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let asked_version = named(&call, "version_id")?;
    let asked_message = named(&call, "outbox_id")?;
    let (set_id, zone): (PolicySetId, _) = (call.id("id")?, &call.place.zone);
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(zone);
    let set = existing(&mut tx, &set_id, "policy_set_binding_not_found").await?;
    let version = match asked_version {
        Some(text) => PolicySetVersionId::parse(&text).map_err(|_| Refusal::invalid("invalid_body"))?,
        None => {
            let active = set.active_version_id.clone();
            active.ok_or_else(|| Refusal::missing("active_policy_set_version_not_found"))?
        }
    };
    let active = policy_sets::find_active(&mut tx).await?.filter(|active| active.policy_set_id == set_id);
    let is_active = set.active_version_id.as_ref() == Some(&version);
    let outbox = announcement(&mut tx, &set_id, &version, is_active, asked_message).await?;
    drop(snapshot);
    let sts = runtime(&admin, zone, call.now).await;
    let propagation_status = propagation(is_active, &outbox, &sts, &version);
    Ok(Answer::ok(&Status {
        zone_id: zone,
        policy_set_id: &set_id,
        version_id: &version,
        active: is_active,
        active_version_id: set.active_version_id.as_ref(),
        manifest_sha256: active.as_ref().map(|active| active.manifest_sha256.as_str()),
        propagation_status,
        outbox,
        sts,
    }))
}

/// A parameter that, when it is there, must not be empty.
fn named(call: &Call<InZone>, name: &'static str) -> Result<Option<String>, Refusal> {
    match call.query.one(name)? {
        Some("") => Err(Refusal::invalid("invalid_body").describe(format!("{name}: must not be empty"))),
        value => Ok(value.map(str::to_owned)),
    }
}

/// What became of the message that announced `version`.
async fn announcement(
    tx: &mut ZoneRead<'_>,
    set: &PolicySetId,
    version: &PolicySetVersionId,
    is_active: bool,
    asked: Option<String>,
) -> Result<Announcement, Refusal> {
    let noted = policy_sets::find_announcement(tx).await?.filter(|_| is_active);
    let Some(asked) = asked else {
        let newest = outbox::find_newest(tx, INVALIDATE, &dedupe_prefix(set, Some(version))).await?;
        return Ok(match newest {
            Some(row) => Announcement::of(row),
            // It was committed with the activation. That it is no longer there means that it was delivered.
            None if is_active => Announcement::without_row(noted, "dispatched"),
            None => Announcement::without_row(None, "missing"),
        });
    };
    let Ok(id) = OutboxId::parse(&asked) else { return Ok(Announcement::without_row(None, "missing")) };
    let Some(row) = outbox::lookup(tx, &id).await? else {
        let state = if noted.as_ref() == Some(&id) { "dispatched" } else { "missing" };
        return Ok(Announcement::without_row(Some(id), state));
    };
    let says = |name: &str, value: &str| row.fields.iter().any(|(key, text)| key == name && text == value);
    let is_ours = row.topic == INVALIDATE
        && says("policy_set_id", set.as_str())
        && says("policy_set_version_id", version.as_str());
    Ok(if is_ours { Announcement::of(row) } else { Announcement { state: "mismatch", ..Announcement::of(row) } })
}

impl Announcement {
    fn of(row: OutboxRow) -> Self {
        let OutboxRow { id, attempts, last_error, .. } = row;
        Self { id: Some(id), state: "pending", attempts, last_error, dispatched_at: None }
    }

    fn without_row(id: Option<OutboxId>, state: &'static str) -> Self {
        Self { id, state, attempts: 0, last_error: None, dispatched_at: None }
    }
}

async fn runtime(admin: &Admin, zone: &ZoneId, now: Timestamp) -> Runtime {
    let Some(runtime) = &admin.runtime else { return Runtime { state: "not_configured", ..Runtime::default() } };
    match runtime.status(zone).await {
        RuntimeState::Loaded(loaded) => Runtime {
            state: "loaded",
            loaded: Some(true),
            zone_id: Some(zone.clone()),
            policy_set_version_id: loaded.policy_set_version_id,
            manifest_sha256: Some(loaded.manifest_sha256),
            loaded_at: Some(loaded.loaded_at),
            age_seconds: i64::try_from(loaded.loaded_at.until(now).as_secs()).ok(),
            detail: None,
        },
        RuntimeState::NotLoaded => Runtime { state: "not_loaded", loaded: Some(false), ..Runtime::default() },
        RuntimeState::Failed { detail } => Runtime { state: "failed", detail: Some(detail), ..Runtime::default() },
        RuntimeState::Unreachable { detail } => {
            Runtime { state: "unreachable", detail: Some(detail), ..Runtime::default() }
        }
    }
}

/// The first that holds.
fn propagation(is_active: bool, outbox: &Announcement, sts: &Runtime, version: &PolicySetVersionId) -> &'static str {
    match (is_active, outbox.state) {
        (false, _) => "waiting_for_activation",
        (true, "dead" | "mismatch") => "failed",
        (true, "dispatched") if sts.policy_set_version_id.as_ref() == Some(version) => "loaded",
        (true, "dispatched") if sts.state == "failed" => "failed",
        (true, "dispatched") => "waiting_for_sts",
        (true, _) => "waiting_for_outbox",
    }
}
