//! The ledger in a real store: appended with its effect, verified by an outsider, tampered with by someone who has the
//! file or is the server's superuser.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use caracal_crypto::hmac::HmacKey;
use caracal_ledger::{
    AnonymousDenials, Chain, ChainKey, HeadsObserver, LedgerReport, Problem, find_rollback, verify_store,
};
use caracal_store::admin_evidence::{self, ZONELESS_CHAIN};
use caracal_store::evidence::{self, ChainRow};
use caracal_store::{Store, StoreError, used_mandates};
use caracal_testkit::Place;
use serde_json::{Map, json};

use support::*;

mod t06_evidence {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn two_hundred_recorders_of_one_zone_make_one_chain_without_gaps() {
        let place = Place::new();
        let store = open(&place).await;
        store.observe(Arc::new(HeadsObserver::open(place.path(), key()).unwrap()));
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
        let heads = heads_in(&place);
        let report = verify_store(&mut snapshot.deployment(), Some(key().as_ref()), &heads, |_, _| {}).await.unwrap();
        assert!(report.is_intact() && report.rows() == 200, "{report}");
        assert_eq!(heads[&evidence_of("z-1")].chain_seq, 200);
    }

    #[tokio::test]
    async fn evidence_and_its_effect_are_there_both_or_not_at_all() {
        let place = Place::new();
        let store = recorded(&place).await;
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
        let heads = heads_in(&place);
        let seqs: BTreeMap<_, _> = heads.iter().map(|(chain, head)| (chain.clone(), head.chain_seq)).collect();
        assert_eq!(seqs, expected_heads(), "nothing was told of what failed");
        let report = verify_store(&mut snapshot.deployment(), Some(key().as_ref()), &heads, |_, _| {}).await.unwrap();
        assert!(report.is_intact(), "{report}");
    }

    #[tokio::test]
    async fn an_honest_store_verifies_with_or_without_key_and_heads() {
        let original = Original::new().await;
        let report = original.verified_after("").await;
        assert!(report.is_intact() && report.rows() == 15, "{report}");
        let chains: BTreeMap<_, _> = report
            .chains
            .iter()
            .map(|report| (report.chain.clone(), report.head.as_ref().unwrap().chain_seq))
            .collect();
        assert_eq!(chains, expected_heads());
        let copy = original.copy();
        assert!(copy.verify(&BTreeMap::new()).await.unwrap().is_intact());
        let unkeyed = copy.read(async |tx| verify_store(tx, None, &original.heads, |_, _| {}).await).await.unwrap();
        assert!(unkeyed.is_intact() && unkeyed.chains.iter().all(|chain| !chain.seals_checked));
        let other: Arc<dyn ChainKey> = Arc::new(HmacKey::from_bytes(&(2..=33).collect::<Vec<u8>>()).unwrap());
        let report =
            copy.read(async |tx| verify_store(tx, Some(other.as_ref()), &original.heads, |_, _| {}).await).await;
        assert_eq!(named(&report.unwrap()).len(), 15, "another key sealed none of them");
    }

    /// Alters one column of the third row, in a way that its type allows.
    fn alteration(table: &str, column: &str, is_number: bool) -> String {
        let value = match (column, is_number) {
            ("chain_seq", _) => "chain_seq + 100".to_owned(),
            ("zone_id" | "chain", _) => "'z-9'".to_owned(),
            (_, true) => format!("{column} + 1"),
            _ => format!("coalesce({column}, '') || ' '"),
        };
        format!("UPDATE {table} SET {column} = {value} WHERE id IN ('e-3', 'a-3')")
    }

