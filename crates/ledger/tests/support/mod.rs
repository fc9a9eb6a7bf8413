//! A recorded store, and copies of it that somebody did something to, on the engine that the run is on.
#![allow(dead_code, reason = "each file of tests uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use caracal_authority::{EventId, Timestamp, ZoneId};
use caracal_crypto::hmac::HmacKey;
use caracal_ledger::{
    AdminRecord, Chain, ChainKey, Decision, EvaluationStatus, EventType, Evidence, Head, HeadsObserver, Ledger,
    LedgerReport, MetadataKey, Problem, read_heads, verify_store,
};
use caracal_store::{DeploymentRead, Store, StoreError, SystemClock, conformance, inspect, used_mandates};
use caracal_testkit::{Database, Place};
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

pub(crate) fn key() -> Arc<dyn ChainKey> {
    Arc::new(HmacKey::from_bytes(&(1..=32).collect::<Vec<u8>>()).unwrap())
}

pub(crate) fn ledger() -> Ledger {
    Ledger::new(Some(key()))
}

pub(crate) async fn open(place: &Place) -> Store {
    conformance::open(place.path(), place.database_url().as_deref(), Arc::new(SystemClock)).await
}

pub(crate) fn zone(name: &str) -> ZoneId {
    ZoneId::parse(name).unwrap()
}

pub(crate) fn event(zone: &ZoneId, id: &str) -> Evidence {
    let at = Timestamp::from_micros(1_800_000_000_123_456);
    Evidence::new(
        EventId::parse(id).unwrap(),
        zone.clone(),
        EventType::TokenExchange,
        Decision::Allow,
        EvaluationStatus::Complete,
        at,
    )
    .request(format!("req-{id}"))
    .under_policy(Some("set-1".parse().unwrap()), Some("version-1".parse().unwrap()), Some("00ff".to_owned()))
    .determined_by("p1")
    .because("ok")
    .attribute(MetadataKey::Resource, "resource://api")
}

pub(crate) fn change(zone: Option<&ZoneId>, id: &str) -> AdminRecord {
    let known = |text: &str| Some(text.to_owned());
    AdminRecord {
        id: id.to_owned(),
        request_id: format!("req-{id}"),
        actor_id: known("token-1"),
        actor_name: known("operator"),
        actor_scope: known("global"),
        action: "PATCH /v1/zones/z-1".to_owned(),
        method: "PATCH".to_owned(),
        path: "/v1/zones/z-1".to_owned(),
        zone: zone.cloned(),
        entity_type: known("zones"),
        entity_id: known("z-1"),
        status_code: 200,
        payload: json!({"changed": ["name"]}).as_object().cloned(),
        occurred_at: Timestamp::from_micros(1_800_000_000_123_456),
    }
}

/// Records one event, with an effect of its own in the same transaction.
pub(crate) async fn record(store: &Store, zone: &ZoneId, id: &str) -> Result<(), StoreError> {
    store
        .commit(zone, (ledger(), event(zone, id), id.to_owned()), |tx, (ledger, event, id)| {
            Box::pin(async move {
                let end = tx.now();
                used_mandates::consume(tx, id, "r-1", end).await?;
                ledger.record(tx, std::slice::from_ref(event)).await
            })
        })
        .await
}

pub(crate) async fn record_change(store: &Store, zone: &ZoneId, id: &str) -> Result<(), StoreError> {
    store
        .commit(zone, (ledger(), change(Some(zone), id)), |tx, (ledger, record)| {
            Box::pin(async move { ledger.record_change(tx, record).await })
        })
        .await
}

pub(crate) async fn record_zoneless(store: &Store, record: AdminRecord) -> Result<(), StoreError> {
    store
        .commit_deployment((ledger(), record), |tx, (ledger, record)| {
            Box::pin(async move { ledger.record_zoneless_change(tx, record).await })
        })
        .await
}

/// A store with five events in `z-1`, two in `z-2`, five changes of `z-1`, three without a zone; its heads beside it.
pub(crate) async fn recorded(place: &Place) -> Store {
    let store = open(place).await;
    store.observe(Arc::new(HeadsObserver::open(place.path(), key()).unwrap()));
    for number in 1..=5 {
        record(&store, &zone("z-1"), &format!("e-{number}")).await.unwrap();
        record_change(&store, &zone("z-1"), &format!("a-{number}")).await.unwrap();
    }
    for number in 1..=2 {
        record(&store, &zone("z-2"), &format!("other-{number}")).await.unwrap();
    }
    for number in 1..=3 {
        record_zoneless(&store, change(None, &format!("n-{number}"))).await.unwrap();
    }
    store
}

pub(crate) fn evidence_of(name: &str) -> Chain {
    Chain::Evidence(zone(name))
}

pub(crate) fn expected_heads() -> BTreeMap<Chain, i64> {
    BTreeMap::from([
        (evidence_of("z-1"), 5),
        (evidence_of("z-2"), 2),
        (Chain::Admin(Some(zone("z-1"))), 5),
        (Chain::Admin(None), 3),
    ])
}

pub(crate) fn heads_in(place: &Place) -> BTreeMap<Chain, Head> {
    read_heads(place.path(), key().as_ref()).unwrap().unwrap()
}

/// A closed store to make copies of, and its heads.
pub(crate) struct Original {
    place: Place,
    pub(crate) heads: BTreeMap<Chain, Head>,
}

/// A copy of a closed store.
pub(crate) enum Stored {
    File(TempDir),
    Server(Database),
}

