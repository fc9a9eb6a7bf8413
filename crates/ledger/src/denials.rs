//! Denials of callers who proved nothing: counted, and summarised in the management chain without a zone. One chained
//! row per anonymous request would let anyone on the network write to the ledger as fast as they can ask (D11).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caracal_authority::Timestamp;
use caracal_crypto::chance;
use caracal_store::{Store, StoreError};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::admin_chain::AdminRecord;
use crate::append::Ledger;

/// How often a summary is written, when there is something to summarise.
const INTERVAL: Duration = Duration::from_secs(60);

type Counts = BTreeMap<(&'static str, &'static str), u64>;

/// Counts by service and reason. Both are written in our source, so the memory is bounded by it.
#[derive(Default)]
pub struct AnonymousDenials {
    counts: Mutex<Counts>,
    /// A summary that may or may not be there, because its commit was not answered. It is settled before the next.
    unsettled: tokio::sync::Mutex<Option<AdminRecord>>,
}

impl AnonymousDenials {
    /// Counts one denial by `service` for `reason`.
    pub fn count(&self, service: &'static str, reason: &'static str) {
        *self.counts().entry((service, reason)).or_insert(0) += 1;
    }

    /// Writes what was counted since the last summary as one record; nothing when nothing was. What could not be written
    /// is kept for the next time, and is never there twice.
    pub async fn summarise(&self, store: &Store, ledger: &Ledger) -> Result<(), StoreError> {
        let mut unsettled = self.unsettled.lock().await;
        if let Some(record) = unsettled.as_ref() {
            ledger.try_afterwards(store, None, std::slice::from_ref(record), true).await?;
            *unsettled = None;
        }
        let counts = std::mem::take(&mut *self.counts());
        if counts.is_empty() {
            return Ok(());
        }
        let record = match summary(&counts, store.now()) {
            Ok(record) => record,
            Err(error) => {
                self.keep(counts);
                return Err(StoreError::Unavailable { reason: error.to_string() });
            }
        };
        let written = ledger.try_afterwards(store, None, std::slice::from_ref(&record), false).await;
        match &written {
            Ok(()) => {}
            Err(StoreError::Unavailable { .. }) => *unsettled = Some(record),
            Err(_) => self.keep(counts),
        }
        written
    }

    fn keep(&self, counts: Counts) {
        let mut kept = self.counts();
        for (what, count) in counts {
            *kept.entry(what).or_insert(0) += count;
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a summary every minute, and a last one when `shutdown` turns true.
    pub async fn run(&self, store: &Store, ledger: &Ledger, mut shutdown: watch::Receiver<bool>) {
        loop {
            let stopping = tokio::select! {
                () = tokio::time::sleep(INTERVAL) => false,
                _ = shutdown.wait_for(|stop| *stop) => true,
            };
            if let Err(error) = self.summarise(store, ledger).await {
                tracing::error!(%error, "denials of anonymous callers could not be summarised; they are kept");
            }
            if stopping {
                return;
            }
        }
    }
}

fn summary(counts: &Counts, now: Timestamp) -> Result<AdminRecord, chance::ChanceUnavailable> {
    let mut payload = Map::new();
    for ((service, reason), count) in counts {
        let of_service = payload.entry(*service).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(reasons) = of_service {
            reasons.insert((*reason).to_owned(), Value::from(*count));
        }
    }
    let id = chance::uuid_v7(now)?.to_string();
    Ok(AdminRecord {
        request_id: id.clone(),
        id,
        actor_id: None,
        actor_name: None,
        actor_scope: None,
        action: "Anonymous denials".to_owned(),
        method: String::new(),
        path: String::new(),
        zone: None,
        entity_type: None,
        entity_id: None,
        status_code: 403,
        payload: Some(payload),
        occurred_at: now,
    })
}