    #[tokio::test]
    async fn whichever_column_is_altered_the_event_is_named() {
        // When a row was stored is under no hash of the contract's (audit-and-streams.md §5.2).
        const UNHASHED: [&str; 1] = ["ingested_at"];
        let original = Original::new().await;
        for (table, id, columns) in [("audit_events", "e-3", 19), ("admin_audit_events", "a-3", 20)] {
            let found = original.columns(table);
            assert_eq!(found.len(), columns, "{table}");
            for (column, is_number) in found.iter().filter(|(column, _)| !UNHASHED.contains(&column.as_str())) {
                let report = original.verified_after(&alteration(table, column, *is_number)).await;
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
            let outcome = original.tampered(sql).verify(&original.heads).await;
            assert!(!outcome.as_ref().is_ok_and(LedgerReport::is_intact), "{sql}");
        }
    }

    /// Another program that opens the store, and does not go out of its way.
    #[tokio::test]
    async fn the_store_refuses_to_have_evidence_changed_or_removed() {
        const REFUSALS: [&str; 2] = ["append-only", "can only be added to"];
        let original = Original::new().await;
        let copy = original.copy();
        for table in ["audit_events", "admin_audit_events"] {
            for (column, _) in original.columns(table) {
                let changed = copy.refusal_of(&format!("UPDATE {table} SET {column} = {column}"));
                assert!(REFUSALS.iter().any(|refusal| changed.contains(refusal)), "{table}.{column}: {changed}");
            }
            let removed = copy.refusal_of(&format!("DELETE FROM {table} WHERE chain_seq = 5"));
            assert!(REFUSALS.iter().any(|refusal| removed.contains(refusal)), "{table}: {removed}");
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
            let report = original.verified_after(sql).await;
            assert!(matches!(problems(&report, &chain).first(), Some(Problem::SequenceGap { .. })), "{report}");
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
                   FROM audit_events WHERE zone_id = 'z-1') links WHERE id IN ('e-3', 'e-4')"
            );
            let report = original.verified_after(&sql).await;
            let names = named(&report);
            assert!(names.contains("e-3") && names.contains("e-4"), "{report}");
        }
    }

    #[tokio::test]
    async fn a_cut_tail_shows_against_the_recorded_heads_and_only_there() {
        let original = Original::new().await;
        // With the store's own note of the end, which whoever can do the one can do as well.
        let noted = |heads: &str, rows: &str, of: &str, seq: i64| {
            format!(
                "; UPDATE {heads} SET chain_seq = {seq}, content_sha256 =
                   (SELECT content_sha256 FROM {rows} WHERE {of} AND chain_seq = {seq}) WHERE {of}"
            )
        };
        for (sql, chain, recorded, found) in [
            (
                "DELETE FROM audit_events WHERE zone_id = 'z-1' AND chain_seq > 3".to_owned()
                    + &noted("audit_heads", "audit_events", "zone_id = 'z-1'", 3),
                evidence_of("z-1"),
                5,
                3,
            ),
            (
                "DELETE FROM audit_events WHERE zone_id = 'z-2'; DELETE FROM audit_heads WHERE zone_id = 'z-2'".to_owned(),
                evidence_of("z-2"),
                2,
                0,
            ),
            (
                "DELETE FROM admin_audit_events WHERE id = 'a-5'".to_owned()
                    + &noted("admin_audit_heads", "admin_audit_events", "chain = 'z-1'", 4),
                Chain::Admin(Some(zone("z-1"))),
                5,
                4,
            ),
            (
                "DELETE FROM admin_audit_events WHERE chain = '(none)'; DELETE FROM admin_audit_heads WHERE chain = '(none)'"
                    .to_owned(),
                Chain::Admin(None),
                3,
                0,
            ),
        ] {
            let copy = original.tampered(&sql);
            let report = copy.verify(&original.heads).await.unwrap();
            assert_eq!(problems(&report, &chain), [Problem::TailCut { recorded, found }], "{sql}");
            assert!(copy.verify(&BTreeMap::new()).await.unwrap().is_intact(), "a chain alone cannot show it");
        }
    }

    /// By someone who has the audit key, but not the heads.
    #[tokio::test]
    async fn a_replaced_last_event_shows_against_the_recorded_heads() {
        let original = Original::new().await;
        let forged = Place::new();
        let store = open(&forged).await;
        for number in 1..=5 {
            let id = if number == 5 { "forged".to_owned() } else { format!("e-{number}") };
            record(&store, &zone("z-1"), &id).await.unwrap();
        }
        store.close().await;
        let heads = original.heads.iter().filter(|(chain, _)| **chain == evidence_of("z-1"));
        let heads = heads.map(|(chain, head)| (chain.clone(), head.clone())).collect();
        let forged = Stored::of(&forged);
        let report = forged.verify(&heads).await.unwrap();
        assert_eq!(problems(&report, &evidence_of("z-1")), [Problem::HeadMismatch { recorded: 5 }]);
        assert!(named(&report).contains("forged"));
        assert!(forged.verify(&BTreeMap::new()).await.unwrap().is_intact(), "it is a chain like any other");
    }

    #[tokio::test]
    async fn a_row_past_the_last_number_ends_the_verification() {
        let original = Original::new().await;
        for table in ["audit_events", "admin_audit_events"] {
            let sql = format!("UPDATE {table} SET chain_seq = {} WHERE id IN ('e-5', 'a-5')", i64::MAX);
            let report = original.verified_after(&sql).await;
            let id = if table == "audit_events" { "e-5" } else { "a-5" };
            assert!(named(&report).contains(id), "{report}");
        }
    }

    #[tokio::test]
    async fn the_heads_beside_the_store_are_exact_without_an_orderly_end() {
        let place = Place::new();
        // Neither the store nor the observer is closed.
        let store = recorded(&place).await;
        let heads = heads_in(&place);
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
        let observer = HeadsObserver::open(place.path(), key()).unwrap();
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
        let place = Place::new();
        let store = open(&place).await;
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
        assert!(Stored::of(&place).verify(&BTreeMap::new()).await.unwrap().is_intact());
    }

    #[tokio::test]
    async fn denials_that_could_not_be_summarised_are_kept() {
        let (first, second) = (Place::new(), Place::new());
        let (closed, store) = (open(&first).await, open(&second).await);
        closed.close().await;
        let denials = AnonymousDenials::default();
        denials.count("gateway", "missing_bearer_token");
        denials.count("gateway", "missing_bearer_token");
        for _ in 0..2 {
            assert!(denials.summarise(&closed, &ledger()).await.is_err());
        }
        denials.count("gateway", "missing_bearer_token");
        denials.summarise(&store, &ledger()).await.unwrap();
        let payload = |count: u64| json!({"gateway": {"missing_bearer_token": count}}).as_object().unwrap().clone();
        let expected = [payload(2), payload(1)].map(|payload| ("Anonymous denials".to_owned(), payload));
        assert_eq!(zoneless_payloads(&store).await, expected);
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
            let rollback = original
                .tampered(sql)
                .read(async |tx| find_rollback(tx, Some(key().as_ref()), &original.heads).await)
                .await;
            assert_eq!(rollback.unwrap(), found, "{sql}");
        }
    }
}
