//! The ledger in a real store: appended with its effect, verified by an outsider, tampered with by someone who has the
//! file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caracal_authority::{EventId, Timestamp, ZoneId};
use caracal_crypto::hmac::HmacKey;
use caracal_ledger::{
    AdminRecord, AnonymousDenials, Chain, ChainKey, Decision, EventType, Evidence, Head, HeadsObserver, Ledger,
    LedgerReport, Problem, find_rollback, read_heads, verify_store,
};
use caracal_store::admin_evidence::{self, ZONELESS_CHAIN};
use caracal_store::evidence::{self, ChainRow};
use caracal_store::{SqliteOptions, Store, StoreError, SystemClock, inspect, used_mandates};
use rusqlite::Connection;
use serde_json::{Map, json};
use tempfile::TempDir;

fn key() -> Arc<dyn ChainKey> {
    Arc::new(HmacKey::from_bytes(&(1..=32).collect::<Vec<u8>>()).unwrap())
}

fn ledger() -> Ledger {
    Ledger::new(Some(key()))
}

fn open(directory: &Path) -> Store {
    Store::open(&SqliteOptions::in_directory(directory), Arc::new(SystemClock)).unwrap()
}

fn zone(name: &str) -> ZoneId {
    ZoneId::parse(name).unwrap()
}

fn event(zone: &ZoneId, id: &str) -> Evidence {
    let at = Timestamp::from_micros(1_800_000_000_123_456);
    Evidence::new(EventId::parse(id).unwrap(), zone.clone(), EventType::TokenExchange, Decision::Allow, "complete", at)
        .request(format!("req-{id}"))
        .under_policy(Some("set-1".parse().unwrap()), Some("version-1".parse().unwrap()), Some("00ff".to_owned()))
        .determined_by("p1")
        .because("ok")
        .attribute("resource", "resource://api")
}

