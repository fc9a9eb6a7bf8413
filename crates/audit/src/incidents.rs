//! Incidents: what the sweep found and what a producer tried, as evidence of its own. Readiness and metrics say that
//! something is wrong while it is; an incident stays, in the chain of the zone it is about.
//!
//! An incident is recorded once. Nobody may make it look recorded who is not in the ledger's own confidence: callers choose the
//! request ids of what they do, so the event is looked for by its type, too, which no frame may have, and under a request
//! id that can't be foreseen. What the sweep finds stands until a pass over everything does not find it any more; what
//! comes back after that is told again.

use std::collections::{BTreeMap, BTreeSet};

use caracal_authority::{EventId, Timestamp, ZoneId};
use caracal_crypto::chance;
use caracal_crypto::hmac::{HmacRing, sha256_hex};
use caracal_ledger::{
    AdminRecord, Chain, ChainReport, Decision, EvaluationStatus, EventType, Evidence, Finding, Ledger, LedgerReport,
    Metadata, MetadataKey as Key, Problem,
};
use caracal_store::incidents::{self, Standing};
use caracal_store::{Store, StoreError, evidence};
use serde_json::Value;

/// Text out of a store that may have been tampered with, at most this much of it.
const SHOWN: usize = 256;
/// Keeps these request ids apart from everything else the key signs.
const DOMAIN: &[u8] = b"caracal ledger incident v1\n";

/// What happened, once however often it is found.
pub(crate) struct Incident {
    /// What tells it from others.
    identity: String,
    reason: String,
    metadata: Metadata,
}

impl Incident {
    /// The first thing that is wrong with a chain.
    pub(crate) fn of_finding(chain: &Chain, finding: &Finding, total: u64) -> Self {
        let event = finding.event_id.as_deref().map(|id| id.chars().take(SHOWN).collect::<String>());
        let name = name_of(&finding.problem);
        Self {
            identity: identity_of(finding),
            reason: name.clone(),
            metadata: Metadata::new()
                .with(Key::Problem, name)
                .with(Key::Chain, chain.kind())
                .with(Key::Findings, total)
                .with_known(Key::ChainSeq, finding.chain_seq)
                .with_known(Key::EventId, event),
        }
    }

    /// An event that came once more and says something else.
    pub(crate) fn of_replay(event: &str, stored: &str, incoming: &str) -> Self {
        Self {
            identity: format!("replay {event} {incoming}"),
            reason: "content_mismatch_on_replay".to_owned(),
            metadata: Metadata::new()
                .with(Key::Problem, "content_mismatch_on_replay")
                .with(Key::EventId, event.chars().take(SHOWN).collect::<String>())
                .with(Key::Stored, stored)
                .with(Key::Incoming, incoming),
        }
    }
}

fn name_of(problem: &Problem) -> String {
    let problem = serde_json::to_value(problem).unwrap_or_default();
    problem.get("problem").and_then(Value::as_str).unwrap_or("unknown").to_owned()
}

/// What tells a finding from others of its chain. Where the chain ends does not: it goes on growing, not least by the incident.
fn identity_of(finding: &Finding) -> String {
    sha256_hex(
        match &finding.problem {
            Problem::TailCut { recorded, .. } => format!("tail_cut {recorded}"),
            Problem::HeadMoved { .. } => "head_moved".to_owned(),
            _ => finding.to_string(),
        }
        .as_bytes(),
    )
}

/// Writes what the sweep found, unless it stands already. What can't be written was logged and counted all the same, and
/// is tried again by the next pass.
pub(crate) async fn raise_found(store: &Store, ledger: &Ledger, report: &ChainReport) {
    let Some(finding) = report.first() else { return };
    let incident = Incident::of_finding(&report.chain, finding, report.findings_total);
    let reason = incident.reason.clone();
    let written = match report.chain.zone() {
        Some(zone) => raise_in_zone(store, ledger, (&report.chain, zone), incident).await,
        None => raise_zoneless(store, ledger, &report.chain, incident).await,
    };
    if let Err(error) = written {
        tracing::error!(%error, reason, "an incident could not be recorded");
    }
}

/// First noted, then recorded under the request id of the note: cut off in between, the next pass finds the note and not
/// the event.
async fn raise_in_zone(
    store: &Store,
    ledger: &Ledger,
    (chain, zone): (&Chain, &ZoneId),
    incident: Incident,
) -> Result<(), StoreError> {
    let note = Note::of(chain, &incident)?;
    let request = match note.found_in(&find_standing(store).await?) {
        Some(request) => request,
        None => {
            store
                .commit_deployment(note, |tx, note| {
                    Box::pin(async move {
                        let mut standing = incidents::find(tx).await?;
                        if let Some(request) = note.found_in(&standing) {
                            return Ok(request);
                        }
                        note.add_to(&mut standing);
                        incidents::set(tx, &standing).await.map(|()| note.request.clone())
                    })
                })
                .await?
        }
    };
    record_in(store, ledger, zone, request, &incident).await
}