impl Stored {
    pub(crate) fn of(place: &Place) -> Self {
        match place.database() {
            Some(database) => Self::Server(database.copy().unwrap()),
            None => {
                let copy = tempfile::tempdir().unwrap();
                fs::copy(place.path().join("caracal.db"), copy.path().join("caracal.db")).unwrap();
                Self::File(copy)
            }
        }
    }

    /// What an outsider reads who has the file, or a login to the server.
    pub(crate) async fn read<T>(
        &self,
        reading: impl AsyncFnOnce(&mut DeploymentRead<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self {
            Self::File(copy) => inspect(&copy.path().join("caracal.db")).unwrap().run(reading),
            Self::Server(database) => {
                let store =
                    conformance::open(&std::env::temp_dir(), Some(&database.url()), Arc::new(SystemClock)).await;
                let mut snapshot = store.snapshot().await?;
                let outcome = reading(&mut snapshot.deployment()).await;
                drop(snapshot);
                store.close().await;
                outcome
            }
        }
    }

    /// Opens it to go on with it.
    pub(crate) async fn open(&self) -> Store {
        let temporary = std::env::temp_dir();
        let (directory, url) = match self {
            Self::File(copy) => (copy.path(), None),
            Self::Server(database) => (temporary.as_path(), Some(database.url())),
        };
        conformance::open(directory, url.as_deref(), Arc::new(SystemClock)).await
    }

    /// What an outsider finds who has the audit key and these heads, too.
    pub(crate) async fn verify(&self, recorded: &BTreeMap<Chain, Head>) -> Result<LedgerReport, StoreError> {
        let key = key();
        self.read(async |tx| verify_store(tx, Some(key.as_ref()), recorded, |_, _| {}).await).await
    }

    /// What is said to another program that does not go out of its way.
    pub(crate) fn refusal_of(&self, sql: &str) -> String {
        match self {
            Self::File(copy) => {
                let connection = Connection::open(copy.path().join("caracal.db")).unwrap();
                connection.execute(sql, []).unwrap_err().to_string()
            }
            Self::Server(database) => database.run(sql).unwrap_err().to_string(),
        }
    }

    /// Does `sql` past everything that forbids it.
    pub(crate) fn tamper(&self, sql: &str) {
        match self {
            Self::File(copy) => {
                let connection = Connection::open(copy.path().join("caracal.db")).unwrap();
                // A copy that nobody keeps.
                connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
                let triggers: Vec<String> = connection
                    .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
                    .unwrap()
                    .query_map([], |row| row.get(0))
                    .unwrap()
                    .collect::<Result<_, _>>()
                    .unwrap();
                for trigger in triggers {
                    connection.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
                }
                connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
            Self::Server(database) => {
                let free = "SET session_replication_role = replica;";
                database.run(&format!("{free} {sql}")).unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
        }
    }
}

impl Original {
    pub(crate) async fn new() -> Self {
        let place = Place::new();
        recorded(&place).await.close().await;
        Self::of(place)
    }

    /// Of a store that was closed, with its heads.
    pub(crate) fn of(place: Place) -> Self {
        let heads = heads_in(&place);
        Self { place, heads }
    }

    pub(crate) fn copy(&self) -> Stored {
        Stored::of(&self.place)
    }

    /// A copy to which `sql` was done.
    pub(crate) fn tampered(&self, sql: &str) -> Stored {
        let copy = self.copy();
        copy.tamper(sql);
        copy
    }

    pub(crate) async fn verified_after(&self, sql: &str) -> LedgerReport {
        self.tampered(sql).verify(&self.heads).await.unwrap()
    }

    /// The content hash of an event.
    pub(crate) fn hash_of(&self, id: &str) -> String {
        let sql = format!("SELECT content_sha256 FROM audit_events WHERE id = '{id}'");
        if let Some(database) = self.place.database() {
            return database.run(&sql).unwrap().trim().to_owned();
        }
        let connection = Connection::open(self.place.path().join("caracal.db")).unwrap();
        connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    /// Columns of a table, and whether they hold whole numbers.
    pub(crate) fn columns(&self, table: &str) -> Vec<(String, bool)> {
        if let Some(database) = self.place.database() {
            let sql = format!(
                "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' AND \
                 table_name = '{table}'"
            );
            let said = database.run(&sql).unwrap();
            let columns = said.lines().filter_map(|line| line.split_once('|'));
            return columns.map(|(name, kind)| (name.to_owned(), kind == "bigint")).collect();
        }
        let connection = Connection::open(self.place.path().join("caracal.db")).unwrap();
        let mut statement =
            connection.prepare(&format!("SELECT name, type = 'INTEGER' FROM pragma_table_info('{table}')")).unwrap();
        let columns = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        columns.collect::<Result<_, _>>().unwrap()
    }
}

/// Ids of the events that the report finds something wrong with.
pub(crate) fn named(report: &LedgerReport) -> BTreeSet<&str> {
    let findings = report.chains.iter().flat_map(|chain| &chain.findings);
    findings.filter_map(|finding| finding.event_id.as_deref()).collect()
}

/// Everything wrong with the chain, in order.
pub(crate) fn problems(report: &LedgerReport, chain: &Chain) -> Vec<Problem> {
    let chain = report.chains.iter().find(|report| report.chain == *chain).unwrap();
    chain.findings.iter().map(|finding| finding.problem.clone()).collect()
}
