//! `POST /v1/zones/{zone}/import`: the zone becomes what the document says. All of it in one commit, or, where one object
//! can't be what it should be, nothing of it and a report that says of every object why or what.
//!
//! `?prune=true` archives what the document does not have, of the kinds that it has. What is declared is made first:
//! providers, applications, resources, policies, sets; what is pruned goes in the opposite order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use caracal_authority::ZoneId;
use caracal_store::ZoneWrite;
use http::{Method, StatusCode};
use serde_json::{Map, json};

use super::report::{self, Failed, Outcome, Report};
use super::{Did, Import, Judged, Kind, Object, State, document};
use crate::Admin;
use crate::admin::fresh;
use crate::answer::Changed;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::hand::Hand;
use crate::openapi::spec::{Content, Spec};
use crate::page::Query;
use crate::problem::Refusal;
use crate::reserved::is_reserved;
use crate::zones::require_live_zone;
use crate::{applications, policies, policy_sets, providers, resources};

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/import",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(import(admin, call)))),
    spec: Spec::of(
        "zones.import",
        "Makes a zone be what a document says.",
        StatusCode::OK,
        Content::Json(report::schema),
    )
    .asks(|query| prunes(query).map(drop))
    .takes(document::INVALID, |body| document::entries(body).map(drop))
    .refuses(&[
        (404, "zone_not_found"),
        (409, "zone_mismatch"),
        (409, "zone_too_large"),
        (400, "import_secrets_unsupported"),
        (422, "import_refused"),
        (502, "secret_backend_unavailable"),
        (503, "policy_verification_unavailable"),
        (503, "secret_hashing_unavailable"),
    ]),
};

/// What gives an application the right to command its zone: pruning it would end who prunes (control-cli-deploy.md §3.2).
const INVOKE: &str = "control:invoke";

struct Change {
    objects: Vec<Object>,
    prunes: bool,
    import: Import,
}

/// Whether what the document does not have is archived.
fn prunes(query: &Query) -> Result<bool, Refusal> {
    Ok(query.choice("prune", &["true", "false"])? == Some("true"))
}

async fn import(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    call.require_live_zone()?;
    let zone = call.place.zone.clone();
    let prunes = prunes(&call.query)?;
    let objects = document::read(call.body.take(), zone.as_str())?;
    if admin.sealed.is_external() && objects.iter().any(providers::desired::holds_secrets) {
        return Err(Refusal::invalid("import_secrets_unsupported").describe(
            "secrets lie outside the store here, where they can't be one commit with the rest: make the providers that \
             have new secrets by themselves, and import the document without them",
        ));
    }
    let judged = judge(&admin, &zone, &objects).await?;
    let import = Import { hand: Hand::of(&admin, &call), max_resources: admin.config.max_resources_per_zone, judged };
    let change = Change { objects, prunes, import };
    let (report, recorded) = admin
        .store
        .commit(&zone, change, |tx, change| {
            Box::pin(async move {
                require_live_zone(tx).await?;
                let outcomes = change.carry_out(tx).await?;
                let trace = &change.import.hand.trace;
                let (zone, is_dry_run) = (tx.zone().to_string(), trace.is_rehearsal());
                let report = Report { zone: &zone, is_dry_run, prunes: change.prunes, outcomes: &outcomes };
                let told = report.to_json();
                if is_dry_run {
                    return Err(Refusal::rehearsed(told));
                }
                if !report.is_ok() {
                    let refusal = Refusal::unprocessable("import_refused");
                    return Err(refusal.describe("nothing was changed; details says why").details(told));
                }
                for outcome in &outcomes {
                    record(tx, &change.import.hand, outcome).await?;
                }
                let recorded = trace.change(tx, StatusCode::OK, None).await?;
                Ok::<_, Refusal>((told, recorded))
            })
        })
        .await?;
    Ok(recorded.answer(&report))
}

/// Judges the policies of every set that names them, as they will be.
async fn judge(admin: &Admin, zone: &ZoneId, objects: &[Object]) -> Result<BTreeMap<String, Judged>, Refusal> {
    let mut judged = BTreeMap::new();
    let sets: Vec<&Object> =
        objects.iter().filter(|object| object.kind == Kind::PolicySet && object.says("policies")).collect();
    if sets.is_empty() {
        return Ok(judged);
    }
    let mut snapshot = admin.store.snapshot().await?;
    let tx = &mut snapshot.zone(zone);
    let state = State::read(tx, &admin.config.control_audience).await?;
    let mut documents = Vec::new();
    for set in sets {
        documents.push((set.identity.clone(), policy_sets::desired::documents(tx, &state, objects, set).await?));
    }
    drop(snapshot);
    for (set, documents) in documents {
        judged.insert(set, policy_sets::desired::judge(zone, documents).await?);
    }
    Ok(judged)
}

/// One record for each object that was changed, before that of the import: who reads the history of an object finds it.
async fn record(tx: &mut ZoneWrite<'_>, hand: &Hand, outcome: &Outcome) -> Result<(), Refusal> {
    let Ok((did, id)) = &outcome.result else { return Ok(()) };
    if matches!(did, Did::Nothing) {
        return Ok(());
    }
    let mut payload = Map::new();
    payload.insert("change_kind".to_owned(), if matches!(did, Did::Prune) { "delete" } else { did.as_str() }.into());
    payload.insert("changed_fields".to_owned(), json!(did.drift()));
    let action = format!("Import {}", did.as_str());
    hand.trace.consequence(tx, &action, (outcome.kind.collection(), id), payload).await
}