/// What belongs to no zone has no chain of evidence and nobody who is sent its events: it is a record among the changes that
/// belong to no zone, noted in the same commit.
async fn raise_zoneless(store: &Store, ledger: &Ledger, chain: &Chain, incident: Incident) -> Result<(), StoreError> {
    let note = Note::of(chain, &incident)?;
    if note.found_in(&find_standing(store).await?).is_some() {
        return Ok(());
    }
    let now = store.now();
    let record = AdminRecord {
        id: fresh(now)?,
        request_id: note.request.clone(),
        actor_id: None,
        actor_name: None,
        actor_scope: None,
        action: "Ledger incident".to_owned(),
        method: String::new(),
        path: String::new(),
        zone: None,
        entity_type: None,
        entity_id: None,
        status_code: 500,
        payload: Some(incident.metadata.into_map()),
        occurred_at: now,
    };
    store
        .commit_deployment((ledger.clone(), note, record), |tx, (ledger, note, record)| {
            Box::pin(async move {
                let mut standing = incidents::find(tx).await?;
                if note.found_in(&standing).is_some() {
                    return Ok(());
                }
                note.add_to(&mut standing);
                incidents::set(tx, &standing).await?;
                ledger.record_zoneless_change(tx, record).await
            })
        })
        .await
}

/// That an incident of a chain stands, and the request id under which it will have been recorded.
struct Note {
    chain: String,
    identity: String,
    request: String,
}

impl Note {
    fn of(chain: &Chain, incident: &Incident) -> Result<Self, StoreError> {
        let id = chance::uuid_v4().map_err(|error| StoreError::Unavailable { reason: error.to_string() })?;
        let (chain, identity) = (chain.to_string(), incident.identity.clone());
        Ok(Self { chain, identity, request: format!("incident-{id}") })
    }

    /// The request id of an earlier note of the same.
    fn found_in(&self, standing: &Standing) -> Option<String> {
        standing.request_of(&self.chain, &self.identity).map(str::to_owned)
    }

    fn add_to(&self, standing: &mut Standing) {
        let of_chain = standing.chains.entry(self.chain.clone()).or_default();
        of_chain.insert(self.identity.clone(), self.request.clone());
    }
}

/// Writes what a producer tried, unless it is there. Under a request id that only who has the key of frames can foresee.
pub(crate) async fn raise_tried(store: &Store, ledger: &Ledger, key: &HmacRing, zone: &ZoneId, incident: &Incident) {
    let digest = key.sign_hex(&[DOMAIN, zone.as_str().as_bytes(), b"\n", incident.identity.as_bytes()]);
    let request = format!("incident-{}", digest.get(..32).unwrap_or_default());
    if let Err(error) = record_in(store, ledger, zone, request, incident).await {
        tracing::error!(%error, reason = incident.reason, "an incident could not be recorded");
    }
}

async fn record_in(
    store: &Store,
    ledger: &Ledger,
    zone: &ZoneId,
    request: String,
    incident: &Incident,
) -> Result<(), StoreError> {
    let now = store.now();
    let id = EventId::parse(&fresh(now)?).map_err(|error| StoreError::Statement { reason: error.to_string() })?;
    let event =
        Evidence::new(id, zone.clone(), EventType::LedgerIncident, Decision::Deny, EvaluationStatus::Anomaly, now);
    let event = event.request(request).because(incident.reason.clone()).with_metadata(incident.metadata.clone());
    store
        .commit(zone, (ledger.clone(), event), |tx, (ledger, event)| {
            Box::pin(async move {
                if evidence::has_of_request(tx, &event.request_id, event.event_type.as_str()).await? {
                    return Ok(());
                }
                ledger.record(tx, std::slice::from_ref(event)).await
            })
        })
        .await
}

/// Forgets what a pass over everything did not find any more, and says how much stands.
pub(crate) async fn settle(store: &Store, report: &LedgerReport) -> Result<usize, StoreError> {
    let found = Found::of(report);
    let standing = find_standing(store).await?;
    if found.left_of(&standing) == standing {
        return Ok(standing.count());
    }
    store
        .commit_deployment(found, |tx, found| {
            Box::pin(async move {
                let left = found.left_of(&incidents::find(tx).await?);
                incidents::set(tx, &left).await.map(|()| left.count())
            })
        })
        .await
}

/// What a pass over everything found: of each chain, what tells its findings apart, and whether those are all there are.
struct Found(BTreeMap<String, (BTreeSet<String>, bool)>);

impl Found {
    fn of(report: &LedgerReport) -> Self {
        let of_chain = |chain: &ChainReport| {
            let all = u64::try_from(chain.findings.len()).is_ok_and(|kept| kept == chain.findings_total);
            (chain.chain.to_string(), (chain.findings.iter().map(identity_of).collect(), all))
        };
        Self(report.chains.iter().filter(|chain| !chain.is_intact()).map(of_chain).collect())
    }

    fn left_of(&self, standing: &Standing) -> Standing {
        let mut left = standing.clone();
        left.chains.retain(|chain, incidents| {
            let Some((found, all)) = self.0.get(chain) else { return false };
            incidents.retain(|identity, _| !all || found.contains(identity));
            !incidents.is_empty()
        });
        left
    }
}

async fn find_standing(store: &Store) -> Result<Standing, StoreError> {
    let mut snapshot = store.snapshot().await?;
    incidents::find(&mut snapshot.deployment()).await
}

fn fresh(now: Timestamp) -> Result<String, StoreError> {
    let id = chance::uuid_v7(now).map_err(|error| StoreError::Unavailable { reason: error.to_string() })?;
    Ok(id.to_string())
}
