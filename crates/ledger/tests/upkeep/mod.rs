//! What leaves the ledger at its old end, what is verified from where the last pass ended, and what others add to it.

use std::collections::BTreeMap;

use caracal_authority::Timestamp;
use caracal_ledger::{
    Begin, Chain, Head, Ingested, LedgerReport, Marks, Problem, SweepMarks, find_rollback, read_event,
    verify_store_marked,
};
use caracal_store::evidence::{self, ChainRow};
use caracal_store::{Store, StoreError, retention};
use caracal_testkit::Place;

use crate::support::*;

/// Later than anything that any test records.
const LATER: i64 = 4_000_000_000;

async fn anchor(store: &Store, of: &str, through: i64) -> bool {
    let anchored: Result<bool, StoreError> = store
        .commit(&zone(of), (ledger(), through), |tx, (ledger, through)| {
            Box::pin(async move { ledger.anchor(tx, Timestamp::from_seconds(LATER), *through).await })
        })
        .await;
    anchored.unwrap()
}

async fn remove(store: &Store, of: &str, limit: i64) -> usize {
    let removed: Result<usize, StoreError> =
        store.commit(&zone(of), limit, |tx, limit| Box::pin(retention::remove_anchored(tx, *limit))).await;
    removed.unwrap()
}

/// A store of which the first three events of `z-1` are anchored, and `removed` of them gone; and its heads.
async fn anchored(removed: i64) -> (Place, BTreeMap<Chain, Head>) {
    let place = Place::new();
    let store = recorded(&place).await;
    assert!(anchor(&store, "z-1", 3).await);
    assert_eq!(remove(&store, "z-1", removed).await, usize::try_from(removed).unwrap());
    store.close().await;
    let heads = heads_in(&place);
    (place, heads)
}

fn found(report: &LedgerReport) -> Vec<Problem> {
    problems(report, &evidence_of("z-1"))
}

mod t06_evidence_retention {
    use super::*;

    #[tokio::test]
    async fn what_was_removed_behind_an_anchor_is_missed_by_nobody() {
        for removed in [1, 3] {
            let (place, heads) = anchored(removed).await;
            let copy = Stored::of(&place);
            let report = copy.verify(&heads).await.unwrap();
            assert!(report.is_intact(), "{removed} removed: {report}");
            assert_eq!(report.rows(), 15 - removed.unsigned_abs());
            // Whoever remembers only an event that is gone by now is content, too.
            let stale = BTreeMap::from([(evidence_of("z-1"), Head { chain_seq: 2, content_sha256: "0".repeat(64) })]);
            let key = key();
            let rollback = copy.read(async |tx| find_rollback(tx, Some(key.as_ref()), &stale).await).await.unwrap();
            assert_eq!(rollback, None);
        }
    }

    #[tokio::test]
    async fn without_the_anchor_the_same_rows_are_missed() {
        let (place, heads) = anchored(3).await;
        let copy = Stored::of(&place);
        copy.tamper("DELETE FROM audit_anchors");
        assert_eq!(found(&copy.verify(&heads).await.unwrap())[0], Problem::SequenceGap { expected: 1, found: 4 });
    }

    #[tokio::test]
    async fn rows_that_an_anchor_does_not_cover_are_missed() {
        let (place, heads) = anchored(3).await;
        for (sql, expected) in [
            ("DELETE FROM audit_events WHERE id = 'e-4'", Problem::SequenceGap { expected: 4, found: 5 }),
            ("DELETE FROM audit_events WHERE id = 'e-5'", Problem::TailCut { recorded: 5, found: 4 }),
            ("DELETE FROM audit_events WHERE zone_id = 'z-1'", Problem::TailCut { recorded: 5, found: 3 }),
        ] {
            let copy = Stored::of(&place);
            copy.tamper(sql);
            assert_eq!(found(&copy.verify(&heads).await.unwrap()), [expected], "{sql}");
        }
    }

