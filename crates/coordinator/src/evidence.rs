//! Management records: who asked for what, and how it ended (contract: coordinator.md §14).
//!
//! A change is recorded in the very commit that makes it: there is no change without its record, and none that is
//! reported as done although its record is missing (the reference writes it afterwards, W10). A refusal of an
//! authenticated caller changes nothing, so its record may follow: it goes into a bounded queue that
//! [`FailureRecords::run`] writes down. When the queue is full the record is lost, and the log says so: callers must not
//! be able to stop the service by being refused quickly.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use caracal_authority::{Timestamp, ZoneId};
use caracal_http::RequestId;
use caracal_ledger::{AdminRecord, Ledger};
use caracal_store::{Store, ZoneWrite};
use tokio::sync::{mpsc, watch};

use crate::auth::Principal;
use crate::outage::{Outage, new_id};
use crate::stopped;

/// Failures waiting to be written.
const WAITING: usize = 1_024;
/// Failures written in one go.
const BATCH: usize = 64;

/// Collections whose members a record names.
const ENTITIES: [&str; 6] = ["agents", "agent-services", "delegations", "invocations", "applications", "outbox"];

/// An authenticated caller and its request, as evidence knows them.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    pub(crate) request_id: RequestId,
    pub(crate) method: String,
    /// The path as it was sent, without the query.
    pub(crate) path: String,
    /// Whether the path lies in the caller's zone; an unknown route outside `/zones/` does not.
    pub(crate) in_zone: bool,
}

impl Caller {
    /// The record of this request's end.
    fn record(&self, status: u16, at: Timestamp) -> Result<AdminRecord, Outage> {
        let entity = entity(&self.path);
        Ok(AdminRecord {
            id: new_id::<caracal_authority::EventId>(at)?.as_str().to_owned(),
            request_id: self.request_id.as_str().to_owned(),
            actor_id: Some(self.principal.subject().to_owned()),
            actor_name: Some(self.principal.name().to_owned()),
            actor_scope: Some(self.principal.scope_text()),
            action: format!("{} {}", self.method, self.path),
            method: self.method.clone(),
            path: self.path.clone(),
            zone: self.in_zone.then(|| self.principal.zone().clone()),
            entity_type: entity.map(|(kind, _)| kind.to_owned()),
            entity_id: entity.map(|(_, id)| id.to_owned()),
            status_code: status,
            payload: None,
            occurred_at: at,
        })
    }
}

/// The last `collection/id` pair of a path, if it has one.
fn entity(path: &str) -> Option<(&str, &str)> {
    let segments: Vec<&str> = path.split('/').collect();
    let pairs = segments.windows(2).rev().filter_map(|pair| match pair {
        [kind, id] => Some((*kind, *id)),
        _ => None,
    });
    pairs.into_iter().find(|(kind, id)| ENTITIES.contains(kind) && !id.is_empty())
}

/// Records a success in the transaction that brings it about.
pub(crate) async fn record_success(
    tx: &mut ZoneWrite<'_>,
    ledger: &Ledger,
    caller: &Caller,
    status: u16,
) -> Result<(), Outage> {
    let record = caller.record(status, tx.now())?;
    ledger.record_change(tx, &record).await.map_err(Outage::unrecorded)
}

/// Leaves the record of a success in the transaction that brings it about, where that can't extend the chain: it gets its
/// place there a moment later.
pub(crate) async fn leave_success(
    tx: &mut ZoneWrite<'_>,
    ledger: &Ledger,
    caller: &Caller,
    status: u16,
) -> Result<(), Outage> {
    let record = caller.record(status, tx.now())?;
    ledger.leave_change(tx, &record).await.map_err(Outage::unrecorded)
}

/// A refusal of an authenticated caller.
struct Failure {
    caller: Arc<Caller>,
    status: u16,
    at: Timestamp,
}

/// The queue of failures on their way into the ledger.
pub(crate) struct FailureRecords {
    sender: mpsc::Sender<Failure>,
    receiver: Mutex<Option<mpsc::Receiver<Failure>>>,
}

impl Default for FailureRecords {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

impl FailureRecords {
    /// Notes a failure without waiting.
    pub(crate) fn note(&self, caller: &Arc<Caller>, status: u16, at: Timestamp) {
        let failure = Failure { caller: caller.clone(), status, at };
        if self.sender.try_send(failure).is_err() {
            tracing::warn!(request_id = %caller.request_id, status, "the record of a refused request is lost");
        }
    }

    /// Writes failures down until `shutdown` turns true, then what is left. Stop it after the listener: failures noted
    /// later are lost. Only the first call does anything.
    pub(crate) async fn run(&self, store: &Store, ledger: &Ledger, mut shutdown: watch::Receiver<bool>) {
        let Some(mut receiver) = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let received = tokio::select! {
                received = receiver.recv_many(&mut batch, BATCH) => received,
                () = stopped(&mut shutdown) => {
                    // What was noted before stays in the channel, and `recv_many` returns 0 once it is empty.
                    receiver.close();
                    receiver.recv_many(&mut batch, BATCH).await
                }
            };
            if received == 0 {
                return;
            }
            write(store, ledger, &mut batch, &shutdown).await;
        }
    }
}

async fn write(store: &Store, ledger: &Ledger, batch: &mut Vec<Failure>, stopping: &watch::Receiver<bool>) {
    let mut by_zone: BTreeMap<Option<ZoneId>, Vec<AdminRecord>> = BTreeMap::new();
    for failure in batch.drain(..) {
        match failure.caller.record(failure.status, failure.at) {
            Ok(record) => by_zone.entry(record.zone.clone()).or_default().push(record),
            Err(error) => tracing::error!(%error, "the record of a refused request could not be made"),
        }
    }
    for (zone, records) in by_zone {
        let count = records.len();
        if let Err(error) = ledger.record_afterwards(store, zone.as_ref(), records, stopping).await {
            tracing::error!(%error, count, "records of refused requests could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entity_is_the_last_pair_of_a_known_collection() {
        for (path, expected) in [
            ("/zones/z/agents", None),
            ("/zones/z/agents/s", Some(("agents", "s"))),
            ("/zones/z/agents/s/children", Some(("agents", "s"))),
            ("/zones/z/agents/", None),
            ("/zones/z/delegations/e/revoke", Some(("delegations", "e"))),
            ("/zones/z/delegations/inbound/s", Some(("delegations", "inbound"))),
            ("/zones/z/delegations/inbound/s/e", Some(("delegations", "inbound"))),
            ("/zones/agents/agents", Some(("agents", "agents"))),
            ("/elsewhere/x", None),
        ] {
            assert_eq!(entity(path), expected, "{path}");
        }
    }
}