fn change(zone: Option<&ZoneId>, id: &str) -> AdminRecord {
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
async fn record(store: &Store, zone: &ZoneId, id: &str) -> Result<(), StoreError> {
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

async fn record_change(store: &Store, zone: &ZoneId, id: &str) -> Result<(), StoreError> {
    store
        .commit(zone, (ledger(), change(Some(zone), id)), |tx, (ledger, record)| {
            Box::pin(async move { ledger.record_change(tx, record).await })
        })
        .await
}

async fn record_zoneless(store: &Store, record: AdminRecord) -> Result<(), StoreError> {
    store
        .commit_deployment((ledger(), record), |tx, (ledger, record)| {
            Box::pin(async move { ledger.record_zoneless_change(tx, record).await })
        })
        .await
}

/// A store with five events in `z-1`, two in `z-2`, five changes of `z-1`, three without a zone; its heads beside it.
async fn recorded(directory: &Path) -> Store {
    let store = open(directory);
    store.observe(Arc::new(HeadsObserver::open(directory, key()).unwrap()));
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

fn evidence_of(name: &str) -> Chain {
    Chain::Evidence(zone(name))
}

fn expected_heads() -> BTreeMap<Chain, i64> {
    BTreeMap::from([
        (evidence_of("z-1"), 5),
        (evidence_of("z-2"), 2),
        (Chain::Admin(Some(zone("z-1"))), 5),
        (Chain::Admin(None), 3),
    ])
}

fn heads_in(directory: &Path) -> BTreeMap<Chain, Head> {
    read_heads(directory, key().as_ref()).unwrap().unwrap()
}

/// What an outsider who has the file, the audit key and these heads finds.
fn verify(database: &Path, recorded: &BTreeMap<Chain, Head>) -> Result<LedgerReport, StoreError> {
    let key = key();
    inspect(database).unwrap().run(async |tx| verify_store(tx, Some(key.as_ref()), recorded, |_, _| {}).await)
}

/// A closed store to make copies of, and its heads.
struct Original {
    directory: TempDir,
    heads: BTreeMap<Chain, Head>,
}

impl Original {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        recorded(directory.path()).await.close().await;
        let heads = heads_in(directory.path());
        Self { directory, heads }
    }

    /// A copy to which `sql` was done past the triggers that forbid it.
    fn tampered(&self, sql: &str) -> (TempDir, PathBuf) {
        let copy = tempfile::tempdir().unwrap();
        let path = copy.path().join("caracal.db");
        fs::copy(self.directory.path().join("caracal.db"), &path).unwrap();
        let connection = Connection::open(&path).unwrap();
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
        (copy, path)
    }

    fn verified_after(&self, sql: &str) -> LedgerReport {
        let (_copy, path) = self.tampered(sql);
        verify(&path, &self.heads).unwrap()
    }

    fn columns(&self, table: &str) -> Vec<(String, String)> {
        let (_copy, path) = self.tampered("");
        let connection = Connection::open(path).unwrap();
        let mut statement =
            connection.prepare(&format!("SELECT name, type FROM pragma_table_info('{table}')")).unwrap();
        let columns = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        columns.collect::<Result<_, _>>().unwrap()
    }
}

/// Ids of the events that the report finds something wrong with.
fn named(report: &LedgerReport) -> BTreeSet<&str> {
    let findings = report.chains.iter().flat_map(|chain| &chain.findings);
    findings.filter_map(|finding| finding.event_id.as_deref()).collect()
}

/// Everything wrong with the chain, in order.
fn problems(report: &LedgerReport, chain: &Chain) -> Vec<Problem> {
    let chain = report.chains.iter().find(|report| report.chain == *chain).unwrap();
    chain.findings.iter().map(|finding| finding.problem.clone()).collect()
}

mod t06_evidence {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn two_hundred_recorders_of_one_zone_make_one_chain_without_gaps() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        store.observe(Arc::new(HeadsObserver::open(directory.path(), key()).unwrap()));
        let recorders = (0..200).map(|number| {
            let store = store.clone();
            tokio::spawn(async move { record(&store, &zone("z-1"), &format!("e-{number}")).await })
        });
        for recorder in recorders.collect::<Vec<_>>() {
            recorder.await.unwrap().unwrap();
        }
        let mut snapshot = store.snapshot().await.unwrap();
        let rows = evidence::list_chain(&mut snapshot.zone(&zone("z-1")), 0, 1_000).await.unwrap();
        let mut ids = BTreeSet::new();
        for (row, expected) in rows.iter().zip(1..) {
            let ChainRow::Read(row) = row else { panic!("{row:?}") };
            assert_eq!(row.chain_seq, expected);
            ids.insert(row.id.clone());
        }
        assert_eq!(ids.len(), 200);
        let heads = heads_in(directory.path());
        let report = verify_store(&mut snapshot.deployment(), Some(key().as_ref()), &heads, |_, _| {}).await.unwrap();
        assert!(report.is_intact() && report.rows() == 200, "{report}");
        assert_eq!(heads[&evidence_of("z-1")].chain_seq, 200);
    }

    #[tokio::test]
    async fn evidence_and_its_effect_are_there_both_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let store = recorded(directory.path()).await;
        let z = zone("z-1");
        let events = vec![event(&z, "fresh"), event(&z, "e-3")];
        let refused: Result<(), StoreError> = store
            .commit(&z, (ledger(), events), |tx, (ledger, events)| {
                Box::pin(async move {
                    let end = tx.now();
                    used_mandates::consume(tx, "effect", "r-1", end).await?;
                    ledger.record(tx, events).await
                })
            })
            .await;
        assert!(refused.unwrap_err().is_conflict(), "an event is recorded once");
        for (what, refused) in [
            ("another zone's event", {
                let events = vec![event(&zone("z-2"), "fresh")];
                store
                    .commit(&z, (ledger(), events), |tx, (ledger, events)| {
                        Box::pin(async move { ledger.record(tx, events).await })
                    })
                    .await
            }),
            ("another zone's change", {
                let record = change(Some(&zone("z-2")), "fresh");
                store
                    .commit(&z, (ledger(), record), |tx, (ledger, record)| {
                        Box::pin(async move { ledger.record_change(tx, record).await })
                    })
                    .await
            }),
            ("a zone's change among those without", record_zoneless(&store, change(Some(&z), "fresh")).await),
        ] {
            assert!(matches!(refused, Err(StoreError::Statement { .. })), "{what}: {refused:?}");
        }
        let mut snapshot = store.snapshot().await.unwrap();
        assert!(!used_mandates::is_used(&mut snapshot.zone(&z), "effect").await.unwrap());
        let heads = heads_in(directory.path());
        let seqs: BTreeMap<_, _> = heads.iter().map(|(chain, head)| (chain.clone(), head.chain_seq)).collect();
        assert_eq!(seqs, expected_heads(), "nothing was told of what failed");
        let report = verify_store(&mut snapshot.deployment(), Some(key().as_ref()), &heads, |_, _| {}).await.unwrap();
        assert!(report.is_intact(), "{report}");
    }

    #[tokio::test]
    async fn an_honest_store_verifies_with_or_without_key_and_heads() {
        let original = Original::new().await;
        let report = original.verified_after("");
        assert!(report.is_intact() && report.rows() == 15, "{report}");
        let chains: BTreeMap<_, _> = report
            .chains
            .iter()
            .map(|report| (report.chain.clone(), report.head.as_ref().unwrap().chain_seq))
            .collect();
        assert_eq!(chains, expected_heads());
        let path = original.directory.path().join("caracal.db");
        assert!(verify(&path, &BTreeMap::new()).unwrap().is_intact());
        let unkeyed =
            inspect(&path).unwrap().run(async |tx| verify_store(tx, None, &original.heads, |_, _| {}).await).unwrap();
        assert!(unkeyed.is_intact() && unkeyed.chains.iter().all(|chain| !chain.seals_checked));
        let other: Arc<dyn ChainKey> = Arc::new(HmacKey::from_bytes(&(2..=33).collect::<Vec<u8>>()).unwrap());
        let mut inspection = inspect(&path).unwrap();
        let report =
            inspection.run(async |tx| verify_store(tx, Some(other.as_ref()), &original.heads, |_, _| {}).await);
        assert_eq!(named(&report.unwrap()).len(), 15, "another key sealed none of them");
    }

    /// Alters one column of the third row, in a way that its type allows.
    fn alteration(table: &str, column: &str, kind: &str) -> String {
        let value = match (column, kind) {
            ("chain_seq", _) => "chain_seq + 100".to_owned(),
            ("zone_id" | "chain", _) => "'z-9'".to_owned(),
            (_, "INTEGER") => format!("{column} + 1"),
            _ => format!("coalesce({column}, '') || ' '"),
        };
        format!("UPDATE {table} SET {column} = {value} WHERE id IN ('e-3', 'a-3')")
    }

    #[tokio::test]
    async fn whichever_column_is_altered_the_event_is_named() {
        // When a row was stored is under no hash of the contract's (audit-and-streams.md §5.2).
        const UNHASHED: [&str; 1] = ["ingested_at"];
        let original = Original::new().await;
        for (table, id, columns) in [("audit_events", "e-3", 18), ("admin_audit_events", "a-3", 19)] {
            let found = original.columns(table);
            assert_eq!(found.len(), columns, "{table}");
            for (column, kind) in found.iter().filter(|(column, _)| !UNHASHED.contains(&column.as_str())) {
                let report = original.verified_after(&alteration(table, column, kind));
                assert!(!report.is_intact(), "{table}.{column}");
                let altered_id = format!("{id} ");
                let names = named(&report);
                let expected = if column == "id" { altered_id.as_str() } else { id };
                assert!(names.contains(expected), "{table}.{column}: {report}");
            }
        }
    }

    #[tokio::test]
    async fn a_zone_that_is_none_does_not_pass() {
        let original = Original::new().await;
        for sql in [
            "UPDATE audit_events SET zone_id = 'no zone' WHERE id = 'e-3'",
            "UPDATE admin_audit_events SET chain = 'no zone' WHERE id = 'a-3'",
        ] {
            let (_copy, path) = original.tampered(sql);
            let outcome = verify(&path, &original.heads);
            assert!(!outcome.as_ref().is_ok_and(LedgerReport::is_intact), "{sql}");
        }
    }

    /// Another program that opens the file, and does not go out of its way.
    #[tokio::test]
    async fn the_file_refuses_to_have_evidence_changed_or_removed() {
        let original = Original::new().await;
        let connection = Connection::open(original.directory.path().join("caracal.db")).unwrap();
        for table in ["audit_events", "admin_audit_events"] {
            for (column, _) in original.columns(table) {
                let changed = connection.execute(&format!("UPDATE {table} SET {column} = {column}"), []);
                assert!(changed.unwrap_err().to_string().contains("append-only"), "{table}.{column}");
            }
            let removed = connection.execute(&format!("DELETE FROM {table} WHERE chain_seq = 5"), []);
            assert!(removed.unwrap_err().to_string().contains("append-only"), "{table}");
        }
    }

    #[tokio::test]
    async fn a_removed_row_leaves_a_gap() {
        let original = Original::new().await;
        for (sql, chain, at) in [
            ("DELETE FROM audit_events WHERE id = 'e-1'", evidence_of("z-1"), "e-2"),
            ("DELETE FROM audit_events WHERE id = 'e-3'", evidence_of("z-1"), "e-4"),
            ("DELETE FROM admin_audit_events WHERE id = 'n-2'", Chain::Admin(None), "n-3"),
        ] {
            let report = original.verified_after(sql);
            assert!(matches!(problems(&report, &chain)[0], Problem::SequenceGap { .. }), "{report}");
            assert!(named(&report).contains(at), "{report}");
        }
    }

    #[tokio::test]
    async fn rows_that_change_places_are_both_named() {
        let original = Original::new().await;
        // Places alone, and places with the links that belong to them.
        for columns in ["", ", prev_content_sha256 = CASE id WHEN 'e-3' THEN p4 ELSE p3 END"] {
            let sql = format!(
                "UPDATE audit_events SET chain_seq = -chain_seq WHERE id IN ('e-3', 'e-4');
                 UPDATE audit_events SET chain_seq = CASE id WHEN 'e-3' THEN 4 ELSE 3 END {columns} FROM (
                   SELECT max(CASE id WHEN 'e-3' THEN prev_content_sha256 END) p3,
                          max(CASE id WHEN 'e-4' THEN prev_content_sha256 END) p4
                   FROM audit_events WHERE zone_id = 'z-1') WHERE id IN ('e-3', 'e-4')"
            );
            let report = original.verified_after(&sql);
            let names = named(&report);
            assert!(names.contains("e-3") && names.contains("e-4"), "{report}");
        }
    }

    #[tokio::test]
    async fn a_cut_tail_shows_against_the_recorded_heads_and_only_there() {
        let original = Original::new().await;
        for (sql, chain, recorded, found) in [
            ("DELETE FROM audit_events WHERE zone_id = 'z-1' AND chain_seq > 3", evidence_of("z-1"), 5, 3),
            ("DELETE FROM audit_events WHERE zone_id = 'z-2'", evidence_of("z-2"), 2, 0),
            ("DELETE FROM admin_audit_events WHERE id = 'a-5'", Chain::Admin(Some(zone("z-1"))), 5, 4),
            ("DELETE FROM admin_audit_events WHERE chain = '(none)'", Chain::Admin(None), 3, 0),
        ] {
            let (_copy, path) = original.tampered(sql);
            let report = verify(&path, &original.heads).unwrap();
            assert_eq!(problems(&report, &chain), [Problem::TailCut { recorded, found }], "{sql}");
            assert!(verify(&path, &BTreeMap::new()).unwrap().is_intact(), "a chain alone cannot show it");
        }
    }

    /// By someone who has the audit key, but not the heads.
    #[tokio::test]
    async fn a_replaced_last_event_shows_against_the_recorded_heads() {
        let original = Original::new().await;
        let forged = tempfile::tempdir().unwrap();
        let store = open(forged.path());
        for number in 1..=5 {
            let id = if number == 5 { "forged".to_owned() } else { format!("e-{number}") };
            record(&store, &zone("z-1"), &id).await.unwrap();
        }
        store.close().await;
        let heads = original.heads.iter().filter(|(chain, _)| **chain == evidence_of("z-1"));
        let heads = heads.map(|(chain, head)| (chain.clone(), head.clone())).collect();
        let path = forged.path().join("caracal.db");
        let report = verify(&path, &heads).unwrap();
        assert_eq!(problems(&report, &evidence_of("z-1")), [Problem::HeadMismatch { recorded: 5 }]);
        assert!(named(&report).contains("forged"));
        assert!(verify(&path, &BTreeMap::new()).unwrap().is_intact(), "it is a chain like any other");
    }

    #[tokio::test]
    async fn a_row_past_the_last_number_ends_the_verification() {
        let original = Original::new().await;
        for table in ["audit_events", "admin_audit_events"] {
            let report = original
                .verified_after(&format!("UPDATE {table} SET chain_seq = {} WHERE id IN ('e-5', 'a-5')", i64::MAX));
            let id = if table == "audit_events" { "e-5" } else { "a-5" };
            assert!(named(&report).contains(id), "{report}");
        }
    }

    #[tokio::test]
    async fn the_heads_beside_the_store_are_exact_without_an_orderly_end() {
        let directory = tempfile::tempdir().unwrap();
        // Neither the store nor the observer is closed.
        let store = recorded(directory.path()).await;
        let heads = heads_in(directory.path());
        let seqs: BTreeMap<_, _> = heads.iter().map(|(chain, head)| (chain.clone(), head.chain_seq)).collect();
        assert_eq!(seqs, expected_heads());
        let mut snapshot = store.snapshot().await.unwrap();
        for (chain, head) in &heads {
            let stored = match chain {
                Chain::Evidence(zone) => evidence::head(&mut snapshot.zone(zone)).await,
                Chain::Admin(Some(zone)) => admin_evidence::head(&mut snapshot.zone(zone)).await,
                Chain::Admin(None) => admin_evidence::zoneless_head(&mut snapshot.deployment()).await,
            };
            let stored = stored.unwrap().unwrap();
            assert_eq!((stored.chain_seq, stored.content_sha256), (head.chain_seq, head.content_sha256.clone()));
        }
        drop((snapshot, store));
        // The next process goes on where this one was.
        let observer = HeadsObserver::open(directory.path(), key()).unwrap();
        assert_eq!(observer.recorded(), heads);
    }

    async fn zoneless_payloads(store: &Store) -> Vec<(String, Map<String, serde_json::Value>)> {
        let mut snapshot = store.snapshot().await.unwrap();
        let rows = admin_evidence::list_chain(&mut snapshot.deployment(), ZONELESS_CHAIN, 0, 100).await.unwrap();
        let read = |row| match row {
            ChainRow::Read(admin_evidence::AdminEvidenceRow { action, payload, .. }) => {
                (action, serde_json::from_str(&payload.unwrap()).unwrap())
            }
            unreadable => panic!("{unreadable:?}"),
        };
        rows.into_iter().map(read).collect()
    }

    #[tokio::test]
    async fn any_number_of_anonymous_denials_is_one_row() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let denials = AnonymousDenials::default();
        denials.summarise(&store, &ledger()).await.unwrap();
        assert!(zoneless_payloads(&store).await.is_empty(), "there was nothing to say");
        for _ in 0..10_000 {
            denials.count("gateway", "missing_bearer_token");
        }
        denials.count("gateway", "invalid_token");
        denials.count("sts", "invalid_client");
        denials.summarise(&store, &ledger()).await.unwrap();
        denials.summarise(&store, &ledger()).await.unwrap();
        let payload = json!({
            "gateway": {"missing_bearer_token": 10_000, "invalid_token": 1},
            "sts": {"invalid_client": 1},
        });
        let expected = ("Anonymous denials".to_owned(), payload.as_object().unwrap().clone());
        assert_eq!(zoneless_payloads(&store).await, [expected]);
        store.close().await;
        assert!(verify(&directory.path().join("caracal.db"), &BTreeMap::new()).unwrap().is_intact());
    }

    #[tokio::test]
    async fn denials_that_could_not_be_summarised_are_kept() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (closed, store) = (open(first.path()), open(second.path()));
        closed.close().await;
        let denials = AnonymousDenials::default();
        denials.count("gateway", "missing_bearer_token");
        denials.count("gateway", "missing_bearer_token");
        for _ in 0..2 {
            assert!(denials.summarise(&closed, &ledger()).await.is_err());
        }
        denials.count("gateway", "missing_bearer_token");
        denials.summarise(&store, &ledger()).await.unwrap();
        let payload = json!({"gateway": {"missing_bearer_token": 3}}).as_object().unwrap().clone();
        assert_eq!(zoneless_payloads(&store).await, [("Anonymous denials".to_owned(), payload)]);
    }
}

mod t17_rollback {
    use super::*;

    #[tokio::test]
    async fn an_older_or_another_store_is_recognised_at_the_start() {
        let original = Original::new().await;
        let events = evidence_of("z-1");
        for (sql, found) in [
            ("", None),
            (
                "DELETE FROM audit_events WHERE id = 'e-5'; UPDATE audit_heads SET chain_seq = 4 WHERE zone_id = 'z-1'",
                Some((events.clone(), Problem::TailCut { recorded: 5, found: 4 })),
            ),
            (
                "DELETE FROM admin_audit_events WHERE chain = '(none)'; DELETE FROM admin_audit_heads WHERE chain = '(none)'",
                Some((Chain::Admin(None), Problem::TailCut { recorded: 3, found: 0 })),
            ),
            (
                "UPDATE audit_events SET content_sha256 = 'x' WHERE id = 'e-5'",
                Some((events.clone(), Problem::HeadMismatch { recorded: 5 })),
            ),
        ] {
            let (_copy, path) = original.tampered(sql);
            let mut inspection = inspect(&path).unwrap();
            assert_eq!(inspection.run(async |tx| find_rollback(tx, &original.heads).await).unwrap(), found, "{sql}");
        }
    }
}
