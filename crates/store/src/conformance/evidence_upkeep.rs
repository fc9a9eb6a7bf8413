//! What is removed of the evidence, and what is asked of it beside.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Make;
use super::fixtures::{at, fresh, start, zone};
use super::repositories::samples;
use crate::error::StoreError;
use crate::evidence::{self, EvidenceRow};
use crate::exports::{self, Exported, Planned};
use crate::incidents::{self, Standing};
use crate::retention::{self, Anchor, Retention};
use crate::store::Store;

async fn add(store: &Store, of: &'static str, rows: Vec<EvidenceRow>) {
    let added: Result<(), StoreError> = store
        .commit(&zone(of), rows, |tx, rows| {
            Box::pin(async move {
                for row in rows {
                    evidence::append(tx, row).await?;
                }
                Ok(())
            })
        })
        .await;
    added.unwrap();
}

/// A row of `of` that was stored `hours` after the start.
fn stored(of: &str, seq: i64, hours: u64) -> EvidenceRow {
    let ingested_at = start().plus(Duration::from_secs(hours * 3_600)).as_micros();
    EvidenceRow { zone_id: of.to_owned(), ingested_at, ..samples::evidence(seq) }
}

fn anchor(of: &str, seq: i64) -> Anchor {
    Anchor {
        zone_id: of.to_owned(),
        chain_seq: seq,
        content_sha256: format!("{seq:064x}"),
        older_than: at(5).as_micros(),
        created_at: at(6).as_micros(),
        seal: "5ea1".to_owned(),
        key_id: None,
    }
}

async fn remove(store: &Store, of: &str, limit: i64) -> Result<usize, StoreError> {
    store.commit(&zone(of), limit, |tx, limit| Box::pin(retention::remove_anchored(tx, *limit))).await
}

async fn left(store: &Store, of: &str) -> Vec<i64> {
    let mut snapshot = store.snapshot().await.unwrap();
    let rows = evidence::list_between(&mut snapshot.zone(&zone(of)), 0, i64::MAX, 100).await.unwrap();
    rows.iter().map(|row| row.chain_seq).collect()
}