    #[tokio::test]
    async fn an_anchor_that_was_made_or_moved_without_the_key_is_named() {
        let (place, heads) = anchored(0).await;
        for (sql, anchored) in [
            ("UPDATE audit_anchors SET chain_seq = 4", 4),
            ("UPDATE audit_anchors SET content_sha256 = (SELECT content_sha256 FROM audit_events WHERE id = 'e-2')", 3),
            ("UPDATE audit_anchors SET older_than = older_than + 1", 3),
            ("UPDATE audit_anchors SET created_at = 0", 3),
            ("UPDATE audit_anchors SET seal = ''", 3),
            (
                "INSERT INTO audit_anchors SELECT zone_id, 5, content_sha256, older_than, created_at, seal, key_id FROM audit_anchors",
                5,
            ),
        ] {
            let copy = Stored::of(&place);
            copy.tamper(&format!("{sql}; DELETE FROM audit_events WHERE zone_id = 'z-1' AND chain_seq < 4"));
            let problems = found(&copy.verify(&heads).await.unwrap());
            assert_eq!(problems[0], Problem::ForgedAnchor { anchored }, "{sql}");
            assert!(problems.contains(&Problem::SequenceGap { expected: 1, found: 4 }), "{sql}: {problems:?}");
        }
        // Another zone's anchor, which has a seal of its own.
        let copy = Stored::of(&place);
        copy.tamper("UPDATE audit_anchors SET zone_id = 'z-2'; DELETE FROM audit_events WHERE zone_id = 'z-2'");
        let report = copy.verify(&heads).await.unwrap();
        assert!(problems(&report, &evidence_of("z-2")).contains(&Problem::ForgedAnchor { anchored: 3 }), "{report}");
    }

    #[tokio::test]
    async fn a_row_that_is_put_back_in_front_of_the_anchor_is_found() {
        let (place, heads) = anchored(3).await;
        let copy = Stored::of(&place);
        copy.tamper(
            "INSERT INTO audit_events SELECT zone_id, 2, 'forged', event_type, request_id, decision, policy_set_id,
               policy_set_version_id, manifest_sha, evaluation_status, determining_policies, diagnostics, metadata, occurred_at,
               ingested_at, content_sha256, prev_content_sha256, chain_hmac, key_id FROM audit_events WHERE id = 'e-4'",
        );
        let report = copy.verify(&heads).await.unwrap();
        assert!(named(&report).contains("forged"), "{report}");
    }

    #[tokio::test]
    async fn nothing_is_anchored_that_was_not_verified_and_nothing_twice() {
        let place = Place::new();
        let store = recorded(&place).await;
        assert!(!anchor(&store, "z-1", 0).await, "nothing was verified");
        assert!(!anchor(&store, "z-none", 9).await, "there is nothing");
        assert!(anchor(&store, "z-1", 2).await);
        assert!(!anchor(&store, "z-1", 2).await && !anchor(&store, "z-1", 1).await);
        assert_eq!(remove(&store, "z-1", 100).await, 2);
        assert!(anchor(&store, "z-1", i64::MAX).await);
        assert_eq!(remove(&store, "z-1", 100).await, 2);
        assert_eq!(remove(&store, "z-2", 100).await, 0);
        record(&store, &zone("z-1"), "e-6").await.unwrap();
        let mut snapshot = store.snapshot().await.unwrap();
        let rows = evidence::list_chain(&mut snapshot.zone(&zone("z-1")), 0, 100).await.unwrap();
        let seqs: Vec<i64> =
            rows.iter().map(|row| if let ChainRow::Read(row) = row { row.chain_seq } else { 0 }).collect();
        assert_eq!(seqs, [5, 6], "the newest stayed, and the chain goes on behind it");
        drop(snapshot);
        store.close().await;
        assert!(Stored::of(&place).verify(&heads_in(&place)).await.unwrap().is_intact());
    }
}

mod t06_evidence_marks {
    use super::*;

