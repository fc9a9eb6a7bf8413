//! Management records that follow what they tell of: refusals and counts, which change nothing and so have no transaction
//! of their own. They are committed until they are there, and there once: a store that was lost in the middle of a commit
//! may have made it, so a record keeps its id, and another try that meets it counts as done.

use std::time::Duration;

use caracal_authority::ZoneId;
use caracal_store::{Store, StoreError};
use tokio::sync::watch;

use crate::admin_chain::AdminRecord;
use crate::append::Ledger;

/// Pauses between tries while the store is away.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Ledger {
    /// Commits `records`, all of `zone` or all of none, in one transaction. Tries again while the store is unavailable,
    /// but not once `stopping` is true: then the last failure is the answer.
    pub async fn record_afterwards(
        &self,
        store: &Store,
        zone: Option<&ZoneId>,
        records: Vec<AdminRecord>,
        stopping: &watch::Receiver<bool>,
    ) -> Result<(), StoreError> {
        let mut stopping = stopping.clone();
        let (mut tried, mut pause) = (false, FIRST_PAUSE);
        loop {
            let error = match self.try_afterwards(store, zone, &records, tried).await {
                Err(error @ StoreError::Unavailable { .. }) => error,
                outcome => return outcome,
            };
            if *stopping.borrow() {
                return Err(error);
            }
            tracing::warn!(%error, "management records could not be committed yet");
            let stop = stopping.wait_for(|stop| *stop);
            if let Ok(Err(_)) = tokio::time::timeout(pause, stop).await {
                return Err(error);
            }
            (tried, pause) = (true, (pause * 2).min(LONGEST_PAUSE));
        }
    }

    /// One try. After an earlier one, records that are there already are as good as written.
    pub(crate) async fn try_afterwards(
        &self,
        store: &Store,
        zone: Option<&ZoneId>,
        records: &[AdminRecord],
        tried: bool,
    ) -> Result<(), StoreError> {
        let input = (self.clone(), records.to_vec());
        let outcome: Result<(), StoreError> = match zone {
            Some(zone) => {
                store
                    .commit(zone, input, |tx, (ledger, records)| {
                        Box::pin(async move {
                            for record in records {
                                ledger.record_change(tx, record).await?;
                            }
                            Ok(())
                        })
                    })
                    .await
            }
            None => {
                store
                    .commit_deployment(input, |tx, (ledger, records)| {
                        Box::pin(async move {
                            for record in records {
                                ledger.record_zoneless_change(tx, record).await?;
                            }
                            Ok(())
                        })
                    })
                    .await
            }
        };
        match outcome {
            Err(error) if tried && error.is_conflict_on("admin_audit_events.id") => Ok(()),
            outcome => outcome,
        }
    }
}

#[cfg(test)]
mod t06_evidence {
    use caracal_authority::Timestamp;
    use caracal_store::admin_evidence::{ZONELESS_CHAIN, list_chain};
    use caracal_store::{SystemClock, conformance};
    use caracal_testkit::Place;

    use super::*;

    fn record(zone: Option<&ZoneId>) -> AdminRecord {
        AdminRecord {
            id: "c-1".to_owned(),
            request_id: "req-1".to_owned(),
            actor_id: None,
            actor_name: None,
            actor_scope: None,
            action: "GET /v1/zones".to_owned(),
            method: "GET".to_owned(),
            path: "/v1/zones".to_owned(),
            zone: zone.cloned(),
            entity_type: None,
            entity_id: None,
            status_code: 403,
            payload: None,
            occurred_at: Timestamp::from_seconds(1_800_000_000),
        }
    }

    #[tokio::test]
    async fn a_record_whose_commit_was_not_answered_is_there_once() {
        let place = Place::new();
        let clock = std::sync::Arc::new(SystemClock);
        let store = conformance::open(place.path(), place.database_url().as_deref(), clock).await;
        let (ledger, zone) = (Ledger::new(None), ZoneId::parse("z-1").unwrap());
        for (of, chain) in [(Some(&zone), "z-1"), (None, ZONELESS_CHAIN)] {
            let records = [record(of)];
            ledger.try_afterwards(&store, of, &records, false).await.unwrap();
            ledger.try_afterwards(&store, of, &records, true).await.unwrap();
            let twice = ledger.try_afterwards(&store, of, &records, false).await.unwrap_err();
            assert!(twice.is_conflict_on("admin_audit_events.id"), "{twice}");
            let mut snapshot = store.snapshot().await.unwrap();
            assert_eq!(list_chain(&mut snapshot.deployment(), chain, 0, 10).await.unwrap().len(), 1);
        }
    }

    #[tokio::test]
    async fn a_store_that_is_gone_for_good_ends_it_when_the_process_stops() {
        let place = Place::new();
        let clock = std::sync::Arc::new(SystemClock);
        let store = conformance::open(place.path(), place.database_url().as_deref(), clock).await;
        store.close().await;
        let (stop, stopping) = watch::channel(false);
        let ledger = Ledger::new(None);
        let recording = ledger.record_afterwards(&store, None, vec![record(None)], &stopping);
        let (outcome, _) = tokio::join!(recording, async { stop.send(true) });
        assert!(matches!(outcome, Err(StoreError::Unavailable { .. })), "{outcome:?}");
    }
}