/// Whatever the statement, and whoever's anchor lies beside.
pub async fn evidence_leaves_at_its_old_end_and_behind_an_anchor_only(make: Make) {
    let fresh = fresh(make).await;
    let store = &fresh.store;
    for of in ["z-1", "z-2"] {
        add(store, of, (1..=5).map(|seq| stored(of, seq, seq.unsigned_abs())).collect()).await;
    }
    assert_eq!(remove(store, "z-1", 10).await.unwrap(), 0, "nothing is anchored");
    let older = async |of: &str, hours: u64| {
        let mut snapshot = store.snapshot().await.unwrap();
        let before = start().plus(Duration::from_secs(hours * 3_600));
        let found = retention::find_last_older(&mut snapshot.zone(&zone(of)), before, at(1_000_000)).await.unwrap();
        found.map(|head| (head.chain_seq, head.content_sha256))
    };
    let at_seq = |seq: i64| Some((seq, format!("{seq:064x}")));
    assert_eq!(older("z-1", 1).await, None);
    assert_eq!(older("z-1", 4).await, at_seq(3));
    assert_eq!(older("z-1", 100).await, at_seq(4), "the newest stays");
    assert_eq!(older("z-none", 100).await, None);
    let happened_later = EvidenceRow { occurred_at: at(500_000).as_micros(), ..stored("z-3", 2, 1) };
    add(store, "z-3", vec![stored("z-3", 1, 1), happened_later, stored("z-3", 3, 3)]).await;
    assert_eq!(older("z-3", 100).await, at_seq(1), "what it says of its storing is not enough");
    let never = EvidenceRow { occurred_at: at(1_000_001).as_micros(), ..stored("z-4", 2, 2) };
    add(store, "z-4", vec![stored("z-4", 1, 1), never, stored("z-4", 3, 3), stored("z-4", 4, 4)]).await;
    assert_eq!(older("z-4", 100).await, at_seq(3), "what can't have happened keeps nothing that follows");
    assert_eq!(older("z-4", 2).await, at_seq(1), "and goes by when it was stored");

    let anchored: Result<(), StoreError> =
        store.commit(&zone("z-1"), anchor("z-1", 3), |tx, anchor| Box::pin(retention::add_anchor(tx, anchor))).await;
    anchored.unwrap();
    assert_eq!(remove(store, "z-2", 10).await.unwrap(), 0, "another zone's anchor");
    assert_eq!(remove(store, "z-1", 2).await.unwrap(), 2);
    assert_eq!(left(store, "z-1").await, [3, 4, 5], "the oldest first");
    assert_eq!(remove(store, "z-1", 10).await.unwrap(), 1);
    assert_eq!((left(store, "z-1").await, left(store, "z-2").await), (vec![4, 5], vec![1, 2, 3, 4, 5]));
    for statement in [
        "DELETE FROM audit_events WHERE chain_seq >= 4",
        "UPDATE audit_events SET decision = 'deny'",
        "DELETE FROM audit_anchors",
        "UPDATE audit_anchors SET chain_seq = 5",
    ] {
        let refused = super::ledger::run(store, statement).await;
        assert!(matches!(refused, Err(StoreError::Statement { .. })), "{statement}: {refused:?}");
    }
    assert_eq!(left(store, "z-1").await, [4, 5]);

    let mut snapshot = store.snapshot().await.unwrap();
    assert_eq!(retention::find_anchor(&mut snapshot.zone(&zone("z-1"))).await.unwrap(), Some(anchor("z-1", 3)));
    assert_eq!(retention::find_anchor(&mut snapshot.zone(&zone("z-2"))).await.unwrap(), None);
    assert_eq!(retention::list_anchored(&mut snapshot.deployment()).await.unwrap(), [zone("z-1")]);
    drop(snapshot);
    add(store, "z-1", vec![stored("z-1", 6, 6)]).await;
    assert_eq!(left(store, "z-1").await, [4, 5, 6], "the chain goes on");
}

/// One for the deployment; the newest counts.
pub async fn how_long_evidence_is_kept_comes_back_as_set(make: Make) {
    let fresh = fresh(make).await;
    let found = async || {
        let mut snapshot = fresh.store.snapshot().await.unwrap();
        retention::find(&mut snapshot.deployment()).await.unwrap()
    };
    assert_eq!(found().await, None);
    for days in [30, 1] {
        let set: Result<_, StoreError> =
            fresh.store.commit_deployment(days, |tx, days| Box::pin(retention::set(tx, *days, "admin:t-1"))).await;
        let expected = Retention { days, updated_by: "admin:t-1".to_owned(), updated_at: start() };
        assert_eq!((set.unwrap(), found().await), (expected.clone(), Some(expected)));
    }
}

/// A note that somebody garbled keeps nothing back.
pub async fn what_stands_against_the_ledger_comes_back_as_noted(make: Make) {
    let fresh = fresh(make).await;
    let found = async || incidents::find(&mut fresh.store.snapshot().await.unwrap().deployment()).await.unwrap();
    assert_eq!(found().await, Standing::default());
    let mut standing = Standing::default();
    for (chain, identity) in [("a", "1"), ("a", "2"), ("b", "1")] {
        let known = standing.chains.entry(chain.to_owned()).or_default();
        known.insert(identity.to_owned(), format!("incident-{chain}{identity}"));
        let noted: Result<(), StoreError> = fresh
            .store
            .commit_deployment(standing.clone(), |tx, standing| Box::pin(incidents::set(tx, standing)))
            .await;
        noted.unwrap();
        assert_eq!(found().await, standing);
    }
    assert_eq!((standing.count(), standing.request_of("a", "2")), (3, Some("incident-a2")));
    assert_eq!((standing.request_of("a", "3"), standing.request_of("c", "1")), (None, None));
    let garbled: Result<(), StoreError> = fresh
        .store
        .commit_deployment((), |tx, ()| Box::pin(crate::deployment::put(tx, "ledger_incidents", "{\"chains\":7}")))
        .await;
    garbled.unwrap();
    assert_eq!(found().await, Standing::default());
}

