//! `GET /v1/zones/{zone}/policy-sets/{id}/activation-status`: how far an activation has come (contract: policy.md §10.4).
//!
//! Clients ask until they read `loaded`, and give up at `failed`. So both must be exact: a message that was delivered
//! and whose row is gone reads `dispatched`, and a version is loaded under its own id even when its documents are those
//! that were loaded before.
//!
//! Every process that decides is shown (README D32). `sts` is the one that is furthest behind, so `loaded` means all of
//! them; and one that could not load what was active before has not failed at what is active now.

use std::sync::Arc;

use caracal_authority::{OutboxId, PolicySetId, PolicySetVersionId, ReplicaId, Timestamp, ZoneId};
use caracal_store::outbox::{self, OutboxRow};
use caracal_store::{ZoneRead, policy_sets};
use http::Method;
use serde::Serialize;

use super::{dedupe_prefix, existing};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::page::Query;
use crate::problem::Refusal;
use crate::runtime::{Replica, RuntimeState, Unreachable};

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/policy-sets/{id}/activation-status",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(status(admin, call)))),
    spec: Spec::shows::<Status>("policy_sets.activation_status", "Tells how far an activation has come.")
        .asks(|query| asked(query).map(drop))
        .refuses(&[
            (400, "invalid_body"),
            (404, "policy_set_binding_not_found"),
            (404, "active_policy_set_version_not_found"),
        ]),
};

described! {
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
        replicas: Vec<Shown>,
    }
}

described! {
    #[derive(Serialize)]
    struct Announcement {
        id: Option<OutboxId>,
        state: &'static str,
        attempts: i64,
        last_error: Option<String>,
        dispatched_at: Option<Timestamp>,
    }
}

described! {
    /// One process that decides.
    #[derive(Serialize)]
    struct Shown {
        id: ReplicaId,
        seen_at: Timestamp,
        #[serde(flatten)]
        runtime: Runtime,
    }
}

described! {
    #[derive(Serialize, Default, Clone)]
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
}

async fn status(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let (asked_version, asked_message) = asked(&call.query)?;
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
    let in_force = policy_sets::find_active(&mut tx).await?;
    let active = in_force.as_ref().filter(|active| active.policy_set_id == set_id);
    let is_active = set.active_version_id.as_ref() == Some(&version);
    let outbox = announcement(&mut tx, &set_id, &version, asked_message).await?;
    drop(snapshot);
    let in_force_id = in_force.as_ref().map(|active| &active.version_id);
    let (sts, replicas) = runtime(&admin, zone, in_force_id, call.now).await;
    let propagation_status = propagation(is_active, &outbox, &sts, &version);
    Ok(Answer::ok(&Status {
        zone_id: zone,
        policy_set_id: &set_id,
        version_id: &version,
        active: is_active,
        active_version_id: set.active_version_id.as_ref(),
        manifest_sha256: active.map(|active| active.manifest_sha256.as_str()),
        propagation_status,
        outbox,
        sts,
        replicas,
    }))
}

/// The version and the message.
fn asked(query: &Query) -> Result<(Option<String>, Option<String>), Refusal> {
    Ok((named(query, "version_id")?, named(query, "outbox_id")?))
}

/// A parameter that, when it is there, must not be empty.
fn named(query: &Query, name: &'static str) -> Result<Option<String>, Refusal> {
    match query.some(name)? {
        Some("") => Err(Refusal::invalid("invalid_body").describe(format!("{name}: must not be empty"))),
        value => Ok(value.map(str::to_owned)),
    }
}

/// What became of the message that announced `version`.
async fn announcement(
    tx: &mut ZoneRead<'_>,
    set: &PolicySetId,
    version: &PolicySetVersionId,
    asked: Option<String>,
) -> Result<Announcement, Refusal> {
    let Some(asked) = asked else {
        let newest = outbox::find_newest(tx, policy_sets::INVALIDATED, &dedupe_prefix(set, Some(version))).await?;
        return Ok(match newest {
            Some(row) => Announcement::of(row),
            // It was committed with its activation. That it is no longer there means that it was delivered.
            None => match policy_sets::find_announcement(tx, set, version).await? {
                Some(id) => Announcement::without_row(Some(id), "dispatched"),
                None => Announcement::without_row(None, "missing"),
            },
        });
    };
    let Ok(id) = OutboxId::parse(&asked) else { return Ok(Announcement::without_row(None, "missing")) };
    let announced = policy_sets::find_announced(tx, &id).await?;
    let is_ours = announced.as_ref().is_some_and(|(of, what)| of == set && what == version);
    Ok(match (outbox::lookup(tx, &id).await?, announced) {
        (Some(row), _) if is_ours => Announcement::of(row),
        (Some(row), _) => Announcement { state: "mismatch", ..Announcement::of(row) },
        (None, Some(_)) => Announcement::without_row(Some(id), if is_ours { "dispatched" } else { "mismatch" }),
        (None, None) => Announcement::without_row(Some(id), "missing"),
    })
}

impl Announcement {
    fn of(row: OutboxRow) -> Self {
        let OutboxRow { id, attempts, last_error, dead_at, .. } = row;
        let state = if dead_at.is_some() { "dead" } else { "pending" };
        Self { id: Some(id), state, attempts, last_error, dispatched_at: None }
    }

    fn without_row(id: Option<OutboxId>, state: &'static str) -> Self {
        Self { id, state, attempts: 0, last_error: None, dispatched_at: None }
    }
}

/// The process that is furthest behind, and all of them.
async fn runtime(
    admin: &Admin,
    zone: &ZoneId,
    in_force: Option<&PolicySetVersionId>,
    now: Timestamp,
) -> (Runtime, Vec<Shown>) {
    let alone = |state, detail| (Runtime { state, detail, ..Runtime::default() }, Vec::new());
    let Some(runtime) = &admin.runtime else { return alone("not_configured", None) };
    let replicas = match runtime.replicas(zone).await {
        Ok(replicas) if replicas.is_empty() => {
            return alone("unreachable", Some("no process that decides has been heard of lately".to_owned()));
        }
        Ok(replicas) => replicas,
        Err(Unreachable(detail)) => return alone("unreachable", Some(detail)),
    };
    let behind = |shown: &Shown| match (shown.runtime.state, shown.runtime.policy_set_version_id.as_ref()) {
        ("failed", _) => 0,
        ("loaded", found) if found == in_force => 3,
        ("loaded", _) => 2,
        _ => 1,
    };
    let shown: Vec<Shown> = replicas.into_iter().map(|replica| Shown::of(replica, zone, in_force, now)).collect();
    let last = shown.iter().min_by_key(|shown| behind(shown)).map(|shown| shown.runtime.clone());
    (last.unwrap_or_default(), shown)
}

impl Shown {
    fn of(replica: Replica, zone: &ZoneId, in_force: Option<&PolicySetVersionId>, now: Timestamp) -> Self {
        let not_loaded = || Runtime { state: "not_loaded", loaded: Some(false), ..Runtime::default() };
        let runtime = match replica.state {
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
            RuntimeState::NotLoaded => not_loaded(),
            RuntimeState::Failed { policy_set_version_id, detail } => {
                if policy_set_version_id.as_ref() == in_force {
                    Runtime { state: "failed", detail: Some(detail), ..Runtime::default() }
                } else {
                    not_loaded()
                }
            }
        };
        Self { id: replica.id, seen_at: replica.seen_at, runtime }
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