    fn marks(original: &Original, at: &[(&str, i64)]) -> Marks {
        let row = |number: i64| original.hash_of(&format!("e-{number}"));
        let events = at.iter().map(|(of, seq)| (evidence_of(of), Head { chain_seq: *seq, content_sha256: row(*seq) }));
        Marks { events: events.collect(), ..Marks::default() }
    }

    async fn behind(copy: &Stored, heads: &BTreeMap<Chain, Head>, marks: &Marks) -> LedgerReport {
        let key = key();
        let marked = (marks, Begin::AtMarks);
        let reports = copy.read(async |tx| {
            let behind = verify_store_marked(tx, Some(key.as_ref()), heads, marked, |_, _| {}).await?;
            let whole = verify_store_marked(tx, Some(key.as_ref()), heads, (marks, Begin::AtFirst), |_, _| {}).await?;
            Ok((behind, whole))
        });
        let (behind, whole) = reports.await.unwrap();
        assert!(behind.is_intact() || !whole.is_intact(), "what a short pass finds, a whole one does: {behind}");
        behind
    }

    #[tokio::test]
    async fn a_pass_goes_on_where_the_last_one_ended_and_looks_at_that_event_again() {
        let original = Original::new().await;
        let marks = marks(&original, &[("z-1", 3)]);
        let report = behind(&original.copy(), &original.heads, &marks).await;
        assert!(report.is_intact(), "{report}");
        assert_eq!(report.rows(), 3 + 2 + 5 + 3);
        let before = original.tampered("UPDATE audit_events SET decision = 'deny' WHERE id = 'e-2'");
        assert!(behind(&before, &original.heads, &marks).await.is_intact(), "a pass over all of it finds that");
        for id in ["e-3", "e-4", "e-5"] {
            let copy = original.tampered(&format!("UPDATE audit_events SET decision = 'deny' WHERE id = '{id}'"));
            assert_eq!(found(&behind(&copy, &original.heads, &marks).await), [Problem::ContentMismatch], "{id}");
        }
    }

    /// By a process that wrote nothing itself, and so has no heads.
    #[tokio::test]
    async fn what_was_marked_is_missed_when_it_is_gone_or_another() {
        let original = Original::new().await;
        let (none, marks) = (BTreeMap::new(), marks(&original, &[("z-1", 4)]));
        for (sql, expected) in [
            (
                "DELETE FROM audit_events WHERE id = 'e-5'; UPDATE audit_heads SET chain_seq = 4, content_sha256 =
                   (SELECT content_sha256 FROM audit_events WHERE id = 'e-4') WHERE zone_id = 'z-1'",
                None,
            ),
            ("DELETE FROM audit_events WHERE id IN ('e-4', 'e-5')", Some(Problem::TailCut { recorded: 4, found: 3 })),
            ("DELETE FROM audit_events WHERE zone_id = 'z-1'", Some(Problem::TailCut { recorded: 4, found: 3 })),
            ("DELETE FROM audit_events WHERE id = 'e-4'", Some(Problem::SequenceGap { expected: 4, found: 5 })),
        ] {
            let report = behind(&original.tampered(sql), &none, &marks).await;
            assert_eq!(found(&report).first().cloned(), expected, "{sql}");
        }
        let events = BTreeMap::from([(evidence_of("z-1"), Head { chain_seq: 4, content_sha256: "0".repeat(64) })]);
        let other = Marks { events, ..Marks::default() };
        let report = behind(&original.copy(), &none, &other).await;
        assert_eq!(found(&report), [Problem::HeadMismatch { recorded: 4 }]);
    }

    #[tokio::test]
    async fn what_retention_took_since_is_no_longer_looked_for() {
        let original = Original::new().await;
        let marks = marks(&original, &[("z-1", 2)]);
        let (place, heads) = anchored(3).await;
        let report = behind(&Stored::of(&place), &heads, &marks).await;
        assert!(report.is_intact(), "{report}");
    }

