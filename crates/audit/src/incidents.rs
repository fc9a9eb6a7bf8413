//! Incidents: what the sweep found and what a producer tried, as evidence of its own. Readiness and metrics say that
//! something is wrong while it is; an incident stays, in the chain of the zone it is about.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use caracal_authority::{EventId, Timestamp, ZoneId};
use caracal_crypto::chance;
use caracal_crypto::hmac::sha256_hex;
use caracal_ledger::{
    AdminRecord, Chain, Decision, EvaluationStatus, EventType, Evidence, Finding, Ledger, Metadata, MetadataKey as Key,
};
use caracal_store::{Store, StoreError, evidence};
use serde_json::Value;

/// Text out of a store that may have been tampered with, at most this much of it.
const SHOWN: usize = 256;

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
        let problem = serde_json::to_value(&finding.problem).unwrap_or_default();
        let name = problem.get("problem").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        Self {
            identity: format!("{chain}: {finding}"),
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

    /// Under which request it is found.
    fn request_id(&self) -> String {
        let digest = sha256_hex(self.identity.as_bytes());
        format!("incident-{}", digest.get(..32).unwrap_or_default())
    }
}

/// Those without a zone that this process has written. Those of a zone are looked up.
#[derive(Default)]
pub(crate) struct Raised(Mutex<HashSet<String>>);

/// Writes an incident, unless it is there. What can't be written was logged and counted all the same.
pub(crate) async fn raise(raised: &Raised, store: &Store, ledger: &Ledger, zone: Option<&ZoneId>, incident: Incident) {
    let written = match zone {
        Some(zone) => raise_in(store, ledger, zone, &incident).await,
        None => raise_zoneless(raised, store, ledger, &incident).await,
    };
    if let Err(error) = written {
        tracing::error!(%error, reason = incident.reason, "an incident could not be recorded");
    }
}

async fn raise_in(store: &Store, ledger: &Ledger, zone: &ZoneId, incident: &Incident) -> Result<(), StoreError> {
    let now = store.now();
    let request = incident.request_id();
    let id = EventId::parse(&fresh(now)?).map_err(|error| StoreError::Statement { reason: error.to_string() })?;
    let event =
        Evidence::new(id, zone.clone(), EventType::LedgerIncident, Decision::Deny, EvaluationStatus::Anomaly, now);
    let event = event.request(request).because(incident.reason.clone()).with_metadata(incident.metadata.clone());
    store
        .commit(zone, (ledger.clone(), event), |tx, (ledger, event)| {
            Box::pin(async move {
                if !evidence::find_by_request(tx, &event.request_id).await?.is_empty() {
                    return Ok(());
                }
                ledger.record(tx, std::slice::from_ref(event)).await
            })
        })
        .await
}

async fn raise_zoneless(
    raised: &Raised,
    store: &Store,
    ledger: &Ledger,
    incident: &Incident,
) -> Result<(), StoreError> {
    let request = incident.request_id();
    if !raised.0.lock().unwrap_or_else(PoisonError::into_inner).insert(request.clone()) {
        return Ok(());
    }
    let now = store.now();
    let record = AdminRecord {
        id: fresh(now)?,
        request_id: request,
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
        payload: Some(incident.metadata.clone().into_map()),
        occurred_at: now,
    };
    store
        .commit_deployment((ledger.clone(), record), |tx, (ledger, record)| {
            Box::pin(async move { ledger.record_zoneless_change(tx, record).await })
        })
        .await
}

fn fresh(now: Timestamp) -> Result<String, StoreError> {
    let id = chance::uuid_v7(now).map_err(|error| StoreError::Unavailable { reason: error.to_string() })?;
    Ok(id.to_string())
}