impl Change {
    /// Settles every object, in the order of kinds; the outcomes are in the document's, what is pruned last.
    async fn carry_out(&self, tx: &mut ZoneWrite<'_>) -> Result<Vec<Outcome>, Refusal> {
        let mut state = State::read(tx, &self.import.hand.control).await?;
        let live = Live::of(&state);
        let mut settled: Vec<(usize, Outcome)> = Vec::with_capacity(self.objects.len());
        for kind in Kind::ALL {
            for (at, object) in self.objects.iter().enumerate().filter(|(_, object)| object.kind == kind) {
                let done = self.settle(tx, &mut state, object).await;
                let result = done.map_or_else(|refusal| Failed::of(refusal, false).map(Err), |done| Ok(Ok(done)))?;
                settled.push((at, Outcome { kind, identity: object.identity.clone(), result }));
            }
        }
        settled.sort_by_key(|(at, _)| *at);
        let mut outcomes: Vec<Outcome> = settled.into_iter().map(|(_, outcome)| outcome).collect();
        if self.prunes {
            self.prune(tx, &live, &state, &mut outcomes).await?;
        }
        Ok(outcomes)
    }

    async fn settle(
        &self,
        tx: &mut ZoneWrite<'_>,
        state: &mut State,
        object: &Object,
    ) -> Result<(Did, String), Refusal> {
        // Not even the bootstrap token's documents have it: it is nobody's configuration.
        if object.kind.reserved().is_some_and(|prefix| is_reserved(&object.identity, prefix)) {
            return Err(Refusal::conflict("reserved_namespace"));
        }
        match object.kind {
            Kind::IdentityProvider => providers::desired::settle(tx, &self.import, state, object).await,
            Kind::Application => applications::desired::settle(tx, &self.import, state, object).await,
            Kind::Resource => resources::desired::settle(tx, &self.import, state, object).await,
            Kind::Policy => policies::desired::settle(tx, &self.import, state, object).await,
            Kind::PolicySet => policy_sets::desired::settle(tx, &self.import, state, object).await,
        }
    }

    async fn prune(
        &self,
        tx: &mut ZoneWrite<'_>,
        live: &Live,
        state: &State,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Refusal> {
        let declared: BTreeSet<(Kind, &str)> =
            self.objects.iter().map(|object| (object.kind, object.identity.as_str())).collect();
        for kind in Kind::ALL.into_iter().rev().filter(|kind| declared.iter().any(|(named, _)| named == kind)) {
            for identity in live.of_kind(kind) {
                if declared.contains(&(kind, identity.as_str())) {
                    continue;
                }
                let done = self.end(tx, state, kind, identity).await;
                let result =
                    done.map_or_else(|refusal| Failed::of(refusal, true).map(Err), |id| Ok(Ok((Did::Prune, id))))?;
                outcomes.push(Outcome { kind, identity: identity.clone(), result });
            }
        }
        Ok(())
    }

    /// Archives one object that was there before, and says its id.
    async fn end(&self, tx: &mut ZoneWrite<'_>, state: &State, kind: Kind, identity: &str) -> Result<String, Refusal> {
        let hand = &self.import.hand;
        match kind {
            Kind::IdentityProvider => {
                let Some(row) = state.providers.get(identity) else { return Err(gone()) };
                providers::archive::end(tx, hand, row).await?;
                Ok(row.id.to_string())
            }
            Kind::Application => {
                let Some(row) = state.applications.get(identity) else { return Err(gone()) };
                applications::archive::end(tx, hand, row).await?;
                Ok(row.id.to_string())
            }
            Kind::Resource => {
                let Some(row) = state.resources.get(identity) else { return Err(gone()) };
                resources::archive::end(tx, hand, row).await?;
                Ok(row.id.to_string())
            }
            Kind::Policy => {
                let Some((row, _)) = state.policies.get(identity) else { return Err(gone()) };
                policies::archive::end(tx, hand, row).await?;
                Ok(row.id.to_string())
            }
            Kind::PolicySet => {
                let Some((row, _)) = state.sets.get(identity) else { return Err(gone()) };
                policy_sets::archive::end(tx, hand, &row.id, &fresh(tx.now())?).await?;
                Ok(row.id.to_string())
            }
        }
    }
}

fn gone() -> Refusal {
    Refusal::missing("not_found")
}

/// What was there before, and may be pruned.
struct Live(BTreeMap<Kind, Vec<String>>);

impl Live {
    fn of(state: &State) -> Self {
        let commands = |row: &caracal_store::applications::Application| row.traits.iter().any(|name| name == INVOKE);
        let applications = state.applications.values().filter(|row| !commands(row)).map(|row| row.name.clone());
        Self(BTreeMap::from([
            (Kind::IdentityProvider, state.providers.keys().cloned().collect()),
            (Kind::Application, applications.collect()),
            (Kind::Resource, state.resources.keys().cloned().collect()),
            (Kind::Policy, state.policies.keys().cloned().collect()),
            (Kind::PolicySet, state.sets.keys().cloned().collect()),
        ]))
    }

    fn of_kind(&self, kind: Kind) -> &[String] {
        self.0.get(&kind).map_or(&[], Vec::as_slice)
    }
}
