//! Evidence files out of a store, and of one that was tampered with.

use std::collections::BTreeMap;

use caracal_authority::Timestamp;
use caracal_crypto::ed25519::SigningKey;
use caracal_ledger::transparency::checkpoint::NotACheckpoint;
use caracal_ledger::transparency::note::{NotSigned, Use, cosign};
use caracal_ledger::transparency::{
    CannotProve, EventProblem, EvidenceFile, Given, Note, ProvenEvent, Refuted, StoredTree, TlogProof, Trusted,
    Verified, VerifierKey, checkpoint, prove,
};
use caracal_ledger::{Problem, verify_store};
use caracal_store::{Store, StoreError, retention};
use caracal_testkit::Place;

use crate::support::*;
use crate::trees::*;

async fn file(store: &Store, request: &str, given: Given<'_>) -> Result<EvidenceFile, CannotProve> {
    prove(&mut store.snapshot().await.unwrap().zone(&zone("z-1")), request, given).await
}

fn problem_of(refuted: Result<Verified, Refuted>) -> EventProblem {
    match refuted {
        Err(Refuted::Event { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

mod t06_evidence_file {
    use super::*;

    #[tokio::test]
    async fn it_convinces_with_the_public_key_alone() {
        let place = Place::new();
        let (store, held) = logged(&place).await;
        for number in 1..=5 {
            let made = file(&store, &format!("req-e-{number}"), Given::default()).await.unwrap();
            // As text, over the wire and back: nothing but this and the key is needed.
            let read = EvidenceFile::parse(&serde_json::to_vec_pretty(&made).unwrap()).unwrap();
            assert_eq!(read, made);
            let shown = verify(&read, Some(&held)).unwrap();
            assert_eq!((shown.checkpoint.size, shown.continues), (5, Some(5)));
            let (event, link) = &shown.events[0];
            assert_eq!((event.id.as_str(), link.chain_seq), (format!("e-{number}").as_str(), number));
        }
        let missing = file(&store, "req-none", Given::default()).await;
        assert!(matches!(missing, Err(CannotProve::NoSuchRequest { .. })), "{missing:?}");
        record(&store, &zone("z-1"), "late").await.unwrap();
        let late = file(&store, "req-late", Given::default()).await;
        assert!(matches!(late, Err(CannotProve::NotYet { chain_seq: 6, size: 5 })), "{late:?}");
    }

    #[tokio::test]
    async fn any_change_of_it_refutes_it() {
        let place = Place::new();
        let (store, _) = logged(&place).await;
        let made = file(&store, "req-e-3", Given::default()).await.unwrap();
        let text = serde_json::to_value(&made).unwrap();
        let columns = text["events"][0]["event"].as_object().unwrap();
        for (column, value) in columns {
            let mut other = text.clone();
            other["events"][0]["event"][column] = match value {
                serde_json::Value::String(text) => format!("{text}x").into(),
                number => (number.as_i64().unwrap() + 1).into(),
            };
            let other: EvidenceFile = serde_json::from_value(other).unwrap();
            assert_eq!(problem_of(verify(&other, None)), EventProblem::Content, "{column}");
        }
        for (column, value, problem) in [
            ("chain_seq", serde_json::json!(2), EventProblem::Place),
            ("prev_content_sha256", serde_json::json!("0".repeat(64)), EventProblem::NotThere),
            ("chain_hmac", serde_json::json!("0".repeat(64)), EventProblem::NotThere),
            ("content_sha256", serde_json::json!("0".repeat(64)), EventProblem::Content),
        ] {
            let mut other = text.clone();
            other["events"][0]["link"][column] = value;
            let other: EvidenceFile = serde_json::from_value(other).unwrap();
            assert_eq!(problem_of(verify(&other, None)), problem, "{column}");
        }
        let stored_later = EvidenceFile {
            events: vec![ProvenEvent { ingested_at_micros: 1, ..made.events[0].clone() }],
            ..made.clone()
        };
        assert_eq!(problem_of(verify(&stored_later, None)), EventProblem::NotThere);
        // Every character of the proof: no other text proves the same.
        let proof = made.events[0].proof.clone();
        for (at, character) in proof.char_indices() {
            let mut other = made.clone();
            let changed = if character == 'A' { 'B' } else { 'A' };
            other.events[0].proof.replace_range(at..at + character.len_utf8(), &changed.to_string());
            assert!(verify(&other, None).is_err(), "{at}: {}", other.events[0].proof);
        }
        let others = EvidenceFile { events: Vec::new(), ..made.clone() };
        assert_eq!(verify(&others, None), Err(Refuted::Empty));
        let forgotten = serde_json::to_string(&text).unwrap().replace("\"events\"", "\"event\"");
        assert!(matches!(EvidenceFile::parse(forgotten.as_bytes()), Err(Refuted::Form(_))));
        let format = serde_json::to_string(&text).unwrap().replace("caracal.evidence/1", "caracal.evidence/2");
        assert!(matches!(EvidenceFile::parse(format.as_bytes()), Err(Refuted::Form(_))));
    }

    #[tokio::test]
    async fn another_log_proves_nothing_for_this_one() {
        let place = Place::new();
        let (store, _) = logged(&place).await;
        let made = file(&store, "req-e-3", Given::default()).await.unwrap();
        let of_others = Trusted { log_key: &log_key("z-2"), held: None, witnesses: &[] };
        let refuted = made.verify(&of_others);
        assert_eq!(refuted, Err(Refuted::Checkpoint(NotACheckpoint::Note(NotSigned::OtherKey))));
        // The log of a zone can't show an event of another, even if its key signs a tree that has it.
        let mut foreign = made.clone();
        foreign.events[0].event.zone_id = "z-2".to_owned();
        foreign.events[0].link.content_sha256 = caracal_ledger::chain::content_sha256(&foreign.events[0].event);
        assert_eq!(problem_of(verify(&foreign, None)), EventProblem::OtherZone);
    }

    #[tokio::test]
    async fn it_shows_that_the_log_continues_the_checkpoint_that_is_held() {
        let place = Place::new();
        let (store, held) = logged(&place).await;
        for number in 6..=300 {
            record(&store, &zone("z-1"), &format!("e-{number}")).await.unwrap();
        }
        assert_eq!(log(&store).catch_up().await.unwrap(), 295);
        let alone = file(&store, "req-e-3", Given::default()).await.unwrap();
        assert_eq!(verify(&alone, Some(&held)), Err(Refuted::NoConsistency));
        let since = Given { since: Some(&held), ..Given::default() };
        let made = file(&store, "req-e-270", since).await.unwrap();
        let shown = verify(&made, Some(&held)).unwrap();
        assert_eq!((shown.continues, shown.checkpoint.size), (Some(5), 300));
        // An older file is no news to who knows more already.
        let newest = checkpoint_of(&store).await;
        let old = file(&store, "req-e-3", Given { against: Some(&held), since: None }).await.unwrap();
        assert_eq!(verify(&old, None).unwrap().checkpoint.size, 5);
        assert_eq!(verify(&old, Some(&newest)), Err(Refuted::Older { held: 300, size: 5 }));
        let mut other = made;
        other.consistency.as_mut().unwrap().proof.pop();
        assert_eq!(verify(&other, Some(&held)), Err(Refuted::Rewritten));
    }

    #[tokio::test]
    async fn a_witness_that_is_asked_for_must_have_seen_the_checkpoint() {
        let place = Place::new();
        let (store, held) = logged(&place).await;
        let witness_key = SigningKey::from_seed(&[9; 32]).unwrap();
        let witness = VerifierKey::new("witness.example/w1", Use::Cosignature, witness_key.public()).unwrap();
        let line = cosign(&Note::parse(&held).unwrap(), witness.name(), &witness_key, 1_800_000_000).unwrap();
        let cosigned = format!("{held}{line}");
        let key = log_key("z-1");
        let asking = Trusted { log_key: &key, held: None, witnesses: std::slice::from_ref(&witness) };
        let made = file(&store, "req-e-3", Given { against: Some(&cosigned), since: None }).await.unwrap();
        let seen = made.verify(&asking).unwrap().witnesses;
        assert_eq!(seen, [("witness.example/w1".to_owned(), 1_800_000_000)]);
        let unseen = file(&store, "req-e-3", Given::default()).await.unwrap().verify(&asking);
        assert!(matches!(unseen, Err(Refuted::Witness { reason: NotSigned::OtherKey, .. })), "{unseen:?}");
    }

    #[tokio::test]
    async fn a_checkpoint_of_another_history_is_refused_when_a_file_is_made() {
        let place = Place::new();
        let (store, held) = logged(&place).await;
        let ahead = checkpoint::Checkpoint {
            origin: checkpoint::origin(&zone("z-1")),
            size: 3,
            root: caracal_ledger::transparency::merkle::leaf_hash(b"other"),
        };
        let ahead = ahead.sign(&SigningKey::from_seed(&SEED).unwrap()).unwrap();
        for given in [Given { against: Some(&ahead), since: None }, Given { against: None, since: Some(&ahead) }] {
            let made = file(&store, "req-e-3", given).await;
            assert!(matches!(made, Err(CannotProve::Contradicted { size: 3 })), "{made:?}");
        }
        let unsigned = held.replace("\n5\n", "\n4\n");
        let made = file(&store, "req-e-3", Given { against: Some(&unsigned), since: None }).await;
        assert!(matches!(made, Err(CannotProve::Given(_))), "{made:?}");
    }
}

mod t06_tampering {
    use super::*;

    const TAMPERINGS: [(&str, &str); 6] = [
        ("edited", "UPDATE audit_events SET decision = 'deny' WHERE zone_id = 'z-1' AND chain_seq = 3"),
        ("stored at another time", "UPDATE audit_events SET ingested_at = 1 WHERE zone_id = 'z-1' AND chain_seq = 3"),
        ("deleted", "DELETE FROM audit_events WHERE zone_id = 'z-1' AND chain_seq = 3"),
        (
            "inserted",
            "UPDATE audit_events SET chain_seq = chain_seq + 100 WHERE zone_id = 'z-1' AND chain_seq >= 3;
             UPDATE audit_events SET chain_seq = chain_seq - 99 WHERE zone_id = 'z-1' AND chain_seq >= 100;
             INSERT INTO audit_events SELECT zone_id, 3, 'forged', event_type, request_id, decision, policy_set_id,
               policy_set_version_id, manifest_sha, evaluation_status, determining_policies, diagnostics, metadata,
               occurred_at, ingested_at, content_sha256, content_sha256, chain_hmac, key_id
               FROM audit_events WHERE zone_id = 'z-1' AND chain_seq = 2",
        ),
        (
            "swapped",
            "UPDATE audit_events SET chain_seq = 100 WHERE zone_id = 'z-1' AND chain_seq = 3;
             UPDATE audit_events SET chain_seq = 3 WHERE zone_id = 'z-1' AND chain_seq = 4;
             UPDATE audit_events SET chain_seq = 4 WHERE zone_id = 'z-1' AND chain_seq = 100",
        ),
        (
            "truncated",
            "DELETE FROM audit_events WHERE zone_id = 'z-1' AND chain_seq >= 3;
             UPDATE audit_heads SET chain_seq = 2 WHERE zone_id = 'z-1'",
        ),
    ];

    async fn original() -> Original {
        let place = Place::new();
        let (store, _) = logged(&place).await;
        store.close().await;
        Original::of(place)
    }

    /// Without the audit key and without any recorded head: the tree is enough.
    #[tokio::test]
    async fn an_event_that_was_tampered_with_is_neither_proved_nor_passed_over() {
        let original = original().await;
        for (what, sql) in TAMPERINGS {
            let stored = original.tampered(sql);
            let made = stored
                .read(async |tx| Ok(prove(&mut tx.zone(&zone("z-1")), "req-e-3", Given::default()).await))
                .await
                .unwrap();
            assert!(made.is_err(), "{what}: {made:?}");
            let report =
                stored.read(async |tx| verify_store(tx, None, &BTreeMap::new(), |_, _| {}).await).await.unwrap();
            let found = problems(&report, &evidence_of("z-1"));
            let by_tree = |problem: &Problem| matches!(problem, Problem::NotInTree | Problem::TreeDamaged { .. });
            // The chain alone shows what does not match its own hash, and that a row is missing; the tree shows the rest.
            assert!(found.iter().any(by_tree) || matches!(what, "edited" | "deleted"), "{what}: {found:?}");
            assert!(!found.is_empty() && problems(&report, &evidence_of("z-2")).is_empty(), "{what}");
        }
    }

    #[tokio::test]
    async fn a_tree_that_was_tampered_with_is_found_and_nothing_is_signed_over_it() {
        let original = original().await;
        let zeros = if matches!(original.copy(), Stored::File(_)) {
            "zeroblob(160)"
        } else {
            "decode(repeat('00', 160), 'hex')"
        };
        let a_tile = format!("UPDATE ledger_tiles SET hashes = {zeros} WHERE zone_id = 'z-1'");
        for (what, sql) in [
            ("a tile", a_tile.as_str()),
            ("a tile cut short", "UPDATE ledger_tiles SET hashes = substr(hashes, 1, 64) WHERE zone_id = 'z-1'"),
            ("a tile gone", "DELETE FROM ledger_tiles WHERE zone_id = 'z-1'"),
            (
                "its checkpoint",
                "UPDATE ledger_trees SET checkpoint = replace(checkpoint, '5', '4') WHERE zone_id = 'z-1'",
            ),
            ("its size", "UPDATE ledger_trees SET size = 4 WHERE zone_id = 'z-1'"),
            ("its checkpoint gone", "DELETE FROM ledger_trees WHERE zone_id = 'z-1'"),
            ("its key", "UPDATE ledger_log_keys SET verifier_key = 'k' WHERE zone_id = 'z-1'"),
        ] {
            let stored = original.tampered(sql);
            let report = stored.verify(&original.heads).await.unwrap();
            let found = problems(&report, &evidence_of("z-1"));
            let is_damage = |problem: &Problem| matches!(problem, Problem::TreeDamaged { .. });
            assert!(found.iter().any(is_damage), "{what}: {found:?}");
            assert!(problems(&report, &evidence_of("z-2")).is_empty(), "{what}");
            let store = stored.open().await;
            record(&store, &zone("z-1"), "e-6").await.unwrap();
            record(&store, &zone("z-2"), "other-3").await.unwrap();
            // The other zone's log goes on.
            assert_eq!(log(&store).catch_up().await.unwrap(), 1, "{what}");
            assert!(log(&store).catch_up_zone(&zone("z-1")).await.is_err(), "{what}");
            store.close().await;
        }
    }

    #[tokio::test]
    async fn a_row_that_was_changed_before_it_came_into_the_tree_is_not_signed_for() {
        let place = Place::new();
        recorded(&place).await.close().await;
        let original = Original::of(place);
        for (what, sql) in TAMPERINGS {
            if matches!(what, "stored at another time" | "truncated") {
                // Nothing but a tree covers the one, and nothing but a recorded head shows the other.
                continue;
            }
            let stored = original.tampered(sql);
            let store = stored.open().await;
            assert!(log(&store).catch_up_zone(&zone("z-1")).await.is_err(), "{what}");
            let tree = StoredTree::find(&mut store.snapshot().await.unwrap().zone(&zone("z-1"))).await;
            let size = tree.unwrap().unwrap().map(|tree| tree.checkpoint.size);
            assert_eq!(size, Some(2), "{what}: what came before it is in the tree");
            store.close().await;
        }
    }

    /// Mallory has the store, the audit key and the log key, and rewrites all of it: only who kept a checkpoint can tell.
    #[tokio::test]
    async fn a_history_that_was_rewritten_with_every_key_contradicts_the_checkpoint_that_was_kept() {
        let place = Place::new();
        let (store, held) = logged(&place).await;
        store.close().await;
        let copy = Original::of(place).tampered(
            "DELETE FROM audit_events WHERE zone_id = 'z-1'; DELETE FROM audit_heads WHERE zone_id = 'z-1';
             DELETE FROM ledger_tiles WHERE zone_id = 'z-1'; DELETE FROM ledger_trees WHERE zone_id = 'z-1';
             DELETE FROM used_mandates",
        );
        let store = copy.open().await;
        for id in ["e-1", "e-2", "forged", "e-4", "e-5", "e-6"] {
            record(&store, &zone("z-1"), id).await.unwrap();
        }
        assert_eq!(log(&store).catch_up_zone(&zone("z-1")).await.unwrap(), 6);
        let forged = file(&store, "req-forged", Given::default()).await.unwrap();
        assert!(verify(&forged, None).is_ok(), "a signature shows who says it, not that nothing else was ever said");
        let since = Given { since: Some(&held), against: None };
        assert!(matches!(file(&store, "req-forged", since).await, Err(CannotProve::Contradicted { size: 5 })));
        // Nor does a proof of another beginning help.
        let own = TlogProof::parse(&forged.events[0].proof).unwrap();
        let mut forged = forged;
        forged.consistency = Some(caracal_ledger::transparency::Consistency {
            from_size: 5,
            proof: own.hashes.iter().map(|hash| hash.to_base64()).collect(),
        });
        assert_eq!(verify(&forged, Some(&held)), Err(Refuted::Rewritten));
        store.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_who_let_one_tree_grow_make_one_history() {
        let place = Place::new();
        let store = recorded(&place).await;
        let logs: Vec<_> = (0..4)
            .map(|_| {
                let log = log(&store);
                tokio::spawn(async move { log.catch_up().await.unwrap() })
            })
            .collect();
        let mut added = 0;
        for log in logs {
            added += log.await.unwrap();
        }
        assert_eq!(added, 7);
        let mut snapshot = store.snapshot().await.unwrap();
        let heads = heads_in(&place);
        let report = verify_store(&mut snapshot.deployment(), Some(key().as_ref()), &heads, |_, _| {}).await.unwrap();
        assert!(report.is_intact(), "{report}");
    }

    /// What is removed for its age stays in the tree, which goes on behind it and continues what was signed before.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_tree_goes_on_when_its_first_events_are_gone() {
        let place = Place::new();
        let (store, held) = logged(&place).await;
        let gone: Result<usize, StoreError> = store
            .commit(&zone("z-1"), ledger(), |tx, ledger| {
                Box::pin(async move {
                    ledger.anchor(tx, Timestamp::from_seconds(4_000_000_000), 5).await?;
                    retention::remove_anchored(tx, 100).await
                })
            })
            .await;
        assert_eq!(gone.unwrap(), 4, "the newest stays");
        record(&store, &zone("z-1"), "e-6").await.unwrap();
        assert_eq!(log(&store).catch_up().await.unwrap(), 1);
        let made = file(&store, "req-e-6", Given { since: Some(&held), ..Given::default() }).await.unwrap();
        let shown = verify(&made, Some(&held)).unwrap();
        assert_eq!((shown.checkpoint.size, shown.continues), (6, Some(5)));
        let mut snapshot = store.snapshot().await.unwrap();
        let heads = heads_in(&place);
        let report = verify_store(&mut snapshot.deployment(), Some(key().as_ref()), &heads, |_, _| {}).await.unwrap();
        assert!(report.is_intact(), "{report}");
    }
}

mod t06_evidence_marks {
    use caracal_ledger::{Begin, LedgerReport, Marks, verify_store_marked};

    use super::*;

    async fn pass(stored: &Stored, marks: &Marks, begin: Begin) -> LedgerReport {
        let key = key();
        let marked = (marks, begin);
        let read = stored
            .read(async |tx| verify_store_marked(tx, Some(key.as_ref()), &BTreeMap::new(), marked, |_, _| {}).await);
        read.await.unwrap()
    }

    /// A chain of 300 events, all in its tree and verified, and seven more, of which four are in the tree.
    async fn grown() -> (Original, Marks) {
        let place = Place::new();
        let (store, _) = logged(&place).await;
        let add = async |numbers: std::ops::RangeInclusive<i64>| {
            let events: Vec<_> = numbers.map(|number| event(&zone("z-1"), &format!("e-{number}"))).collect();
            let added: Result<(), StoreError> = store
                .commit(&zone("z-1"), (ledger(), events), |tx, (ledger, events)| {
                    Box::pin(async move { ledger.record(tx, events).await })
                })
                .await;
            added.unwrap();
        };
        add(6..=300).await;
        assert_eq!(log(&store).catch_up().await.unwrap(), 295);
        let mut snapshot = store.snapshot().await.unwrap();
        let report = verify_store(&mut snapshot.deployment(), Some(key().as_ref()), &BTreeMap::new(), |_, _| {}).await;
        drop(snapshot);
        let marks = Marks::of(&report.unwrap());
        assert_eq!((marks.events.len(), marks.trees.len()), (4, 2));
        assert_eq!(marks.trees[&evidence_of("z-1")].chain_seq, 300);
        add(301..=304).await;
        assert_eq!(log(&store).catch_up().await.unwrap(), 4);
        add(305..=307).await;
        store.close().await;
        (Original::of(place), marks)
    }

    /// The bytes of a tile with its hash number `index` made zero.
    fn zeroed(original: &Original, index: usize) -> String {
        let (before, behind) = (32 * index, 32 * index + 33);
        match original.copy() {
            Stored::File(_) => {
                format!("CAST(substr(hashes, 1, {before}) || zeroblob(32) || substr(hashes, {behind}) AS BLOB)")
            }
            Stored::Server(_) => {
                format!("substr(hashes, 1, {before}) || decode(repeat('00', 32), 'hex') || substr(hashes, {behind})")
            }
        }
    }

    /// What was verified is not read again until a pass over everything is due.
    #[tokio::test]
    async fn a_short_pass_builds_what_the_tree_grew_by_and_a_full_one_all_of_it() {
        let (original, marks) = grown().await;
        for begin in [Begin::AtMarks, Begin::AtFirst] {
            let report = pass(&original.copy(), &marks, begin).await;
            assert!(report.is_intact(), "{report}");
            let next = Marks::of(&report);
            assert_eq!(next.trees[&evidence_of("z-1")].chain_seq, 304);
            assert_eq!(next.events[&evidence_of("z-1")].chain_seq, 307);
            let again = pass(&original.copy(), &next, Begin::AtMarks).await;
            assert!(again.is_intact(), "{again}");
            let of = again.chains.iter().find(|report| report.chain == evidence_of("z-1")).unwrap();
            assert_eq!(of.rows, 3, "those that are in no tree yet are looked at again");
        }
        let tile = "zone_id = 'z-1' AND level = 0 AND position = 0";
        let left = format!("UPDATE ledger_tiles SET hashes = {} WHERE {tile}", zeroed(&original, 7));
        let copy = original.tampered(&left);
        assert!(pass(&copy, &marks, Begin::AtMarks).await.is_intact(), "it was not read");
        assert!(!pass(&copy, &marks, Begin::AtFirst).await.is_intact());
    }

    #[tokio::test]
    async fn a_short_pass_misses_nothing_behind_the_mark_nor_the_tree_that_was_verified() {
        let (original, marks) = grown().await;
        let edge = "zone_id = 'z-1' AND level = 0 AND position = 1";
        let tile = |index| format!("UPDATE ledger_tiles SET hashes = {} WHERE {edge}", zeroed(&original, index));
        // Of the second tile of leaves: 256 is its first, and it had 44 when it was verified.
        for (what, sql) in [
            ("a leaf that was verified, at the edge", tile(3)),
            ("a leaf behind it", tile(46)),
            (
                "a hash above",
                format!(
                    "UPDATE ledger_tiles SET hashes = {} WHERE zone_id = 'z-1' AND level = 1 AND position = 0",
                    zeroed(&original, 0)
                ),
            ),
            ("the edge gone", format!("DELETE FROM ledger_tiles WHERE {edge}")),
            (
                "the tree gone",
                "DELETE FROM ledger_tiles WHERE zone_id = 'z-1'; DELETE FROM ledger_trees WHERE zone_id = 'z-1'"
                    .to_owned(),
            ),
            (
                "a row that came into the tree since",
                "UPDATE audit_events SET ingested_at = 1 WHERE zone_id = 'z-1' AND chain_seq = 302".to_owned(),
            ),
        ] {
            let copy = original.tampered(&sql);
            for begin in [Begin::AtMarks, Begin::AtFirst] {
                let found = problems(&pass(&copy, &marks, begin).await, &evidence_of("z-1"));
                let by_tree = |problem: &Problem| matches!(problem, Problem::NotInTree | Problem::TreeDamaged { .. });
                assert!(found.iter().any(by_tree), "{what}, {begin:?}: {found:?}");
            }
        }
    }

    /// Mallory has every key. Whoever noted the tree needs no checkpoint to tell.
    #[tokio::test]
    async fn a_tree_that_was_rewritten_with_every_key_does_not_begin_with_the_one_that_was_noted() {
        let (original, marks) = grown().await;
        let trees = BTreeMap::from([(
            evidence_of("z-1"),
            caracal_ledger::Head { content_sha256: "0".repeat(64), ..marks.trees[&evidence_of("z-1")].clone() },
        )]);
        let other = Marks { trees, ..marks };
        for begin in [Begin::AtMarks, Begin::AtFirst] {
            let found = problems(&pass(&original.copy(), &other, begin).await, &evidence_of("z-1"));
            let [Problem::TreeDamaged { reason }] = &found[..] else { panic!("{found:?}") };
            assert!(reason.contains("rewritten"), "{reason}");
        }
    }
}

mod t06_retention {
    use caracal_authority::Timestamp;
    use caracal_store::retention;

    use super::*;

    #[tokio::test]
    async fn events_past_their_time_leave_a_whole_tree_and_none_goes_before_it_is_in_it() {
        let place = Place::new();
        let (store, held) = logged(&place).await;
        for number in 6..=8 {
            record(&store, &zone("z-1"), &format!("e-{number}")).await.unwrap();
        }
        let removed: Result<(Option<i64>, usize), StoreError> = store
            .commit(&zone("z-1"), ledger(), |tx, ledger| {
                Box::pin(async move {
                    ledger.anchor(tx, Timestamp::from_seconds(2_000_000_000), 8).await?;
                    let anchor = retention::find_anchor(tx).await?;
                    Ok((anchor.map(|anchor| anchor.chain_seq), retention::remove_anchored(tx, 100).await?))
                })
            })
            .await;
        assert_eq!(removed.unwrap(), (Some(5), 5), "the tree reaches to seq 5");
        assert_eq!(log(&store).catch_up().await.unwrap(), 3);
        let made = file(&store, "req-e-7", Given { since: Some(&held), against: None }).await.unwrap();
        assert_eq!(verify(&made, Some(&held)).unwrap().continues, Some(5));
        let gone = file(&store, "req-e-3", Given::default()).await;
        assert!(matches!(gone, Err(CannotProve::NoSuchRequest { .. })), "{gone:?}");
        let mut snapshot = store.snapshot().await.unwrap();
        let heads = heads_in(&place);
        let report = verify_store(&mut snapshot.deployment(), Some(key().as_ref()), &heads, |_, _| {}).await.unwrap();
        assert!(report.is_intact(), "{report}");
    }
}