/// Asked for by its name, and for a stretch of its chain.
pub async fn an_event_is_found_by_its_identity_and_its_place(make: Make) {
    let fresh = fresh(make).await;
    let rows: Vec<EvidenceRow> = (1..=4).map(|seq| stored("z-1", seq, 1)).collect();
    add(&fresh.store, "z-1", rows.clone()).await;
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let mut read = snapshot.zone(&zone("z-1"));
    let at_three = rows[2].occurred_at;
    for (id, at, found) in
        [("e-3", at_three, Some(format!("{:064x}", 3))), ("e-3", at_three + 1, None), ("e-2", at_three, None)]
    {
        assert_eq!(evidence::find_by_identity(&mut read, id, at).await.unwrap(), found, "{id} {at}");
    }
    assert_eq!(evidence::list_between(&mut read, 1, 3, 10).await.unwrap(), rows[1..3]);
    assert_eq!(evidence::list_between(&mut read, 0, 9, 2).await.unwrap(), rows[..2]);
    let mut other = snapshot.zone(&zone("z-2"));
    assert_eq!(evidence::find_by_identity(&mut other, "e-3", at_three).await.unwrap(), None);
}

/// Two processes that both export can't both go on.
pub async fn how_far_evidence_was_exported_replaces_what_it_was_made_of_only(make: Make) {
    let fresh = fresh(make).await;
    let found = async || exports::find(&mut fresh.store.snapshot().await.unwrap().deployment()).await.unwrap();
    let replace = async |old: Option<&Exported>, new: &Exported| {
        let changed: Result<bool, StoreError> = fresh
            .store
            .commit_deployment((old.cloned(), new.clone()), |tx, (old, new)| {
                Box::pin(async move { exports::replace(tx, old.as_ref(), new).await })
            })
            .await;
        changed.unwrap()
    };
    assert_eq!(found().await, None);
    let zones = BTreeMap::from([("z-1".to_owned(), 7), ("z-2".to_owned(), 9)]);
    let first = Exported { hour: 3_600, part: 1, zones: zones.clone(), planned: None };
    let second = Exported { planned: Some(Planned { zones, ends_hour: false }), ..first.clone() };
    assert!(!replace(Some(&first), &second).await, "nothing is there yet");
    assert!(replace(None, &first).await);
    assert!(!replace(None, &second).await, "it is there by now");
    assert!(replace(Some(&first), &second).await);
    assert!(!replace(Some(&first), &first).await, "it is another by now");
    assert_eq!(found().await, Some(second.clone()));
    assert_eq!((second.through("z-2"), second.through("z-3")), (9, 0));
}

/// An hour's events are told by position: one that says an earlier hour and lies behind comes with the next.
pub async fn what_is_exported_next_is_found_by_its_place(make: Make) {
    let fresh = fresh(make).await;
    add(&fresh.store, "z-1", (1..=3).map(|seq| stored("z-1", seq, seq.unsigned_abs())).collect()).await;
    add(&fresh.store, "z-1", vec![stored("z-1", 4, 1)]).await;
    add(&fresh.store, "z-2", vec![stored("z-2", 1, 5)]).await;
    let mut snapshot = fresh.store.snapshot().await.unwrap();
    let newest = exports::list_newest(&mut snapshot.deployment()).await.unwrap();
    assert_eq!(newest, [(zone("z-1"), 4), (zone("z-2"), 1)]);
    for (of, after, hours, last) in [
        ("z-1", 0, 1, None),
        ("z-1", 0, 2, Some(4)),
        ("z-1", 1, 4, Some(4)),
        ("z-1", 4, 9, None),
        ("z-2", 0, 5, None),
        ("z-2", 0, 6, Some(1)),
        ("z-none", 0, 9, None),
    ] {
        let before = start().plus(Duration::from_secs(hours * 3_600)).as_micros();
        let found = exports::find_last_stored(&mut snapshot.zone(&zone(of)), after, before).await.unwrap();
        assert_eq!(found, last, "{of} behind {after} before hour {hours}");
    }
}