    #[test]
    fn marks_are_kept_only_go_on_and_are_not_heads() {
        let dir = tempfile::tempdir().unwrap();
        let head = |chain_seq| Head { chain_seq, content_sha256: "a".repeat(64) };
        let at = |event, tree| Marks {
            events: BTreeMap::from([(evidence_of("z-1"), head(event))]),
            trees: BTreeMap::from([(evidence_of("z-1"), head(tree))]),
        };
        let marks = SweepMarks::open(dir.path(), key(), false).unwrap();
        assert!(marks.read().is_empty());
        marks.record(&at(7, 5)).unwrap();
        marks.record(&at(5, 6)).unwrap();
        drop(marks);
        let again = SweepMarks::open(dir.path(), key(), false).unwrap();
        assert_eq!(again.read(), at(7, 6));
        drop(again);
        // A heads file in its place would let rows pass that nobody verified.
        let mut heads = caracal_ledger::HeadsFile::open(dir.path(), key()).unwrap();
        heads.record(&[(evidence_of("z-1"), head(9))]).unwrap();
        heads.close().unwrap();
        for (from, to) in [("heads.log", "swept/heads.log"), ("swept/heads.log", "swept/trees/heads.log")] {
            let before = std::fs::read(dir.path().join(to)).unwrap();
            std::fs::copy(dir.path().join(from), dir.path().join(to)).unwrap();
            assert!(SweepMarks::open(dir.path(), key(), false).is_err(), "{from} as {to}");
            std::fs::write(dir.path().join(to), before).unwrap();
        }
        assert!(SweepMarks::open(dir.path(), key(), true).unwrap().read() == Marks::default(), "told to forget");
    }
}

mod t06_evidence_ingest {
    use super::*;

    async fn offer(store: &Store, text: &str) -> Ingested {
        let (zone, event) = read_event(text).unwrap();
        let offered: Result<Ingested, StoreError> = store
            .commit(&zone, (ledger(), event), |tx, (ledger, event)| {
                Box::pin(async move { ledger.ingest(tx, event).await })
            })
            .await;
        offered.unwrap()
    }

    fn frame(id: &str, decision: &str, at: &str) -> String {
        format!(
            r#"{{"zone_id":"z-1","id":"{id}","event_type":"acme.thing","decision":"{decision}","occurred_at":"{at}",
                "metadata_json":{{"bb":1.0,"a":1e3,"a":2,"<&>":"🐪"}}}}"#
        )
    }

    #[tokio::test]
    async fn the_same_event_has_one_place_and_another_of_its_name_none() {
        let place = Place::new();
        let store = recorded(&place).await;
        let at = "2026-01-01T14:00:00.123456789+02:00";
        assert_eq!(offer(&store, &frame("x-1", "allow", at)).await, Ingested::Added);
        assert_eq!(offer(&store, &frame("x-1", "allow", at)).await, Ingested::Known);
        // Below a microsecond is no other instant.
        assert_eq!(offer(&store, &frame("x-1", "allow", "2026-01-01T12:00:00.123456Z")).await, Ingested::Known);
        let refused = offer(&store, &frame("x-1", "deny", at)).await;
        assert!(matches!(&refused, Ingested::Conflicts { stored, incoming } if stored != incoming), "{refused:?}");
        assert_eq!(offer(&store, &frame("x-1", "allow", "2026-01-01T12:00:00.123457Z")).await, Ingested::Added);
        let mut snapshot = store.snapshot().await.unwrap();
        let rows = evidence::list_between(&mut snapshot.zone(&zone("z-1")), 5, 100, 100).await.unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].decision.as_str(), rows[0].occurred_at), ("allow", 1_767_268_800_123_456));
        assert_eq!(rows[0].metadata, r#"{"a": 2, "bb": 1.0, "<&>": "🐪"}"#);
        drop(snapshot);
        store.close().await;
        let report = Stored::of(&place).verify(&heads_in(&place)).await.unwrap();
        assert!(report.is_intact() && report.rows() == 17, "{report}");
    }
}
